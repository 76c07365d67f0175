"""File of a loss landscape: what is written is read again, within its size, and nothing else is taken for one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlflow_hp.analysis.surfaces.landscape_file import MAX_BYTES, from_json, to_json
from mlflow_hp.analysis.surfaces.plane import Landscape

RNG = np.random.default_rng(0)


def plane(n=51, points=40, labels=("path",), loss=None, **changed):
    a, b = np.linspace(-1, 2, n), np.linspace(0, 3, n)
    loss = RNG.lognormal(size=(n, n)) if loss is None else loss
    paths = {label: RNG.uniform(0, 1, size=(points, 2)) for label in labels}
    steps = {label: np.arange(points) * 4 for label in labels}
    return Landscape(a, b, loss, paths, steps, "principal", (0.7, 0.2), "all steps", 600, n * n)._replace(**changed)


def test_what_is_written_is_read():
    written = plane()
    read = from_json(to_json(written, {"path": "0f3a"}))
    for one, other in ((read.a, written.a), (read.b, written.b), (read.loss, written.loss)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-12)
    (path,) = read.paths
    assert (path.label, path.run_id, path.steps.tolist()) == ("path", "0f3a", (np.arange(40) * 4).tolist())
    np.testing.assert_allclose(np.stack([path.a, path.b], axis=1), written.paths["path"], rtol=1e-4)
    assert (read.kind, read.variance_shares, read.n_samples) == ("principal", (0.7, 0.2), 600)


def test_the_finest_grid_and_the_longest_paths_fit_into_its_size():
    labels = [f"{number}: {'long name ' * 30}" for number in range(100)]
    text = to_json(plane(400, 20_000, labels), dict.fromkeys(labels, "f" * 32))
    assert len(text.encode()) <= MAX_BYTES
    read = from_json(text)
    assert read.loss.shape == (100, 100)
    assert np.ptp(np.diff(read.a)) < 1e-3  # evenly spaced
    assert {path.steps[0] for path in read.paths} == {0}
    assert {path.steps[-1] for path in read.paths} == {19_999 * 4}


def test_what_is_not_finite_is_left_out():
    written = plane(5, loss=np.where(np.eye(5) > 0, np.inf, 1.0))
    written.paths["path"][30:] = np.nan
    read = from_json(to_json(written, {}))
    assert np.isnan(read.loss).sum() == 5
    assert len(read.paths[0].steps) == 30


GOOD = json.loads(to_json(plane(3, 4), {}))


@pytest.mark.parametrize(
    "text",
    [
        "", "[" * 100_000, "null", "[]", "{}", "1",
        *(
            json.dumps(GOOD | changed)
            for changed in (
                {"version": 2}, {"a": [0.0, 1.0]}, {"a": [0.0, 0.0, 1.0]}, {"a": [0.0, None, 1.0]}, {"loss": [[1.0]]},
                {"loss": [[None] * 3] * 3}, {"paths": []}, {"paths": [{**GOOD["paths"][0], "a": [1.0]}]},
                {"paths": [{**GOOD["paths"][0], "steps": [4, 3, 2, 1]}]}, {"paths": [{}]},
                {"paths": [{**GOOD["paths"][0], "run_id": "a\0"}]},
                 {"n_samples": 1e999},
                {"paths": [{**GOOD["paths"][0], "b": [None] * 4}]}, {"variance_shares": [1]}, {"loss": "x"},
            )
        ),
    ],
)  # fmt: skip
def test_another_file_is_none(text):
    assert from_json(text) is None
