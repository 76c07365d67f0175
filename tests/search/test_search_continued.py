"""Rounds of a halving search over epochs go on with the trainings of the round before, and find what others would."""

from __future__ import annotations

import contextlib
import shutil

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV, ShuffleSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp.errors import RecordingWarning
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.search.speedups import epoch_continuation, training_state
from mlflow_hp.search.speedups.model_reuse import forget_models
from mlflow_hp.tracking.home import local_home
from mlflow_hp.training import recovery
from tests.helpers.keras_searches import X, Y, classifier, dropout_mlp, normed_mlp, small
from tests.helpers.search_faults import search_folders
from tests.helpers.searches import LOKY, children, found, points, record

pytestmark = pytest.mark.filterwarnings(LOKY)
RATES = [0.001, 0.003, 0.01, 0.1]


def halving(estimator=None, kind=HalvingGridSearchCV, grid=None, **settings):
    """Two candidates with one epoch, one with two."""
    grid = {"model__learning_rate": RATES[-2:]} if grid is None else grid
    settings = {"resource": "epochs", "factor": 2, "min_resources": 1, "max_resources": 2, "cv": 2} | settings
    estimator = classifier(small, batch_size=50) if estimator is None else estimator
    return kind(estimator, grid, refit=False, random_state=0, **settings)


@pytest.fixture(autouse=True)
def without_models():
    yield
    forget_models()


@pytest.fixture(scope="module")
def bare():
    """What the search finds by itself."""
    kept = Kept()
    kept.search = halving(scoring=kept).fit(X, Y)
    return kept


@pytest.fixture
def trained(monkeypatch):
    """Initial epoch and number of epochs of each training of this process."""
    kept, fit = [], keras.Model.fit

    def counted(self, *arguments, **options):
        kept.append((options["initial_epoch"], options["epochs"]))
        return fit(self, *arguments, **options)

    monkeypatch.setattr(keras.Model, "fit", counted)
    return kept


def all_weights(estimator):
    model = (estimator[-1] if isinstance(estimator, Pipeline) else estimator).model_
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


class Kept:
    """A scorer that keeps what it has scored: the weights, and the history, in the order of the fits."""

    def __init__(self):
        self.weights, self.histories, self.search = [], [], None

    def __call__(self, estimator, x, y):
        self.weights.append(all_weights(estimator))
        last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        self.histories.append((dict(last.history_), last.model_.history.history, last.current_epoch))
        return estimator.score(x, y)


def schedule(learning_rate=0.1):
    model = normed_mlp()
    decays = keras.optimizers.schedules.ExponentialDecay(learning_rate, 3, 0.9)
    model.compile(keras.optimizers.Nadam(decays), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


SCALED = Pipeline([("scale", StandardScaler()), ("clf", classifier(validation_split=0.2))])
CASES = {
    "a pipeline, batch norm, dropout, Adam, validation": (SCALED, "clf__epochs", "clf__model__learning_rate"),
    "a schedule, fit__epochs": (classifier(schedule, fit__epochs=1), "fit__epochs", "model__learning_rate"),
    "momentum": (classifier(dropout_mlp), "epochs", "model__learning_rate"),
    "in order, class weights": (
        classifier(fit__shuffle=False, class_weight={n: 1 + n / 9 for n in range(10)}),
        "epochs", "model__learning_rate",
    ),
    "shuffled batches, rest": (classifier(fit__shuffle="batch", batch_size=37), "epochs", "model__learning_rate"),
}  # fmt: skip


def same_weights(one, other):
    for a, b in zip(one.weights, other.weights, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("case", CASES)
def test_each_round_gets_bit_for_bit_what_it_would_from_the_start(store, trained, case):
    estimator, resource, name = CASES[case]
    n = 4 if case == "momentum" else 2
    one, other = Kept(), Kept()
    settings = {"resource": resource, "grid": {name: RATES[-n:]}, "max_resources": n}
    settings["cv"] = ShuffleSplit(1, random_state=0)
    alone = halving(clone(estimator), scoring=one, **settings).fit(X, Y)
    ours = halving(clone(estimator), scoring=other, **settings)
    trained.clear()
    run_id = record(ours, X, Y, reuse=estimator is not CASES["in order, class weights"][0])
    expected = {2: [(0, 1)] * 2 + [(1, 2)], 4: [(0, 1)] * 4 + [(1, 2)] * 2 + [(2, 4)]}
    assert trained == expected[n]
    assert found(ours) == found(alone)
    assert one.histories == other.histories
    same_weights(one, other)
    epochs_of = {2: [1, 1, 2], 4: [1] * 4 + [2] * 2 + [4]}
    for run, epochs in zip(children(store, run_id), epochs_of[n], strict=True):
        assert sorted(points(store, run, "fold_0/loss")) == [*range(epochs)]
        assert ("mlflow_hp.shared_epochs_with" in run.data.tags) == (epochs > 1)
    last = children(store, run_id)[-1]
    loss = points(store, last, "fold_0/loss")
    assert [loss[epoch] for epoch in range(n)] == [float(np.float32(each)) for each in other.histories[-1][0]["loss"]]
    assert last.data.tags["mlflow_hp.shared_epochs_with"].endswith("round=1") == (n == 4)


def test_the_time_is_that_of_all_its_epochs_and_counts_once(store):
    ours = halving()
    run_id = record(ours, X, Y)
    runs = children(store, run_id)
    times = {run.info.run_name: list(points(store, run, "fit_seconds").values()) for run in runs}
    assert ours.cv_results_["mean_fit_time"][-1] > min(ours.cv_results_["mean_fit_time"][:4])
    assert store.get_run(run_id).data.metrics["fit_seconds"] < sum(map(sum, times.values()))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (classifier(small, random_state=None), "random_state=None"),
        (classifier(small, callbacks=keras.callbacks.EarlyStopping, callbacks__monitor="loss"), "callbacks"),
        (classifier(small, fit__steps_per_epoch=2), "steps_per_epoch"),
        (CalibratedClassifierCV(classifier(small), cv=2), "trains several models"),
    ],
)
def test_what_cannot_go_on_starts_again(store, trained, estimator, reason):
    prefix = "estimator__" if isinstance(estimator, CalibratedClassifierCV) else ""
    settings = {"grid": {f"{prefix}model__learning_rate": RATES[:2]}, "resource": f"{prefix}epochs"}
    run_id = record(halving(estimator, **settings), X, Y)
    assert {first for first, _ in trained} == ({0, 1} if prefix else {0})
    assert reason in store.get_run(run_id).data.tags["mlflow_hp.plain_trainings"]


def continued(estimator, file, told=None, before_second=lambda: None, y=Y):
    """An estimator that was trained for one epoch, then for two; the second goes on if it may."""
    for epochs, prepare in ((1, lambda: None), (2, before_second)):
        prepare()
        training = epoch_continuation.ContinuedTraining(file, epochs)
        last = clone(estimator).set_params(epochs=epochs)
        with training.next_fit(lambda *said: told is None or told.append(said)):
            last.fit(X, y)
    return last, training.reused is not None


def test_where_several_threads_fit_all_start_again(store, trained, monkeypatch):
    monkeypatch.setattr("mlflow_hp.search.live.speedup_choice._uses_threads", lambda pool: True)
    with pytest.warns(RecordingWarning, match="not reproducible"):
        run_id = record(halving(), X, Y)
    assert {first for first, _ in trained} == {0}
    assert "several threads" in store.get_run(run_id).data.tags["mlflow_hp.plain_trainings"]


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_averages_of_weights_are_those_of_a_training_from_the_start(tmp_path, is_wrapped):
    def averaged():
        model, optimizer = small(), keras.optimizers.Adam(0.01, use_ema=True)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if is_wrapped else optimizer
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    ours, is_continued = continued(classifier(averaged), tmp_path / "state")
    alone = classifier(averaged, epochs=2).fit(X, Y)
    assert not is_continued
    for left, right in zip(all_weights(ours), all_weights(alone), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.thorough
def test_candidates_with_averaged_weights_share_no_epochs(store):
    def averaged():
        model = small()
        model.compile(keras.optimizers.Adam(0.01, use_ema=True), "sparse_categorical_crossentropy")
        return model

    one, other = Kept(), Kept()
    for kept, way in ((one, None), (other, record)):
        ours = GridSearchCV(classifier(averaged), {"epochs": [1, 2]}, scoring=kept, cv=2, refit=False)
        ours.fit(X, Y) if way is None else way(ours, X, Y)
    sums = [sorted(float(weights[0].sum()) for weights in kept.weights) for kept in (one, other)]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("changing", ["learning rate", "penalty"])
def test_a_model_function_that_builds_another_model_starts_again(tmp_path, changing):
    values = iter([0.1, 0.2])

    def build():
        value = next(values)
        rate, penalty = (value, 0.1) if changing == "learning rate" else (0.1, value)
        dense = keras.layers.Dense(10, "softmax", kernel_regularizer=keras.regularizers.L2(penalty))
        model = keras.Sequential([keras.Input((64,)), dense])
        model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
        return model

    assert not continued(classifier(build), tmp_path / "state")[1]


def test_a_state_that_cannot_be_stored_leaves_the_history(tmp_path, monkeypatch):
    estimator, told = classifier(small), []
    alone = clone(estimator).set_params(epochs=2).fit(X, Y)

    class Full(dict):
        def __setitem__(self, epoch, state):
            raise MemoryError("no memory")

    def full(counts, _, on_plain):
        return training_state.state_callback(counts, Full(), on_plain)

    ours, is_continued = continued(
        estimator, tmp_path / "state", told, lambda: monkeypatch.setattr(epoch_continuation, "state_callback", full)
    )
    assert is_continued
    assert any("no memory" in reason and is_fault for reason, is_fault in told)
    assert (dict(ours.history_), ours.model_.history.history) == (dict(alone.history_), alone.model_.history.history)


def test_metrics_that_keras_numbers_have_one_name_in_a_history(tmp_path):
    def measured():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.Precision()])
        return model

    estimator = classifier(measured, validation_split=0.2)
    ours, is_continued = continued(estimator, tmp_path / "state", y=Y > 4)
    assert is_continued
    assert {len(values) for values in ours.history_.values()} == {2}
    alone = clone(estimator).set_params(epochs=2).fit(X, Y > 4)
    assert list(ours.history_.values()) == list(alone.history_.values())


def test_a_metric_that_all_models_share_starts_again(tmp_path):
    shared = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")

    def measured():
        model = small()
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=[shared])
        return model

    ours, is_continued = continued(classifier(measured), tmp_path / "state")
    assert not is_continued
    shared.reset_state()
    assert dict(ours.history_) == dict(classifier(measured, epochs=2).fit(X, Y).history_)


def test_layers_that_keep_their_state_start_again(tmp_path):
    def stateful():
        layers = [keras.layers.Reshape((8, 8)), keras.layers.GRU(3, stateful=True), keras.layers.Dense(10, "softmax")]
        model = keras.Sequential([keras.Input(batch_shape=(25, 64)), *layers])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    ours, is_continued = continued(classifier(stateful, batch_size=25), tmp_path / "state")
    assert not is_continued
    alone = classifier(stateful, batch_size=25, epochs=2).fit(X, Y)
    for left, right in zip(all_weights(ours), all_weights(alone), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.thorough
def test_rounds_of_equally_many_epochs_train_once(store, trained):
    ours = halving(aggressive_elimination=True, max_resources=1)
    record(ours, X, Y)
    assert list(ours.cv_results_["n_resources"]) == [1, 1, 1]
    assert trained == [(0, 1)] * 4
    first, second, again = ours.cv_results_["split1_test_score"]
    assert again in (first, second)
    assert first != second


@pytest.mark.thorough
def test_a_random_search_with_objects_as_values(store, trained):
    kinds = [keras.initializers.HeNormal(seed=1), keras.initializers.HeNormal(seed=2)]

    def started(init):
        model = small()
        model.layers[0].kernel.assign(init((64, 10)))
        return model

    settings = {"kind": HalvingRandomSearchCV, "grid": {"model__init": kinds}, "n_candidates": 2}
    record(halving(classifier(started), **settings), X, Y)
    assert trained == [(0, 1)] * 4 + [(1, 2)] * 2


@pytest.mark.thorough
def test_a_resumed_search_starts_again_where_the_states_are_gone(store, trained, bare):
    run_id = record(halving(), X, Y)
    last = children(store, run_id)[-1]
    for split in range(2):
        store.delete_tag(last.info.run_id, f"mlflow_hp.fold_{split}")  # as if the search had been killed before
    trained.clear()
    again = halving()
    record(again, X, Y, resume=run_id)
    assert trained == [(0, 2)] * 2
    assert found(again) == found(bare.search)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("settings", [{"share_epochs": False}, {"repeats": 2}])
def test_off(store, trained, settings):
    record(halving(), X, Y, **settings)
    assert {first for first, _ in trained} == {0}


def test_other_data_or_weights_start_again(store, trained):
    calls = iter(range(99))

    def other():
        keras.utils.set_random_seed(next(calls))
        return small()

    run_id = record(halving(classifier(other), grid={"batch_size": [50, 75]}), X, Y)
    assert {first for first, _ in trained} == {0}
    assert not any("mlflow_hp.shared_epochs_with" in run.data.tags for run in children(store, run_id))
    assert store.get_run(run_id).data.tags["mlflow_hp.plain_trainings"] == (
        "2 x the training is not continued: its data, model or initial weights are not those of the round before"
    )


class Damaged:
    def __reduce__(self):
        return int, ("nothing",)


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    "damage",
    [
        ("restore", lambda *_: 1 / 0),
        ("digest", lambda *_: 1 / 0),
        ("add_callback", lambda *_: 1 / 0),
        ("set_histories", lambda *_: 1 / 0),
        ("reason_to_train_alone", lambda *_: 1 / 0),
        ("LARGEST_SHARE_OF_DISK", 0.0),
        ("Stage", lambda *_: Damaged()),
    ],
    ids=lambda damage: damage[0],
)
def test_a_fault_costs_time_only(store, trained, monkeypatch, bare, damage):
    other = Kept()
    monkeypatch.setattr(epoch_continuation, *damage)
    with (
        contextlib.nullcontext()
        if isinstance(damage[1], float)
        else pytest.warns(RuntimeWarning, match="slower than it could be")
    ):
        run_id = record(halving(scoring=other), X, Y)
    assert store.get_run(run_id).data.tags["mlflow_hp.plain_trainings"]
    assert trained[:4] == [(0, 1)] * 4
    same_weights(bare, other)


def test_a_state_that_fails_half_way_leaves_the_start(store, trained, monkeypatch, bare):
    give, assign = training_state.restore, keras.Variable.assign

    def partly(fit, state):
        calls = []

        def fails(self, value):
            calls.append(1)
            if len(calls) == 3:
                raise OSError("gone")
            return assign(self, value)

        with monkeypatch.context() as patch:
            patch.setattr(keras.Variable, "assign", fails)
            give(fit, state)

    monkeypatch.setattr(epoch_continuation, "restore", partly)
    other = Kept()
    with pytest.warns(RuntimeWarning, match="gone"):
        record(halving(scoring=other), X, Y)
    same_weights(bare, other)
    assert {first for first, _ in trained} == {0}


def states():
    return list(local_home().glob("*/search_*/states/*"))


@pytest.mark.thorough
def test_the_states_are_removed_at_the_end(store):
    sizes = []

    def scoring(estimator, x, y):
        sizes.append(len(states()))
        if len(sizes) == 16:
            raise KeyboardInterrupt
        return estimator.score(x, y)

    record(halving(scoring=scoring), X, Y)
    assert (len(sizes), max(sizes)) == (12, 4)
    ours = halving(scoring=scoring)
    with pytest.raises(KeyboardInterrupt), mlflow_hp.record_search(ours, progress=False):
        ours.fit(X, Y)
    assert max(sizes) == 4
    assert not search_folders()


def test_what_a_killed_process_leaves_is_removed_with_its_record(store, monkeypatch):
    left = []

    def scoring(estimator, x, y):
        if len(states()) == 3 and not left:
            left.append(search_folders()[0])
            shutil.copytree(left[0], left[0].with_name("search_left"))
        return estimator.score(x, y)

    record(halving(scoring=scoring), X, Y)
    assert len(states()) == 3
    (one,) = recovery.left_behind()
    recovery.recover(one, kinds=KINDS)
    assert not search_folders()


@pytest.mark.slow
def test_in_other_processes(store, bare):
    ours = halving(n_jobs=2)
    run_id = record(ours, X, Y)
    assert found(ours) == found(bare.search)
    runs = children(store, run_id)
    assert ["mlflow_hp.shared_epochs_with" in run.data.tags for run in runs] == [False, False, True]
    assert [len(points(store, run, "fold_0/loss")) for run in runs] == [1, 1, 2]
