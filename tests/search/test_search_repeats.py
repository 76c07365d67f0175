"""Searches with several seeds of each fit: scikit-learn gets the mean, the record has every seed."""

import mlflow
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.search.live.repeated_fit import seed_of, with_seed
from tests.helpers.counted_fits import Stops, interrupted

X, Y = load_iris(return_X_y=True)
CV = StratifiedKFold(3, shuffle=True, random_state=1)
GRID = {"max_depth": [1, 3]}


def forest(**settings):
    return RandomForestClassifier(3, **{"random_state": 5, **settings})


def children(run_id):
    runs = mlflow.search_runs(
        filter_string=f"tags.`mlflow.parentRunId` = '{run_id}'", search_all_experiments=True, output_format="list"
    )
    return sorted(runs, key=lambda run: int(run.data.tags["mlflow_hp.candidate"]))


def recorded(search, **settings):
    with mlflow_hp.record_search(search, progress=False, **{"report": False, **settings}) as recording:
        search.fit(X, Y)
    return recording.run_id


def test_scores_are_means_over_seeds_that_were_fitted_apart(store):
    search = GridSearchCV(forest(), GRID, cv=CV)
    run_id = recorded(search, repeats=3)
    client = mlflow.MlflowClient()
    for index, depth in enumerate(GRID["max_depth"]):
        for split, (train, test) in enumerate(CV.split(X, Y)):
            alone = [
                forest(max_depth=depth, random_state=seed_of(5, seed)).fit(X[train], Y[train]).score(X[test], Y[test])
                for seed in range(3)
            ]
            assert search.cv_results_[f"split{split}_test_score"][index] == pytest.approx(np.mean(alone))
            points = client.get_metric_history(children(run_id)[index].info.run_id, f"fold_{split}/seed_score")
            assert [(point.step, point.value) for point in points] == list(enumerate(alone))
    assert set(search.cv_results_) == set(GridSearchCV(forest(), GRID, cv=CV).fit(X, Y).cv_results_)


def test_one_seed_is_the_search_itself(store):
    search, bare = GridSearchCV(forest(), GRID, cv=CV), GridSearchCV(forest(), GRID, cv=CV).fit(X, Y)
    run_id = recorded(search, repeats=1)
    assert search.cv_results_["mean_test_score"].tolist() == bare.cv_results_["mean_test_score"].tolist()
    assert not [name for name in children(run_id)[0].data.metrics if "seed" in name]


def test_spread_over_seeds_is_a_metric_a_column_a_picture_and_a_sentence(store):
    run_id = recorded(GridSearchCV(forest(), GRID, cv=CV), repeats=3, report=True)
    client = mlflow.MlflowClient()
    run, child = client.get_run(run_id), children(run_id)[0]
    seeds = np.array([
        [point.value for point in client.get_metric_history(child.info.run_id, f"fold_{split}/seed_score")]
        for split in range(3)
    ])  # fmt: skip
    assert child.data.metrics["seed_std_score"] == pytest.approx(np.sqrt(seeds.var(axis=1, ddof=1).mean()))
    assert "luck (the seed)" in run.data.tags["mlflow.note.content"]
    assert "std over seeds" in run.data.tags["mlflow.note.content"]
    assert "plots/scores_by_seed.png" in [file.path for file in client.list_artifacts(run_id, "plots")]
    assert "seed2_split0_test_score" in mlflow.artifacts.load_text(f"runs:/{run_id}/cv_results.csv").splitlines()[0]


def test_several_scorers_have_their_own_seeds(store):
    search = GridSearchCV(forest(), GRID, cv=CV, scoring=["accuracy", "f1_macro"], refit="f1_macro")
    names = children(recorded(search, repeats=2))[0].data.metrics
    assert {name for name in names if "seed" in name and not name.startswith("fold")} == {
        "seed_std_test_accuracy", "seed_std_test_f1_macro",
    }  # fmt: skip


def test_seeds_are_found_wherever_they_are():
    pipeline = make_pipeline(StandardScaler(), forest())
    values = {with_seed(pipeline, repeat).get_params()["randomforestclassifier__random_state"] for repeat in range(4)}
    assert len(values) == 4
    assert with_seed(pipeline, 0).get_params()["randomforestclassifier__random_state"] == 5
    generator = np.random.RandomState(0)
    assert len({seed_of(generator, repeat) for repeat in (1, 2, 3)}) == 3
    assert seed_of(None, 2) is None


def test_a_seed_or_an_estimator_of_the_space_is_varied_too(store):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), forest()),
        [{"randomforestclassifier__random_state": [1, 2]}, {"randomforestclassifier": [forest(random_state=9)]}],
        cv=CV,
    )
    for child in children(recorded(search, repeats=2)):
        assert child.data.metrics["seed_std_score"] > 0


def test_without_anything_random_all_seeds_are_equal(store):
    run_id = recorded(GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=CV), repeats=2, report=True)
    assert "nothing here depends on chance" in mlflow.get_run(run_id).data.tags["mlflow.note.content"]


class Fails(ClassifierMixin, BaseEstimator):
    """Fails for one of its seeds."""

    def __init__(self, random_state=0):
        self.random_state = random_state

    def fit(self, x, y):
        if self.random_state == seed_of(0, 1):
            raise ValueError("this seed is bad")
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.zeros(len(x), int)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_a_seed_that_fails_fails_its_fold(store):
    search = GridSearchCV(Fails(), {"random_state": [0, 7]}, cv=CV)
    first, second = children(recorded(search, repeats=2))
    assert [first.info.status, second.info.status] == ["FAILED", "FINISHED"]
    assert np.isnan(search.cv_results_["mean_test_score"][0])


def test_finished_folds_are_resumed_with_their_seeds(store, fits):
    search = GridSearchCV(Stops(folder=str(fits.folder)), {"C": [0.1, 1.0]}, cv=CV)
    fits.stop_at(4)
    run_id = interrupted(search, X, Y, repeats=2)
    assert recorded(search, repeats=2, resume=True) == run_id
    assert fits.n == 5 + 2 * 6 - 2 * 2 + 1  # two folds of two seeds had ended; the refit
    assert all("fold_0/seed_score" in child.data.metrics for child in children(run_id))
    bare = GridSearchCV(Stops(folder=str(fits.folder)), {"C": [0.1, 1.0]}, cv=CV).fit(X, Y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], bare.cv_results_["mean_test_score"])


def test_another_number_of_seeds_is_another_search(store):
    search = GridSearchCV(forest(), GRID, cv=CV)
    run_id = recorded(search, repeats=2)
    with pytest.raises(UserError, match="setting of the search"):
        recorded(search, repeats=3, resume=run_id)


@pytest.mark.parametrize("repeats", [0, -1, 2.0, True, "3", None])
def test_a_wrong_number_of_seeds_is_refused(store, repeats):
    with pytest.raises(UserError, match="is no number of seeds"):
        recorded(GridSearchCV(forest(), GRID), repeats=repeats)


def test_steps_of_several_seeds_are_refused(store):
    with pytest.raises(UserError, match="exclude each other"):
        recorded(GridSearchCV(forest(), GRID), repeats=2, record="batches")
