"""Statistics of validation data that are not in memory, gathered as Keras validates, which computes the same."""

from __future__ import annotations

import h5py
import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (48, 4)).astype("float32")
Y = RNG.integers(0, 3, 48)
X_VAL, Y_VAL = 10 * X[:20], Y[:20]


class Batches(keras.utils.PyDataset):
    """Rows of the validation part, eight at a time, counting how often each is drawn."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.drawn.append(index)
        return X_VAL[8 * index : 8 * index + 8], Y_VAL[8 * index : 8 * index + 8]


def dataset():
    return tf.data.Dataset.from_tensor_slices((X_VAL, Y_VAL)).batch(8)


def generated():
    return (batch for _ in range(3) for batch in dataset().as_numpy_iterator())


@pytest.fixture(autouse=True)
def _in_a_store(store):
    """Record into a store of the test's own."""


class EvaluatesInside(keras.callbacks.Callback):
    """Evaluates other data before and between the validations, and on a batch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.evaluate(X[:5] + 1e6, Y[:5], verbose=0)
        self.model.test_on_batch(X[:3] - 1e6, Y[:3])


def fit(recorder, data, epochs=3, more=(), fits=1, **compiled):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], **compiled)
    callbacks = [*more, *([recorder] if recorder else [])]
    histories = []
    for _ in range(fits):
        part = data()
        steps = 3 if hasattr(part, "gi_frame") else None
        fitted = model.fit(X, Y, validation_data=part, validation_steps=steps, epochs=epochs, verbose=0,
                           callbacks=callbacks)  # fmt: skip
        histories.append(fitted.history)
    return model, histories, part


def recorded(data, **settings):
    recorder = mlflow_hp.TrainingRecorder(report=False, log_datasets=False)
    with mlflow.start_run():
        return recorder, *fit(recorder, data, **settings)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("data", "compiled"),
    [
        (dataset, {}),
        (dataset, {"run_eagerly": True}),
        (dataset, {"jit_compile": False}),
        (Batches, {}),
        (generated, {}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_statistics_are_those_of_the_first_validation_and_training_is_the_same(data, compiled):
    epochs = 1 if data is generated else 3  # Keras draws from a generator in advance: later epochs lose what they get
    recorder, model, histories, part = recorded(data, epochs=epochs, **compiled)
    (inputs,), (labels,) = recorder.history.program.validation
    assert (inputs.n_samples, inputs.n_batches) == (20, 3)
    np.testing.assert_allclose(inputs.mean, X_VAL.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(inputs.max, X_VAL.max(axis=0))
    assert labels.counts == dict(enumerate(np.bincount(Y_VAL).tolist()))
    bare, expected, undisturbed = fit(None, data, epochs=epochs, **compiled)
    assert histories == expected
    for one, other in zip(model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert getattr(part, "drawn", None) == getattr(undisturbed, "drawn", None)


@pytest.mark.thorough
def test_evaluations_of_the_users_between_are_neither_counted_nor_changed():
    recorder, model, histories, _ = recorded(dataset, more=[EvaluatesInside()], fits=2)
    (inputs,), _ = recorder.history.program.validation
    assert inputs.n_samples == 20
    assert max(inputs.max) < 1e3
    bare, expected, _ = fit(None, dataset, more=[EvaluatesInside()], fits=2)
    assert histories == expected
    assert model.evaluate(X, Y, verbose=0) == bare.evaluate(X, Y, verbose=0)
    assert "ValidationReader" not in repr(model.test_function)


def test_a_validation_on_another_scale_is_found_in_a_dataset():
    recorder, *_ = recorded(dataset)
    verdicts = [finding.verdict for finding in mlflow_hp.diagnose(recorder.history)]
    assert "another scale" in verdicts


@pytest.mark.thorough
def test_where_the_test_function_cannot_be_replaced_nothing_is_said():
    recorder, _, histories, _ = recorded(dataset, steps_per_execution=2)
    assert recorder.history.program.validation is None
    assert histories == fit(None, dataset, steps_per_execution=2)[1]


def test_an_error_in_a_validation_is_the_users_and_the_test_function_is_back():
    broken = dataset().map(lambda x, y: (tf.debugging.check_numerics(x / 0, "broken"), y))
    recorder = mlflow_hp.TrainingRecorder(report=False, log_datasets=False)
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with mlflow.start_run(), pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(X, Y, validation_data=broken, verbose=0, callbacks=[recorder])
    recorder.close()
    assert "ValidationReader" not in repr(model.test_function)
    assert recorder.history.n_steps == 2


def test_arrays_in_files_are_not_read_for_it(tmp_path, monkeypatch):
    reads = []
    read = h5py.Dataset.__array__
    monkeypatch.setattr(h5py.Dataset, "__array__", lambda *args, **named: reads.append(0) or read(*args, **named))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        data = file.create_dataset("x", data=X_VAL), file.create_dataset("y", data=Y_VAL)
        fit(None, lambda: data, epochs=1)
        n_of_keras = len(reads)
        recorder, *_ = recorded(lambda: data, epochs=1)
    assert len(reads) == 2 * n_of_keras
    assert recorder.history.program.validation.inputs[0].n_samples == 20
