"""Candidates that differ only in epochs get from one training what each would have got from its own."""

from __future__ import annotations

import time

import joblib
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import HalvingGridSearchCV, KFold, ShuffleSplit
from sklearn.model_selection._validation import _fit_and_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp.search.live.events import Epoch, Started
from mlflow_hp.search.speedups.epoch_groups import EpochGroup, sharing_groups
from mlflow_hp.search.speedups.model_reuse import forget_models
from tests.helpers.keras_searches import X, Y, check, classifier, normed_mlp, search, shared, small
from tests.helpers.searches import LOKY, children, found, points, record

pytestmark = pytest.mark.filterwarnings(LOKY)
TRAIN, TEST = next(KFold(3, shuffle=True, random_state=0).split(X))


def named(estimator, **more):
    return {
        "X": X, "y": Y, "scorer": check_scoring(estimator, None), "train": TRAIN, "test": TEST, "verbose": 0,
        "fit_params": {}, "score_params": {}, "return_train_score": True, "return_times": True,
        "return_parameters": True, "error_score": "raise", **more,
    }  # fmt: skip


NO_TIMES = ("fit_time", "score_time", "estimator")


SCALED = Pipeline([("scale", StandardScaler()), ("clf", classifier(model__learning_rate=0.01))])


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("estimator", "name", "counts", "reused"),
    [(classifier(validation_split=0.1), "epochs", (4, 2, 6), True), (SCALED, "clf__fit__epochs", (2, 4), False)],
    ids=["reused", "pipeline"],
)
def test_shared_fits_are_equal_to_separate_ones(estimator, name, counts, reused):
    forget_models()
    last = counts.index(max(counts))
    candidates = [{name: epochs} for epochs in counts]
    options = named(estimator, return_estimator=True)
    separate = [_fit_and_score(clone(estimator), parameters=candidate, **options) for candidate in candidates]
    outcomes, events = shared(estimator, candidates, name, reused, **options)
    assert [outcome.trained_by for outcome in outcomes] == [last] * last + [None]
    assert len({result["train_scores"] for result in separate}) == len(counts)
    curves = {
        number: {e.epoch: (e.time, e.values) for e in events if isinstance(e, Epoch) and e.task == number}
        for number in range(len(counts))
    }
    for number, epochs in enumerate(counts):
        assert curves[number] == {epoch: curves[last][epoch] for epoch in range(epochs)}
    for alone, result in zip(separate, (outcome.result for outcome in outcomes), strict=True):
        assert result.keys() == alone.keys()
        assert {k: v for k, v in result.items() if k not in NO_TIMES} == {
            k: v for k, v in alone.items() if k not in NO_TIMES
        }
        one, other = (
            r["estimator"][-1] if isinstance(estimator, Pipeline) else r["estimator"] for r in (alone, result)
        )
        assert dict(one.history_) == dict(other.history_)
        for a, b in zip(one.model_.variables, other.model_.variables, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(one.model_.optimizer.variables, other.model_.optimizer.variables, strict=True):
            np.testing.assert_array_equal(a, b)
    forget_models()


@pytest.mark.thorough
def test_times_are_those_of_the_epochs_of_each():
    before = time.time()
    estimator = classifier(small)
    candidates = [{"epochs": epochs} for epochs in (1, 20, 10)]
    outcomes, events = shared(estimator, candidates, "epochs", **named(estimator))
    times = [outcome.result["fit_time"] for outcome in outcomes]
    assert times[0] < times[2]
    assert all(outcome.ended - outcome.started >= outcome.result["fit_time"] for outcome in outcomes)
    assert [type(event) for event in events[:4]] == [Started, Started, Started, Epoch]
    assert before <= min(outcome.started for outcome in outcomes) <= events[3].time <= time.time()


def test_steps_are_trained_once():
    trained = []
    fit = keras.Model.fit

    def counted(self, *arguments, **options):
        trained.append(options["epochs"])
        return fit(self, *arguments, **options)

    estimator = classifier(small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", counted)
        candidates = [{"epochs": epochs} for epochs in (1, 2, 4)]
        shared(estimator, candidates, "epochs", **named(estimator))
    assert trained == [4]


def test_other_starts_train_for_themselves():
    """A model whose initial weights are another for each call is not taken for one that trained before."""
    calls = iter(range(9))

    def model():
        keras.utils.set_random_seed(next(calls))
        return small()

    estimator = classifier(model)
    candidates = [{"epochs": epochs} for epochs in (1, 2)]
    outcomes, events = shared(estimator, candidates, "epochs", **named(estimator))
    assert not any(outcome.trained_by for outcome in outcomes)
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [0, 1, 0]


def told(epochs_of=None, params=None):
    return normed_mlp()


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (classifier(random_state=None), "random_state=None"),
        (classifier(callbacks=keras.callbacks.EarlyStopping), "callbacks"),
        (classifier(fit__callbacks=[keras.callbacks.EarlyStopping()]), "callbacks"),
        (classifier(told), "gets the number"),
        (classifier(lambda **kwargs: normed_mlp()), "gets the number"),
        (classifier(warm_start=True), "warm_start"),
        (classifier(fit__epochs=3), "fit__epochs"),
        (SGDClassifier(), "cannot be set"),
    ],
)
def test_what_may_depend_on_the_total_is_not_shared(estimator, reason):
    groups = sharing_groups([{"epochs": 1}, {"epochs": 2}], estimator)
    assert [group.indices for group in groups] == [(0,), (1,)]
    assert all(reason in group.reason for group in groups)


def test_groups():
    candidates = [
        {"epochs": 4, "model__learning_rate": 0.1},
        {"epochs": 2, "model__learning_rate": 0.1},
        {"epochs": 2, "model__learning_rate": 0.2},
        {"model__learning_rate": 0.1},
        {"epochs": 6, "model__learning_rate": np.float64(0.2)},
    ]
    # np.float64(0.2) is not the same type as 0.2: the model function could tell
    assert sharing_groups(candidates, classifier()) == [
        EpochGroup((1, 0), "epochs"), EpochGroup((2,)), EpochGroup((3,)), EpochGroup((4,)),
    ]  # fmt: skip
    assert sharing_groups([{"clf__epochs": 1}, {"clf__epochs": 2}], Pipeline([("clf", classifier())])) == [
        EpochGroup((0, 1), "clf__epochs")
    ]
    other = sharing_groups([{"clf__epochs": 1}, {"clf__epochs": 2}], Pipeline([("clf", _Epochs())]))
    assert "_Epochs" in other[0].reason


class _Epochs(SGDClassifier):
    def __init__(self, epochs=1):
        super().__init__()
        self.epochs = epochs


@pytest.fixture(scope="module")
def bare():
    """What the search finds by itself."""
    return found(search().fit(X, Y))


@pytest.fixture
def trained(monkeypatch):
    """The epochs of each training of this process."""
    kept, fit = [], keras.Model.fit

    def counted(self, *arguments, **options):
        kept.append(options["epochs"])
        return fit(self, *arguments, **options)

    monkeypatch.setattr(keras.Model, "fit", counted)
    return kept


@pytest.mark.thorough
def test_a_recorded_search_trains_once_and_finds_the_same(store, bare, trained):
    ours = search()
    run_id = record(ours, X, Y)
    assert found(ours) == bare
    assert trained == [3] * 4
    check(store, run_id, ours)
    fit_seconds = store.get_run(run_id).data.metrics["fit_seconds"]
    of_each = 2 * ours.cv_results_["mean_fit_time"]
    assert of_each[:2].sum() < fit_seconds < of_each.sum()

    trained.clear()
    (one,) = (run for run in children(store, run_id) if run.info.run_name == "epochs=1 learning_rate=0.1")
    store.delete_tag(one.info.run_id, "mlflow_hp.fold_1")  # as if the search had been killed before
    again = search()
    record(again, X, Y, resume=run_id)
    assert found(again) == bare
    assert trained == [1]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("settings", [{"share_epochs": False}, {"per_fold_runs": True}])
def test_off(store, trained, settings):
    ours = search(param_grid={"epochs": [1, 2]})
    runs = children(store, record(ours, X, Y, **settings))
    assert sorted(trained) == [1, 1, 2, 2]
    assert not any("mlflow_hp.shared_epochs_with" in run.data.tags for run in runs)


def test_threads_share_nothing_and_it_is_said_that_they_are_not_reproducible(store, trained, monkeypatch):
    # A seeded fit of scikeras sets these for the process and puts them back at its end, in the middle of another
    # thread's fit, which then fails. What it finds is what it puts back.
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    tf.config.experimental.enable_op_determinism()  # disabled again after each test
    tf.random.set_seed(0)
    ours = search(param_grid={"epochs": [1, 2]}, n_jobs=2)
    with joblib.parallel_config("threading"), pytest.warns(RuntimeWarning, match="not reproducible where") as told:
        run_id = record(ours, X, Y)
    assert len(told) == 1
    assert sorted(trained) == [1, 1, 2, 2]
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags


def test_each_round_of_successive_halving(store, trained):
    settings = {"param_grid": {"epochs": [1, 2]}, "factor": 2, "min_resources": 120, "random_state": 0}
    settings["cv"] = ShuffleSplit(1, test_size=0.5, random_state=0)
    ours, alone = (search(HalvingGridSearchCV, **settings) for _ in range(2))
    runs = children(store, record(ours, X, Y))
    assert trained == [2, ours.cv_results_["param_epochs"][2]]
    assert found(ours) == found(alone.fit(X, Y))
    assert ["mlflow_hp.shared_epochs_with" in run.data.tags for run in runs] == [True, False, False]


def test_an_interruption_keeps_what_has_ended(store, trained):
    calls = []

    def scoring(estimator, x, y):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 1.0

    ours = search(param_grid={"epochs": [1, 2]}, scoring=scoring)
    with (
        pytest.raises(KeyboardInterrupt),
        mlflow_hp.record_search(ours, progress=False, report=False) as recording,
    ):
        ours.fit(X, Y)
    one, two = children(store, recording.run_id)
    assert (points(store, one, "score"), points(store, two, "score")) == ({}, {0: 1.0})
    assert {run.info.status for run in (one, two)} == {"KILLED"}
    assert store.get_run(recording.run_id).data.tags["mlflow_hp.were_running"] == "epochs=1\nepochs=2"


@pytest.mark.slow
def test_in_other_processes(store, bare):
    ours = search(n_jobs=2)
    run_id = record(ours, X, Y)
    assert found(ours) == bare
    check(store, run_id, ours)
