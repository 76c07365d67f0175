"""A recorded search reuses compiled models, and finds what the bare search finds."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
from scikeras.wrappers import KerasClassifier
from sklearn.model_selection import GridSearchCV

from mlflow_hp.search.live import worker
from mlflow_hp.search.speedups import model_reuse
from tests.helpers.keras_searches import X, Y, dropout_mlp
from tests.helpers.searches import LOKY, children, points, record

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]
GRID = {"model__learning_rate": [0.3, 0.03], "model__init": ["he_normal"]}
HALVES = [(np.arange(150, 300), np.arange(150)), (np.arange(150), np.arange(150, 300))]


def search(random_state=0, grid=GRID, validation_split=0.0, **settings):
    estimator = KerasClassifier(
        dropout_mlp, epochs=2, batch_size=32, verbose=0, random_state=random_state, validation_split=validation_split
    )
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


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("random_state", "rates", "n_folds", "validation_split"), [(0, [0.3, 0.03], 1, 0.25), (None, [0.03], 2, 0.0)]
)
def test_the_same_scores_from_one_compiled_model(store, records, random_state, rates, n_folds, validation_split):
    grid = GRID | {"model__learning_rate": rates}
    bare, ours = (search(random_state, grid, validation_split, cv=HALVES[:n_folds]) for _ in range(2))
    keras.utils.set_random_seed(1)
    bare.fit(X, Y)
    keras.utils.set_random_seed(1)
    run_id = record(ours, X, Y)
    assert scores(ours) == scores(bare)
    assert ours.best_params_ == bare.best_params_
    weights = [each.best_estimator_.model_.get_weights() for each in (ours, bare)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*weights, strict=True))
    assert len(records) == 2  # those of each candidate in each fold; not the refit
    assert sum(each.n_reused for each in records) == 1
    assert not model_reuse._cache.models
    for run in children(store, run_id):
        for fold in range(n_folds):
            assert points(store, run, f"fold_{fold}/loss").keys() == {0, 1}
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags


@pytest.mark.parametrize("settings", [{"reuse": False}, {"record": "batches"}])
def test_off(records, settings):
    record(search(None, {"model__learning_rate": [0.3]}, refit=False, cv=HALVES[:1]), X, Y, **settings)
    assert not records


@pytest.mark.thorough
@pytest.mark.slow
def test_other_processes_reuse_too():
    bare, ours = search(n_jobs=2, refit=False).fit(X, Y), search(n_jobs=2, refit=False)
    record(ours, X, Y)
    assert scores(ours) == scores(bare)
