"""A resumed training's tensors keep their names, whatever number Keras gives to its layers."""

from __future__ import annotations

import json

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.history import Tensor
from mlflow_hp.training.tensor_names import MAX_TAG_LENGTH, earlier_names, tags_with
from tests.helpers.fits import X, Y, wait_for_the_rest


def fit(model, weights="all", **compiled):
    model.compile(keras.optimizers.SGD(0.1), "mse", **compiled)
    recorder = mlflow_hp.TrainingRecorder(weights=weights, metrics="all", report=False, snapshot_megabytes=1.0)
    model.fit(X, Y[:, None], batch_size=8, epochs=1, verbose=0, callbacks=[recorder])
    wait_for_the_rest()
    assert list(recorder.snapshots.tensors) == [tensor.name for tensor in recorder.history.tensors]
    return recorder.history


def model(units=1, name=None):
    """A model of a layer without a name, which Keras numbers."""
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name=name)])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}])
@pytest.mark.parametrize("weights", ["all", "statistics"])
def test_a_resumed_training_goes_on_under_the_same_names(store, weights, compiled):
    keras.backend.clear_session()
    with mlflow.start_run() as run:
        first = fit(model(), weights)
        resumed = model()
        assert resumed.layers[0].name != first.tensors[0].name.partition("/")[0]
        second = fit(resumed, weights, **compiled)
    names = [tensor.name for tensor in first.tensors]
    assert [tensor.name for tensor in second.tensors] == names == ["dense/kernel", "dense/bias"]
    if weights == "all":
        np.testing.assert_array_equal(second.weights("dense/bias")[-1], resumed.get_weights()[1])
    loaded = mlflow_hp.load_history(run.info.run_id, fit=1)
    np.testing.assert_array_equal(loaded.statistics("dense/kernel")["norm"], second.statistics("dense/kernel")["norm"])
    metrics = {name for name in store.get_run(run.info.run_id).data.metrics if name.startswith("weights/")}
    assert {name.split("/")[1] for name in metrics} == {"dense"}
    for name in {name for name in metrics if not name.endswith("ratio")}:
        assert [point.step for point in store.get_metric_history(run.info.run_id, name)] == list(range(10))


def test_other_models_of_a_run_keep_their_own_names(store):
    keras.backend.clear_session()
    with mlflow.start_run() as run:
        histories = [fit(each) for each in (model(), model(units=2), model(name="head"), model())]
    assert [history.tensors[0].name for history in histories] == [
        "dense/kernel", "dense_1/kernel", "head/kernel", "dense/kernel",
    ]  # fmt: skip
    tag = store.get_run(run.info.run_id).data.tags["mlflow_hp.tensors"]
    assert list(json.loads(tag).values()) == [[f"{n}/kernel", f"{n}/bias"] for n in ("dense", "dense_1", "head")]


def tensors(*names, shape=(2,), dtype="float32"):
    return [Tensor(name, shape, dtype, True) for name in names]


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (tensors("a/w"), tensors("a_1/w"), {"a_1/w": "a/w"}),
        (tensors("a_3/b_1/w"), tensors("a/b/w"), {"a/b/w": "a_3/b_1/w"}),
        (tensors("a/w", "a_1/w"), tensors("a_2/w", "a_3/w"), {"a_2/w": "a/w", "a_3/w": "a_1/w"}),
        (tensors("a_1/w", "a_2/w"), tensors("a_2/w", "a_3/w"), {"a_2/w": "a_1/w", "a_3/w": "a_2/w"}),
        (tensors("a/w"), tensors("a/w"), {}),
        (tensors("a/w"), tensors("b/w"), {}),
        (tensors("a/w"), tensors("a_1/w", shape=(3,)), {}),
        (tensors("a/w"), tensors("a_1/w", dtype="float16"), {}),
        (tensors("a/w"), tensors("a_1/w", "a_2/w"), {}),
    ],
)
def test_which_tensors_are_the_same(before, after, names):
    assert earlier_names(after, tags_with(before, {})) == names


@pytest.mark.parametrize("tag", ["", "[]", "{}", "null", "%", "eJw=", '{"x": 1}'])
def test_a_tag_of_somebody_else(tag):
    assert earlier_names(tensors("a/w"), {"mlflow_hp.tensors": tag}) == {}
    assert list(json.loads(tags_with(tensors("a/w"), {"mlflow_hp.tensors": tag})["mlflow_hp.tensors"]).values()) == [
        ["a/w"]
    ]


def test_many_names_fit_into_a_tag():
    names = [f"conv5_block{i}_{j}_conv_{i}/kernel" for i in range(100) for j in range(4)]
    tags = tags_with(tensors(*names), {})
    assert len(tags["mlflow_hp.tensors"]) <= MAX_TAG_LENGTH
    assert earlier_names(tensors(*names), tags) == {}
    assert list(earlier_names(tensors(*(name.replace("/", "_7/") for name in names)), tags).values()) == names
    tags = tags_with(tensors("a/w"), tags)
    assert earlier_names(tensors("a_1/w"), tags) == {"a_1/w": "a/w"}
    assert tags_with(tensors("a/w"), tags) == {}
    rng = np.random.default_rng(0)
    assert tags_with(tensors(*(f"{rng.integers(2**62)}/w" for _ in range(2000))), {}) == {}
