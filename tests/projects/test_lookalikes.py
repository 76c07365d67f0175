"""Look-alikes of well-known tables, as they come, through the entry points: trained on, or refused in a sentence."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest

from projects import cost_contour, grid_search, learning_rate_range, train
from projects.runner import run
from tests.helpers.tables import ALL, auto_mpg, boston, california, telco_churn, wine_quality


@pytest.fixture
def go(store, capsys, tmp_path):
    """Run an experiment on a look-alike; gives its top run, or None, its status, and what it said."""

    def go(experiment, lookalike, *argv):
        path = tmp_path / lookalike.name
        path.write_bytes(lookalike.content)
        before = {r.info.run_id for r in all_runs(store)}
        given = dict(lookalike.settings) | dict(zip(argv[::2], argv[1::2], strict=True))
        status = run(experiment, ["--data", str(path), *(w for k, v in given.items() for w in (f"--{k}", v))])
        new = [r for r in all_runs(store) if r.info.run_id not in before]
        top = next((r for r in new if "mlflow.parentRunId" not in r.data.tags), None)
        printed = capsys.readouterr()
        return top, status, printed.out + printed.err

    return go


def all_runs(store):
    experiment = store.get_experiment_by_name("tests").experiment_id
    return mlflow.search_runs([experiment], output_format="list", max_results=5000)


def preparation(run):
    return json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/data/preparation.json"))


SMALL = ("epochs", "2", "hidden", "8", "batch_size", "8", "learning_rate", "0.01")


@pytest.mark.thorough
@pytest.mark.sampled(9)
@pytest.mark.parametrize("lookalike", ALL, ids=lambda make: make.__name__)
@pytest.mark.usefixtures("blank_pictures")
def test_trained_on(go, lookalike):
    made = lookalike()
    found, status, said = go(train.EXPERIMENT, made, *SMALL)
    assert (status, found.info.status) == (0, "FINISHED"), said
    kept = preparation(found)
    assert f"{made.name}, as it was read:" in said
    assert all(f"  {note}\n" in said for note in kept["notes"])
    is_regression = lookalike in (auto_mpg, boston, california)
    assert ("test_root_mean_squared_error" in found.data.metrics) == is_regression
    assert ("test_accuracy" in found.data.metrics) != is_regression
    assert int(found.data.params["data/n_features"]) == len(kept["features"])


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_scores_are_in_units_of_the_target(go):
    found, _, said = go(train.EXPERIMENT, california(), *SMALL, "epochs", "15")
    metrics, target = found.data.metrics, preparation(found)["target"]
    assert metrics["test_loss"] == pytest.approx(
        (metrics["test_root_mean_squared_error"] / target["standard_deviation"]) ** 2, rel=1e-3
    )
    assert metrics["test_r2"] > 0.5
    assert target["standard_deviation"] > metrics["test_root_mean_squared_error"] > metrics["test_mean_absolute_error"]
    assert metrics["test_mean_absolute_error"] > 1000
    assert f"mean absolute error {metrics['test_mean_absolute_error']:,.6g}" in said


@pytest.mark.usefixtures("blank_pictures")
def test_whole_qualities_are_classes_or_numbers(go):
    found, _, said = go(train.EXPERIMENT, wine_quality(), *SMALL, "task", "regression")
    assert "test_r2" in found.data.metrics
    assert found.data.params["task"] == "regression"
    assert "regression: quality is predicted as a number, from 3 to 8" in said


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_a_search_for_numbers_is_scored_in_units(go):
    found, status, said = go(
        grid_search.EXPERIMENT, california(), "grid", '{"learning_rate": [0.01]}', "epochs", "2", "hidden", "8", "cv",
        "2", "scoring", "neg_mean_absolute_error", "batch_size", "16",
    )  # fmt: skip
    assert status == 0, said
    assert found.data.metrics["best_score"] < -1000
    assert found.data.metrics["test_score"] < -1000


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_the_range_test_and_the_line_read_the_same_files(go):
    found, status, _ = go(learning_rate_range.EXPERIMENT, boston(), "epochs", "2", "hidden", "8")
    assert (status, found.info.status) == (0, "FINISHED")
    found, status, said = go(cost_contour.EXPERIMENT, auto_mpg(), "feature", "4", "epochs", "1", "animate", "false")
    assert (status, found.info.status) == (0, "FINISHED")
    assert "6 of 200 rows left out, since 4 or 1 is missing" in said


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("experiment", "lookalike", "settings", "words"),
    [
        (train, auto_mpg, {"target": "mpg"}, "has no header, so its columns are numbered"),
        (train, telco_churn, {"task": "regression"}, "column 'Churn' of .* is 'Yes' in row 1"),
        (train, california, {"task": "classification"}, "too few rows for each to be a class; give task=regression"),
        (train, california, {"loss": "categorical_crossentropy"}, "loss=categorical_crossentropy needs classes"),
        (train, california, {"drop": "income"}, "drop='income': .* has the columns longitude"),
        (train, wine_quality, {"header": "false"}, "has no header"),
        (grid_search, california, {"scoring": "roc_auc"}, "scoring=roc_auc cannot score these data"),
        (learning_rate_range, telco_churn, {"target": "customerID"}, "too few rows for each to be a class"),
        (cost_contour, wine_quality, {"task": "classification", "feature": "pH"}, "a line is fitted here"),
        (cost_contour, california, {"feature": "ocean_proximity"}, "is '<1H OCEAN' in row 1"),
    ],
)
def test_refused_before_a_run_begins(go, experiment, lookalike, settings, words):
    import re

    options = [word for pair in settings.items() for word in pair]
    found, status, said = go(experiment.EXPERIMENT, lookalike(), *options)
    assert (found, status) == (None, 2)
    assert re.search(words, said)
    assert said.count("\n") == 1
    assert len(said) < 600


def test_the_run_that_mlflow_began_ends_with_the_reason(go, store, monkeypatch):
    begun = store.create_run(store.get_experiment_by_name("tests").experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", begun.info.run_id)
    assert go(train.EXPERIMENT, telco_churn(), "target", "Left")[1] == 2
    found = store.get_run(begun.info.run_id)
    assert found.info.status == "FAILED"
    assert "has the columns customerID" in found.data.tags["mlflow_hp.error"]


def test_settings_of_tables_are_refused_for_other_data(store, capsys):
    cases = {
        "--task=regression": "task=regression: data=digits has classes",
        "--header=false": "header=false is for CSV files",
        "--drop=a": "drop=a is for CSV files",
    }
    for option, words in cases.items():
        assert run(train.EXPERIMENT, [option]) == 2
        assert words in capsys.readouterr().err


def test_nothing_of_the_test_part_is_in_the_preparation(tmp_path):
    from tests.helpers.samples import load

    made = california()
    path = tmp_path / made.name
    path.write_bytes(made.content)
    loaded = load(data=str(path), **made.settings)
    n_rooms = loaded.features.index("total_rooms")
    assert loaded.x_train[:, n_rooms].mean() == pytest.approx(0, abs=1e-5)
    assert abs(loaded.x_test[:, n_rooms].mean()) > 1e-3
    # the imputed value is the median of the bedrooms that the training part has
    n_bedrooms = loaded.features.index("total_bedrooms")
    values, counts = np.unique(np.concatenate([loaded.x_train, loaded.x_test])[:, n_bedrooms], return_counts=True)
    known = loaded.x_train[:, n_bedrooms]
    imputed = values[counts.argmax()]
    assert imputed == pytest.approx(np.median(known[known != imputed]), abs=1e-2)
