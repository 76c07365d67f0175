"""The entry point `compare`."""

from __future__ import annotations

import mlflow
import pytest

from projects import stopping
from projects.compare import EXPERIMENT
from projects.runner import run
from tests.helpers.stored_runs import SAME, add_run, new_experiment


@pytest.fixture
def run_ids(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    tags = {"kind": "training", **SAME}
    return [add_run(store, experiment, metrics={"val_loss": value}, tags=tags) for value in (0.1, 0.2)]


def test_it_records_into_its_own_run(store, run_ids, capsys):
    assert run(EXPERIMENT, ["--runs", ", ".join(run_ids), "--by", "author"]) == 0
    made = store.get_run(capsys.readouterr().out.rpartition("(run ")[2].strip().rstrip(")"))
    assert made.info.status == "FINISHED"
    assert made.data.tags["mlflow_hp.kind"] == "comparison"
    assert made.data.params["n_runs"] == "2"
    assert "**To repeat it**: `mlflow run . -e compare --env-manager local" in made.data.tags["mlflow.note.content"]
    assert "comparison.html" in [artifact.path for artifact in store.list_artifacts(made.info.run_id)]


def test_by_default_the_active_experiment_is_compared(store, tmp_path, run_ids, capsys):
    mlflow.set_experiment(experiment_id=store.get_run(run_ids[0]).info.experiment_id)
    assert run(EXPERIMENT, []) == 0
    made = store.get_run(capsys.readouterr().out.rpartition("(run ")[2].strip().rstrip(")"))
    assert made.data.params["n_runs"] == "2"


def test_a_run_that_mlflow_has_started_does_not_stay_where_there_is_nothing_to_compare(
    store, tmp_path, monkeypatch, capsys
):
    experiment = new_experiment(store, tmp_path)
    add_run(store, experiment, tags={"kind": "comparison"})  # an earlier comparison is nothing to compare
    mlflow.set_experiment(experiment_id=experiment)
    started = store.create_run(experiment).info.run_id
    watched = []
    monkeypatch.setattr(stopping, "start_watching", lambda *what: watched.append(what))
    monkeypatch.setenv("MLFLOW_RUN_ID", started)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    assert run(EXPERIMENT, []) == 2
    said = capsys.readouterr().err
    assert said.startswith("compare: nothing to compare: the experiment 'comparison ")
    assert "has no runs yet; record some" in said
    assert watched == [(started, "delete")]
    assert store.get_run(started).info.status == "KILLED"  # until `mlflow run` makes it FAILED


def test_a_filter_that_matches_nothing_is_said(store, run_ids, capsys):
    mlflow.set_experiment(experiment_id=store.get_run(run_ids[0]).info.experiment_id)
    assert run(EXPERIMENT, ["--filter", "metrics.val_loss < 0"]) == 2
    assert "has no runs that match 'metrics.val_loss < 0'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to compare: the experiment 'comparison "),
        (["--experiment", "none such"], "there is no experiment 'none such': the store has '"),
        (["--runs", "0" * 32], "0" * 32),
    ],
)
def test_bad_input_is_said_before_a_run_is_started(store, tmp_path, capsys, arguments, complaint):
    experiment = new_experiment(store, tmp_path)
    mlflow.set_experiment(experiment_id=experiment)
    assert run(EXPERIMENT, arguments) == 2
    assert complaint in capsys.readouterr().err
    assert not store.search_runs([experiment])
