"""Dead and saturated units by layer at ends of epochs: against NumPy, and without any effect on the training."""

from __future__ import annotations

import types

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.history.unit_shares import last_unit_shares
from mlflow_hp.training.capture import unit_shares
from mlflow_hp.training.capture.unit_shares import UnitShares
from tests.helpers.fits import LABELS, X, Y, bare, network, record, regression, same_weights

pytestmark = pytest.mark.usefixtures("store", "blank_pictures")


def recorder(**settings):
    return mlflow_hp.TrainingRecorder(**{"report": False, "overhead": 1.0, "weights": "all"} | settings)


def mixed(seed=5, **compiled):
    """A network whose layers have each kind of activation; a bias kills three units of five, and another saturates."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Dense(5, "relu", name="first", bias_initializer=lambda *_, **__: np.array([0.0, -9, 0, -9, -9])),
        keras.layers.Dense(4, "tanh", name="second", bias_initializer=lambda *_, **__: np.array([0.0, 9, 0, 0.1])),
        keras.layers.Dense(1, "sigmoid", name="out"),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.SGD(0.05), "mse", **compiled)
    return model


def by_hand(history, x, epoch):
    """Shares of the `mixed` network on samples, at the weights after an epoch, by NumPy."""
    last = np.flatnonzero(history.steps["epoch"] == epoch)[-1] + 1
    weights = {
        name: history.weights(name)[last] for name in ("first/kernel", "first/bias", "second/kernel", "second/bias")
    }
    first = np.maximum(x @ weights["first/kernel"] + weights["first/bias"], 0)
    second = np.tanh(first @ weights["second/kernel"] + weights["second/bias"])
    return {
        "dead_units/first": (first == 0).all(axis=0).mean(),
        "saturated_units/second": (np.abs(second) > 0.98).mean(),
    }


def shares(history):
    return {name: column for name, column in history.epochs.items() if "_units/" in name}


SAMPLES = np.random.default_rng(3).normal(size=(200, 3)).astype("float32")
TARGETS = (SAMPLES[:, 0] > 0).astype("float32")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("compiled", [{}, {"steps_per_execution": 3}, {"jit_compile": True}, {"run_eagerly": True}])
def test_shares_are_those_of_numpy_on_the_first_64_samples(compiled):
    fitted = record(mixed(**compiled), SAMPLES, TARGETS, recorder(), batch_size=32, epochs=3, shuffle=False)
    history = fitted.history
    assert set(shares(history)) == {"dead_units/first", "saturated_units/second"}  # not those of the output
    for epoch in range(3):
        for name, share in by_hand(history, SAMPLES[:64], epoch).items():
            assert history.epochs[name][epoch] == pytest.approx(share), (name, epoch)
    assert history.epochs["dead_units/first"][0] >= 0.6
    assert 0.25 <= history.epochs["saturated_units/second"][0] < 1


class OwnStep(keras.Model):
    """A subclassed model with a train_step of its own, dropout and a generator of seeds."""

    def __init__(self):
        super().__init__()
        self.hidden, self.dropout = keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.4, seed=3)
        self.norm, self.out = keras.layers.BatchNormalization(), keras.layers.Dense(1)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        if training:
            x += keras.random.normal(keras.ops.shape(x), stddev=0.1, seed=self.seeds)
        return self.out(self.dropout(self.norm(self.hidden(x), training=training), training=training))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True)[:, 0] - y))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def own_step(**compiled):
    keras.utils.set_random_seed(7)
    model = OwnStep()
    model.compile("adam", **compiled)
    return model


def two_outputs(**compiled):
    keras.utils.set_random_seed(7)
    inputs = keras.Input((3,), name="x")
    hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(8, "relu", name="hidden")(inputs))
    outputs = [keras.layers.Dense(1, name=name)(hidden) for name in ("one", "two")]
    model = keras.Model({"x": inputs}, outputs)
    model.compile("adam", ["mse", "mse"], **compiled)
    return model


def lstm(**compiled):
    keras.utils.set_random_seed(7)
    layers = [keras.layers.LSTM(4, dropout=0.2), keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3, 1)), *layers])
    model.compile("adam", "mse", **compiled)
    return model


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("make", "x", "y", "compiled"),
    [
        (network, X, LABELS, {}),
        (network, X, LABELS, {"jit_compile": True}),
        (own_step, X, Y, {"steps_per_execution": 3}),
        (own_step, X, Y, {"run_eagerly": True}),
        (two_outputs, {"x": X}, [Y, Y], {"steps_per_execution": 2}),
        (lstm, X[:, :, None], Y, {}),
    ],
)
def test_the_training_is_the_bare_one(make, x, y, compiled):
    fitted = record(make(**compiled), x, y, recorder(), epochs=3)
    expected = bare(make(**compiled), x, y, epochs=3)
    assert same_weights(fitted.model, expected)
    for one, other in zip(fitted.model.variables, expected.variables, strict=True):  # states of generators, too
        np.testing.assert_array_equal(one, other)
    (column,) = shares(fitted.history).values()
    assert np.isfinite(column).all()
    assert not any("_units" in name for name in [*fitted.keras_history.history, *fitted.recorder.best.values])


def test_no_batch_more_is_drawn_of_endless_data():
    drawn = []

    def batches():
        while True:
            drawn.append(1)
            yield SAMPLES[:20], TARGETS[:20]

    data = tf.data.Dataset.from_generator(batches, output_signature=(tf.TensorSpec((None, 3)), tf.TensorSpec((None,))))
    options = tf.data.Options()
    options.autotune.enabled = False
    model = mixed()
    with mlflow.start_run():
        own = recorder()
        model.fit(data.with_options(options), steps_per_epoch=5, epochs=2, shuffle=False, verbose=0, callbacks=[own])
    n_drawn = len(drawn)
    drawn.clear()
    mixed().fit(data.with_options(options), steps_per_epoch=5, epochs=2, shuffle=False, verbose=0)
    assert n_drawn == len(drawn)
    assert own.history.epochs["dead_units/first"].tolist() == [0.6, 0.6]


def sequences():
    keras.utils.set_random_seed(7)
    layers = [
        keras.layers.Embedding(9, 3),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(4, "relu", name="hidden"),
    ]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_samples_whose_lengths_differ_are_those_of_the_first_batch():
    def batches():
        for length in (5, 7, 6):
            yield np.ones((16, length), "int32"), np.ones(16, "float32")

    signature = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,)))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    fitted = record(sequences(), data, None, recorder(), batch_size=None, shuffle=False)
    assert np.isfinite(fitted.history.epochs["dead_units/hidden"]).all()
    assert fitted.recorder.history.n_steps == 6


class Uncallable(OwnStep):
    """A model that is trained without its call, as the pair of a GAN."""

    def call(self, x):
        raise NotImplementedError

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.out(self.hidden(x))[:, 0] - y))
        weights = self.hidden.trainable_variables + self.out.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class Counting(keras.Sequential):
    """Counts its calls in a variable of TensorFlow's, which Keras does not know."""

    def call(self, *arguments, **named):
        calls.assign_add(1)
        return super().call(*arguments, **named)


calls = tf.Variable(0, trainable=False)


def uncallable():
    return Uncallable(), X, Y


def counting():
    return Counting([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]), X, Y


def few():
    return mixed(), X[:15], Y[:15]


@pytest.mark.sampled(3)
@pytest.mark.usefixtures("warnings_are_errors")
@pytest.mark.parametrize("make", [uncallable, counting, few])
def test_where_nothing_can_be_measured_nothing_is_said(make, store):
    def trained(*callbacks):
        keras.utils.set_random_seed(7)
        model, x, y = make()
        model.compile("sgd", "mse")
        calls.assign(0)
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[*callbacks])
        return model, int(calls)

    own = recorder()
    with mlflow.start_run() as run:
        model, n_calls = trained(own)
    other, expected = trained()
    assert same_weights(model, other)
    assert n_calls == expected
    assert shares(own.history) == {}
    assert own.history.n_epochs == 2
    assert "mlflow_hp.recording_error" not in store.get_run(run.info.run_id).data.tags


def test_an_error_is_noted_once_and_the_rest_is_recorded(monkeypatch, store):
    def broken(*_):
        raise KeyError("it is ours")

    monkeypatch.setattr(unit_shares, "changing_operations", broken)
    with pytest.warns(RuntimeWarning, match="shares of dead and saturated units are not known.*it is ours"):
        fitted = record(mixed(), recorder=recorder(), epochs=3)
    assert (fitted.history.n_steps, fitted.history.n_epochs) == (15, 3)
    assert store.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"].count("it is ours") == 1
    assert same_weights(fitted.model, bare(mixed(), epochs=3))


def test_a_short_fit_is_not_measured_and_overhead_0_never():
    for overhead in (0.0, 1e-9):
        assert shares(record(mixed(), recorder=recorder(overhead=overhead)).history) == {}


class Clock:
    """A clock that each look moves on by a quarter of a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.25
        return self.now


def test_measurements_take_their_share_of_the_time(monkeypatch):
    clock, changing_operations = Clock(), unit_shares.changing_operations

    def trace_slowly(graph):
        clock.now += 3
        return changing_operations(graph)

    monkeypatch.setattr(unit_shares, "time", types.SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(unit_shares, "changing_operations", trace_slowly)
    units = UnitShares(mixed(), overhead=0.05)
    units.keep((tf.constant(SAMPLES[:64]), TARGETS[:64]))
    units.note_tracing(5.0)  # a tenth of it is expected for the first measurement
    times = []
    for _ in range(400):
        clock.now += 1
        if units.measure():
            times.append(clock.now)
    assert times[0] == pytest.approx(0.5 / 0.05 + 3.5, abs=1.5)
    assert times[1] == pytest.approx((3.25 + 0.25 + 0.25) / 0.05, abs=1.5)
    assert np.diff(times[1:]) == pytest.approx(0.5 / 0.05, abs=1.5)
    assert 3 + (len(times) - 1) * 0.5 <= 0.05 * clock.now


@pytest.mark.thorough
def test_a_second_fit_has_samples_of_its_own_and_is_not_traced_again(monkeypatch):
    traced, changing_operations = [], unit_shares.changing_operations
    monkeypatch.setattr(
        unit_shares, "changing_operations", lambda graph: traced.append(1) or changing_operations(graph)
    )
    model, own = mixed(), recorder()
    for samples in (SAMPLES, -3 * SAMPLES):
        fitted = record(model, samples, TARGETS, own, batch_size=24, epochs=2, shuffle=False)
        expected = by_hand(fitted.history, samples[:48], 1)  # whole batches alone
        assert {name: column[1] for name, column in shares(fitted.history).items()} == pytest.approx(expected)
    assert traced == [1]
    model.compile("sgd", "mse")
    record(model, SAMPLES, TARGETS, own)
    assert traced == [1, 1]


@pytest.mark.thorough
def test_metrics_by_epoch_of_the_largest_share_or_of_each_layer(store):
    def metrics(**settings):
        fitted = record(mixed(), SAMPLES, TARGETS, recorder(**settings), batch_size=32)
        names = store.get_run(fitted.run_id).data.metrics
        points = {n: store.get_metric_history(fitted.run_id, n) for n in names if n.startswith("units/")}
        return fitted.history, {name: [(point.step, point.value) for point in each] for name, each in points.items()}

    history, largest = metrics()
    assert set(largest) == {"units/dead", "units/saturated"}
    assert largest["units/dead"] == list(enumerate(history.epochs["dead_units/first"]))
    history, of_layers = metrics(metrics="all")
    assert set(of_layers) == {"units/dead/first", "units/saturated/second"}
    assert of_layers["units/saturated/second"] == list(enumerate(history.epochs["saturated_units/second"]))


def test_the_report_finds_dead_units_and_draws_no_share(store):
    fitted = record(mixed(), SAMPLES, TARGETS, recorder(report=True, run_id=None), batch_size=32, epochs=3)
    assert store.get_run(fitted.run_id).data.metrics["diagnosis/largest_dead_share"] >= 0.6
    assert "60% of first" in store.get_run(fitted.run_id).data.tags["mlflow.note.content"]
    pictures = [file.path for file in store.list_artifacts(fitted.run_id, "plots")]
    assert not any("units" in picture for picture in pictures)
    assert fitted.history.epoch_metrics == ("loss",)


def test_shares_that_are_not_finite_are_not_known():
    model = mixed()
    units = UnitShares(model, overhead=1.0)
    units.keep(tf.constant(SAMPLES[:32]))
    assert units.measure()["dead_units/first"] >= 0.6
    model.layers[0].set_weights([np.full((3, 5), np.nan), np.zeros(5)])
    assert units.measure() == {}


def test_the_last_known_share_counts():
    nan = np.nan
    epochs = {"epoch": np.arange(3), "dead_units/a": np.array([0.1, 0.5, nan]), "dead_units/b": np.full(3, nan)}
    assert last_unit_shares(epochs, "dead_units/") == {"a": 0.5}
    assert last_unit_shares({"epoch": np.arange(3)}, "dead_units/") == {}


def test_a_model_without_such_layers_keeps_no_samples():
    units = UnitShares(regression(), overhead=1.0)
    units.keep((tf.constant(X), Y))
    assert units.measure() == {}


@pytest.mark.parametrize("kind", ["sparse", "ragged", "a number"])
def test_inputs_that_are_not_dense_tensors_are_not_kept(kind):
    inputs = {
        "sparse": lambda: tf.sparse.from_dense(X),
        "ragged": lambda: tf.RaggedTensor.from_row_lengths(X[:, 0], [30, 7]),
        "a number": lambda: tf.constant(1.0),
    }
    units = UnitShares(mixed(), overhead=1.0)
    units.keep({"x": inputs[kind](), "other": tf.constant(X)})
    assert units.measure() == {}
