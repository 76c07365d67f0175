"""record_study: the runs of an Optuna study's trials, and that nothing of the study changes."""

from __future__ import annotations

import math
import os
import subprocess
import threading
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.training import recovery
from tests.helpers.forked_python import python, wait_for_end
from tests.helpers.search_faults import OUTAGES
from tests.helpers.searches import children, nothing_runs, pictures, points, text
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def study_of(direction="minimize", seed=0, **settings):
    settings = {"sampler": optuna.samplers.TPESampler(seed=seed, n_startup_trials=3)} | settings
    return optuna.create_study(direction=direction, **settings)


def bowl(trial):
    x = trial.suggest_float("x", -2, 2)
    trial.set_user_attr("half", x / 2)
    if trial.number == 4:
        raise ValueError("not four")
    if trial.number == 5:
        return math.nan
    for step in range(3):
        trial.report(x**2 + step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x**2 + (trial.suggest_categorical("kind", ["a", "b"]) == "a")


def recorded(study, objective=bowl, *, report=False, **settings):
    settings = {"n_trials": 12, "catch": (ValueError,)} | settings
    with mlflow_hp.record_study(study, report=report) as recording:
        study.optimize(objective, **settings)
    return recording.run_id


def same(one, other):
    def plain(study):
        return [
            (t.number, t.state, t.params, repr(t.values), t.user_attrs, t.intermediate_values) for t in study.trials
        ]

    assert plain(one) == plain(other)


@pytest.mark.usefixtures("blank_pictures")
def test_each_trial_has_a_run_with_all_that_the_study_has(store):
    pruner = optuna.pruners.ThresholdPruner(upper=5.5)
    study, bare = study_of(pruner=pruner), study_of(pruner=pruner)
    run_id = recorded(study, report=True)
    bare.optimize(bowl, n_trials=12, catch=(ValueError,))
    same(study, bare)
    runs = children(store, run_id)
    assert [int(run.data.tags["mlflow_hp.candidate"]) for run in runs] == [*range(12)]
    for run, trial in zip(runs, study.trials, strict=True):
        is_failed = trial.state is optuna.trial.TrialState.FAIL
        is_pruned = trial.state is optuna.trial.TrialState.PRUNED
        assert run.info.status == ("FAILED" if is_failed else "FINISHED")
        assert ("mlflow_hp.pruned" in run.data.tags) == is_pruned
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert float(run.data.tags["mlflow_hp.user_attr.half"]) == trial.user_attrs["half"]
        assert points(store, run, "intermediate_value") == trial.intermediate_values
        if trial.state is optuna.trial.TrialState.COMPLETE:
            assert (run.data.metrics["value"], run.data.metrics["mean_test_neg_value"]) == (trial.value, -trial.value)
        else:
            assert "value" not in run.data.metrics
        assert run.info.run_name.startswith(f"trial {trial.number} x=")
        assert run.info.start_time == pytest.approx(trial.datetime_start.timestamp() * 1000, abs=2000)
    states = [trial.state.name for trial in study.trials]
    assert states.count("PRUNED") > 0
    assert "ValueError: not four" in text(runs[4], "error/traceback.txt")
    assert "returned no number" in text(runs[5], "error/traceback.txt")
    parent = store.get_run(run_id)
    tags = {name.removeprefix("mlflow_hp."): value for name, value in parent.data.tags.items()}
    assert [tags[name] for name in ("planned", "running", "done", "failed")] == ["12", "0", "10", "2"]
    assert tags["pruned"] == str(states.count("PRUNED"))
    assert tags["best_run_id"] == runs[study.best_trial.number].info.run_id
    assert tags["best"] == runs[study.best_trial.number].info.run_name
    assert parent.data.metrics["best_value"] == study.best_value == -parent.data.metrics["best_score"]
    expected = {
        "study": study.study_name,
        "direction": "minimize",
        "sampler": "TPESampler",
        "pruner": "ThresholdPruner",
    }
    assert expected.items() <= parent.data.params.items()
    assert f"is trial {study.best_trial.number}" in tags["mlflow.note.content"]
    table = text(parent, "trials.csv").splitlines()
    assert table[0] == "number,state,value,params_x,params_kind,user_attrs_half,seconds"
    assert len(table) == 13
    assert {"score_by_trial.png", "parallel_coordinates.png"} <= pictures(store, run_id)
    assert "scores_by_fold.png" not in pictures(store, run_id)
    assert optuna.Study.optimize.__module__.startswith("optuna")
    assert not hasattr(optuna.Trial.report, "_mlflow_hp_layer")


def test_an_exception_ends_the_study_as_without_recording(store):
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")):

        def objective(trial, error=error):
            trial.suggest_int("n", 1, 3)
            if trial.number == 1:
                raise error("mine")
            return 0.0

        study = study_of()
        with pytest.raises(error, match="mine"), mlflow_hp.record_study(study, report=False) as recording:
            study.optimize(objective, n_trials=4)
        runs, parent = children(store, recording.run_id), store.get_run(recording.run_id)
        assert [run.info.status for run in runs] == ["FINISHED", status]
        assert error.__name__ in text(runs[1], "error/traceback.txt")
        assert parent.info.status == ("KILLED" if error is KeyboardInterrupt else "FAILED")
        assert parent.data.tags["mlflow_hp.error"] == f"{error.__name__}: mine"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_infinite_values_are_recorded_without_a_warning_of_numpy(store):
    def objective(trial):
        return [1.0, math.inf, trial.suggest_float("x", 0, 1), -math.inf][trial.number]

    parent = store.get_run(recorded(study_of(), objective, report=True, n_trials=4))
    assert "mlflow_hp.recording_error" not in parent.data.tags
    assert children(store, parent.info.run_id)[1].data.metrics["value"] > 1e300  # as SQL stores it


def test_callbacks_of_the_user_and_stop_work_as_before(store):
    seen = []

    def stop(study, trial):
        seen.append((trial.number, trial.value))
        if trial.number == 2:
            study.stop()

    study = study_of()
    run_id = recorded(study, lambda trial: trial.suggest_float("x", 0, 1), n_trials=9, callbacks=[stop])
    assert seen == [(trial.number, trial.value) for trial in study.trials]
    assert len(children(store, run_id)) == 3
    with pytest.raises(TypeError, match="n_trails"), mlflow_hp.record_study(study, report=False):
        study.optimize(bowl, n_trails=3)
    with pytest.raises(TypeError, match="callable"), mlflow_hp.record_study(study, report=False):
        study.optimize(None, n_trials=1)


def test_threads(store):
    barrier = threading.Barrier(2, timeout=20)

    def objective(trial):
        barrier.wait()
        mlflow.log_metric("mine", trial.number)  # in the thread of the trial, into its run
        return trial.suggest_float("x", 0, 1)

    run_id = recorded(study_of(), objective, n_trials=6, n_jobs=2)
    runs = children(store, run_id)
    assert [run.data.metrics["mine"] for run in runs] == [*range(6)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "mine" not in store.get_run(run_id).data.metrics


def test_ask_and_tell(store):
    study = study_of("maximize")
    early = study.ask()
    with mlflow_hp.record_study(study, report=False) as recording:
        asked = [study.ask({"n": optuna.distributions.IntDistribution(1, 5)}) for _ in range(5)]
        asked[0].report(0.25, 7)
        study.tell(early, 1.0)
        study.tell(asked[0], 0.5)
        study.tell(asked[1].number, state=optuna.trial.TrialState.PRUNED)
        study.tell(asked[2], state=optuna.trial.TrialState.FAIL)
        with pytest.raises(ValueError, match="Values are required"):
            study.tell(asked[3], state=optuna.trial.TrialState.COMPLETE)
        study.tell(asked[3], 0.75)
        study.tell(asked[3], 9.0, skip_if_finished=True)
    runs = children(store, recording.run_id)
    states = ["FINISHED", "FINISHED", "FINISHED", "FAILED", "FINISHED", "KILLED"]
    assert [run.info.status for run in runs] == states
    assert [run.data.metrics.get("mean_score") for run in runs] == [1.0, 0.5, None, None, 0.75, None]
    assert points(store, runs[1], "intermediate_value") == {7: 0.25}
    assert [run.data.params for run in runs[1:]] == [{"n": str(trial.params["n"])} for trial in asked]
    assert store.get_run(recording.run_id).data.tags["mlflow_hp.best"] == runs[0].info.run_name


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_several_objectives(store):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return x, 1 - x, (x - 0.5) ** 2

    study = optuna.create_study(directions=["minimize", "maximize", "minimize"])
    study.set_metric_names(["size", "accuracy", "loss"])
    run_id = recorded(study, objective, report=True, n_trials=4)
    for run, trial in zip(children(store, run_id), study.trials, strict=True):
        names = ("size", "accuracy", "loss")
        assert [run.data.metrics[f"value/{name}"] for name in names] == trial.values
        means = [run.data.metrics[f"mean_test_{name}"] for name in ("neg_size", "accuracy", "neg_loss")]
        assert means == [-trial.values[0], trial.values[1], -trial.values[2]]
    parent = store.get_run(run_id)
    assert parent.data.params["direction"] == "minimize, maximize, minimize"
    assert "Pareto front" in parent.data.tags["mlflow.note.content"]
    assert "mlflow_hp.best" not in parent.data.tags
    assert pictures(store, run_id) == {"score_by_trial.png"}


def test_a_study_that_is_resumed_gets_only_its_new_trials(store, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    study = study_of(storage=storage, study_name="one")
    study.optimize(bowl, n_trials=3)
    run_id = recorded(study, n_trials=2)
    again = optuna.load_study(study_name="one", storage=storage)
    again.enqueue_trial({"x": 0.125})
    with mlflow_hp.record_study(again, resume=run_id, report=False) as recording:
        again.optimize(bowl, n_trials=2, catch=(ValueError,))
    assert recording.run_id == run_id
    runs = children(store, run_id)
    assert [int(run.data.tags["mlflow_hp.candidate"]) for run in runs] == [3, 4, 5, 6]
    assert runs[2].data.params["x"] == "0.125"
    assert store.get_run(run_id).data.tags["mlflow_hp.planned"] == "7"
    with pytest.raises(UserError, match="no such run"), mlflow_hp.record_study(study, resume="0" * 32):
        pass


PROGRAM = """
import sys
sys.path[:0] = {paths!r}
import mlflow, optuna, mlflow_hp
from mlflow_hp.delivery import search_sender
search_sender.EVERY_SECONDS = 0.1
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
study = optuna.load_study(study_name="shared", storage={storage!r})

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    print("begun", trial.number, flush=True)
    if sys.argv[1] == "stops":
        sys.stdin.read()
    return x

with mlflow.start_run(run_id={run_id!r}), mlflow_hp.record_study(study, report=False):
    study.optimize(objective, n_trials=3)
"""


@pytest.mark.slow
def test_several_processes_and_one_that_is_killed(store, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    study = study_of(storage=storage, study_name="shared")
    program = tmp_path / "program.py"
    with mlflow.start_run() as run, mlflow_hp.record_study(study, report=False):
        run_id = run.info.run_id
        paths = [str(Path(mlflow_hp.__file__).parents[1])]
        program.write_text(PROGRAM.format(paths=paths, storage=storage, run_id=run_id))

        def start(how):
            environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
            environment.pop("MLFLOW_RUN_ID", None)
            return subprocess.Popen(
                [python(), str(program), how], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

        killed, other = start("stops"), start("goes on")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        out, _ = other.communicate()
        wait_for(lambda: len(children(store, run_id)) == 7)
        killed.kill()
        wait_for_end(killed)
        killed.communicate()
    assert other.returncode == 0
    assert out.count("begun") == 3
    for left in recovery.left_behind():
        recovery.recover(left, kinds=KINDS)
    runs = children(store, run_id)
    assert [int(each.data.tags["mlflow_hp.candidate"]) for each in runs] == [*range(7)]
    assert sorted(each.info.status for each in runs) == ["FINISHED"] * 6 + ["KILLED"]


@pytest.mark.usefixtures("impatient", "gives_up_soon")
@pytest.mark.filterwarnings(OUTAGES)
def test_an_outage_neither_ends_nor_blocks_the_study(store, monkeypatch):
    def refuse(*_, **__):
        raise OSError("the disk is full")

    study, bare = study_of(), study_of()
    with mlflow.start_run() as run, monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_run", refuse)
        with pytest.warns(RuntimeWarning, match="lacks a part .*the disk is full"):
            recorded(study)
    bare.optimize(bowl, n_trials=12, catch=(ValueError,))
    same(study, bare)
    (left,) = recovery.left_behind()
    recovery.recover(left, kinds=KINDS)
    assert len(children(store, run.info.run_id)) == 12
    assert nothing_runs(store, run.info.run_id)


def test_an_error_of_the_recording_is_told_and_the_study_goes_on(store, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a mistake of ours")

    bare = study_of()
    bare.optimize(bowl, n_trials=6, catch=(ValueError,))
    for place in ("trial_run.param_values", "recording.TrialRun", "recording.to_csv", "study_recording.TrialRow"):
        study = study_of()
        with monkeypatch.context() as patch:
            patch.setattr(f"mlflow_hp.search.trials.{place}", broken)
            with pytest.warns(RuntimeWarning, match="a mistake of ours"):
                run_id = recorded(study, n_trials=6)
        same(study, bare)
        assert "a mistake of ours" in store.get_run(run_id).data.tags["mlflow_hp.recording_error"]
        assert nothing_runs(store, run_id)


def test_trainings_in_an_objective_are_recorded_in_the_run_of_its_trial(store):
    keras = pytest.importorskip("keras")
    x = np.linspace(0, 1, 8)[:, None]

    def objective(trial):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(trial.suggest_float("learning_rate", 0.01, 0.1)), "mse")
        fit = model.fit(x, x, epochs=2, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
        with mlflow.start_run(nested=True, run_name="below"):
            pass
        return fit.history["loss"][-1]

    run_id = recorded(study_of(), objective, n_trials=2)
    for run in children(store, run_id):
        assert points(store, run, "loss").keys() == {0, 1}
        assert float(run.data.params["learning_rate"]) > 0
        assert [each.info.run_name for each in children(store, run.info.run_id)] == ["below"]
        assert "mlflow_hp.refused" not in run.data.tags
    assert "loss" not in store.get_run(run_id).data.metrics


def test_what_is_no_study():
    with pytest.raises(UserError, match="is a int, not a study"), mlflow_hp.record_study(3):
        pass
    study = study_of()
    with mlflow_hp.record_study(study, report=False):
        with pytest.raises(UserError, match="being recorded already"), mlflow_hp.record_study(study):
            pass
        other = study_of()
        other.optimize(bowl, n_trials=1)  # not recorded
    assert mlflow.active_run() is None
