"""The main job, small but whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest

import mlflow_hp
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from projects.cost_contour import EXPERIMENT, PARAMETERS
from projects.datasets import data
from projects.runner import run
from tests.helpers.forked_python import commands, python
from tests.helpers.waiting import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def go(store, capfd):
    """Run it in this process with small options; gives exit status and the top run."""

    def go(*argv):
        status = run(EXPERIMENT, ["--epochs", "2", "--batch_size", "50", "--animate", "false", *argv])
        experiment = store.get_experiment_by_name("tests").experiment_id
        runs = store.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=20)
        assert not [r for r in runs if r.info.status == "RUNNING"]
        return status, next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)

    return go


def defaults(**other):
    from projects import arguments

    written = {p.name: p.default for p in PARAMETERS} | other
    return arguments.combinations(written, PARAMETERS)[0]


def artifact(store, found, path):
    return Path(store.download_artifacts(found.info.run_id, path))


def test_everything_that_a_run_holds(go, store):
    status, found = go("--animate", "true", "--standardize", "true", "--learning_rate", "5")
    assert (status, found.info.status) == (0, "FINISHED")
    pictures = {Path(a.path).name for a in store.list_artifacts(found.info.run_id, "plots")}
    assert pictures == {
        "cost_contour.png", "descent.gif", "weight_by_step.png", "bias_by_step.png", "loss_by_batch.png",
        "loss_by_epoch.png", "mean_absolute_error_by_epoch.png", "prediction.png",
        "gradient_norms_by_step.png",
    }  # fmt: skip
    told = json.loads(artifact(store, found, "diagnosis.json").read_text())
    assert {"distance", "arrival", "overshoot", "curvature", "next_try"} <= told.keys()
    metrics = found.data.metrics
    assert metrics["diagnosis/condition_number"] == pytest.approx(1, abs=1e-4)
    assert metrics["diagnosis/largest_stable_learning_rate"] == pytest.approx(1, abs=1e-4)
    assert found.data.params["model/largest_difference"] == "0.0"
    assert {"batch/loss", "batch/learning_rate", "weights/linear/kernel", "weights/linear/bias", "val_loss"} <= set(
        metrics
    )
    note = found.data.tags["mlflow.note.content"]
    for word in (
        "Which path",
        "Settings",
        "after 2 epochs (16 steps); 2 parameters",
        "**Also noticed**",
        "To repeat it",
        "-P standardize=true",
        "least squares",
        "The picture to look at first: `plots/cost_contour.png`",
    ):
        assert word in note
    (dataset,) = found.inputs.dataset_inputs
    assert dataset.dataset.digest
    assert found.data.tags["mlflow_hp.data_digest"] == data.regression(defaults()).digest
    (model,) = found.outputs.model_outputs
    logged = mlflow.get_logged_model(model.model_id)
    loaded = mlflow.models.get_model_info(logged.model_uri)
    assert loaded.signature is not None
    assert loaded.saved_input_example_info is not None


@pytest.mark.usefixtures("blank_pictures")
def test_the_surface_is_keras_loss_and_the_path_its_weights(go):
    _, found = go("--weight", "0.5", "--bias", "-3")
    history = mlflow_hp.load_history(found.info.run_id)
    chosen = data.regression(defaults())
    surface = LinearRegressionSurface(chosen.x_train, chosen.y_train)
    w, b = (history.weights(f"linear/{name}").ravel() for name in ("kernel", "bias"))
    assert (w[0], b[0]) == (0.5, -3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for step in (0, 7, len(w) - 1):
        model.set_weights([np.array([[w[step]]]), np.array([b[step]])])
        evaluated = model.evaluate(chosen.x_train, chosen.y_train, verbose=0)
        assert surface.cost(w[step], b[step]) == pytest.approx(evaluated, rel=1e-5)
    logged = mlflow.pyfunc.load_model(f"models:/{found.outputs.model_outputs[0].model_id}")
    np.testing.assert_allclose(logged.predict(chosen.x_test)[:, 0], chosen.x_test[:, 0] * w[-1] + b[-1], rtol=1e-6)
    x, y = chosen.x_train.astype(float)[:, 0], chosen.y_train.astype(float)
    slope, intercept = np.polyfit(x, y, 1)
    assert found.data.metrics["diagnosis/distance_w"] == pytest.approx(w[-1] - slope, rel=1e-6)
    assert found.data.metrics["diagnosis/distance_b"] == pytest.approx(b[-1] - intercept, rel=1e-6)


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_a_seeded_run_repeats_bit_for_bit(go):
    one, two, other = (mlflow_hp.load_history(go("--seed", seed)[1].info.run_id) for seed in "335")
    np.testing.assert_array_equal(one.weights("linear/kernel"), two.weights("linear/kernel"))
    assert one.weights("linear/kernel")[0] != other.weights("linear/kernel")[0]


@pytest.mark.thorough
@pytest.mark.usefixtures("one_of_each_picture")
def test_several_values_on_one_surface(go, store):
    status, found = go("--learning_rate", "0.1,0.01", "--standardize", "false,true", "--epochs", "1")
    assert status == 0
    pictures = {Path(a.path).name for a in store.list_artifacts(found.info.run_id, "plots")}
    expected = {"cost_contour_1", "cost_contour_2", "loss_by_epoch", "cost_by_step", "loss_by_batch"}
    assert pictures == {f"{name}.png" for name in expected}
    table = pd.read_csv(artifact(store, found, "combinations.csv"))
    best = table.loc[table["final_J"].idxmin()]
    assert found.data.tags["mlflow_hp.best_run_id"] == best["run_id"]


@pytest.mark.thorough
def test_a_diverging_training_ends_well_and_says_so(go, store):
    status, found = go("--optimizer", "sgd", "--learning_rate", "1e30", "--animate", "true")
    assert (status, found.info.status) == (0, "FINISHED")
    assert "diverges" in found.data.tags["mlflow.note.content"]
    assert found.data.metrics["diagnosis/steps_not_finite"] > 0
    json.loads(artifact(store, found, "diagnosis.json").read_text(), parse_constant=pytest.fail)


def test_bad_input_from_the_data_and_the_model(go, store, capfd):
    assert run(EXPERIMENT, ["--feature", "height"]) == 2
    assert "cost_contour: feature='height'" in capfd.readouterr().err
    assert not store.search_runs([store.get_experiment_by_name("tests").experiment_id], "params.feature = 'height'")
    status, found = go("--momentum", "0.5", "--optimizer", "adam")
    assert (status, found.info.status) == (2, "FAILED")


@pytest.mark.thorough
def test_an_artifact_store_that_can_not_be_written_keeps_the_metrics(store, tmp_path, capfd):
    blocked = tmp_path / "a file"
    blocked.write_text("not a folder")
    mlflow.create_experiment(f"blocked {tmp_path}", artifact_location=(blocked / "artifacts").as_uri())
    mlflow.set_experiment(f"blocked {tmp_path}")
    with pytest.warns(RuntimeWarning, match="MLflow lacks the history; `mlflow-hp recover` brings it there"):
        status = run(EXPERIMENT, ["--epochs", "1", "--animate", "false"])
    assert status == 2
    printed = capfd.readouterr().err
    assert "cannot be written" in printed
    assert "the run keeps its metrics" in printed
    assert "--artifact-location" in printed
    assert "Traceback" not in printed
    (found,) = store.search_runs([store.get_experiment_by_name(f"blocked {tmp_path}").experiment_id])
    assert found.info.status == "FAILED"
    assert found.data.metrics["loss"] > 0
    assert len(store.get_metric_history(found.info.run_id, "batch/loss")) == 36
    mlflow.set_experiment("tests")


def without_ids():
    """The environment without what MLflow has put there for this process."""
    return {key: value for key, value in os.environ.items() if key not in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")}


def program(tracking_uri, folder, *argv):
    environment = without_ids() | {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_EXPERIMENT_NAME": "tests"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [python(), "-u", "-m", "projects.cost_contour", *argv],
        env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_bad_input_is_a_line_and_not_a_traceback(tracking_uri, tmp_path):
    process = program(tracking_uri, tmp_path, "--data", "nowhere.csv")
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("cost_contour: data='nowhere.csv': there is no file")


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_is_recorded_and_plotted_up_to_there(store, tracking_uri, tmp_path, number):
    process = program(tracking_uri, tmp_path, "--epochs", "100000", "--animate", "false")
    for line in process.stdout:
        if line.startswith("Epoch 6/"):
            break
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    experiment = store.get_experiment_by_name("tests").experiment_id
    (found, *_) = store.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)
    assert found.info.status == "KILLED"
    history = mlflow_hp.load_history(found.info.run_id)
    assert history.n_steps >= 5 * 36
    points = store.get_metric_history(found.info.run_id, "batch/loss")
    assert [p.step for p in points] == list(range(history.n_steps))
    assert "plots/cost_contour.png" in [a.path for a in store.list_artifacts(found.info.run_id, "plots")]


def mlflow_run(tmp_path):
    """Environment and command of an `mlflow run` with a store of its own."""
    environment = without_ids() | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    environment["PATH"] = f"{commands()}:{environment['PATH']}"
    return environment, ["mlflow", "run", str(ROOT), "-e", "cost_contour", "--env-manager", "local"]


@pytest.mark.thorough
@pytest.mark.slow
def test_ctrl_c_under_mlflow_run(tmp_path):
    environment, (mlflow_command, *command) = mlflow_run(tmp_path)
    process = subprocess.Popen(
        [Path(sys.executable).with_name(mlflow_command), *command, "-P", "epochs=100000", "-P", "animate=false"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("Epoch 6/"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to mlflow and to the program that it started
    process.communicate()
    assert process.returncode != 0
    store = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    (found,) = store.search_runs(["0"])
    wait_for(lambda: store.get_run(found.info.run_id).info.status == "KILLED")  # MLflow calls it FAILED at first
    found = store.get_run(found.info.run_id)
    assert found.data.tags["mlflow.note.content"].startswith("**loss ")
    assert mlflow_hp.load_history(found.info.run_id, environment["MLFLOW_TRACKING_URI"]).n_steps >= 5 * 36
    assert "plots/cost_contour.png" in [a.path for a in store.list_artifacts(found.info.run_id, "plots")]


@pytest.mark.thorough
@pytest.mark.slow
def test_mlflow_run(tmp_path):
    environment, command = mlflow_run(tmp_path)
    options = ["-P", "learning_rate=1e-1,0.01", "-P", "epochs=1", "-P", "animate=false"]
    done = subprocess.run([*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    store = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    found = store.search_runs(["0"])
    assert sorted(r.info.status for r in found) == ["FINISHED"] * 3
    parent = next(r for r in found if "mlflow.parentRunId" not in r.data.tags)
    assert parent.data.params["learning_rate"] == "1e-1,0.01"
    assert parent.data.tags["mlflow_hp.best"] == "learning_rate=0.1"
    bad = subprocess.run([*command, "-P", "epochs=0"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode != 0
    assert "epochs='0' has to be a whole number" in bad.stderr
    assert not [r for r in store.search_runs(["0"]) if r.info.status == "RUNNING"]
