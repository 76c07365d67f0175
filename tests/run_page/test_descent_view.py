"""The descent that the page shows: points and surface against the cost that NumPy computes from the data."""

from __future__ import annotations

import json

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp import TrainingHistory, load_history
from mlflow_hp.history import Snapshots
from mlflow_hp.run_page.descent import descent

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, size=(64, 1)).astype(np.float32)
Y = (1.5 * X[:, 0] - 2 + RNG.normal(size=64)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(tracking_uri):
    """Histories of two linear regressions on one data set, and of one on another."""
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment("tests")
    histories = {}
    for name, rate, targets in (("a", 0.01, Y), ("b", 0.05, Y), ("other", 0.01, Y + 1)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(rate), "mse")
        with mlflow.start_run() as run:
            model.fit(X, targets, batch_size=16, epochs=3, verbose=0, callbacks=[mlflow_hp.TrainingRecorder()])
        histories[name] = load_history(run.info.run_id)
    return histories


def cost(w, b):
    return float(((w * X[:, 0] + b - Y) ** 2).mean())


def test_the_surface_is_that_of_the_data(fitted):
    shown = descent({"a": fitted["a"]})
    slope, intercept = np.polyfit(X[:, 0].astype(np.float64), Y.astype(np.float64), 1)
    np.testing.assert_allclose(shown["minimum"], [slope, intercept, cost(slope, intercept)], rtol=1e-4)
    for row, column in ((0, 0), (30, 70), (100, 5)):
        above = cost(shown["x"][column], shown["y"][row]) - shown["minimum"][2]
        assert shown["z"][row][column] == pytest.approx(np.log10(above), abs=1e-3)


def test_the_path_has_every_step(fitted):
    (path,) = descent({"a": fitted["a"]})["paths"]
    assert path["steps"] == list(range(13))
    np.testing.assert_allclose(path["x"], fitted["a"].weights(fitted["a"].tensors[0].name).ravel(), rtol=1e-5)
    for w, b, z in zip(path["x"], path["y"], path["z"], strict=True):
        lowest = descent({"a": fitted["a"]})["minimum"][2]
        assert z == pytest.approx(np.log10(cost(w, b) - lowest), abs=1e-2)


def test_runs_on_the_same_data_share_a_surface_and_others_are_told(fitted):
    shown = descent({name: fitted[name] for name in ("a", "b", "other")})
    assert [path["run"] for path in shown["paths"]] == ["a", "b"]
    assert "1 run with other data is not on it" in shown["words"]
    json.dumps(shown, allow_nan=False)


def snapshots(n=50, size=40, *, broken=False):
    """A path in a plane of a space of `size` weights."""
    directions = np.linalg.qr(RNG.normal(size=(size, 2)))[0].T
    t = np.linspace(0, 1, n)
    weights = np.stack([4 * t, np.sin(3 * t)], axis=1) @ directions
    if broken:
        weights[30:] = np.nan
    return Snapshots(np.arange(n), {"dense/kernel": weights.astype(np.float32).reshape(n, size, 1)}, 1, n - 1)


def plain(n=49):
    return TrainingHistory.from_arrays({"batch_loss": np.geomspace(1, 0.01, n)})


def test_a_network_has_the_plane_of_its_path():
    kept = snapshots()
    shown = descent({"a": plain()}, {"a": kept})
    (path,) = shown["paths"]
    drawn = np.diff(np.stack([path["x"], path["y"]], axis=1), axis=0)
    true = np.diff(kept.tensors["dense/kernel"].reshape(50, -1), axis=0)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), np.linalg.norm(true, axis=1), rtol=1e-3)
    assert "100% of it" in shown["words"]
    assert path["z"][0] > path["z"][-1]


def test_a_path_that_is_not_finite_is_drawn_up_to_there():
    (path,) = descent({"a": plain()}, {"a": snapshots(broken=True)})["paths"]
    assert path["steps"][-1] == 29


def test_without_weights_there_is_no_descent():
    assert descent({"a": plain()}) is None
    assert descent({}) is None


def test_a_run_of_another_architecture_is_left_out():
    shown = descent({"a": plain(), "b": plain()}, {"a": snapshots(), "b": snapshots(size=20)})
    assert [path["run"] for path in shown["paths"]] == ["a"]
