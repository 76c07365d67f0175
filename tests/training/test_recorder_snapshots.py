"""Snapshots of the weights, as a recorded fit keeps them and a run gives them back."""

from __future__ import annotations

import functools

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.errors import UserError
from tests.helpers.fits import LABELS, X, Y, bare, network, record, regression, same_weights

pytestmark = pytest.mark.usefixtures("store")

N_TRAINABLE = 3 * 16 + 16 + 2 * 16 + 16 * 2 + 2
"""Weights of `network` that train: two Dense layers, and gamma and beta."""


@functools.cache
def bare_network(**compiled):
    return bare(network(**compiled), y=LABELS)


def recorder(megabytes=1.0, weights="all"):
    return mlflow_hp.TrainingRecorder(weights=weights, report=False, snapshot_megabytes=megabytes)


def trainable(model):
    return {variable.path.removeprefix(f"{model.name}/"): variable.numpy() for variable in model.trainable_variables}


def same(one, other):
    """Whether both hold the same, bit for bit."""
    return (
        one.steps.tobytes() == other.steps.tobytes()
        and (one.every, one.n_steps) == (other.every, other.n_steps)
        and list(one.tensors) == list(other.tensors)
        and all(one.tensors[n].tobytes() == other.tensors[n].tobytes() for n in one.tensors)
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("compiled", "steps"),
    [
        ({}, list(range(11))),
        ({"run_eagerly": True}, list(range(11))),
        ({"jit_compile": True}, list(range(11))),
        ({"steps_per_execution": 4}, [0, 4, 5, 9, 10]),  # an execution ends with its epoch, of 5 steps
    ],
)
def test_snapshots_of_a_fit(store, compiled, steps):
    model = network(**compiled)
    initial = trainable(model)
    fitted = record(model, y=LABELS, recorder=recorder())
    if not compiled:
        assert same_weights(model, bare_network())
    found = fitted.recorder.snapshots
    assert found.steps.tolist() == steps
    assert (found.every, found.n_steps) == (1, 10)
    final = trainable(model)
    assert found.tensors.keys() == final.keys()
    assert {"hidden/kernel", "norm/gamma", "out/bias"} <= final.keys()
    for name, values in found.tensors.items():
        np.testing.assert_array_equal(values[0], initial[name])
        np.testing.assert_array_equal(values[-1], final[name])
        np.testing.assert_array_equal(values, fitted.history.weights(name)[steps])
    reader = store.get_run(fitted.run_id).data.tags["mlflow_hp.reader"]
    assert reader == ("host" if compiled.get("run_eagerly") else "graph")
    assert same(mlflow_hp.load_snapshots(fitted.run_id), found)


def test_training_computes_what_it_would_without_snapshots():
    fitted = record(network(steps_per_execution=4), y=LABELS, recorder=recorder(weights="auto"))
    assert fitted.recorder.snapshots.n_steps == 10
    assert same_weights(fitted.model, bare_network(steps_per_execution=4))


def test_a_long_fit_is_thinned_to_the_budget():
    fitted = record(network(), y=LABELS, epochs=7, recorder=recorder(8.5 * 4 * N_TRAINABLE / 2**20))
    found = fitted.recorder.snapshots
    assert found.steps.tolist() == [0, 8, 16, 24, 32, 35]
    assert (found.every, found.n_steps) == (8, 35)
    for name, values in found.tensors.items():
        np.testing.assert_array_equal(values, fitted.history.weights(name)[found.steps])


def test_a_model_that_is_built_by_its_first_batch():
    fitted = record(network(inputs=False), y=LABELS, recorder=recorder())
    found = fitted.recorder.snapshots
    assert found.steps.tolist() == list(range(11))
    for name, values in found.tensors.items():
        np.testing.assert_array_equal(values, fitted.history.weights(name))


def test_a_budget_too_small_costs_the_snapshots_alone(store):
    model = network()
    with pytest.warns(RuntimeWarning, match=rf"no snapshots of the weights.*3 snapshots of {N_TRAINABLE} trainable"):
        fitted = record(model, y=LABELS, recorder=recorder(0.001))
    assert fitted.recorder.snapshots is None
    assert same_weights(model, bare_network())
    assert fitted.history.n_steps == 10
    for name, values in trainable(model).items():
        np.testing.assert_array_equal(fitted.history.weights(name)[-1], values)
    assert [m.step for m in store.get_metric_history(fitted.run_id, "batch/loss")] == list(range(10))
    assert "no snapshots" in store.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"]
    assert "training/snapshots.npz" not in [a.path for a in store.list_artifacts(fitted.run_id, "training")]
    with pytest.raises(UserError, match=r"no snapshots of the weights at.*snapshot_megabytes=64"):
        mlflow_hp.load_snapshots(fitted.run_id)


def test_two_fits_in_one_run():
    model, one = network(), recorder()
    kept = []
    with mlflow.start_run() as run:
        for epochs in (2, 1):
            model.fit(X, LABELS, batch_size=8, epochs=epochs, verbose=0, callbacks=[one])
            kept.append(one.snapshots)
    run_id = run.info.run_id
    assert [found.n_steps for found in kept] == [10, 5]
    assert kept[1].steps.tolist() == list(range(6))
    for fit, found in enumerate(kept):
        assert same(mlflow_hp.load_snapshots(run_id, fit=fit), found)
    for name, values in trainable(model).items():
        np.testing.assert_array_equal(kept[1].tensors[name][0], kept[0].tensors[name][-1])
        np.testing.assert_array_equal(kept[1].tensors[name][-1], values)
    with pytest.raises(UserError, match="training/fit_2"):
        mlflow_hp.load_snapshots(run_id, fit=2)


def test_a_fit_without_snapshots_forgets_those_before():
    one = recorder()
    record(regression(), recorder=one)
    assert one.snapshots is not None
    one.snapshot_megabytes = 0.0
    fitted = record(regression(), recorder=one)
    assert one.snapshots is None
    with pytest.raises(UserError, match="no snapshots"):
        mlflow_hp.load_snapshots(fitted.run_id)


class Own(keras.Model):
    """A model with a training step of its own."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1, name="out")

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        return super().train_step(data)


def test_a_training_step_of_its_own(store):
    keras.utils.set_random_seed(3)
    model = Own()
    model.compile("sgd", "mse")
    model(X[:1])
    initial = [w.numpy() for w in model.trainable_variables]
    fitted = record(model, y=Y, recorder=recorder())
    found = fitted.recorder.snapshots
    assert store.get_run(fitted.run_id).data.tags["mlflow_hp.reader"] == "graph"
    assert found.steps.tolist() == list(range(11))
    for name, first, final in zip(found.tensors, initial, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(found.tensors[name][0], first)
        np.testing.assert_array_equal(found.tensors[name][-1], final.numpy())
        np.testing.assert_array_equal(found.tensors[name], fitted.history.weights(name))
    assert same(mlflow_hp.load_snapshots(fitted.run_id), found)


def test_a_fit_left_by_an_exception_keeps_its_snapshots():
    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    one = recorder()
    with pytest.raises(KeyboardInterrupt):
        record(network(), y=LABELS, recorder=one, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    one.close()
    assert one.snapshots.steps.tolist() == list(range(6))


@pytest.mark.parametrize("megabytes", [-1, -0.001, float("nan")])
def test_a_budget_that_can_not_be(megabytes):
    with pytest.raises(UserError, match="snapshot_megabytes="):
        recorder(megabytes)


def stopping():
    return keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=2, restore_best_weights=True)


def of_unknown_length():
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, len(X), 8)]
    spec = (tf.TensorSpec((None, 3)), tf.TensorSpec((None,)))
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.parametrize(
    ("callback", "ema", "n_steps", "restored"),
    [
        (stopping, {}, 15, 0),
        (lambda: keras.callbacks.SwapEMAWeights(swap_on_epoch=True), {"use_ema": True}, 20, None),
        (keras.callbacks.Callback, {"use_ema": True}, 20, None),  # the optimizer overwrites them at the end
    ],
    ids=["EarlyStopping", "SwapEMAWeights", "EMA"],
)
@pytest.mark.parametrize(
    ("has_length", "compiled"),
    [(True, {}), (True, {"steps_per_execution": 3}), (True, {"run_eagerly": True}), (False, {})],
)
def test_the_last_weights_are_those_after_the_last_step(store, callback, ema, n_steps, restored, has_length, compiled):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="out")])
    model.compile(keras.optimizers.SGD(0.05, **ema), "mse", **compiled)
    one = recorder()
    x, y = (X, Y) if has_length else (of_unknown_length(), None)
    fitted = record(model, x, y, recorder=one, epochs=4, callbacks_before=[callback()])
    final = trainable(model)
    for name, values in one.snapshots.tensors.items():
        np.testing.assert_array_equal(values[-1], fitted.history.weights(name)[-1])
        assert not np.array_equal(values[-1], final[name])
    assert fitted.history.n_steps == one.snapshots.steps[-1] == n_steps
    assert one.restored_epoch == restored
    tag = store.get_run(fitted.run_id).data.tags.get("mlflow_hp.restored_epoch")
    assert tag == (None if restored is None else str(restored))
