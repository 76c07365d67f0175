"""The next space of a search's review, searched in a run of its own, with a fake in place of the search."""

from __future__ import annotations

from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV

from mlflow_hp.analysis import from_cv_results
from mlflow_hp.analysis.review import to_yaml
from mlflow_hp.errors import UserError
from projects import grid_search, grids, next_search
from projects.experiment import Outcome
from projects.search_settings import SearchSetup

RESULTS = from_cv_results(
    {
        "params": [{"learning_rate": rate} for rate in (0.1, 0.2, 0.3, 0.4)],
        "split0_test_score": np.array([0.1, 0.2, 0.3, 0.4]),
        "split1_test_score": np.array([0.1, 0.2, 0.3, 0.4]),
    }
)


@pytest.fixture
def follow(store):
    """Follow a review with a next space; gives the result, the nested run, its settings and its search."""

    def follow(space, score=0.5):
        settings = {p.name: p.read(p.default) for p in grid_search.PARAMETERS} | {"then": "review", "improve": 2}
        search = GridSearchCV(LogisticRegression(), {"C": [1]}, cv=KFold(3), scoring="accuracy", n_jobs=1)
        seen = []

        def run(setup, search):
            run_id = mlflow.active_run().info.run_id
            seen.append((run_id, setup.settings, search))
            if score is None:
                raise UserError("no luck")
            return Outcome(run_id, {"best_score": score}, [], RESULTS)

        with mlflow.start_run() as parent:
            if space is not None:
                mlflow.log_text(to_yaml(space), "next_space.yaml")
            setup = SearchSetup("Which?", settings, "the command", SimpleNamespace(classes=("a", "b")))
            following = next_search.follow(setup, search, RESULTS, parent.info.run_id, run)
        return following, parent, search, seen

    return follow


def test_a_grid_is_searched_whole_in_a_nested_run_and_the_same_folds(follow):
    space = {"learning_rate": [0.4, 0.8], "epochs": [5]}
    following, parent, search, ((run_id, settings, second),) = follow(space)
    assert following.numbers == {"next_best_score": 0.5}
    assert "0.5 in the same folds, better than 0.4 before" in following.sentence
    assert isinstance(second, GridSearchCV)
    assert second.param_grid == space
    assert (second.cv, second.scoring, second.refit) == (search.cv, "accuracy", False)
    assert (settings["then"], settings["improve"]) == ("none", 0)
    nested = mlflow.get_run(run_id)
    assert nested.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert nested.info.status == "FINISHED"


def test_ranges_are_drawn_from_as_often_as_before(follow):
    following, _, _, ((_, _, second),) = follow({"learning_rate": {"low": 0.01, "high": 0.1, "log": True}}, 0.3)
    assert "no better than 0.4" in following.sentence
    assert isinstance(second, RandomizedSearchCV)
    assert second.n_iter == 4
    assert second.param_distributions["learning_rate"].support() == (0.01, 0.1)


def test_no_next_space_and_a_search_that_fails_are_told(follow, capsys):
    following, _, _, seen = follow(None)
    assert (following.sentence, seen) == ("The review proposes no next space.", [])
    following, _, _, ((run_id, _, _),) = follow({"learning_rate": [0.1]}, None)
    assert following.sentence == "Searching the next space of the review failed: UserError: no luck."
    assert mlflow.get_run(run_id).info.status == "FAILED"
    assert "no luck" in capsys.readouterr().err


def test_what_the_review_writes_the_entry_points_read(tmp_path):
    path = tmp_path / "next_space.yaml"
    path.write_text(to_yaml({"learning_rate": [1e-5, 0.001], "hidden": ["64", "64-64"], "epochs": [5]}))
    assert grids.read(str(path), "grid") == {"learning_rate": [1e-5, 0.001], "hidden": ["64", "64-64"], "epochs": [5]}
