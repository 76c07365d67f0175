"""Search spaces of any text: read, or refused in a sentence; never a crash, and nothing but what was written."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_hp import UserError
from projects import grids

fuzzed = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = st.sampled_from(
    [*grids.HYPERPARAMETERS, "low", "high", "log", "adam", "64-32", "1e-3", "nan", "1e999", "٣", "../x"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
SPACES = st.dictionaries(
    WORDS, SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3) | st.dictionaries(WORDS, SCALARS)
)


def read(text, asked):
    """What is read, or None where it is refused in a sentence."""
    try:
        return grids.read(text, asked)
    except UserError as error:
        assert asked in str(error)  # noqa: PT017 - most are refused, not all
        return None


def check(space):
    """Whatever is read can be searched."""
    for name, values in (space or {}).items():
        assert name in grids.HYPERPARAMETERS
        if isinstance(values, list):
            assert values
            assert all(math.isfinite(value) for value in values if isinstance(value, float))


@fuzzed
@given(SPACES, st.sampled_from(["grid", "space"]))
def test_any_json(space, asked):
    check(read(json.dumps(space), asked))


@fuzzed
@given(SPACES.map(json.dumps) | st.text(max_size=40), st.binary(max_size=8), st.integers(0, 60))
def test_any_file(tmp_path, text, noise, at):
    content = text.encode(errors="surrogatepass")
    file = tmp_path / "space.yaml"
    file.write_bytes(content[:at] + noise + content[at:])
    for asked in ("grid", "space"):
        check(read(str(file), asked))


@fuzzed
@given(st.text(max_size=40))
def test_any_text(text):
    check(read(text, "grid"))


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 3_000,
        '{"epochs": ' * 3_000,
        '{"epochs": [' + "9" * 10_000 + "]}",
        '{"' + "x" * 10_000 + '": [1]}',
        "!!python/object/apply:os.system ['true']",
        LAUGHS,
        LAUGHS + "hidden: *a39\n",
        "epochs: &a [*a]\n",
    ],
    ids=["deep list", "deep", "long number", "long name", "object", "laughs", "laughs inside", "in itself"],
)
def test_what_would_take_all_memory_or_run_code_is_refused(tmp_path, text):
    file = tmp_path / "space.yaml"
    file.write_text(text)
    for given_text in (text, str(file)):
        assert read(given_text, "grid") is None
