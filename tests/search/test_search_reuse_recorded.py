"""A recorded search reuses compiled models, and finds what the bare search finds."""

from __future__ import annotations

import contextlib

import keras
import pytest
from scikeras.wrappers import KerasClassifier
from sklearn.model_selection import GridSearchCV
from test_search import LOKY, children, points, record
from test_search_reuse import X, Y, mlp

from mlflow_hp.search.live import worker
from mlflow_hp.search.speedups import model_reuse

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]
GRID = {"model__learning_rate": [0.3, 0.03], "model__init": ["he_normal"]}


def search(random_state=0, grid=GRID, **settings):
    estimator = KerasClassifier(mlp, epochs=2, batch_size=32, verbose=0, random_state=random_state)

    return GridSearchCV(estimator, grid, **{"cv": 2, "return_train_score": True, **settings})


def scores(fitted):
    return {
        name: values.tolist() for name, values in fitted.cv_results_.items() if "_test_" in name or "_train_" in name
    }


@pytest.fixture
def records(monkeypatch):
    """What became of each fit of this process."""
    kept = []

    @contextlib.contextmanager
    def reused_models(tell):
        with model_reuse.reused_models(tell) as record:
            kept.append(record)
            yield record

    monkeypatch.setattr(worker, "reused_models", reused_models)
    return kept


@pytest.mark.parametrize("random_state", [0, None])
def test_the_same_scores_from_one_compiled_model(store, records, random_state):
    bare, ours = search(random_state), search(random_state)
    keras.utils.set_random_seed(1)
    bare.fit(X, Y)
    keras.utils.set_random_seed(1)
    run_id = record(ours, X, Y)
    assert scores(ours) == scores(bare)
    weights = [each.best_estimator_.model_.get_weights() for each in (ours, bare)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*weights, strict=True))
    assert len(records) == 4  # two combinations, two folds; not the refit
    assert sum(each.n_reused for each in records) == 3
    assert not model_reuse._kept.models
    for run in children(store, run_id):
        assert points(store, run, "fold_1/loss").keys() == {0, 1}
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags


@pytest.mark.parametrize("settings", [{"reuse": False}, {"record": "batches"}])
def test_off(records, settings):
    record(search(None, {"model__learning_rate": [0.3]}, refit=False), X, Y, **settings)
    assert not records


@pytest.mark.slow
def test_other_processes_reuse_too():
    bare, ours = search(n_jobs=2, refit=False).fit(X, Y), search(n_jobs=2, refit=False)
    record(ours, X, Y)
    assert scores(ours) == scores(bare)
