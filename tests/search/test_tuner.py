"""record_tuner: the runs of a KerasTuner tuner's trials, and that nothing of the search changes."""

from __future__ import annotations

import warnings

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.errors import UserError
from tests.helpers.searches import children, nothing_runs, pictures, points, text

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, of the libraries that it needs
    keras_tuner = pytest.importorskip("keras_tuner")

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

X = np.linspace(-1, 1, 16)[:, None]


def build(hp):
    keras.utils.set_random_seed(hp.Int("seed", 0, 5))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.01, 0.5, sampling="log")), "mse")
    return model


def random_tuner(folder, **settings):
    settings = {"max_trials": 2, "executions_per_trial": 2, "seed": 1, "objective": "val_loss"} | settings
    return keras_tuner.RandomSearch(build, directory=folder, project_name="p", **settings)


def search(tuner):
    tuner.search(X, 2 * X, epochs=2, validation_data=(X, 2 * X), verbose=0)
    return [(trial.trial_id, trial.status, trial.score, trial.hyperparameters.values) for trial in trials(tuner)]


def trials(tuner):
    return sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)


@pytest.mark.usefixtures("blank_pictures")
def test_each_trial_has_a_run_with_the_curves_of_its_executions(store, tmp_path):
    tuner = random_tuner(tmp_path / "recorded")
    with mlflow_hp.record_tuner(tuner) as recording:
        of_recorded = search(tuner)
    assert of_recorded == search(random_tuner(tmp_path / "bare"))
    runs, parent = children(store, recording.run_id), store.get_run(recording.run_id)
    for run, trial in zip(runs, trials(tuner), strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.params == {name: str(value) for name, value in trial.hyperparameters.values.items()}
        curves = [points(store, run, f"fold_{execution}/val_loss") for execution in range(2)]
        assert [list(curve) for curve in curves] == [[0, 1]] * 2
        assert points(store, run, "test_neg_val_loss") == {n: -min(curve.values()) for n, curve in enumerate(curves)}
        assert run.data.metrics["value"] == trial.score == pytest.approx(-run.data.metrics["mean_test_neg_val_loss"])
    best = min(trials(tuner), key=lambda trial: trial.score)
    assert parent.data.tags["mlflow_hp.best_run_id"] == runs[int(best.trial_id)].info.run_id
    assert (parent.data.tags["mlflow_hp.planned"], parent.data.tags["mlflow_hp.done"]) == ("2", "2")
    assert (parent.data.params["tuner"], parent.data.params["direction"]) == ("RandomSearch", "minimize")
    assert "over 2 executions" in parent.data.tags["mlflow.note.content"]
    assert "scores_by_fold.png" in pictures(store, recording.run_id)
    assert len(text(parent, "trials.csv").splitlines()) == 3
    assert "run_trial" not in vars(keras_tuner.RandomSearch)


@pytest.mark.thorough
@pytest.mark.slow
def test_hyperband(store, tmp_path):
    def tuner(folder):
        return keras_tuner.Hyperband(
            build, objective="val_loss", max_epochs=2, factor=2, seed=1, directory=tmp_path / folder, project_name="p"
        )

    hyperband = tuner("recorded")
    with mlflow_hp.record_tuner(hyperband, report=False) as recording:
        of_recorded = search(hyperband)
    assert of_recorded == search(tuner("bare"))
    runs = children(store, recording.run_id)
    assert len(runs) == len(of_recorded) > 2
    for run, trial in zip(runs, trials(hyperband), strict=True):
        values = trial.hyperparameters.values
        epochs = [*range(values["tuner/initial_epoch"], values["tuner/epochs"])]
        assert list(points(store, run, "fold_0/loss")) == epochs
        assert run.data.params["tuner/bracket"] == str(values["tuner/bracket"])


class Own(keras_tuner.RandomSearch):
    """A tuner whose trials are numbers, dicts, failures, or a training of its own."""

    kind = "number"

    def run_trial(self, trial, *arguments, **named):
        a = trial.hyperparameters.Float("a", 0, 1)
        number = int(trial.trial_id)
        mlflow.log_metric("mine", a)
        if self.kind == "failing" and number == 1:
            raise ValueError("not one")
        if self.kind == "retried" and number == 1 and not self.tried:
            self.tried = True
            raise ValueError("not at once")
        if self.kind == "interrupted" and number == 1:
            raise KeyboardInterrupt
        if self.kind == "fatal" and number == 1:
            raise keras_tuner.errors.FatalValueError("no more")
        if self.kind == "nan" and number == 1:
            return float("nan")
        return {"number": a, "dict": {"accuracy": a}}.get(self.kind, a)

    tried = False


def own(tmp_path, kind, **settings):
    settings = {"max_trials": 3, "seed": 1, "overwrite": True} | settings
    tuner = Own(directory=tmp_path, project_name="p", **settings)
    tuner.kind = kind
    return tuner


@pytest.mark.parametrize(
    ("kind", "statuses", "settings"),
    [
        ("number", ["FINISHED"] * 3, {}),
        ("dict", ["FINISHED"] * 3, {"objective": keras_tuner.Objective("accuracy", "max")}),
        ("failing", ["FINISHED", "FAILED", "FINISHED"], {}),
        ("nan", ["FINISHED", "FAILED", "FINISHED"], {}),
        ("retried", ["FINISHED"] * 3, {"max_retries_per_trial": 1}),
    ],
)
def test_trials_of_the_users_own(store, tmp_path, kind, statuses, settings):
    tuner = own(tmp_path, kind, **settings)
    with mlflow_hp.record_tuner(tuner, report=False) as recording:
        tuner.search(verbose=0)
    runs = children(store, recording.run_id)
    assert [run.info.status for run in runs] == statuses
    for run, trial in zip(runs, trials(tuner), strict=True):
        assert run.data.metrics["mine"] == float(run.data.params["a"]) == trial.hyperparameters.values["a"]
        if run.info.status == "FINISHED":
            mean = "mean_test_accuracy" if kind == "dict" else "mean_test_neg_value"
            assert run.data.metrics["value"] == trial.score == abs(run.data.metrics[mean])
    if kind in ("failing", "retried"):
        assert "ValueError: not" in text(runs[1], "error/traceback.txt")
    assert nothing_runs(store, recording.run_id)


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("interrupted", KeyboardInterrupt, "KILLED"),
        ("fatal", keras_tuner.errors.FatalValueError, "FAILED"),
    ],
)
def test_what_ends_a_search(store, tmp_path, kind, error, status):
    tuner = own(tmp_path, kind)
    with pytest.raises(error), mlflow_hp.record_tuner(tuner, report=False) as recording:
        tuner.search(verbose=0)
    assert [run.info.status for run in children(store, recording.run_id)] == ["FINISHED", status]
    assert store.get_run(recording.run_id).info.status == status


def test_a_tuner_that_is_loaded_gets_only_its_new_trials(store, tmp_path):
    tuner = own(tmp_path, "number", max_trials=2)
    with mlflow_hp.record_tuner(tuner, report=False) as recording:
        tuner.search(verbose=0)
    again = own(tmp_path, "number", max_trials=3, overwrite=False)
    with mlflow_hp.record_tuner(again, report=False, resume=recording.run_id):
        again.search(verbose=0)
    runs, parent = children(store, recording.run_id), store.get_run(recording.run_id)
    assert [int(run.data.tags["mlflow_hp.candidate"]) for run in runs] == [0, 1, 2]
    assert len(text(parent, "trials.csv").splitlines()) == 4
    assert parent.data.tags["mlflow_hp.done"] == "3"


def test_what_is_no_tuner():
    with pytest.raises(UserError, match="is a int, not a tuner"), mlflow_hp.record_tuner(3):
        pass
