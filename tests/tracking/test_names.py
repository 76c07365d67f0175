"""Names and texts that nobody would think of: MLflow and file systems take what they become, and none is lost."""

from __future__ import annotations

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils import validation

from mlflow_hp.tracking import runs
from mlflow_hp.tracking.names import LONGEST_NAME, distinct_metric_names, file_name, metric_name
from mlflow_hp.tracking.params_and_tags import LONGEST, plain, texts

fuzzed = settings(max_examples=200, deadline=None, derandomize=True)
ODD = ["", ".", "..", "/", "//", "../../x", "/etc/passwd", "a/../b", "<script>alert(1)</script>", "🎉", "a|b", "a[0]",
       "a(0)", "a_0_", "a_0__2", "a\0b", "a\nb", "\ud800", "x" * 10_000, "é" * 10_000, " ", "a ", "$\\frac$", "C:\\x",
       "_", "…"]  # fmt: skip
NAMES = st.sampled_from(ODD) | st.text(max_size=12) | st.text("a_/. -:[(", max_size=8)


def is_taken_by_mlflow(name):
    validation._validate_metric_name(name)
    validation._validate_param_name(name)
    validation._validate_tag_name(name)
    return 0 < len(name) <= validation.MAX_ENTITY_KEY_LENGTH


@fuzzed
@given(NAMES)
def test_any_name_is_mapped_to_one_that_mlflow_takes(name):
    mapped = metric_name(name)
    assert is_taken_by_mlflow(mapped)
    assert mapped.encode()
    assert metric_name(mapped) == mapped
    assert distinct_metric_names([name]) == {name: mapped}


@fuzzed
@given(st.lists(NAMES, max_size=12))
def test_any_names_are_told_apart(names):
    mapped = distinct_metric_names(names)
    assert set(mapped) == set(names)
    assert len(set(mapped.values())) == len(mapped)
    assert all(map(is_taken_by_mlflow, mapped.values()))
    assert all(mapped[name] == name for name in names if metric_name(name) == name)
    again = distinct_metric_names(mapped.values())
    assert list(again) == list(again.values())
    assert distinct_metric_names(list(mapped)) == mapped


@pytest.mark.timeout(60)
def test_ten_thousand_names_that_meet_are_told_apart_at_once():
    mapped = distinct_metric_names("?" * i for i in range(1, 201))
    mapped |= distinct_metric_names(f"x{chr(0x2190 + i % 400)}{'?' * (i // 400)}" for i in range(10_000))
    assert len(mapped) == 10_200


@fuzzed
@given(NAMES)
def test_any_name_makes_a_file_name_that_leads_nowhere_else(name):
    path = file_name(name)
    assert not path.startswith("/")
    assert all(part not in ("", ".", "..") and len(part.encode()) <= 220 for part in path.split("/"))
    validation.path_not_unique(path)
    assert file_name(path) == path or path != name
    if path != name:
        assert path.rpartition("_")[2].isalnum()


@fuzzed
@given(st.dictionaries(NAMES, st.text(max_size=20) | st.integers() | st.none(), max_size=6), st.integers(1, 9000))
def test_any_params_and_tags_are_short_and_whole(given_values, length):
    for kind in ("params", "tags"):
        values, whole = texts(kind, given_values | {"long": "ab" * length})
        assert len(values) == len(given_values | {"long": ""})
        for name, value in values.items():
            assert is_taken_by_mlflow(name)
            assert len(value) <= LONGEST[kind]
            assert "\0" not in value
            assert value.encode().decode() == value
        assert whole.get(f"{kind}/long.txt", values["long"]) == "ab" * length
        assert (len(whole) == 1) == (2 * length > LONGEST[kind])


def test_plain_text_shows_itself_in_markdown():
    assert plain("a|b <script> `x`\n*y* [z](u) C:\\x") == r"a\|b \<script> \`x\` \*y\* \[z\](u) C:\\x"
    assert plain("learning_rate=0.1 batch_size=10 (mse)") == "learning_rate=0.1 batch_size=10 (mse)"


@pytest.mark.parametrize("kind", ["params", "tags"])
def test_what_mlflow_would_cut_is_whole_in_an_artifact(store, kind):
    text = "".join(f"{i}," for i in range(3000))
    with mlflow.start_run() as run:
        runs.log_once(run, **{kind: {"grid[0]": text, "grid(0)": text + "end", "short": "x"}})
    kept = getattr(store.get_run(run.info.run_id).data, kind)
    assert kept["short"] == "x"
    for name, whole in (("grid_0_", text), ("grid_0__2", text + "end")):
        assert len(kept[name]) == LONGEST[kind]
        assert kept[name].startswith("0,1,2,")
        assert kept[name].endswith(f" … ({len(whole)} characters: all are in the artifact {kind}/{name}.txt)")
        assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{kind}/{name}.txt") == whole
    assert LONGEST_NAME == validation.MAX_ENTITY_KEY_LENGTH
    assert {"params": validation.MAX_PARAM_VAL_LENGTH, "tags": validation.MAX_TAG_VAL_LENGTH} == LONGEST
