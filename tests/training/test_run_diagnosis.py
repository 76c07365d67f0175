"""A recorded run, its history and the command tell the same findings."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp import UserError
from mlflow_hp.cli.main import main
from tests.helpers.fits import LABELS, network, record


def test_a_run_its_history_and_the_command_tell_the_same(store, capsys):
    fitted = record(model=network(), y=LABELS, epochs=3, recorder=mlflow_hp.TrainingRecorder(report=False))
    findings = mlflow_hp.diagnose(fitted.run_id)
    assert findings == mlflow_hp.diagnose(mlflow_hp.load_history(fitted.run_id))
    assert findings[-1].name == "next_try"
    assert main(["diagnose", fitted.run_id, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [finding.name for finding in findings]
    assert main(["diagnose", fitted.run_id]) == 0
    assert all(finding.text in capsys.readouterr().out for finding in findings[-1:])


def test_a_run_without_a_history_tells_the_findings_that_it_holds(store):
    with mlflow.start_run() as run:
        mlflow.log_dict({"a": {"name": "a", "verdict": "odd", "text": "A.", "evidence": {}}}, "diagnosis.json")
    assert [finding.verdict for finding in mlflow_hp.diagnose(run.info.run_id)] == ["odd"]
    with mlflow.start_run() as empty:
        pass
    with pytest.raises(UserError, match="holds no training history"):
        mlflow_hp.diagnose(empty.info.run_id)


def test_of_a_parent_the_best_training_is_diagnosed(store):
    fitted = record(model=network(), y=LABELS, recorder=mlflow_hp.TrainingRecorder(report=False))
    with mlflow.start_run(tags={"mlflow_hp.best_run_id": fitted.run_id}) as parent:
        pass
    assert mlflow_hp.diagnose(parent.info.run_id) == mlflow_hp.diagnose(fitted.run_id)
    with mlflow.start_run() as circle:
        mlflow.set_tag("mlflow_hp.best_run_id", circle.info.run_id)
    with pytest.raises(UserError, match="holds no training history"):
        mlflow_hp.diagnose(circle.info.run_id)


def test_nan_in_a_feature_is_found_though_the_loss_is_finite(store):
    history = mlflow_hp.TrainingHistory.from_arrays(
        {"step": [0, 1], "batch_loss": [0.7, 0.7]},
        {"epoch": [0], "loss": [0.7]},
        weights={"dense/kernel": [[[1.0]], [[np.nan]], [[np.nan]]]},
    )
    first = mlflow_hp.diagnose(history)[0]
    assert (first.verdict, first.severity, first.where) == ("not finite", "problem", {"step": 0})
