"""Review of recorded searches: artifacts, description, command, and the next space searched."""

from __future__ import annotations

import json
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp.analysis import from_cv_results
from mlflow_hp.analysis.diagnosis import from_json
from mlflow_hp.analysis.review import review, to_yaml
from mlflow_hp.cli.main import main
from mlflow_hp.errors import UserError
from mlflow_hp.search import read_space, review_run, time_limit
from mlflow_hp.search.run_review import curves_of, results_of
from mlflow_hp.tracking import tags
from mlflow_hp.training import describe_run
from tests.helpers.score_table import Looked, data

X, Y = make_classification(300, 12, n_informative=8, flip_y=0.02, class_sep=1.5, random_state=3)


@pytest.fixture
def recorded(store):
    """A search whose best value lies at the edge, and its parent run."""
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", LogisticRegression())])
    search = GridSearchCV(pipeline, {"clf__C": [1e-6, 1e-5, 1e-4], "clf__solver": ["lbfgs"]}, scoring="neg_log_loss")
    with mlflow_hp.record_search(search, progress=False) as recording:
        search.fit(X, Y)
    return search, mlflow.get_run(recording.run_id)


def test_the_parent_run_holds_its_review(recorded, tmp_path, capsys):
    search, run = recorded
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/review.json")
    expected = review(from_cv_results(search.cv_results_))
    assert [finding.name for finding in from_json(json.loads(text)["findings"])] == ["edge/clf__C"]
    assert json.loads(text)["next_space"] == expected.next_space
    description = run.data.tags[tags.DESCRIPTION_TAG]
    assert description.count("at the largest clf__C tried") == 1
    html = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.html")
    assert "at the largest clf__C tried" in html
    assert [finding["name"] for finding in describe_run(run.info.run_id)["findings"]] == ["edge/clf__C"]

    again = review_run(run.info.run_id)
    assert [finding.text for finding in again.findings] == [finding.text for finding in expected.findings]
    assert again.next_space == expected.next_space

    path = tmp_path / "next.yaml"
    assert main(["review", run.info.run_id, "--output", str(path)]) == 0
    assert "best at the edge" in capsys.readouterr().out
    followed = GridSearchCV(search.estimator, read_space(path), scoring="neg_log_loss").fit(X, Y)
    assert followed.best_score_ > search.best_score_
    assert set(followed.best_params_) == set(search.best_params_)


def test_runs_that_are_no_searches_are_refused_in_a_sentence(recorded, capsys):
    _, run = recorded
    child = mlflow.search_runs(filter_string=f"tags.`{tags.PARENT_TAG}` = '{run.info.run_id}'", output_format="list")[0]
    with pytest.raises(UserError, match=f"is a candidate of a search; give its parent run, {run.info.run_id}"):
        review_run(child.info.run_id)
    with mlflow.start_run() as other:
        pass
    assert main(["review", other.info.run_id]) == 2
    assert "is not the parent run of a search" in capsys.readouterr().err
    assert main(["review", "0" * 32]) == 2
    assert "there is no run" in capsys.readouterr().err


def test_a_search_of_two_candidates_has_no_next_space(store, capsys):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]})
    with mlflow_hp.record_search(search, report=False, progress=False) as recording:
        search.fit(X, Y)
    assert main(["review", recording.run_id]) == 2
    assert "fewer than 3 candidates" in capsys.readouterr().err


def test_ranges_are_read_as_distributions(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(to_yaml({"C": {"low": 0.01, "high": 1.0, "log": True}, "max_iter": {"low": 50, "high": 60}}))
    search = RandomizedSearchCV(LogisticRegression(), read_space(path), n_iter=4, random_state=0).fit(X, Y)
    assert all(0.01 <= c["C"] <= 1 and 50 <= c["max_iter"] <= 60 for c in search.cv_results_["params"])
    for text in ("[1]", "{C: 3}", "{C: {low: 2, high: 1}}", "{C: ["):
        path.write_text(text)
        with pytest.raises(UserError, match=r"space\.yaml"):
            read_space(path)


def test_curves_of_the_folds_are_read(recorded):
    search, run = recorded
    client = mlflow.MlflowClient()
    children = client.search_runs([run.info.experiment_id], f"tags.`{tags.KIND_TAG}` = 'candidate'")
    for child in children:
        for fold in range(5):
            for epoch in range(3):
                client.log_metric(child.info.run_id, f"fold_{fold}/val_loss", 1 / (1 + epoch), step=epoch)
    curves = curves_of(run.info.run_id, from_cv_results(search.cv_results_))
    assert set(curves) == {0, 1, 2}
    assert np.array_equal(curves[2][4]["val_loss"], [1, 1 / 2, 1 / 3])


def test_pruned_candidates_have_not_failed(store):
    high = [(97, 96, 95, 94), (96, 97, 94, 94), (95, 95, 96, 95), (98, 96, 97, 94)]
    hopeless = [(50, 51, 52, 53), (40, 40, 41, 42)]
    grids = [{"hits": [hits], "effort": [1 + index]} for index, hits in enumerate([*high, *hopeless])]
    x, y, cv = data(4)
    search = GridSearchCV(Looked(), grids, cv=cv)
    with mlflow_hp.record_search(search, prune="exact", progress=False) as recording:
        search.fit(x, y)
    results = results_of(recording.run_id)
    assert results.is_skipped.tolist() == np.isnan(search.cv_results_["mean_test_score"]).tolist()
    assert results.is_skipped[-2:].all()
    failed = review(results, failed=results.is_skipped)
    assert "infeasible" in {finding.name.partition("/")[0] for finding in failed.findings}  # as it would be
    for findings in (review_run(recording.run_id).findings, reviewed(recording.run_id)):
        assert "infeasible" not in {finding.name.partition("/")[0] for finding in findings}


def test_candidates_beyond_a_time_budget_have_not_failed(store, monkeypatch):
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: float(len(Looked.fits))))
    Looked.fits = []
    grids = [{"hits": [(90 + index, 91 - index, 90)], "effort": [1 + index]} for index in range(8)]
    x, y, cv = data(3)
    search = GridSearchCV(Looked(), grids, cv=cv)
    with mlflow_hp.record_search(search, time_budget="13.5s", progress=False) as recording:
        search.fit(x, y)
    results = results_of(recording.run_id)
    assert results.is_skipped.tolist() == [False] * 4 + [True] * 4
    for findings in (review_run(recording.run_id).findings, reviewed(recording.run_id)):
        assert "infeasible" not in {finding.name.partition("/")[0] for finding in findings}


def test_a_repeated_review_knows_what_the_estimator_fixed(store):
    class Rated(Looked):
        def __init__(self, hits=(), optimizer="sgd", learning_rate=0.01):
            super().__init__(hits)
            self.optimizer, self.learning_rate = optimizer, learning_rate

    grids = [{"hits": [(80 + 5 * i, 81 + 5 * i, 80 + 5 * i)], "optimizer": [name]} for i, name in enumerate("abc")]
    x, y, cv = data(3)
    search = GridSearchCV(Rated(), grids, cv=cv)
    with mlflow_hp.record_search(search, progress=False) as recording:
        search.fit(x, y)
    assert review_run(recording.run_id).next_space["learning_rate"] == [0.001, 0.01, 0.1]
    artifact = f"{mlflow.get_run(recording.run_id).info.artifact_uri}/review.json"
    content = json.loads(mlflow.artifacts.load_text(artifact))
    assert content["next_space"]["learning_rate"] == [0.001, 0.01, 0.1]
    assert content["fixed"] == {"learning_rate": 0.01}


def reviewed(run_id):
    """Findings that the run holds."""
    text = mlflow.artifacts.load_text(f"{mlflow.get_run(run_id).info.artifact_uri}/review.json")
    return from_json(json.loads(text)["findings"])
