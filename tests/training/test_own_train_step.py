"""Models with a ``train_step`` of their own: trained as bare, bit for bit, with each step's values and optimizers."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from tests.helpers.fits import X, Y, bare, record, same_weights

pytestmark = [
    pytest.mark.usefixtures("store", "blank_pictures"),
    pytest.mark.filterwarnings("ignore:mlflow_hp. steps are read from the host:RuntimeWarning"),
]

EXECUTIONS = {
    "graph": {},
    "graph of 3": {"steps_per_execution": 3},
    "compiled": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


class Gan(keras.Model):
    """As in Keras' guides, but for two steps of the discriminator, and a value of the batch among the logs."""

    def __init__(self):
        super().__init__()
        self.discriminator = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        self.generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
        self.seeds = keras.random.SeedGenerator(1337)
        self.d_loss = keras.metrics.Mean(name="d_loss")
        self.g_loss = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_loss, self.g_loss]

    def compile(self, d_optimizer, g_optimizer, **compiled):
        super().compile(**compiled)
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.cost = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, data):
        real, _ = data
        n = tf.shape(real)[0]
        false, true = tf.ones((n, 1)), tf.zeros((n, 1))
        for _ in range(2):
            made = self.generator(keras.random.normal((n, 4), seed=self.seeds))
            with tf.GradientTape() as tape:
                d_loss = self.cost(tf.concat([false, true], 0), self.discriminator(tf.concat([made, real], 0)))
            self._apply(self.d_optimizer, tape, d_loss, self.discriminator)
            self.d_loss.update_state(d_loss)
        with tf.GradientTape() as tape:
            made = self.generator(keras.random.normal((n, 4), seed=self.seeds))
            g_loss = self.cost(true, self.discriminator(made))
        self._apply(self.g_optimizer, tape, g_loss, self.generator)
        self.g_loss.update_state(g_loss)
        return {"d": self.d_loss.result(), "g": self.g_loss.result(), "gap": d_loss - g_loss}

    @staticmethod
    def _apply(optimizer, tape, loss, network):
        weights = network.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))


def gan(**compiled):
    keras.utils.set_random_seed(7)
    model = Gan()
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.SGD(rate), **compiled)
    return model


@pytest.mark.thorough
@pytest.mark.sampled(4)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_gan(execution):
    recorder = mlflow_hp.TrainingRecorder()
    fitted = record(gan(**EXECUTIONS[execution]), recorder=recorder)
    assert same_weights(fitted.model, bare(gan(**EXECUTIONS[execution])))
    steps = fitted.history.steps
    assert steps["samples"].tolist() == [8, 8, 8, 8, 5] * 2
    for name in ("d", "g"):  # Keras' mean over the epoch so far is that of the batches' own values
        means = [np.cumsum(epoch) / np.arange(1, 6) for epoch in steps[f"batch_{name}"].reshape(2, 5)]
        np.testing.assert_allclose(steps[f"running_{name}"], np.concatenate(means), rtol=1e-6)
        assert steps[f"running_{name}"][[4, 9]].tolist() == fitted.keras_history.history[name]
    assert steps["batch_gap"][[4, 9]].tolist() == fitted.keras_history.history["gap"]
    np.testing.assert_allclose(steps["learning_rate/g_optimizer"], 0.1 * 0.9 ** np.arange(10), rtol=1e-6)
    assert set(steps["learning_rate/d_optimizer"]) == {np.float32(1e-3)}
    assert not {"batch_loss", "running_loss", "learning_rate", "running_gap"} & steps.keys()
    run = mlflow.get_run(fitted.run_id)
    params = run.data.params
    assert (params["d_optimizer"], params["g_optimizer"], params["d_optimizer.learning_rate"]) == (
        "Adam",
        "SGD",
        "0.001",
    )
    assert "optimizer" not in params
    assert "RMSprop" not in params.values()  # which `super().compile()` makes, and which never steps
    expected = {"d", "g", "gap", "learning_rate/d_optimizer", "learning_rate/g_optimizer", "running_d", "running_g"}
    assert {name for name in run.data.metrics if name.startswith("batch/")} == {f"batch/{name}" for name in expected}
    assert "mlflow_hp.recording_error" not in run.data.tags
    assert "not finite" not in run.data.tags["mlflow.note.content"]
    assert "d_optimizer (Adam, learning rate 0.001)" in run.data.tags["mlflow.note.content"]


class Linear(keras.Model):
    """Of two weights; a subclass has a step, which may use `gradients`."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(x)

    def gradients(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x)[:, 0] - y) ** 2)
        return loss, tape.gradient(loss, self.trainable_weights)


class ReturnsItsLoss(Linear):
    def train_step(self, data):
        loss, gradients = self.gradients(data)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss, "constant": 0.5}


class WithoutOptimizer(Linear):
    def train_step(self, data):
        loss, gradients = self.gradients(data)
        for weight, gradient in zip(self.trainable_weights, gradients, strict=True):
            weight.assign_sub(0.1 * gradient)
        return {"loss": loss}


MEAN = keras.metrics.Mean()


class TracksElsewhere(Linear):
    """Tells its loss to a metric that the model does not hold."""

    def train_step(self, data):
        loss, gradients = self.gradients(data)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        MEAN.update_state(loss)
        return {"loss": MEAN.result()}


class SeveralInALoop(Linear):
    """Has its optimizers in a list, and a loop of TensorFlow's around its tracker."""

    def __init__(self):
        super().__init__()
        self.inside = keras.metrics.Mean(name="inside")
        self.weighted = keras.metrics.Mean(name="weighted")
        self.by = [keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2), keras.optimizers.SGD(0.3)]

    def train_step(self, data):
        loss, gradients = self.gradients(data)
        for optimizer, gradient, weight in zip(self.by, gradients, self.trainable_weights, strict=False):
            optimizer.apply([gradient], [weight])
        tf.while_loop(lambda i: i < 2, lambda i: (self._tell(loss), i + 1)[1:], [tf.constant(0)])
        self.weighted.update_state(loss, sample_weight=3.0)
        self.weighted.update_state(tf.stack([loss, 2 * loss]), sample_weight=[1.0, 0.0])
        return {"inside": self.inside.result(), "twice": self.weighted.result()}

    def _tell(self, loss):
        self.inside.update_state(loss)


def linear(kind, **compiled):
    keras.utils.set_random_seed(7)
    model = kind()
    model.compile("sgd", **compiled)
    return model


def losses_of(history):
    """Losses of the batches, from the recorded weights."""
    (kernel, bias) = (history.weights(tensor.name) for tensor in history.tensors)
    starts = list(range(0, 37, 8)) * 2
    predicted = [X[i : i + 8] @ kernel[step][:, 0] + bias[step] for step, i in enumerate(starts)]
    return [np.mean((p - Y[i : i + 8]) ** 2) for p, i in zip(predicted, starts, strict=True)]


@pytest.mark.sampled(9)
@pytest.mark.parametrize("execution", ["graph", "graph of 3", "eager"])
@pytest.mark.parametrize(
    ("kind", "columns", "params"),
    [
        (ReturnsItsLoss, {"learning_rate", "batch_loss", "batch_constant"}, {"optimizer": "SGD"}),
        (WithoutOptimizer, {"batch_loss"}, {"optimizer": None}),
        (
            SeveralInALoop,
            {"learning_rate/by/0", "learning_rate/by/1", "running_inside", "batch_twice", "running_twice"},
            {"by/0": "SGD", "by/1": "SGD", "by/2": None},
        ),
    ],
)
def test_what_a_step_returns_and_does(kind, columns, params, execution):
    compiled = EXECUTIONS[execution]
    fitted = record(linear(kind, **compiled), shuffle=False)
    assert same_weights(fitted.model, bare(linear(kind, **compiled), shuffle=False))
    history = fitted.history
    known = {name for name in history.steps if "gradient" not in name}
    known -= {"step", "epoch", "batch", "time", "samples"}
    if execution == "eager" and kind is SeveralInALoop:
        columns = columns | {"batch_inside"}  # a loop that runs, step by step
    assert known == columns
    recorded = mlflow.get_run(fitted.run_id).data.params
    assert {name: recorded.get(name) for name in params} == params
    if execution != "eager":  # there, weights that the first step makes are known from then on
        loss = history.steps["batch_twice" if kind is SeveralInALoop else "batch_loss"]
        np.testing.assert_allclose(loss, losses_of(history), rtol=2e-5)


def test_a_metric_that_the_model_does_not_hold_is_not_taken_for_the_batchs_own():
    MEAN.reset_state()
    fitted = record(linear(TracksElsewhere))
    assert "batch_loss" not in fitted.history.steps
    assert "running_loss" in fitted.history.steps


SOURCES = tf.random.Generator.from_seed(3)
FACTOR = tf.Variable(2.0)


class Told(Linear):
    """Tells much of the batch alone, in many ways."""

    def __init__(self):
        super().__init__()
        self.mid = keras.metrics.Mean(name="mid")
        self.empty = keras.metrics.Mean(name="empty")

    def train_step(self, data):
        loss, gradients = self.gradients(data)
        self.applied(gradients)
        noise = keras.random.normal((1,))[0] + SOURCES.normal((1,))[0]
        self.mid.update_state(loss)
        first = self.mid.result()
        self.mid.update_state(3 * loss)
        self.empty.update_state(tf.stack([loss, loss]), sample_weight=tf.zeros(2))
        return {
            "loss": loss + 0 * noise,
            "scaled": FACTOR * loss,
            "mid": first,
            "empty": self.empty.result(),
            "rate": self.optimizer.learning_rate,
            "count": self.optimizer.iterations,
        }

    @tf.function
    def applied(self, gradients):
        self.optimizer.apply(gradients, self.trainable_weights)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("execution", ["graph", "graph of 3"])
def test_what_is_of_the_batch_alone(execution):
    compiled = EXECUTIONS[execution]
    fitted = record(linear(Told, **compiled), shuffle=False)
    steps = fitted.history.steps
    assert fitted.history.meta["reader"] == "graph"
    known = {name for name in steps if name.startswith(("batch_", "learning_rate"))}
    names = {f"batch_{name}" for name in ("loss", "scaled", "mid", "empty", "rate", "count")}
    assert known == names | {"learning_rate"}
    losses = losses_of(fitted.history)
    np.testing.assert_allclose(steps["batch_loss"], losses, rtol=2e-5)
    np.testing.assert_allclose(steps["batch_scaled"], 2 * np.array(losses), rtol=2e-5)
    np.testing.assert_allclose(steps["batch_mid"], losses, rtol=2e-5)
    assert set(steps["batch_empty"]) == {0.0}
    assert steps["batch_count"].tolist() == list(range(1, 11))
    assert set(steps["learning_rate"]) == {np.float32(0.01)}
