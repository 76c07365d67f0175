"""Trainings against another version of Keras or TensorFlow: the same weights, a record as good as can be, a warning."""

from __future__ import annotations

import functools
import re
import sys
import types
import warnings

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

from mlflow_hp._compat import keras as of_keras
from mlflow_hp._compat import tensorflow as of_tensorflow
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp.analysis.surfaces.plane import random_plane
from mlflow_hp.search.speedups.model_signature import architecture
from mlflow_hp.search.vectorised import NotVectorisableError, read_network
from mlflow_hp.tracking import devices
from mlflow_hp.training.plane_losses import losses_on_plane
from tests.helpers.changed_names import change
from tests.helpers.fits import LABELS, X, Y, bare, network, record, regression, same_weights

pytestmark = pytest.mark.usefixtures("store")


def unbuilt():
    return network(inputs=False)


def recorded(model, text, *more):
    """A fit that warns of `text` once, and its history."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fitted = record(model, *more)
    said = [str(each.message) for each in told if issubclass(each.category, RuntimeWarning)]
    assert len([each for each in said if text in each]) == 1, said
    return fitted


@functools.cache
def bare_fit(make, y="numbers", **compiled):
    """One for all forms of a name: a fit without a recorder looks up none of them."""
    return bare(make(**compiled), X, {"numbers": Y, "labels": LABELS}[y])


# Of each name all forms that it may have are told alike, which the tests of `PrivateName` hold: what happens then is
# seen in one form, or in one for each kind of model; and in "something else", which the caller himself has to see.


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("form", "compiled"),
    [
        ("gone", {}),
        ("called in another way", {"steps_per_execution": 3}),
        ("gone", {"run_eagerly": True, "steps_per_execution": 3}),
    ],
)
def test_a_train_function_that_is_built_in_another_way_is_read_from_the_host(monkeypatch, form, compiled):
    text = change(monkeypatch, of_keras.MAKE_FUNCTION, form, keras.Model)
    fitted = recorded(regression(**compiled), text)
    assert same_weights(fitted.model, bare_fit(regression, **compiled))
    history = fitted.history
    assert history.meta["reader"] == "host"
    assert history.n_steps == (4 if compiled else 10)
    np.testing.assert_array_equal(history.weights("out/kernel")[-1], fitted.model.get_weights()[0])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("form", ["gone", "raising"])
def test_a_model_that_can_not_be_built_without_data_is_read_from_its_first_step_on(monkeypatch, form):
    text = change(monkeypatch, of_keras.SYMBOLIC_BUILD, form, keras.Model)
    fitted = recorded(unbuilt(), "ZeroDivisionError" if form == "raising" else text, X, LABELS)
    assert same_weights(fitted.model, bare_fit(unbuilt, "labels"))
    assert fitted.history.meta["reader"] == "host"
    assert fitted.history.n_steps == 10


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("make", "form"),
    [(network, "gone"), (unbuilt, "called in another way"), (network, "something else"), (unbuilt, "raising")],
)
def test_layers_that_are_not_told_change_nothing(monkeypatch, make, form):
    text = change(monkeypatch, of_keras.FLATTEN_LAYERS, form, keras.Model)
    fitted = recorded(make(), text, X, LABELS)
    assert same_weights(fitted.model, bare_fit(make, "labels"))
    assert fitted.history.meta["reader"] == "graph"
    assert fitted.history.n_steps == 10


class AppliesWithoutVariables(keras.Model):
    """Has its optimizer apply gradients without saying to which variables."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(7)
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x)[:, 0] - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.build(self.trainable_variables)
        self.optimizer.apply(gradients)
        return {"loss": loss}


def applies_without_variables():
    model = AppliesWithoutVariables()
    model(X[:1])
    model.compile("sgd")
    return model


def test_gradients_of_unknown_variables_are_left_out(monkeypatch):
    text = change(monkeypatch, of_keras.APPLIED_VARIABLES, "gone")
    fitted = recorded(applies_without_variables(), text)
    assert same_weights(fitted.model, bare_fit(applies_without_variables))
    assert fitted.history.meta["reader"] == "graph"
    assert fitted.history.n_steps == 10
    assert "gradient_norm" not in fitted.history.steps


@pytest.mark.parametrize("form", ["gone", "raising"])
def test_where_determinism_is_not_told_the_clock_is_the_hosts(monkeypatch, form):
    text = change(monkeypatch, of_tensorflow.DETERMINISM, form)
    fitted = recorded(regression(), text)
    assert same_weights(fitted.model, bare_fit(regression))
    assert fitted.history.meta["reader"] == "graph"
    times = fitted.history.steps["time"]
    assert fitted.history.n_steps == 10
    assert (np.diff(times) >= 0).all()
    assert np.isfinite(times).all()


def test_a_loss_that_keras_tracks_elsewhere_has_its_own_name():
    def model():
        made = regression()
        made._loss_tracker = keras.metrics.Mean(name="total")
        return made

    fitted = record(model())
    assert same_weights(fitted.model, bare(model()))
    assert fitted.history.n_steps == 10
    assert "batch_loss" not in fitted.history.steps
    plain = record(regression()).history.steps
    np.testing.assert_array_equal(fitted.history.steps["batch_total"], plain["batch_loss"])
    np.testing.assert_array_equal(fitted.history.steps["running_total"], plain["running_loss"])


def two_outputs():
    keras.utils.set_random_seed(7)
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"})
    return model


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "form"), [(of_keras.COMPILE_LOSS, "gone"), (of_keras.SYMBOLIC_BUILD, "called in another way")]
)
@pytest.mark.parametrize(("make", "y"), [(regression, Y), (two_outputs, {"a": Y, "b": -Y})])
def test_a_landscape_has_the_same_losses(monkeypatch, name, form, make, y):
    def losses():
        model = make()
        weights = {weight.path.removeprefix(f"{model.name}/"): weight.numpy() for weight in model.trainable_weights}
        return losses_on_plane(model, random_plane(weights, 0), np.array([[0.0, 0.0], [0.5, -0.5]]), X, y)

    expected = losses()
    text = change(monkeypatch, name, form, keras.Model)
    with pytest.warns(RuntimeWarning, match=re.escape(text)) as told:
        found = losses()
    assert len(told) == 1
    assert found.tobytes() == expected.tobytes()


def test_an_operation_that_does_not_tell_its_arguments(monkeypatch):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.relu(keras.layers.Dense(2)(inputs)))
    model.compile("sgd", "mse")
    assert architecture(model)
    text = change(monkeypatch, of_keras.AUTO_CONFIG, "gone")
    with pytest.raises(UnsupportedVersionError, match=re.escape(text)):
        architecture(model)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", ["gone", "raising", "something else"])
def test_a_tf_data_that_hides_what_it_is_made_from_is_no_data_set_of_the_run(monkeypatch, form):
    def data():
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)

    model = bare(regression(), data(), None, batch_size=None, shuffle=False)
    text = change(monkeypatch, of_tensorflow.INPUTS, form, tf.data.Dataset)
    with pytest.warns(RuntimeWarning, match=re.escape(text)):
        fitted = record(regression(), data(), None, batch_size=None, shuffle=False)
    assert not mlflow.get_run(fitted.run_id).inputs.dataset_inputs
    assert same_weights(fitted.model, model)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (of_tensorflow.CONTEXT, "gone"),
        (of_tensorflow.CONTEXT, "raising"),
        (of_tensorflow.CONTEXT, "called in another way"),
        (of_tensorflow.CONTEXT, "something else"),
        (of_tensorflow.INITIALIZED, "gone"),
    ],
)
def test_where_tensorflow_does_not_say_that_it_has_begun_the_driver_is_asked(monkeypatch, tmp_path, name, form):
    tf.constant(1.0)
    assert of_tensorflow.is_initialized()
    text = change(monkeypatch, name, form)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "information").write_text("Model:\tfrom the driver\n")
    monkeypatch.setattr(devices, "DRIVER_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if form == "something else":
        text = f"tensorflow {tf.__version__} is not supported: Context._initialized was not found"
    with pytest.warns(RuntimeWarning, match=re.escape(text)) as told:
        assert devices.describe().endswith("; 1 x from the driver")
    assert len(told) == 1
    assert devices.describe().endswith("; 1 x from the driver")  # without another warning


def test_a_tensorflow_that_is_being_imported_is_not_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    assert not of_tensorflow.is_initialized()


# steps that pass by


class OwnFit(keras.Sequential):
    """Trains in a function of its own, and tells callbacks of epochs alone."""

    def fit(self, x, y, *, epochs, callbacks, **_):
        callbacks = keras.callbacks.CallbackList(callbacks, model=self, epochs=epochs, steps=5)
        self.make_train_function()
        callbacks.on_train_begin()
        for epoch in range(epochs):
            callbacks.on_epoch_begin(epoch)
            for start in range(0, len(x), 8):
                logs = self.train_step((tf.constant(x[start : start + 8]), tf.constant(y[start : start + 8])))
            callbacks.on_epoch_end(epoch, {name: float(value) for name, value in logs.items()})
        callbacks.on_train_end()


class BuiltOnce(keras.Sequential):
    """Calls the train function that it had when the fit began, whatever stands in its place since."""

    def make_train_function(self, force=False):
        super().make_train_function(force)
        self.first = self.train_function

    def fit(self, x, y, *, epochs, callbacks, **_):
        callbacks = keras.callbacks.CallbackList(callbacks, model=self, epochs=epochs, steps=5)
        self.make_train_function()
        callbacks.on_train_begin()
        for epoch in range(epochs):
            callbacks.on_epoch_begin(epoch)
            batches = iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(8))
            for _ in range(5):
                logs = self.first(batches)
            callbacks.on_epoch_end(epoch, {name: float(value) for name, value in logs.items()})
        callbacks.on_train_end()


def of_class(cls):
    keras.utils.set_random_seed(7)
    model = cls([keras.Input((3,)), keras.layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    return model


@pytest.mark.filterwarnings("ignore:.*steps are read from the host:RuntimeWarning")
@pytest.mark.parametrize("cls", [OwnFit, BuiltOnce])
def test_a_fit_that_does_not_ask_for_the_train_function_is_told(store, cls):
    expected = of_class(cls)
    expected.fit(X, Y, epochs=2, callbacks=[])
    text = f"no step was seen in epoch 0, so the record lacks them: .*{cls.__name__}.fit call self.train_function"
    with pytest.warns(RuntimeWarning, match=text) as told:
        fitted = record(of_class(cls))
    assert len([each for each in told if "no step was seen" in str(each.message)]) == 1
    assert same_weights(fitted.model, expected)
    run = store.get_run(fitted.run_id)
    assert "no step was seen" in run.data.tags["mlflow_hp.recording_error"]
    assert run.info.status == "FINISHED"
    assert len(store.get_metric_history(fitted.run_id, "loss")) == 2


class Replacing(keras.callbacks.Callback):
    """Puts a train function of the user's in the place of the model's, in the middle of a fit."""

    def __init__(self, hook, at):
        super().__init__()
        self.at = at
        setattr(self, hook, self.replace)

    def replace(self, index, logs=None):
        if index == self.at:
            step = tf.function(self.model.train_step)
            self.model.train_function = lambda iterator: step(next(iterator))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("hook", "at", "text", "n_steps"),
    [
        ("on_epoch_begin", 0, "no step was seen in epoch 0", 0),
        ("on_epoch_begin", 1, "no step was seen in epoch 1", 5),
        ("on_train_batch_begin", 2, "2 of 5 calls for steps were seen in epoch 0", 2),
    ],
)
def test_a_train_function_that_is_replaced_after_ours_is_told(store, hook, at, text, n_steps):
    with pytest.warns(RuntimeWarning, match=text) as told:
        fitted = record(regression(), callbacks=[Replacing(hook, at)])
    assert len([each for each in told if "were seen" in str(each.message) or "was seen" in str(each.message)]) == 1
    assert same_weights(fitted.model, bare(regression(), callbacks=[Replacing(hook, at)]))
    assert store.get_run(fitted.run_id).data.tags.get("mlflow_hp.steps", "0") == str(n_steps)


def test_a_fit_that_ends_early_or_runs_out_of_data_is_not_told():
    def stop(batch, logs):
        callback.model.stop_training = True

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    assert record(regression(), callbacks=[callback]).history.n_steps == 1
    with pytest.warns(UserWarning, match="ran out of data"):
        fitted = record(regression(), X, Y, steps_per_epoch=4, epochs=4, shuffle=False)
    assert fitted.history.n_steps == int(fitted.model.optimizer.iterations)


@pytest.mark.parametrize("name", [of_keras.METRIC_FUNCTION, of_keras.METRIC_ARGUMENTS], ids=lambda name: name.name)
def test_a_metric_of_another_version_is_not_vectorised(monkeypatch, name):
    monkeypatch.setattr(name, "name", "mlflow_hp_other")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    with pytest.raises(NotVectorisableError, match=r"MeanMetricWrapper\.mlflow_hp_other was not found"):
        read_network(model, np.zeros((3, 2)), np.zeros(3))
