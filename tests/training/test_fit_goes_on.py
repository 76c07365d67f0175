"""No error of ours leaves fit, wherever it comes from: the training is the bare one, and the user is told."""

from __future__ import annotations

import functools
import importlib
import warnings

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from tests.helpers.fits import X, Y, bare, record, regression, same_weights

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]


def data():
    """Five batches of a number that Keras cannot know."""

    def batches():
        for start in range(0, len(X), 8):
            yield X[start : start + 8], Y[start : start + 8]

    spec = (tf.TensorSpec((None, 3)), tf.TensorSpec((None,)))
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


FIT = {"batch_size": None, "shuffle": False}
WAYS = {
    "graph": {"steps_per_execution": 3},
    "eager": {"run_eagerly": True, "steps_per_execution": 3},
}


def model(way="graph", **more):
    return regression(**{**WAYS.get(way, {}), **more})


@functools.cache
def bare_weights(way):
    return bare(model(way), data(), None, **FIT)


class OwnStep(keras.Sequential):
    def train_step(self, batch):
        return super().train_step(batch)


BROKEN = [
    ("any", "mlflow_hp.tracking.runs.find_run"),
    ("any", "mlflow_hp.training.earlier_recordings.recover_quietly"),
    ("any", "mlflow_hp.training.session.hyperparameters"),
    ("any", "mlflow_hp.training.session.optimizer_settings"),
    ("any", "mlflow_hp.training.session.provenance.versions"),
    ("any", "mlflow_hp.tracking.runs.run_tags"),
    ("any", "mlflow_hp.training.session.local_folder"),
    ("any", "mlflow_hp.training.session.FitRecording.describe"),
    ("any", "mlflow_hp.training.session.FitRecording.open"),
    ("any", "mlflow_hp.training.session.FitRecording.add"),
    ("any", "mlflow_hp.training.session.FitRecording.add_epoch"),
    ("any", "mlflow_hp.training.session.FitRecording.finish_history"),
    ("any", "mlflow_hp.training.session.FitRecording.flush"),
    ("any", "mlflow_hp.training.session.FitSession.begin_epoch"),
    ("any", "mlflow_hp.training.session.FitSession.end_epoch"),
    ("any", "mlflow_hp.training.session.FitSession._send_to_mlflow"),
    ("any", "mlflow_hp.training.fit_end.FitEnd.send"),
    ("any", "mlflow_hp.training.fit_epochs.numbers_of"),
    ("any", "mlflow_hp.training.callback.exit_on_sigterm"),
    ("any", "mlflow_hp.training.capture.steps.steps_pass_python"),
    ("any", "mlflow_hp.training.capture.steps.Steps.start"),
    ("any", "mlflow_hp.training.capture.steps.Steps.fetch"),
    ("graph", "mlflow_hp.training.capture.steps.why_host"),
    ("graph", "mlflow_hp.training.capture.graph_reader.refuses_its_clock"),
    ("graph", "mlflow_hp.training.capture.graph_reader.GraphReader.start"),
    ("graph", "mlflow_hp.training.capture.graph_reader.GraphReader.prepare"),
    ("graph", "mlflow_hp.training.capture.graph_reader.GraphReader.make_room"),
    ("graph", "mlflow_hp.training.capture.graph_reader.GraphReader.read"),
    ("graph", "mlflow_hp.training.capture.graph_reader.GraphReader._recorded_step"),
    ("graph", "mlflow_hp.training.capture.step_buffers.StepBuffers.__init__"),
    ("graph", "mlflow_hp.training.capture.step_buffers.StepBuffers.write"),
    ("graph", "mlflow_hp.training.capture.step_buffers.StepBuffers.take"),
    ("graph", "mlflow_hp.training.capture.train_step.leaves_of"),
    ("graph", "mlflow_hp.training.capture.graph_reader.leaves_of"),
    ("eager", "mlflow_hp.training.capture.steps.train_function_around"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader.start"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader.prepare"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader.make_room"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader.before"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader.read"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader.read_step"),
    ("eager", "mlflow_hp.training.capture.host_reader.HostReader._pass_on"),
    ("eager", "mlflow_hp.training.capture.host_reader.tensors_of"),
    ("eager", "mlflow_hp.training.capture.host_reader.initial_weights"),
    *(
        (way, f"mlflow_hp.training.capture.step_values.{name}")
        for way in ("graph", "eager")
        for name in ("metrics_of", "optimizers_of", "StepWatch._note_update", "StepWatch._note_step", "_mean_of")
    ),
]


def break_it(monkeypatch, where, error):
    """Have a function raise, from its first call on."""
    holder, name = where.rsplit(".", 1)
    try:
        owner = importlib.import_module(holder)
    except ModuleNotFoundError:
        module, cls = holder.rsplit(".", 1)
        owner = getattr(importlib.import_module(module), cls)

    def broken(*_, **__):
        raise error

    monkeypatch.setattr(owner, name, broken)


@pytest.mark.sampled(22)
@pytest.mark.usefixtures("warnings_are_errors")
@pytest.mark.parametrize(
    ("way", "where"), BROKEN, ids=[f"{way}-{where.removeprefix('mlflow_hp.')}" for way, where in BROKEN]
)
def test_whatever_of_ours_fails(monkeypatch, caplog, store, way, where):
    """Also where each of our warnings would be an error."""
    way = "eager" if way == "any" else way
    expected = bare_weights(way)
    break_it(monkeypatch, where, KeyError("it is ours"))
    fitted_model = model(way)
    with mlflow.start_run() as run:
        fitted_model.fit(
            data(), epochs=2, verbose=0, shuffle=False, callbacks=[mlflow_hp.TrainingRecorder(report=False)]
        )
    monkeypatch.undo()
    assert same_weights(fitted_model, expected)
    assert "it is ours" in caplog.text
    assert "mlflow_hp" not in fitted_model.train_function.__module__
    assert "make_train_function" not in vars(fitted_model)
    assert store.get_run(run.info.run_id).info.status == "FINISHED"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("way", "call"), [("graph", 2), ("eager", 3), ("eager", 4)])
def test_what_fails_later_loses_no_batch(monkeypatch, way, call):
    """The record ends there, with what was read before; the training does not notice."""
    where = {"graph": "graph_reader.GraphReader.make_room", "eager": "host_reader.HostReader.read_step"}[way]
    module, cls, name = where.split(".")
    owner = getattr(importlib.import_module(f"mlflow_hp.training.capture.{module}"), cls)
    real, calls = getattr(owner, name), []

    def fails_later(*arguments):
        calls.append(arguments)
        if len(calls) >= call:
            raise KeyError("it is ours")
        return real(*arguments)

    monkeypatch.setattr(owner, name, fails_later)
    with pytest.warns(RuntimeWarning, match="recording ended early.*it is ours"):
        fitted = record(model(way), data(), None, **FIT)
    assert same_weights(fitted.model, bare_weights(way))
    assert fitted.history.n_steps == {"graph": 3, "eager": call - 1}[way]
    w = fitted.history.weights("out/kernel")
    assert (np.diff(w, axis=0) != 0).any(axis=(1, 2)).all()


class InTheMiddle(keras.callbacks.Callback):
    def __init__(self, do, hook="on_epoch_begin"):
        super().__init__()
        self.do = do
        setattr(self, hook, self.in_second_epoch)

    def in_second_epoch(self, epoch, logs=None):
        if epoch == 1:
            self.do(self.model)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("per_execution", [1, 3])
def test_determinism_that_is_enabled_in_the_middle(per_execution):
    from tensorflow.python.framework import config

    enable = InTheMiddle(lambda _: config.enable_op_determinism())
    try:
        with pytest.warns(RuntimeWarning, match="determinism was enabled during the fit"):
            fitted = record(model(steps_per_execution=per_execution), data(), None, callbacks=[enable], **FIT)
        config.disable_op_determinism()
        assert same_weights(fitted.model, bare(model(steps_per_execution=per_execution), data(), None, **FIT))
        assert fitted.history.n_steps == 5
    finally:
        config.disable_op_determinism()


def test_settings_that_were_changed_for_worse_are_named():
    recorder = mlflow_hp.TrainingRecorder()
    recorder.weights = "some"
    with mlflow.start_run(), pytest.raises(mlflow_hp.UserError, match="weights='some'"):
        regression().fit(X, Y, verbose=0, callbacks=[recorder])


LOGS = {"a date": "2026-11-26", "none": None, "complex": 1j, "list": [1.0, 2.0], 7: 0.5, "epoch": 77.0, "seconds": 3.5}


class Adds(keras.callbacks.Callback):
    """Adds to the logs what Keras would not."""

    def on_epoch_end(self, epoch, logs=None):
        logs.update(LOGS)


def test_logs_that_are_no_numbers_or_called_as_ours(store):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    fitted = record(model("eager"), data(), None, recorder, **FIT)
    with mlflow.start_run() as run:
        model("eager").fit(data(), epochs=2, verbose=0, shuffle=False, callbacks=[Adds(), recorder])
    metrics = store.get_run(run.info.run_id).data.metrics
    added = metrics.keys() - store.get_run(fitted.run_id).data.metrics.keys()
    assert {name for name in added if not name.startswith("best/")} == {"7", "epoch_2", "seconds_2"}
    assert (metrics["epoch_2"], metrics["seconds_2"]) == (77.0, 3.5)
    assert recorder.history.epochs["epoch"].tolist() == [0, 1]


class Wraps(keras.callbacks.Callback):
    """Wraps the model's train function, as profilers do, before or behind the recorder."""

    def on_train_begin(self, logs=None):
        inner, self.calls = self.model.train_function, 0

        @functools.wraps(inner)
        def counted(*arguments):
            self.calls += 1
            return inner(*arguments)

        self.model.train_function = counted


def test_a_train_function_that_the_user_has_wrapped_is_called():
    wraps, recorder, made = Wraps(), mlflow_hp.TrainingRecorder(report=False), model("plain")
    with mlflow.start_run(), pytest.warns(RuntimeWarning, match="train function has been replaced"):
        made.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[wraps, recorder])
    assert wraps.calls == recorder.history.n_steps == 10
    assert same_weights(made, bare(model("plain")))


def test_a_user_who_wraps_ours_keeps_a_function_that_only_trains():
    wraps, recorder, made = Wraps(), mlflow_hp.TrainingRecorder(report=False), model("plain")
    with mlflow.start_run():
        made.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder, wraps])
    bare(made)
    assert same_weights(made, bare(bare(model("plain"))))
    assert (wraps.calls, recorder.history.n_steps) == (20, 10)


def test_two_recorders_in_one_fit(store):
    made = model("plain")
    runs = [store.create_run(mlflow.get_experiment_by_name("tests").experiment_id).info.run_id for _ in range(2)]
    recorders = [mlflow_hp.TrainingRecorder(run_id, report=False) for run_id in runs]
    with pytest.warns(RuntimeWarning, match="of its own|replaced"):
        made.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=recorders)
    assert [recorder.history.n_steps for recorder in recorders] == [10, 10]
    assert same_weights(made, bare(model("plain")))
    assert "mlflow_hp" not in made.train_function.__module__
    assert "make_train_function" not in vars(made)


class Nested(mlflow_hp.TrainingRecorder):
    """A recorder of the user's own, with more to do."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)


def test_a_subclass_closes_a_fit_that_was_left_too():
    recorder = Nested(report=False)

    def leave(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), mlflow.start_run():
        model("plain").fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder, InTheMiddle(leave)])
    import gc

    gc.collect()
    assert recorder.history.n_steps == 5


def test_numpy_that_raises_is_the_users(monkeypatch):
    with np.errstate(all="raise"):
        fitted = record(
            regression(run_eagerly=True), recorder=mlflow_hp.TrainingRecorder(weights="statistics", report=False)
        )
    assert fitted.history.n_steps == 10


def test_an_error_of_the_model_is_told_by_keras_alone(caplog):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always", mlflow_hp.RecordingWarning)
        with pytest.raises(ValueError, match="incompatible with the layer"):
            record(regression(), X[:, :2])
    assert not [each for each in shown if each.category is mlflow_hp.RecordingWarning]
    assert "read from the host" not in caplog.text


@pytest.mark.parametrize("way", ["graph", "eager"])
def test_a_program_that_turns_warnings_into_errors_is_recorded(way):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = record(model(way))
    assert fitted.history.n_steps == 10
    assert np.isfinite(fitted.history.steps["learning_rate"]).all()
