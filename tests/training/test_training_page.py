"""The page of a training that a program adds to its own report."""

from __future__ import annotations

import base64
import gzip
import json
import re

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.analysis import Finding
from mlflow_hp.training import Report, add_training_page, landscape
from tests.helpers.fits import X, Y, record, regression

pytestmark = pytest.mark.usefixtures("store", "blank_pictures")
FINDING = Finding("speed", "learns slowly", "It still falls.", {}, "more epochs", "hint")


def recorded():
    return record(regression(), recorder=mlflow_hp.TrainingRecorder(report=False, snapshot_megabytes=1))


def content(run_id):
    html = mlflow.artifacts.load_text(f"{mlflow.get_run(run_id).info.artifact_uri}/report.html")
    return json.loads(gzip.decompress(base64.b64decode(re.search('id="content">([^<]*)<', html)[1])))


@pytest.mark.parametrize("kind", ["landscape", "plane"])
def test_its_descent_is_on_the_landscape_of_the_report(kind):
    fitted = recorded()
    snapshots = fitted.recorder.snapshots
    with Report(fitted.run_id) as report:
        if kind == "landscape":
            plane = landscape(fitted.model, {"path": snapshots}, X, Y, resolution=5, progress=False)
            report.landscape(plane, {"path": fitted.run_id})
        add_training_page(report, fitted.history, [FINDING], snapshots)
    shown = content(fitted.run_id)
    assert (shown["descent"]["kind"], shown["descent"]["paths"][0]["run"]) == (kind, fitted.run_id)
    assert ("z" in shown["descent"]) == (kind == "landscape")
    assert [finding["verdict"] for finding in shown["summary"]["findings"]] == ["learns slowly"]
    assert list(shown["names"]) == [fitted.run_id]


def test_a_nested_run_has_none_and_what_cannot_be_shown_is_told():
    fitted = recorded()
    with mlflow.start_run(), mlflow.start_run(nested=True) as nested, Report(nested.info.run_id) as report:
        add_training_page(report, fitted.history, [])
    assert not mlflow.MlflowClient().list_artifacts(nested.info.run_id)
    with Report(fitted.run_id) as report, pytest.warns(mlflow_hp.RecordingWarning, match="has no report.html"):
        add_training_page(report, None, [])
