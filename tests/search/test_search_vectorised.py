"""Vectorised searches rank as plain ones, and their best candidates' scores are those of plain ones."""

from __future__ import annotations

import io

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp.errors import RecordingWarning, UserError
from mlflow_hp.search.vectorised import search_round, train
from tests.helpers.counted_fits import interrupted
from tests.helpers.keras_searches import X, Y, dropout_mlp
from tests.helpers.searches import children, points, record

pytestmark = pytest.mark.usefixtures("store", "new_experiment")
GRID = {"learning_rate": [0.001, 0.03, 0.1, 0.3]}
HALVES = [(np.arange(150, 300), np.arange(150)), (np.arange(150), np.arange(150, 300))]


def classifier(model=dropout_mlp, **named):
    given = {"epochs": 2, "batch_size": 32, "verbose": 0, "random_state": 0, "learning_rate": 0.1, "momentum": 0.9}
    return KerasClassifier(model, **{**given, **named})


def grid(estimator=None, params=None, **named):
    return GridSearchCV(estimator or classifier(), params or GRID, **{"cv": HALVES, "refit": False, **named})


def vectorised(search, **named):
    with mlflow_hp.record_search(search, engine="vectorised", report=False, progress=False, **named) as recording:
        search.fit(X, Y)
    return recording.run_id


def tags_of(store, run_id, name="mlflow_hp.engine"):
    runs = sorted(children(store, run_id), key=lambda run: int(run.data.tags["mlflow_hp.candidate"]))
    return [run.data.tags.get(name) for run in runs]


def scores(search):
    return np.array([search.cv_results_[f"split{split}_test_score"] for split in range(2)]).T


@pytest.fixture
def plain(store):
    return fitted_plainly(grid(return_train_score=True))


def fitted_plainly(search):
    """A search as scikit-learn computes it; models are reused, which changes no bit."""
    with mlflow_hp.record_search(search, report=False, progress=False):
        return search.fit(X, Y)


def test_the_best_are_exact_and_the_rest_is_near(store, plain):
    search = grid(return_train_score=True, refit=True)
    run_id = vectorised(search, refit_top=2)
    engines = tags_of(store, run_id)
    assert sorted(engines) == ["plain"] * 2 + ["vectorised"] * 2
    exact = np.array(engines) == "plain"
    assert exact[search.best_index_]
    assert search.best_index_ == np.argmax(plain.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(scores(search)[exact], scores(plain)[exact])
    np.testing.assert_allclose(scores(search), scores(plain), atol=0.02)
    assert search.cv_results_.keys() == plain.cv_results_.keys()
    for run in children(store, run_id):
        assert run.info.status == "FINISHED"
        assert list(points(store, run, "fold_1/loss")) == [0, 1]
        if run.data.tags["mlflow_hp.engine"] == "vectorised":
            losses = pd.read_csv(io.StringIO(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/batch_losses.csv")))
            assert list(losses) == ["step", "fold_0", "fold_1"]
            assert len(losses) == 10
            mean = np.average(losses["fold_0"][:5], weights=[32, 32, 32, 32, 22])
            assert points(store, run, "fold_0/loss")[0] == pytest.approx(mean)


def test_a_pipeline_is_vectorised_with_its_own_data(store):
    estimator = make_pipeline(StandardScaler(), classifier(learning_rate=0.01))
    search = grid(estimator, {"kerasclassifier__momentum": [0.0, 0.5], "kerasclassifier__epochs": [1, 2]})
    bare = fitted_plainly(clone(search))
    run_id = vectorised(search, refit_top=0)
    assert tags_of(store, run_id) == ["vectorised"] * 4
    np.testing.assert_allclose(scores(search), scores(bare), atol=0.02)


def test_what_has_no_rule_is_fitted_plainly_and_told(store):
    class Quiet(keras.callbacks.Callback):
        pass

    search = grid(params={"learning_rate": [0.03, 0.3], "callbacks": [None, Quiet]})
    with pytest.warns(RecordingWarning, match="4 fits of the vectorised search run one by one: .* callbacks"):
        run_id = vectorised(search, refit_top=1)
    bare = fitted_plainly(clone(search))
    engines = tags_of(store, run_id)
    assert engines.count("plain") in (2, 3)
    exact = np.array(engines) == "plain"
    np.testing.assert_array_equal(scores(search)[exact], scores(bare)[exact])
    told = store.get_run(run_id).data.tags["mlflow_hp.plain_trainings"]
    assert "4 x not vectorised: the estimator has callbacks" in told


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.parametrize("place", ["train", "result_of"])
def test_an_error_of_ours_leaves_the_plain_search(store, plain, monkeypatch, place):
    def broken(*_):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(f"mlflow_hp.search.vectorised.search_round.{place}", broken)
    search = grid(return_train_score=True)
    with pytest.warns(RecordingWarning, match="fits? of the vectorised search run one by one: ZeroDivisionError"):
        run_id = vectorised(search)
    if place == "train":
        np.testing.assert_array_equal(scores(search), scores(plain))
        assert set(tags_of(store, run_id)) == {"plain"}
    else:  # what has been trained counts, as it is marked
        np.testing.assert_allclose(scores(search), scores(plain), atol=0.02)


@pytest.mark.thorough
def test_an_interrupted_search_is_resumed_with_either_engine(store, plain, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlflow_hp.search.live.worker.FoldTask.__call__", stop)
        run_id = interrupted(grid(return_train_score=True), X, Y, engine="vectorised", refit_top=2)
    assert sorted(run.info.status for run in children(store, run_id)) == ["FINISHED"] * 2 + ["KILLED"] * 2
    sizes = []
    monkeypatch.setattr(search_round, "train", lambda *given: sizes.append(len(given[1])) or train(*given))
    again = grid(return_train_score=True)
    assert vectorised(again, refit_top=2, resume=run_id) == run_id
    assert sizes == [4]
    assert store.get_run(run_id).data.tags["mlflow_hp.folds_taken_over"] == "4"
    engines = np.array(tags_of(store, run_id))
    assert engines.tolist().count("plain") == 2
    np.testing.assert_array_equal(scores(again)[engines == "plain"], scores(plain)[engines == "plain"])
    exactly = grid(return_train_score=True)
    record(exactly, X, Y, resume=run_id)
    np.testing.assert_array_equal(scores(exactly), scores(plain))
    assert set(tags_of(store, run_id)) == {"plain"}
    assert store.get_run(run_id).data.tags["mlflow_hp.folds_taken_over"] == "4"
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}


def test_an_interruption_of_the_training_leaves_nothing_running(store, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(search_round, "train", stop)
    run_id = interrupted(grid(), X, Y, engine="vectorised")
    assert {run.info.status for run in children(store, run_id)} == {"KILLED"}


@pytest.mark.thorough
def test_more_are_fitted_until_the_best_is_exact(store, plain, monkeypatch):
    """Scores of the vectorised engine that are all too high by ever more: each exact one falls below the next."""
    real, bonus = search_round.score, iter(np.linspace(5, 1, 8))

    def flattering(*given):
        result = real(*given)
        return {**result, "test_scores": result["test_scores"] + next(bonus)}

    monkeypatch.setattr(search_round, "score", flattering)
    search = grid(refit=True)
    run_id = vectorised(search, refit_top=1)
    assert set(tags_of(store, run_id)) == {"plain"}
    assert search.best_score_ == plain.cv_results_["mean_test_score"].max()


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({"engine": "quick"}, "engine='quick' is unknown; choose 'plain', or 'vectorised'"),
        ({"engine": "vectorised", "record": "batches"}, "leave one of them out"),
        ({"engine": "vectorised", "refit_top": -1}, "refit_top=-1 is not a number of candidates"),
        ({"engine": "vectorised", "refit_top": True}, "refit_top=True is not a number of candidates"),
    ],
)
def test_settings_that_make_no_sense_are_refused(named, problem):
    with pytest.raises(UserError, match=problem), mlflow_hp.record_search(grid(), **named):
        pass


def test_every_seed_is_vectorised(store):
    grid_of_two = {"learning_rate": [0.03, 0.1]}
    search = grid(params=grid_of_two)
    run_id = vectorised(search, refit_top=0, repeats=2)
    plain_search = grid(params=grid_of_two)
    with mlflow_hp.record_search(plain_search, report=False, progress=False, repeats=2) as recording:
        plain_search.fit(X, Y)
    np.testing.assert_allclose(scores(search), scores(plain_search), atol=0.02)
    for one, other in zip(*(_by_candidate(store, each) for each in (run_id, recording.run_id)), strict=True):
        for name in ("fold_0/seed_score", "fold_0/loss", "fold_1/fit_1/loss"):
            values = [list(points(store, run, name).values()) for run in (one, other)]
            np.testing.assert_allclose(*values, rtol=0.02, atol=0.02)
        columns = pd.read_csv(io.StringIO(mlflow.artifacts.load_text(f"runs:/{one.info.run_id}/batch_losses.csv")))
        assert list(columns) == ["step", "fold_0", "fold_0/seed_1", "fold_1", "fold_1/seed_1"]
        assert abs(columns["fold_0"][0] - columns["fold_0/seed_1"][0]) > 1e-4


def _by_candidate(store, run_id):
    return sorted(children(store, run_id), key=lambda run: int(run.data.tags["mlflow_hp.candidate"]))


def test_pruning_a_vectorised_search_is_refused():
    with pytest.raises(UserError, match="has no fits to save"):
        vectorised(grid(), prune="exact")
