"""Searches that are not resumed, as something has changed or cannot be known: what is named as the reason."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
)

import mlflow_hp
from mlflow_hp.errors import UserError
from tests.helpers.searches import LOKY, Picky, X, Y, children, record

pytestmark = [pytest.mark.usefixtures("store", "new_experiment"), pytest.mark.filterwarnings(LOKY)]


def changed(**settings):
    return lambda search: search.set_params(**settings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(param_grid={"strength": [0, 5]}), "the search space"),
        (changed(cv=2), "differences: cv"),
        (changed(scoring="f1_macro"), "scoring or"),
        (changed(return_train_score=True), "return_train_score"),
        (changed(cv=KFold(3, shuffle=True)), "cv=KFold shuffles without a seed"),
        (changed(cv=ShuffleSplit(3)), "cv=ShuffleSplit shuffles without a seed"),
    ],
)
def test_what_is_not_the_same_is_refused(fits, change, reason):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    run_id = record(search)
    with pytest.raises(UserError, match=reason), mlflow_hp.record_search(change(clone(search)), resume=run_id):
        pass
    assert mlflow.active_run() is None


def test_other_data_are_refused(store):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    run_id = record(search)
    for x, y in ((X + 1e-12, Y), (X, Y[::-1])):
        with pytest.raises(UserError, match="differences: the data"):
            record(clone(search), x, y, resume=run_id)
    weighted = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=3)
    run_id = record(weighted)
    with (
        pytest.raises(UserError, match="another argument of fit"),
        mlflow_hp.record_search(again := clone(weighted), resume=run_id, report=False),
    ):
        again.fit(X, Y, sample_weight=np.ones(len(X)))


def test_other_rows_are_refused():
    splits = list(KFold(3, shuffle=True, random_state=0).split(X))
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=iter(splits))
    run_id = record(search)
    again = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=iter(splits))
    record(again, resume=run_id)
    other = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=iter(list(KFold(3).split(X))))
    with pytest.raises(UserError, match="its first fold had other rows"):
        record(other, resume=run_id)


def test_unseeded_draws_are_refused():
    for search, reason in (
        (RandomizedSearchCV(Picky(), {"strength": [0, 1]}, n_iter=2), "draws different candidates"),
        (HalvingGridSearchCV(Picky(), {"strength": [0, 1]}), "draws different rows"),
    ):
        with pytest.raises(UserError, match=reason), mlflow_hp.record_search(search, resume=True):
            pass


def scaled(value):
    return 2 * value


class Coded(Picky):
    def fit(self, x, y):
        self.scaled_ = scaled(self.strength)
        return super().fit(x, y)


def test_other_code_and_versions_are_refused(monkeypatch):
    search = GridSearchCV(Coded(), {"strength": [0, 1]}, cv=3)
    run_id = record(search)
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "scaled", lambda value: 3 * value)
        with pytest.raises(UserError, match="differences: the code"), mlflow_hp.record_search(search, resume=run_id):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(np, "__version__", "0.1")
        with pytest.raises(UserError, match=r'versions.*"numpy": "\d.*now .*"numpy": "0.1"'):
            record(clone(search), resume=run_id)
    record(clone(search), resume=run_id)


def test_what_is_no_run_of_a_search(store):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    with mlflow.start_run() as run:
        pass
    for resume, reason in (
        (run.info.run_id, "holds no search"), ("0" * 32, "not in the tracking store"), (3, "neither True nor the id"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason), mlflow_hp.record_search(search, resume=resume):
            pass
    unseeded = clone(search).set_params(cv=KFold(3, shuffle=True))
    run_id = record(unseeded)
    assert "shuffles without a seed" in store.get_run(run_id).data.tags["mlflow_hp.not_resumable"]
    with pytest.raises(UserError, match="cannot be resumed: cv=KFold shuffles"):
        record(search, resume=run_id)


class Unlike:
    def __reduce__(self):
        raise TypeError("not to be pickled")

    __slots__ = ()


def test_what_can_not_be_known_again_is_recorded_nevertheless(store):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3, scoring=Scorer())
    run_id = record(search)
    tags = store.get_run(run_id).data.tags
    assert "cannot be fingerprinted" in tags["mlflow_hp.not_resumable"]
    assert "mlflow_hp.recording_error" not in tags
    assert len(children(store, run_id)) == 2
    with pytest.raises(UserError, match="not to be pickled"), mlflow_hp.record_search(search, resume=True):
        pass


class Scorer:
    def __init__(self):
        self.unlike = Unlike()

    def __call__(self, estimator, x, y):
        return 1.0


def test_a_run_that_is_being_recorded_is_not_resumed():
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
        with pytest.raises(UserError, match="still runs"), mlflow_hp.record_search(search, resume=recording.run_id):
            pass


def test_data_with_a_mask(store):
    masked = np.ma.array(X, mask=X > 2)
    run_id = record(GridSearchCV(Picky(), {"strength": [0, 1]}, cv=2), masked)
    again = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=2)
    assert record(again, masked, resume=run_id) == run_id
    with pytest.raises(UserError, match=r"cannot be resumed.*data"):
        record(again, np.ma.array(X, mask=X > 1.9), resume=run_id)
