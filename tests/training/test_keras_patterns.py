"""Keras' documented ways to train: each trains as it does bare, bit for bit, and has each step recorded once."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from tests.helpers.fits import LABELS, X, Y, network, regression, same_weights

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning"),
]

N, EPOCHS = 5, 2
"""Steps of an epoch, the last of fewer samples, and epochs."""


def batches(labels=Y):
    for start in range(0, len(X), 8):
        yield X[start : start + 8], labels[start : start + 8]


def endless():
    while True:
        yield from batches()


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return X[8 * index : 8 * index + 8], Y[8 * index : 8 * index + 8]


def of_unknown_length():
    spec = (tf.TensorSpec((None, 3)), tf.TensorSpec((None,)))
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


DATA = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 8},
    "tensors": lambda: {"x": tf.constant(X), "y": tf.constant(Y), "batch_size": 8, "shuffle": False},
    "dataset": lambda: {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)},
    "unknown length": lambda: {"x": of_unknown_length()},
    "generator": lambda: {"x": batches(), "epochs": 1},
    "endless generator": lambda: {"x": endless(), "steps_per_epoch": N},
    "PyDataset": lambda: {"x": Batches(), "shuffle": False},
    "workers": lambda: {"x": Batches(workers=2, use_multiprocessing=False), "shuffle": False},
}


def trained(make_model, fit, recorder=None):
    """A model after `fit`, and its run's recorder where it has one."""
    model = make_model()
    callbacks = [*([recorder] if recorder else []), *fit.pop("callbacks", [])]
    fit = {"epochs": EPOCHS, "verbose": 0, "callbacks": callbacks} | fit
    if recorder is None:
        shown = model.fit(**fit)
    else:
        with mlflow.start_run() as run:
            shown = model.fit(**fit)
        recorder.run_recorded = run.info.run_id
    return model, shown


def check(make_model, make_fit, n_steps=N * EPOCHS, *, exact_loss=True):
    """Train recorded and bare; gives the recorded model and its history."""
    recorder = mlflow_hp.TrainingRecorder(report=False)
    model, shown = trained(make_model, make_fit(), recorder)
    bare, shown_bare = trained(make_model, make_fit())
    assert same_weights(model, bare)
    assert shown.history.keys() == shown_bare.history.keys()
    for name, values in shown_bare.history.items():
        np.testing.assert_array_equal(shown.history[name], values, err_msg=name)
    history = recorder.history
    assert history.n_steps == n_steps
    steps = history.steps
    assert steps["step"].tolist() == list(range(n_steps))
    first = np.flatnonzero(np.diff(steps["epoch"], prepend=-1))
    assert np.array_equal(steps["batch"], np.arange(n_steps) - np.repeat(first, np.diff(first, append=n_steps)))
    tags = mlflow.get_run(recorder.run_recorded).data.tags
    assert "mlflow_hp.recording_error" not in tags
    if exact_loss:
        last = np.append(first[1:], n_steps) - 1
        assert steps["running_loss"][last].tolist() == shown.history["loss"]
    if history.meta["reader"] == "graph":
        of_epochs = [steps["epoch"] == epoch for epoch in np.unique(steps["epoch"])]
        counted = [np.average(steps["batch_loss"][own], weights=steps["samples"][own]) for own in of_epochs]
        np.testing.assert_allclose(counted, shown.history["loss"], rtol=1e-5)
    assert "mlflow_hp" not in model.train_function.__module__
    return model, history


EXECUTIONS = {
    "graph 1": (False, 1), "graph 3": (False, 3), "graph 50": (False, 50),
    "eager 1": (True, 1), "eager 3": (True, 3), "eager 50": (True, 50),
}  # fmt: skip
"""Whether eagerly, and how many steps an execution takes at most: fewer than an epoch, or more."""
PAIRS = {
    data: ["graph 1", ("graph 3", "graph 50")[place % 2], ("eager 1", "eager 3", "eager 50")[place % 3]]
    for place, data in enumerate(DATA)
}
PAIRS["unknown length"] = PAIRS["endless generator"] = ["graph 1", "graph 3", "graph 50", "eager 3"]
"""Data and executions: any data step by step, several steps in one graph, and eagerly.

Those that end where nobody knows, or never, have an execution cut short and one that would take more than there is.
"""


@pytest.mark.sampled(14)
@pytest.mark.parametrize(("data", "execution"), [(data, each) for data, some in PAIRS.items() for each in some])
def test_data(data, execution):
    eagerly, per_execution = EXECUTIONS[execution]

    def model():
        return regression(run_eagerly=eagerly, steps_per_execution=per_execution)

    epochs = DATA[data]().get("epochs", EPOCHS)
    n_steps = -(-N // per_execution) * per_execution if "endless" in data else N  # Keras takes whole executions
    _, history = check(model, DATA[data], n_steps * epochs)
    expected = np.resize([8, 8, 8, 8, 5], n_steps * epochs)
    assert history.steps["samples"].tolist() == expected.tolist()
    w = history.weights("out/kernel")
    assert (np.diff(w, axis=0) != 0).any(axis=(1, 2)).all()  # each record has the weights of its own step


class Built(keras.Model):
    """Subclassed; its layers are built from the first batch."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, "relu")
        self.out = keras.layers.Dense(1)

    def call(self, x, training=False):
        return self.out(self.hidden(x))


class OwnStep(Built):
    """As in the guide to customizing fit with TensorFlow."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        for metric in self.metrics:
            metric.update_state(loss) if metric.name == "loss" else metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


class OwnLoss(Built):
    """As in the guide to compute_loss."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y_pred[:, 0] - y) ** 2) + 0.1 * sum(keras.ops.sum(w**2) for w in self.trainable_weights)


class Vector(keras.metrics.Metric):
    """A metric whose result is not a number."""

    def update_state(self, y, y_pred, sample_weight=None):
        pass

    def result(self):
        return tf.constant([1.0, 2.0])


class Named(Vector):
    """A metric of several named results."""

    def result(self):
        return {"low": tf.constant(1.0), "high": tf.constant(2.0)}


def seeded(model, **compiled):
    def make():
        keras.utils.set_random_seed(7)
        made = model()
        made.compile(**{"optimizer": "sgd", "loss": "mse"} | compiled)
        return made

    return make


def dictionaries():
    inputs = {name: keras.Input((3,), name=name) for name in ("a", "b")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(joined) for name in ("up", "down")})


def masked():
    layers = [keras.layers.Reshape((3, 1)), keras.layers.Masking(0.0), keras.layers.LSTM(2), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((3,)), *layers])


def plain_network():
    return network(optimizer="sgd")


def half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return plain_network()
    finally:
        keras.config.set_dtype_policy("float32")


def clipped(model):
    return seeded(model, optimizer=keras.optimizers.Adam(0.01, clipnorm=1.0, use_ema=True))()


def measured_by_a_vector(model):
    return seeded(model, metrics=[Vector(name="both")])()


ARRAYS = {"x": X, "y": Y, "batch_size": 8}
CLASSES = ARRAYS | {"y": LABELS}
WAYS = {
    "class_weight, validation_split": (
        network, CLASSES | {"class_weight": {0: 1.0, 1: 5.0}, "validation_split": 0.3, "batch_size": 6}
    ),
    "sample_weight, validation_data, initial_epoch": (
        plain_network,
        CLASSES
        | {"sample_weight": np.linspace(0.1, 2.0, 37).astype("float32"), "initial_epoch": 3, "epochs": 5}
        | {"validation_data": (X, LABELS), "validation_freq": 2},
    ),
    "masks, clipped": (
        lambda: clipped(masked),
        ARRAYS | {"x": np.where(X > 1, 0, X)},
    ),
    "mixed precision": (half_precision, CLASSES),
    "subclassed, a metric that is a vector": (lambda: measured_by_a_vector(Built), ARRAYS),
    "compute_loss": (seeded(OwnLoss), ARRAYS),
    "dictionaries": (
        seeded(dictionaries, loss={"up": "mse", "down": "mae"}),
        {"x": {"a": X, "b": -X}, "y": {"up": Y, "down": -Y}, "batch_size": 8},
    ),
}  # fmt: skip
"""Those that a comma joins meet in different places: the loss, validation, layers, the optimizer, metrics."""


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("way", "execution"),
    [
        *((way, execution) for way in WAYS for execution in ("graph 1", "eager 1")),
        *((way, "graph 3") for way in WAYS if "_weight" in way),  # the batches' weights are summed up in the graph
    ],
)
def test_ways(way, execution):
    make, fit = WAYS[way]

    def model():
        made = make()
        made.run_eagerly, made.steps_per_execution = EXECUTIONS[execution]
        return made

    model_after, history = check(model, lambda: dict(fit))
    assert history.meta["reader"] == ("graph" if "graph" in execution else "host")
    assert "running_both" not in history.steps  # a vector is no number
    assert set(history.steps["learning_rate"]) == {np.float32(model_after.optimizer.learning_rate)}


@pytest.mark.thorough
def test_several_compiled_steps_in_one_execution():
    check(lambda: regression(jit_compile=True, steps_per_execution=50), lambda: dict(ARRAYS))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("eagerly", "per_execution"), [(False, 1), (True, 3), (False, 3)])
def test_own_train_step(eagerly, per_execution):
    make = seeded(OwnStep, metrics=["mae"], run_eagerly=eagerly, steps_per_execution=per_execution)
    _, history = check(make, lambda: {"x": X[:32], "y": Y[:32], "batch_size": 8}, 8)
    assert set(history.steps["samples"]) == {8}
    batches = history.steps["batch_loss"].reshape(2, 4)
    expected = np.cumsum(batches, axis=1) / np.arange(1, 5)
    np.testing.assert_allclose(history.steps["running_loss"].reshape(2, 4), expected, rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.sampled(3)
@pytest.mark.parametrize(("metric", "eagerly"), [(Vector, False), (Named, False), (Named, True)])
def test_metrics_that_are_no_number_under_several_steps(metric, eagerly):
    def model():
        return regression(metrics=[metric(name="both")], steps_per_execution=3, run_eagerly=eagerly)

    if eagerly or metric is Named:
        check(model, lambda: dict(ARRAYS))
        return
    with pytest.warns(RuntimeWarning, match="one record for every 3 steps.*not a scalar"):
        check(model, lambda: dict(ARRAYS), 4)


def test_early_stopping_that_restores_weights():
    def fit():
        stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1, restore_best_weights=True)
        return ARRAYS | {"callbacks": [stop], "epochs": 9}

    check(regression, fit, 2 * N)


def test_fit_called_twice_and_compiled_in_between():
    recorder = mlflow_hp.TrainingRecorder(report=False)

    def twice(callbacks):
        model = plain_network()
        model.fit(X, LABELS, batch_size=8, verbose=0, callbacks=callbacks)
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        model.fit(X[:16], LABELS[:16], batch_size=8, verbose=0, callbacks=callbacks)
        return model

    with mlflow.start_run() as run:
        recorded = twice([recorder])
    assert same_weights(recorded, twice([]))
    assert [mlflow_hp.load_history(run.info.run_id, fit=fit).steps["step"].tolist() for fit in (0, 1)] == [
        [0, 1, 2, 3, 4],
        [5, 6],
    ]


class Stops(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.stop)

    def stop(self, *arguments, **named):
        raise KeyError("the user's callback")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize(
    ("hook", "n_steps"),
    [("on_train_begin", 0), ("on_epoch_begin", 0), ("on_train_batch_end", 1), ("on_epoch_end", 5), ("on_train_end", 5)],
)
def test_an_error_of_the_users_callback_stays_the_users(hook, n_steps, eagerly):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with pytest.raises(KeyError, match="the user's callback"):
        trained(lambda: regression(run_eagerly=eagerly), ARRAYS | {"epochs": 1, "callbacks": [Stops(hook)]}, recorder)
    recorder.close()
    assert (recorder.history.n_steps if recorder.history else 0) == n_steps


@pytest.mark.parametrize("per_execution", [1, 3])
def test_functions_that_are_run_eagerly_everywhere(per_execution):
    tf.config.run_functions_eagerly(True)
    try:
        check(lambda: regression(steps_per_execution=per_execution), lambda: {"x": of_unknown_length()})
    finally:
        tf.config.run_functions_eagerly(False)


class InTheMiddle(keras.callbacks.Callback):
    """Does something before the second epoch."""

    def __init__(self, do):
        super().__init__()
        self.do = do

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.do(self.model)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("per_execution", [1, 3])
@pytest.mark.parametrize("at_first", [False, True])
def test_functions_that_are_run_eagerly_from_the_second_epoch_on(at_first, per_execution):
    def fit():
        tf.config.run_functions_eagerly(at_first)
        return {
            "x": of_unknown_length(),
            "callbacks": [InTheMiddle(lambda _: tf.config.run_functions_eagerly(not at_first))],
        }

    try:
        n_steps = N * EPOCHS if per_execution == 1 or not at_first else N + 2
        check(lambda: regression(steps_per_execution=per_execution), fit, n_steps)
    finally:
        tf.config.run_functions_eagerly(False)
