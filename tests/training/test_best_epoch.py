"""The best epoch beside the last: which it is, in metrics and tags, over all fits of a run, and after a kill."""

from __future__ import annotations

import math

import keras
import mlflow
import pytest

import mlflow_hp
from mlflow_hp.errors import RecordingWarning
from mlflow_hp.training import recovery
from mlflow_hp.training.best_epoch import Monitors
from tests.helpers.fits import X, Y, regression, wait_for_the_rest
from tests.helpers.interrupted_recordings import leave

NAN = math.nan


class Logs(keras.callbacks.Callback):
    """Replaces values of an epoch's logs by given ones, in place before all other callbacks."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: series[epoch] for name, series in self.values.items()})


def stopping(monitor="val_loss", restores=False, patience=9, **more):
    return keras.callbacks.EarlyStopping(monitor, patience=patience, restore_best_weights=restores, **more)


def fit(series, *callbacks, model=None, **more):
    """Train for as many epochs as the series are long; returns the recorder."""
    recorder = mlflow_hp.TrainingRecorder(report=False)
    model = model or regression(metrics=["mae", keras.metrics.R2Score()], run_eagerly=True)
    epochs = more.get("initial_epoch", 0) + len(next(iter(series.values())))
    padded = {name: [NAN] * more.get("initial_epoch", 0) + values for name, values in series.items()}
    model.fit(X, Y[:, None], batch_size=37, epochs=epochs, verbose=0,
              callbacks=[Logs(**padded), recorder, *callbacks], **more)  # fmt: skip
    return recorder


@pytest.fixture(scope="module")
def trained():
    model = regression(metrics=["mae", keras.metrics.R2Score()])
    model.fit(X, Y[:, None], verbose=0)
    return model


def best_of(store, run):
    wait_for_the_rest()
    data = store.get_run(run.info.run_id).data
    metrics = {name.removeprefix("best/"): value for name, value in data.metrics.items() if name.startswith("best/")}
    return metrics, data.tags.get("mlflow_hp.best_by"), data.tags.get("mlflow_hp.saved_model")


LOSS, VAL, R2 = [5.0, 4.0, 3.0, 2.0], [4.0, 1.0, 2.0, 3.0], [0.1, 0.2, 0.9, 0.3]


def saving(folder, monitor="val_loss", save_best_only=True, **more):
    file = folder / "model.weights.h5"
    return keras.callbacks.ModelCheckpoint(file, monitor, save_best_only=save_best_only, save_weights_only=True, **more)


@pytest.mark.parametrize(
    ("series", "make_callbacks", "epoch", "by", "saved"),
    [
        ({"loss": LOSS}, lambda _: [], 3, "min loss", "last"),
        ({"loss": LOSS, "val_loss": VAL}, lambda _: [], 1, "min val_loss", "last"),
        ({"loss": LOSS, "val_loss": VAL}, lambda _: [stopping("loss")], 3, "min loss", "last"),
        ({"val_loss": VAL, "r2_score": R2}, lambda _: [stopping("r2_score")], 2, "max r2_score", "last"),
        ({"val_loss": VAL, "mine": R2}, lambda _: [stopping("mine", mode="min")], 0, "min mine", "last"),
        ({"val_loss": VAL}, lambda _: [stopping(restores=True)], 1, "min val_loss", "best"),
        ({"val_loss": VAL}, lambda _: [stopping(restores=True, start_from_epoch=2)], 2, "min val_loss", "best"),
        ({"val_loss": VAL}, lambda _: [stopping(restores=True, start_from_epoch=9)], 1, "min val_loss", "last"),
        ({"val_loss": VAL, "r2_score": R2}, lambda f: [stopping(), saving(f, "r2_score")], 2, "max r2_score", "best"),
        ({"val_loss": VAL}, lambda f: [saving(f, initial_value_threshold=0.5)], 1, "min val_loss", "last"),
        ({"val_loss": VAL}, lambda f: [saving(f, save_best_only=False)], 1, "min val_loss", "last"),
        ({"val_loss": [3.0, 1.0, 1.0]}, lambda _: [], 1, "min val_loss", "last"),
        ({"val_loss": [NAN, NAN], "loss": [2.0, 1.0]}, lambda _: [], 1, "min loss", "last"),
        ({"val_loss": [math.inf, 2.0, NAN]}, lambda _: [], 1, "min val_loss", "last"),
    ],
)  # fmt: skip
def test_which_epoch_is_the_best(trained, tmp_path, series, make_callbacks, epoch, by, saved):
    callbacks = make_callbacks(tmp_path)
    monitors = Monitors([keras.callbacks.TerminateOnNaN(), *callbacks])
    hooks = keras.callbacks.CallbackList(callbacks, model=trained)
    hooks.on_train_begin()
    rows = [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]
    for number, row in enumerate(rows):
        hooks.on_epoch_begin(number)
        hooks.on_epoch_end(number, row)
    best = monitors.best_epoch([{"epoch": i, **row} for i, row in enumerate(rows)], monitors.restored_epoch)
    assert (best.epoch, best.by.text, best.saved) == (epoch, by, saved)
    assert best.values == {n: values[epoch] for n, values in series.items() if not all(map(math.isnan, values))}


def test_what_the_run_holds(store, tmp_path):
    with mlflow.start_run() as run:
        recorder = fit({"val_loss": VAL, "r2_score": R2, "odd": [NAN] * 4}, stopping(), saving(tmp_path, "r2_score"))
    metrics, by, saved = best_of(store, run)
    assert (by, saved) == ("max r2_score", "best")
    mae, loss = (recorder.history.epochs[name][2] for name in ("mae", "loss"))
    assert metrics == {"epoch": 2, "val_loss": 2.0, "r2_score": 0.9, "mae": mae, "loss": loss}


def test_there_is_no_best_without_a_number(store):
    with mlflow.start_run() as run:
        recorder = fit({"loss": [NAN, NAN]})
        recorder.model.fit(X, Y[:, None], epochs=0, verbose=0, callbacks=[recorder])
    assert best_of(store, run) == ({}, None, None)
    assert recorder.best is None


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("series", "make_callbacks", "epoch", "value", "saved"),
    [
        (([3.0, 1.0], [2.0, 4.0]), list, 1, 1.0, "last"),
        (([3.0, 2.0], [1.0, 4.0]), list, 2, 1.0, "last"),
        (([3.0, 1.0], [2.0, 4.0]), lambda: [stopping(restores=True)], 1, 1.0, "last"),  # keeps the 2.0 of the second
        (([3.0, 2.0], [1.0, 4.0]), lambda: [stopping(restores=True)], 2, 1.0, "best"),
    ],
)
def test_several_fits_of_a_run_have_one_best(store, series, make_callbacks, epoch, value, saved):
    with mlflow.start_run() as run:
        for values in series:
            fit({"val_loss": values}, *make_callbacks())
    metrics, by, told_saved = best_of(store, run)
    assert (metrics["epoch"], metrics["val_loss"], by, told_saved) == (epoch, value, "min val_loss", saved)


def test_a_checkpoint_that_goes_on_keeps_the_best_of_the_run(store, tmp_path):
    checkpoint = saving(tmp_path)
    with mlflow.start_run() as run:
        for values in ([3.0, 1.0], [2.0, 4.0]):
            fit({"val_loss": values}, checkpoint)
    metrics, _, saved = best_of(store, run)
    assert (metrics["epoch"], saved) == (1, "best")


def test_a_fit_judged_by_another_metric_looks_at_all_epochs(store):
    with mlflow.start_run() as run:
        fit({"loss": [1.0, 2.0], "mae": [7.0, 8.0]}, stopping("mae"))
        fit({"loss": [3.0, 4.0], "mae": [1.0, 2.0]})
    metrics, by, _ = best_of(store, run)
    assert (metrics["epoch"], metrics["loss"], metrics["mae"], by) == (0, 1.0, 7.0, "min loss")


def test_a_fit_that_an_error_ends_has_a_best_epoch(store):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), mlflow.start_run() as run:
        fit({"val_loss": VAL}, stopping(restores=True), Breaks())
    metrics, _, saved = best_of(store, run)
    assert (metrics["epoch"], metrics["val_loss"], saved) == (1, 1.0, "last")  # nothing was restored


def test_a_killed_fit_has_one_after_its_recovery(store, monkeypatch, tmp_path):
    run_id, _ = leave(monkeypatch, tmp_path)
    (left,) = recovery.left_behind()
    recovery.recover(left)
    with mlflow.start_run(run_id=run_id) as run:
        pass
    metrics, by, saved = best_of(store, run)
    assert metrics == {"epoch": 2, "loss": pytest.approx(0.5 / 3)}
    assert (by, saved) == ("min loss", "last")


def test_what_a_fit_noted_at_its_end_survives_a_server_that_is_away(store, monkeypatch):
    """The best of a fit whose end could not be sent is that by its own criterion."""

    def refuse(*_):
        raise mlflow.exceptions.MlflowException("away")

    with monkeypatch.context() as patched, mlflow.start_run() as run:
        patched.setattr("mlflow_hp.training.fit_end.log_best", refuse)
        with pytest.warns(RecordingWarning, match="the best epoch"):
            fit({"val_loss": VAL, "r2_score": R2}, stopping("r2_score", restores=True))
    assert best_of(store, run) == ({}, None, None)
    (left,) = recovery.left_behind()
    recovery.recover(left)
    metrics, by, saved = best_of(store, run)
    assert (metrics["epoch"], by, saved) == (2, "max r2_score", "best")


@pytest.mark.sampled(9)
@pytest.mark.parametrize(
    ("series", "callbacks", "more", "restored"),
    [
        ([4.0, 1.0, 2.0, 3.0, 4.0], [stopping(restores=True, patience=1)], {}, 1),  # stopped early
        ([4.0, 3.0, 2.0, 1.0], [stopping(restores=True)], {}, 3),  # not stopped: Keras restores all the same
        ([1.0, 4.0, 3.0, 2.0], [stopping(restores=True, start_from_epoch=1)], {}, 3),
        ([4.0, 1.0, 2.0], [stopping(restores=True)], {"initial_epoch": 5}, 6),
        ([1.0, 2.0], [stopping(restores=True, start_from_epoch=2)], {}, None),  # none was monitored
        ([1.0, 2.0], [stopping()], {}, None),
        ([1.0, 2.0], [stopping(restores=True), stopping(restores=True, start_from_epoch=1)], {}, 1),  # the last wins
    ],
)
def test_the_restored_epoch_is_the_one_whose_weights_the_model_has(store, series, callbacks, more, restored):
    weights = {}
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _: weights.update({epoch: model.get_weights()[0].tobytes()})
    )
    model = regression()
    with mlflow.start_run() as run:
        recorder = fit({"val_loss": series}, keep, *callbacks, model=model, **more)
    final = [epoch for epoch, values in weights.items() if values == model.get_weights()[0].tobytes()]
    assert (restored if restored is not None else max(weights)) in final
    assert recorder.restored_epoch == restored
    wait_for_the_rest()
    tag = store.get_run(run.info.run_id).data.tags.get("mlflow_hp.restored_epoch")
    assert tag == (None if restored is None else str(restored))


def test_the_restored_epoch_of_a_second_fit(store):
    with mlflow.start_run() as run:
        tags = []
        for callbacks in ([stopping(restores=True)], [stopping(restores=True)], []):
            fit({"val_loss": [1.0, 2.0]}, *callbacks)
            wait_for_the_rest()
            tags.append(store.get_run(run.info.run_id).data.tags.get("mlflow_hp.restored_epoch"))
    assert tags == ["0", "2", None]


def test_checkpoints_and_backups_restore_nothing_at_the_end(store, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with mlflow.start_run() as run:
        recorder = fit({"val_loss": [1.0, 2.0]}, saving(tmp_path), backup)
    assert recorder.restored_epoch is None
    assert "mlflow_hp.restored_epoch" not in store.get_run(run.info.run_id).data.tags


def test_a_loop_of_the_programs_own_has_a_best_epoch(store):
    model = regression()
    with mlflow.start_run() as run, mlflow_hp.record_steps(model, report=False) as steps:
        for loss in (3.0, 1.0, 2.0):
            steps.record(loss=model.train_on_batch(X, Y))
            steps.end_epoch(val_loss=loss)
    assert best_of(store, run) == ({"epoch": 1, "val_loss": 1.0}, "min val_loss", "last")


def test_names_that_mlflow_refuses_or_shortens(store):
    long = "m" * 248
    with mlflow.start_run() as run:
        fit({"val_loss": [2.0, 1.0], "top(5)": [1.0, 2.0], long: [3.0, 4.0]})
    metrics, _, _ = best_of(store, run)
    assert metrics["top_5_"] == 2.0
    assert [value for name, value in metrics.items() if name.startswith("mmm")] == [4.0]
