"""What a recorded search shows on its parent run when it has ended."""

from __future__ import annotations

import mlflow
import pytest
from sklearn.model_selection import cross_val_score

import mlflow_hp
from mlflow_hp.analysis.search_results import from_cv_results
from mlflow_hp.search.report import search_description
from mlflow_hp.training.report import Report
from tests.helpers.searches import X, Y, grid, pictures, record

pytestmark = pytest.mark.usefixtures("store")


def without_times(text):
    """The text without its sentence on fit times: scikit-learn's have the first fit of the process in them."""
    return [line for line in text.splitlines() if not line.startswith("- The cheapest within")]


def test_pictures_and_description_on_the_parent(store):
    search = grid()
    run_id = record(search, report=True)
    assert pictures(store, run_id) == {
        "scores.png", "scores_by_fold.png", "score_by_fit_time.png", "parallel_coordinates.png", "importance.png",
        "heatmap_C_fit_intercept.png",
    }  # fmt: skip
    data = store.get_run(run_id).data
    told = data.tags["mlflow.note.content"]
    described = search_description(from_cv_results(search.cv_results_))
    assert without_times(told) == without_times(described)
    assert told.startswith("**Result**: The best of 4 candidates is `C=1 ")
    assert "over 3 folds.\n\n**4 candidates, 3 folds each**\n\n- The best, `C=1 " in told
    assert len([line for line in told.splitlines() if line.startswith("| ")]) == 2 + 4
    assert data.metrics["report_seconds"] > 0
    assert "mlflow_hp.recording_error" not in data.tags


def test_a_description_that_is_there_stays(store):
    with mlflow.start_run(description="mine") as run:
        record(grid(), report=True)
    assert store.get_run(run.info.run_id).data.tags["mlflow.note.content"] == "mine"
    assert "scores.png" in pictures(store, run.info.run_id)


def test_off(store):
    run_id = record(grid(), report=False)
    assert "mlflow.note.content" not in store.get_run(run_id).data.tags
    assert not pictures(store, run_id)


def test_several_scorers_are_ranked_by_the_one_of_refit(store):
    search = grid(scoring=["neg_log_loss", "accuracy"], refit="accuracy")
    told = store.get_run(record(search, report=True)).data.tags["mlflow.note.content"]
    assert "(accuracy 0." in told


def test_each_fit_is_shown(store):
    search = grid()
    with mlflow_hp.record_search(search, progress=False) as recording:
        cross_val_score(search, X, Y, cv=2)
    told = store.get_run(recording.run_id).data.tags["mlflow.note.content"]
    assert told.count("### Fit ") == 2
    assert "scores.png" in pictures(store, recording.run_id)
    assert "scores.png" in pictures(store, recording.run_id, "plots/fit_1")


def test_an_error_there_does_not_end_the_search(store, monkeypatch):
    def picture(*_):
        raise OSError("no room")

    monkeypatch.setattr(Report, "picture", picture)
    with pytest.warns(RuntimeWarning, match="pictures or description are missing: OSError: no room"):
        run_id = record(grid(), report=True)
    run = store.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "no room" in run.data.tags["mlflow_hp.recording_error"]
    assert run.data.tags["mlflow_hp.done"] == "4"
