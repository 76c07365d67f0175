"""The experiments on networks, whole, at a small size."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, r2_score

import mlflow_hp
from mlflow_hp.analysis.surfaces.landscape_file import from_json
from projects import learning_rate, learning_rate_range, train
from projects.datasets import samples
from projects.runner import run
from tests.helpers.needs import since_mlflow

SMALL = ["--max_samples", "300", "--hidden", "16"]
DIGITS = {
    "data": "digits", "target": "target", "max_samples": 300, "test_size": 0.2, "validation_size": 0.2, "seed": 0,
    "task": "auto", "header": "auto", "drop": None,
}  # fmt: skip


@pytest.fixture
def go(store, capsys):
    """Run an experiment; gives its top run and its children by name."""

    def go(experiment, *argv, status=0):
        before = {r.info.run_id for r in all_runs(store)}
        assert run(experiment, [*SMALL, *argv]) == status, capsys.readouterr().err
        new = [r for r in all_runs(store) if r.info.run_id not in before]
        top = next(r for r in new if "mlflow.parentRunId" not in r.data.tags)
        return top, {r.info.run_name: r for r in new if "mlflow.parentRunId" in r.data.tags}

    return go


def all_runs(store):
    experiment = store.get_experiment_by_name("tests").experiment_id
    return mlflow.search_runs([experiment], output_format="list", max_results=5000)


def artifacts(store, run, path=None):
    return {a.path for a in store.list_artifacts(run.info.run_id, path)}


def file(store, run, path):
    return Path(store.download_artifacts(run.info.run_id, path))


@pytest.mark.thorough
@pytest.mark.usefixtures("one_of_each_picture")
def test_schedules_beside_each_other(go, store):
    parent, children = go(learning_rate.EXPERIMENT, "--epochs", "3", "--restart_epochs", "1", "--restarts", "2",
                          "--landscape", "true")  # fmt: skip
    assert list(children)[::-1] == [f"schedule={name}" for name in learning_rate.SCHEDULES]
    pictures = ("learning_rate_by_step", "val_loss_by_epoch", "loss_by_epoch", "accuracy_by_epoch", "landscape")
    assert {f"plots/{name}.png" for name in pictures} <= artifacts(store, parent, "plots")
    stored = from_json(file(store, parent, "plots/landscape.json").read_text())
    assert {path.label: path.run_id for path in stored.paths} == {n: c.info.run_id for n, c in children.items()}
    steps = {n: mlflow_hp.load_history(c.info.run_id).steps["learning_rate"] for n, c in children.items()}
    per_epoch = len(steps["schedule=constant"]) // 3
    t = np.arange(3 * per_epoch)
    np.testing.assert_allclose(steps["schedule=constant"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(steps["schedule=time_decay"], 0.1 / (1 + 0.1 / 3 * t), rtol=1e-5)
    np.testing.assert_allclose(steps["schedule=exponential"], 0.1 * np.exp(-0.1 * (t // per_epoch)), rtol=1e-5)
    cosine = 0.05 * (1 + np.cos(np.pi * (t % per_epoch) / per_epoch))
    np.testing.assert_allclose(steps["schedule=restarts"], cosine, rtol=1e-4, atol=1e-7)
    assert "is the smoothest" in parent.data.tags["mlflow.note.content"]
    child = children["schedule=restarts"]
    assert {"plots/samples.png", "plots/landscape.png", "plots/learning_rate_by_step.png"} <= artifacts(
        store, child, "plots"
    )
    assert child.data.tags["mlflow_hp.data_digest"] == samples.load(DIGITS).digest
    assert "report.html" not in artifacts(store, child)  # of a nested run
    assert json.loads(file(store, child, "class_counts.json").read_text()) == samples.load(DIGITS).counts
    assert child.data.params["momentum"] == "0.8"


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_a_sweep_is_judged_by_the_model_that_is_kept(go, store):
    parent, children = go(train.EXPERIMENT, "--epochs", "6", "--learning_rate", "1,3")
    losses = {c.info.run_id: [m.value for m in store.get_metric_history(c.info.run_id, "val_loss")]
              for c in children.values()}  # fmt: skip
    assert any(min(series) < series[-1] for series in losses.values())  # or best and last would be the same
    table = pd.read_csv(file(store, parent, "combinations.csv"))
    assert dict(zip(table["run_id"], table["val_loss"], strict=True)) == pytest.approx(
        {run_id: min(series) for run_id, series in losses.items()}
    )
    assert "at the best epoch (run" in parent.data.tags["mlflow.note.content"]


RESTARTS = ["--schedule", "restarts", "--restart_low", "0.01", "--restart_high", "0.1"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        (learning_rate.EXPERIMENT, RESTARTS),
        (learning_rate_range.EXPERIMENT, []),
        (train.EXPERIMENT, ["--dropout", "0.5", "--initializer", "he_normal"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.usefixtures("blank_pictures")
def test_a_seeded_run_repeats_bit_for_bit(go, experiment, settings):
    settings = [*settings, "--epochs", "2", "--weights", "all"]
    one, other = (mlflow_hp.load_history(go(experiment, *settings)[0].info.run_id) for _ in range(2))
    for name in ("batch_loss", "learning_rate", "running_accuracy"):
        assert one.steps[name].tobytes() == other.steps[name].tobytes()
    for tensor in one.tensors:
        assert one.weights(tensor.name).tobytes() == other.weights(tensor.name).tobytes()
    third = mlflow_hp.load_history(go(experiment, *settings, "--seed", "1")[0].info.run_id)
    assert one.steps["batch_loss"].tobytes() != third.steps["batch_loss"].tobytes()


@pytest.mark.usefixtures("blank_pictures")
def test_half_a_range_to_draw_from_is_bad_input(go):
    parent, _ = go(learning_rate.EXPERIMENT, "--schedule", "restarts", "--restart_low", "0.1", status=2)
    assert "give both" in parent.data.tags["mlflow_hp.error"]


def test_the_range_test_gives_the_next_learning_rate(go, store):
    found, _ = go(learning_rate_range.EXPERIMENT, "--low", "1e-4", "--high", "100", "--epochs", "6")
    note = found.data.tags["mlflow.note.content"]
    assert "The picture to look at first: `plots/loss_by_learning_rate.png`" in note
    rates = mlflow_hp.load_history(found.info.run_id).steps["learning_rate"]
    assert rates[0] == pytest.approx(1e-4, rel=1e-5)
    assert np.all(np.diff(np.log(rates)) > 0)
    metrics = found.data.metrics
    assert 1e-3 < metrics["diagnosis/suggested_learning_rate"] < metrics["diagnosis/divergence_learning_rate"] <= 101
    assert "plots/loss_by_learning_rate.png" in artifacts(store, found, "plots")
    assert "test_loss" not in metrics
    bad, _ = go(learning_rate_range.EXPERIMENT, "--low", "1", "--high", "0.1", status=2)
    assert bad.info.status == "FAILED"


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.usefixtures("blank_pictures")
def test_a_training_follows_at_the_rate_of_the_range_test(go, store):
    top, children = go(learning_rate_range.EXPERIMENT, "--epochs", "6", "--low", "1e-4", "--improve", "1")
    assert top.data.tags["mlflow_hp.kind"] == "improvement"
    first, second = sorted(children.values(), key=lambda run: run.info.start_time)
    suggested = first.data.metrics["diagnosis/suggested_learning_rate"]
    assert (first.data.params["learning_rate"], float(second.data.params["learning_rate"])) == ("none", suggested)
    assert set(mlflow_hp.load_history(second.info.run_id).steps["learning_rate"]) == {np.float32(suggested)}
    assert {name for name, value in first.data.params.items() if second.data.params.get(name) != value} >= {
        "learning_rate"
    }
    assert {second.data.params[name] for name in ("epochs", "momentum")} == {"6", "0.8"}
    assert top.data.tags["mlflow_hp.best_run_id"] == second.info.run_id
    assert "test_loss" in second.data.metrics
    assert {"plots/loss_by_learning_rate.png", "plots/val_loss_by_epoch.png"} <= artifacts(store, top, "plots")


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_a_range_test_without_a_fall_proposes_nothing(go):
    top, children = go(learning_rate_range.EXPERIMENT, "--epochs", "1", "--low", "1e-9", "--high", "1e-8",
                       "--improve", "2")  # fmt: skip
    assert len(children) == 1
    assert "Nothing to try" in top.data.tags["mlflow.note.content"]


def test_train_saves_a_model_that_loads_back_to_the_same(go, store):
    found, _ = go(train.EXPERIMENT, "--epochs", "4", "--learning_rate", "0.01", "--dropout", "0.1")
    metrics = found.data.metrics
    for name in ("saved/json_and_h5_difference", "saved/keras_difference", "model/largest_difference"):
        assert found.data.params[name] == "0.0"
    data = samples.load(DIGITS)
    saved = keras.models.load_model(file(store, found, "saved/model.keras"))
    predicted = saved.predict(data.x_test, verbose=0)
    assert metrics["test_accuracy"] == pytest.approx(accuracy_score(data.y_test, predicted.argmax(axis=1)), abs=1e-6)
    assert metrics["test_r2"] == pytest.approx(r2_score(np.eye(10)[data.y_test], predicted), abs=1e-5)
    table = pd.read_csv(file(store, found, "per_class.csv"), index_col="class")
    assert table["support"].sum() == len(data.y_test)
    assert metrics["f1/3"] == pytest.approx(table["f1-score"][3])
    losses = [m.value for m in store.get_metric_history(found.info.run_id, "val_loss")]
    assert metrics["best_epoch"] == int(np.argmin(losses))
    best = keras.models.load_model(file(store, found, "checkpoint/best.keras"))
    one_hot = keras.utils.to_categorical(data.y_validation, 10)
    assert best.evaluate(data.x_validation, one_hot, verbose=0)[0] == pytest.approx(min(losses), rel=1e-4)
    assert "plots/confusion_matrix.png" in artifacts(store, found, "plots")
    assert "**To repeat it**" in found.data.tags["mlflow.note.content"]


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_early_stopping_ends_and_goes_back_to_the_best(go, store):
    found, _ = go(train.EXPERIMENT, "--epochs", "30", "--patience", "0", "--learning_rate", "0.2",
                  "--loss", "sparse_categorical_crossentropy")  # fmt: skip
    losses = [m.value for m in store.get_metric_history(found.info.run_id, "val_loss")]
    assert len(losses) < 30
    assert losses[-1] >= min(losses[:-1])
    note = found.data.tags["mlflow.note.content"]
    assert "Early stopping ended it" in note
    assert 0 < found.data.metrics["test_accuracy"] <= 1  # of labels as this loss takes them


@pytest.fixture
def table(tmp_path):
    """A CSV whose column price is linear in three others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    columns = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "price": x @ [3.0, -2.0, 1.0] + 5}
    path = tmp_path / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return ["--data", str(path), "--target", "price"]


@pytest.mark.thorough
def test_numbers_to_predict_from_a_table(go, store, table):
    found, _ = go(train.EXPERIMENT, *table, "--epochs", "30", "--learning_rate", "0.02", "--hidden", "8")
    assert found.data.metrics["test_r2"] > 0.9
    assert found.data.params["saved/keras_difference"] == "0.0"
    assert {"plots/samples.png", "plots/mean_absolute_error_by_epoch.png"} <= artifacts(store, found, "plots")


def test_bad_input_about_a_table_makes_no_run(store, capsys, table):
    for more, said in ((["--loss", "categorical_crossentropy"], "needs classes"),
                       (["--target", "prize"], "has the columns a, b, c, price"),
                       (["--task", "classification"], "too few rows for each to be a class")):  # fmt: skip
        before = len(all_runs(store))
        assert run(train.EXPERIMENT, [*table, *more]) == 2
        assert said in capsys.readouterr().err
        assert len(all_runs(store)) == before


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_zero_initialisation_stays_at_chance_and_is_told(go):
    found, _ = go(train.EXPERIMENT, "--epochs", "10", "--initializer", "zero", "--loss", "mean_squared_error")
    assert 0 < found.data.metrics["test_accuracy"] < 0.2  # of labels as this loss takes them
    assert "chance" in found.data.tags["mlflow.note.content"]


@pytest.mark.thorough
@since_mlflow("3.16", "logs a model in a run with metrics of NaN")
def test_a_diverging_training_is_reported(go, store, table):
    found, _ = go(train.EXPERIMENT, *table, "--epochs", "3", "--optimizer", "SGD", "--learning_rate", "1e9",
                  "--activation", "linear", "--landscape", "true")  # fmt: skip
    assert found.info.status == "FINISHED"
    assert "diagnosis/first_step_not_finite" in found.data.metrics
    assert {"plots/landscape.png", "plots/landscape.json"} <= artifacts(store, found, "plots")
    packed = re.search('id="content">([^<]*)<', file(store, found, "report.html").read_text())[1]
    shown = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert shown["descent"]["kind"] == "plane"  # nowhere on its landscape is the loss finite
    assert shown["summary"]["findings"]


def test_roughness():
    line = np.linspace(2.0, 1.0, 11)
    assert learning_rate.roughness(line) == pytest.approx(0, abs=1e-12)
    zigzag = line + 0.05 * (-1.0) ** np.arange(11)
    assert learning_rate.roughness(zigzag) == pytest.approx(0.2 / np.ptp(zigzag))
