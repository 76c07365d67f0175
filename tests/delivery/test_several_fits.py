"""Several fits in one run, or at the same time: after a kill, on two machines, in threads."""

from __future__ import annotations

import shutil
import threading
import warnings

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.tracking import runs
from mlflow_hp.training import recovery
from tests.helpers.callbacks import AtEpoch
from tests.helpers.fits import X, Y, regression
from tests.helpers.interrupted_recordings import DEAD, leave

pytestmark = pytest.mark.usefixtures("impatient")


def test_second_fit_follows_the_fit_of_a_killed_process(store, monkeypatch, tmp_path):
    run_id, _ = leave(monkeypatch, tmp_path)
    store.set_tag(run_id, "mlflow_hp.process", DEAD)
    with mlflow.start_run(run_id=run_id):
        status = []
        at = AtEpoch(epoch_1=lambda: status.append(store.get_run(run_id).info.status))
        recorder = mlflow_hp.TrainingRecorder(report=False)
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder, at])
    assert status == ["RUNNING"]
    assert store.get_run(run_id).info.status == "FINISHED"
    assert [mlflow_hp.load_history(run_id, fit=fit).n_steps for fit in (0, 1)] == [30, 10]
    assert sorted(p.step for p in store.get_metric_history(run_id, "batch/loss")) == list(range(40))
    assert sorted(p.step for p in store.get_metric_history(run_id, "loss")) == list(range(5))
    tags = store.get_run(run_id).data.tags
    assert (tags["mlflow_hp.fits"], tags["mlflow_hp.steps"], tags["mlflow_hp.epochs"]) == ("2", "40", "5")


def test_second_fit_follows_an_unrecovered_fit(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    monkeypatch.setattr("mlflow_hp.training.earlier_recordings.recover_quietly", lambda *_: None)
    with mlflow.start_run(run_id=run_id):
        recorder = mlflow_hp.TrainingRecorder(report=False)
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
    (left,) = recovery.left_behind()
    assert left.folder == folder
    assert recovery.recover(left).status == "FINISHED"  # as the later training has left it
    assert [mlflow_hp.load_history(run_id, fit=fit).n_steps for fit in (0, 1)] == [30, 10]
    assert sorted(p.step for p in store.get_metric_history(run_id, "batch/loss")) == list(range(40))
    assert store.get_run(run_id).data.tags["mlflow_hp.steps"] == "40"


def test_two_machines_in_one_run(store, monkeypatch, tmp_path):
    """The second machine has no access to the data of the first, which never reached MLflow."""
    run_id, folder = leave(monkeypatch, tmp_path)
    shutil.move(folder.parents[1], tmp_path / "first-machine")
    with mlflow.start_run(run_id=run_id):
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0,
                         callbacks=[mlflow_hp.TrainingRecorder(report=False)])  # fmt: skip
    (left,) = recovery.left_behind(tmp_path / "first-machine")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs, "upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        recovery.recover(left)
    (left,) = recovery.left_behind(tmp_path / "first-machine")
    recovery.recover(left)
    assert [mlflow_hp.load_history(run_id, fit=fit).n_steps for fit in (0, 1)] == [10, 30]
    assert sorted(p.step for p in store.get_metric_history(run_id, "batch/loss")) == list(range(40))
    assert sorted(p.step for p in store.get_metric_history(run_id, "loss")) == list(range(5))


def test_concurrent_trainings_in_threads(store):
    """Each recovers what was left behind before it began, but not the recordings of the others."""
    experiment, errors = mlflow.get_experiment_by_name("tests").experiment_id, []
    run_ids = [store.create_run(experiment).info.run_id for _ in range(4)]
    models = [regression() for _ in run_ids]

    def train(model, run_id):
        try:
            with warnings.catch_warnings():
                model.fit(X, Y, batch_size=8, epochs=3, verbose=0,
                          callbacks=[mlflow_hp.TrainingRecorder(run_id, report=False)])  # fmt: skip
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=train, args=pair) for pair in zip(models, run_ids, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for run_id in run_ids:
        assert [p.step for p in store.get_metric_history(run_id, "batch/loss")] == list(range(15))
        assert mlflow_hp.load_history(run_id).n_steps == 15
        assert "mlflow_hp.recovered" not in store.get_run(run_id).data.tags
