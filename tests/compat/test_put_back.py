"""What a recording replaces in the libraries is as it was behind the last recording, in each process."""

from __future__ import annotations

import functools
import threading
import warnings
from types import SimpleNamespace

import joblib
import keras
import mlflow
import pytest
from joblib.externals import loky
from mlflow import MlflowClient
from scikeras.wrappers import BaseWrapper, KerasClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, _search, cross_val_score

import mlflow_hp
from mlflow_hp.tracking.run_observer import METHODS
from tests.helpers.fits import X, Y, record, regression
from tests.helpers.searches import LOKY, children

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]
LABELS = (Y > 0).astype(int)
PLACES = [
    (keras.Model, "fit"),
    (BaseWrapper, "_fit_keras_model"),
    (_search, "Parallel"),
    (_search.BaseSearchCV, "__sklearn_clone__"),
    *((MlflowClient, name) for name in METHODS),
]


def now():
    """What stands in each place; None where it is inherited."""
    return [vars(owner).get(name) for owner, name in PLACES]


@pytest.fixture(autouse=True)
def as_it_was():
    before = now()
    yield
    assert now() == before


def mlp(learning_rate=0.1):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy")
    return model


def search(**settings):
    estimator = KerasClassifier(mlp, epochs=1, verbose=0, random_state=0)
    return GridSearchCV(estimator, {"model__learning_rate": [0.1, 0.2]}, cv=2, refit=False, scoring=score, **settings)


def score(estimator, x, y):
    return -estimator.history_["loss"][-1]


def recording(searched, **settings):
    return mlflow_hp.record_search(searched, progress=False, report=False, **settings)


def test_behind_a_training():
    before = now()

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.replaced = [one is not other for one, other in zip(now(), before, strict=True)]

    look = Look()
    record(regression(), callbacks=[look])
    assert look.replaced == [False] * 4 + [True] * len(METHODS)


def test_behind_a_search_of_keras_models():
    before, replaced = now(), []

    def look(estimator, x, y):
        replaced.append([one is not other for one, other in zip(now(), before, strict=True)])
        return 0.0

    searched = search().set_params(scoring=look)
    with recording(searched):
        searched.fit(X, LABELS)
    assert replaced == [[True] * len(PLACES)] * 4


def test_behind_an_error():
    searched = search().set_params(error_score="raise", param_grid={"model__learning_rate": ["fast"]})
    with pytest.raises(ValueError, match="fast"), recording(searched):
        searched.fit(X, LABELS)


@pytest.mark.thorough
def test_behind_a_search_inside_a_search():
    class Inner(LogisticRegression):
        def fit(self, x, y, sample_weight=None):
            inner = search()
            with recording(inner):
                inner.fit(x, y)
            assert _search.Parallel is not before[2]
            return super().fit(x, y)

    before = now()
    outer = GridSearchCV(Inner(), {"C": [1.0]}, cv=2, refit=False)
    with recording(outer):
        outer.fit(X, LABELS)
    one, other = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2), search()
    with recording(one), recording(other):
        cross_val_score(one, X, LABELS, cv=2)
        other.fit(X, LABELS)


def test_behind_recordings_that_cross_each_other():
    """The first ends in the middle of the second, and what the second searches is recorded all the same."""
    one, other = search(), search()
    first, second = recording(one), recording(other)
    first.__enter__()
    outer_run = mlflow.active_run()
    one.fit(X, LABELS)
    second.__enter__()
    other.fit(X, LABELS)
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert outer_run is not None


def test_behind_searches_in_threads():
    barrier, ends = threading.Barrier(3), []

    def work():
        mine = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
        with recording(mine) as made:
            barrier.wait()
            mine.fit(X, LABELS)
            barrier.wait()
        ends.append(mlflow.MlflowClient().get_run(made.run_id).info.status)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == ["FINISHED"] * 3


def is_replaced():
    return [hasattr(vars(owner).get(name), "_mlflow_hp_layer") for owner, name in PLACES]


@pytest.mark.thorough
@pytest.mark.slow
def test_in_the_workers_too():
    searched = search(n_jobs=2)
    with recording(searched):
        searched.fit(X, LABELS)
        with joblib.parallel_config("loky"):
            workers = joblib.Parallel(n_jobs=2)(joblib.delayed(is_replaced)() for _ in range(4))
    loky.get_reusable_executor().shutdown(wait=True)
    assert workers == [[False] * len(PLACES)] * 4


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("owner", "name"), PLACES[:2], ids=lambda each: getattr(each, "__name__", each))
def test_somebody_elses_that_came_between_stays_and_still_works(owner, name):
    """As other libraries do it: theirs is put on ours in the middle of a search, and never taken away by us."""
    before, calls, kept = vars(owner).get(name), [], SimpleNamespace()

    def look(estimator, x, y):
        if not calls:
            ours = vars(owner)[name]

            @functools.wraps(ours)
            def theirs(*arguments, **named):
                calls.append(1)
                return ours(*arguments, **named)

            calls.append(0)
            kept.theirs = theirs
            setattr(owner, name, theirs)
        return 0.0

    try:
        searched = search().set_params(scoring=look)
        with recording(searched):
            searched.fit(X, LABELS)
        assert vars(owner)[name] is kept.theirs
        plain = search().set_params(scoring=lambda *_: 0.0).fit(X, LABELS)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = search().set_params(scoring=lambda *_: 0.0)
            with recording(again) as made:
                again.fit(X, LABELS)
        assert again.cv_results_["params"] == plain.cv_results_["params"]
        client = mlflow.MlflowClient()
        for run in children(client, made.run_id):  # each epoch once
            assert [len(client.get_metric_history(run.info.run_id, f"fold_{fold}/loss")) for fold in (0, 1)] == [1, 1]
        assert vars(owner)[name] is kept.theirs
        assert len(calls) > 4
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
