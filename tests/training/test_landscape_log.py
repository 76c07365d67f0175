"""Loss landscapes that are computed of recorded runs, and logged to them."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.analysis.surfaces.landscape_file import from_json
from mlflow_hp.errors import UserError
from mlflow_hp.training import landscape, log_landscape
from tests.helpers.fits import X, Y, record, regression

pytestmark = pytest.mark.usefixtures("store", "blank_pictures")


def recorded(**settings):
    return record(regression(), recorder=mlflow_hp.TrainingRecorder(report=False, **settings))


def files(run_id):
    return [file.path for file in mlflow.MlflowClient().list_artifacts(run_id, "plots")]


def read(run_id, name):
    return from_json(mlflow.artifacts.load_text(f"{mlflow.get_run(run_id).info.artifact_uri}/{name}"))


def test_of_a_run_the_picture_and_its_numbers():
    fitted = recorded(snapshot_megabytes=1)
    plane = log_landscape(fitted.run_id, fitted.model, X, Y, resolution=9, progress=False)
    assert files(fitted.run_id) == ["plots/landscape.json", "plots/landscape.png"]
    stored = read(fitted.run_id, "plots/landscape.json")
    direct = landscape(fitted.model, {"a": fitted.recorder.snapshots}, X, Y, resolution=9, progress=False)
    np.testing.assert_allclose(stored.loss, direct.loss, rtol=1e-3)
    np.testing.assert_array_equal(plane.loss, direct.loss)
    assert [path.run_id for path in stored.paths] == [fitted.run_id]


@pytest.mark.thorough
def test_of_several_runs_one_plane_in_each_of_them():
    runs = [recorded(snapshot_megabytes=1), recorded(weights="all")]
    ids = [run.run_id for run in runs]
    log_landscape(ids, runs[0].model, X, Y, resolution=5, progress=False)
    names = files(ids[0])
    assert names == files(ids[1])
    assert [name.startswith("plots/landscape_of_2_runs_") for name in names] == [True, True]
    stored = [read(run_id, next(name for name in names if name.endswith(".json"))) for run_id in ids]
    assert [[path.run_id for path in each.paths] for each in stored] == [ids, ids]
    assert len({path.label for path in stored[0].paths}) == 2


@pytest.mark.thorough
def test_a_run_that_cannot_be_written_is_told(monkeypatch):
    runs = [recorded(snapshot_megabytes=1) for _ in range(2)]
    ids = [run.run_id for run in runs]
    log_artifacts = mlflow.MlflowClient.log_artifacts

    def refusing(client, run_id, *arguments):
        if run_id == ids[1]:
            raise PermissionError("of a colleague")
        log_artifacts(client, run_id, *arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifacts", refusing)
    with pytest.warns(mlflow_hp.RecordingWarning, match="could not be logged to run .* of a colleague"):
        log_landscape(ids, runs[0].model, X, Y, resolution=5, progress=False)
    assert len(files(ids[0])) == 2
    with pytest.raises(UserError, match="of a colleague"):
        log_landscape(ids[1], runs[0].model, X, Y, resolution=5, progress=False)


def test_what_is_missing_is_said():
    fitted, without = recorded(snapshot_megabytes=1), recorded(weights="statistics")
    for run_ids, model, x, message in (
        ([], fitted.model, X, "run_ids= is empty"),
        (fitted.run_id, fitted.model, None, "give x= and y="),
        (fitted.run_id, None, X, "has no logged model"),
        (without.run_id, fitted.model, X, "snapshot_megabytes=64"),
    ):
        with pytest.raises(UserError, match=message):
            log_landscape(run_ids, model, x, Y, progress=False)
