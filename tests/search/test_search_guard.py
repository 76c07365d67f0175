"""A speed-up that fails, for whatever reason, leaves a fit as it would be without: it is told, and nothing else."""

from __future__ import annotations

import functools
import importlib
import inspect
import pickle
import random
import re
import warnings
from importlib.metadata import version

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from scikeras.wrappers import BaseWrapper, KerasClassifier
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.model_selection._validation import _fit_and_score

import mlflow_hp
from mlflow_hp._compat import keras as of_keras
from mlflow_hp._compat import scikeras as of_scikeras
from mlflow_hp._compat import tensorflow as of_tensorflow
from mlflow_hp.search.live import observer, speedup_choice, worker
from mlflow_hp.search.live.events import PlainTraining
from mlflow_hp.search.speedups import (
    epoch_groups,
    epoch_sharing,
    isolation,
    model_reuse,
    model_signature,
    scikeras_fit,
    training_state,
)
from mlflow_hp.search.speedups.model_reuse import forget_models, reused_models
from tests.helpers.keras_searches import shared
from tests.helpers.searches import LOKY, children, record

pytestmark = pytest.mark.filterwarnings(LOKY)
MODULES = (
    model_reuse, scikeras_fit, isolation, epoch_groups, epoch_sharing, training_state, model_signature, observer,
    speedup_choice, worker,
)  # fmt: skip
"""The speed-ups, and what they are made of."""
PUBLIC = ("get_config", "on_epoch_end", "flatten_with_path", "getrefcount", "metric_name", "BaseWrapper")
"""Names of the libraries that may still become something else; for the private ones, see the tests of `_compat`."""
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = (X.sum(1) > 0).astype(int)


def network(learning_rate=0.1, units=3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.3)])
    model.add(keras.layers.Dense(2, "softmax"))
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def classifier(model=network, **named):
    return KerasClassifier(model, **{"epochs": 1, "batch_size": 16, "verbose": 0, "random_state": 0, **named})


@pytest.fixture(autouse=True)
def nothing_kept():
    forget_models()
    yield
    forget_models()


def renamed(patch, name):
    """The speed-ups as they are written, against libraries in which `name` is called something else."""
    for module in MODULES:
        source = inspect.getsource(module)
        other = re.sub(rf"(?<![\w.]){re.escape(name)}\b|(?<=\.){re.escape(name)}\b", f"{name}_now", source)
        codes = {code.co_qualname: code for code in codes_of(compile(other, module.__file__, "exec"))}
        for function in functions_of(module):
            code = codes.get(function.__code__.co_qualname)
            if code is not None:
                patch.setattr(function, "__code__", code)


def codes_of(code):
    for each in code.co_consts:
        if inspect.iscode(each):
            yield each
            yield from codes_of(each)


def functions_of(module):
    todo = list(vars(module).values())
    while todo:
        thing = todo.pop()
        thing = thing.fget if isinstance(thing, property) else thing
        thing = inspect.unwrap(thing) if callable(thing) else thing
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing):
            todo += vars(thing).values()
        elif inspect.isfunction(thing):
            yield thing


def loss(estimator, x, y):
    """A score that needs no prediction, which would have to be traced."""
    return -estimator.history_["loss"][-1]


def fits(aided, told=None):
    """Two fits of one architecture that differ in epochs only; what each is when it is scored, to the last bit."""
    found, estimator = [], classifier()

    def look(fitted, x, y):
        variables = [*fitted.model_.variables, *fitted.model_.optimizer.variables]
        callbacks = [type(callback).__name__ for callback in fitted._fit_callbacks]
        history = (dict(fitted.history_), fitted.model_.history.history, fitted.model_.history.epoch)
        state = [variable.numpy().tobytes() for variable in variables]
        found.append((state, history, callbacks, list(vars(fitted))))
        return 1.0

    options = {
        "X": X, "y": Y, "scorer": look, "train": np.arange(32), "test": np.arange(32, 40), "verbose": 0,
        "fit_params": {}, "score_params": {}, "return_times": True, "error_score": "raise",
    }  # fmt: skip
    candidates = [{"epochs": 2}, {"epochs": 1}]
    keras.utils.set_random_seed(1)
    if aided:
        outcomes, events = shared(estimator, candidates, "epochs", True, **options)
        told += [(event.reason, event.is_fault) for event in events if isinstance(event, PlainTraining)]
        assert told or [outcome.trained_by for outcome in outcomes] == [None, 0]
    else:
        for each in candidates:
            _fit_and_score(clone(estimator), parameters=each, **options)
    return found, random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002


@pytest.fixture(scope="module")
def bare():
    return fits(False)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", ["nothing", *PUBLIC])
def test_a_name_that_is_gone_changes_nothing_and_is_told(monkeypatch, bare, name):
    original, told = BaseWrapper._fit_keras_model, []
    with monkeypatch.context() as patch:
        renamed(patch, name)
        found = fits(True, told)
    assert BaseWrapper._fit_keras_model is original
    assert found == bare
    assert bool(told) == (name != "nothing")


FORMS = {
    "gone": "was not found",
    "called in another way": "cannot be called as expected: missing a required argument: 'other'",
    "raising": "raised ZeroDivisionError",
    "something else": " ",
}
NAMES = {
    "FIT_KERAS_MODEL": ("gone",),
    "FIT_ARGUMENTS": ("gone",),
    "FIT_CALLBACKS": ("gone", "something else"),
    "RANDOM_STATE": ("gone",),
    "ROUTE_PARAMS": FORMS,
    "FLATTEN_LAYERS": ("raising",),
    "COMPILE_CONFIG": ("gone", "something else"),
    "LEARNING_RATE": ("gone",),
    "INITIAL_EPOCH": ("gone",),
    "DETERMINISM": ("called in another way",),
}
"""Private names that the speed-ups need, and in which forms each changes: one may have them all.

All but "something else" are told alike, which the tests of `PrivateName` hold.
"""


def changed(patch, name, form):
    """A private name that has become another one, which is what `form` says."""

    def other(*_, other, **__):
        return other

    def raising(*_, **__):
        1 / 0  # noqa: B018

    there = {"raising": raising, "called in another way": other, "something else": lambda *_, **__: None}
    patch.setattr(name, "name", "mlflow_hp_other")
    if form in there:
        owners = {"BaseWrapper": BaseWrapper, "Model": keras.Model}
        owner = owners.get(name.owner) or importlib.import_module(name.owner)
        patch.setattr(owner, "mlflow_hp_other", there[form], raising=False)


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in NAMES.items() for form in forms])
def test_a_private_name_that_changes_changes_nothing_and_is_told(monkeypatch, bare, name, form):
    private = next(vars(each)[name] for each in (of_scikeras, of_keras, of_tensorflow) if name in vars(each))
    original, told = BaseWrapper._fit_keras_model, []
    with monkeypatch.context() as patch:
        changed(patch, private, form)
        found = fits(True, told)
    assert BaseWrapper._fit_keras_model is original
    assert found == bare
    reasons = {reason for reason, is_fault in told if is_fault}
    assert reasons
    library = f"{private.library} {version(private.library)} is not supported: {private.owner}.mlflow_hp_other"
    for reason in reasons:
        assert library in reason
        assert FORMS[form] in reason


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "place",
    [
        "model_reuse.architecture",
        "model_reuse.is_isolated",
        "model_reuse._CachedModel.copy_state",
        "model_reuse._Cache.add",
        "epoch_sharing.digest",
        "epoch_sharing.restore",
        "training_state.set_histories",
        "scikeras_fit._fit_of",
        "scikeras_fit._patch.on",
    ],
)
def test_an_error_in_any_part_changes_nothing_and_is_told(monkeypatch, bare, place):
    def broken(*_, **__):
        raise ZeroDivisionError("a mistake of ours")

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(f"mlflow_hp.search.speedups.{place}", broken)
        assert fits(True, told) == bare
    assert any("a mistake of ours" in each[0] and each[1] for each in told)


def test_state_that_can_be_set_only_in_part_is_put_back(monkeypatch, bare):
    """The fifth variable that a taken-over training sets refuses."""
    kind, left = keras.Variable, [5]
    give, assign = epoch_sharing.restore, keras.Variable.assign

    def refuse(self, value):
        left[0] -= 1
        if left[0] == 0:
            raise tf.errors.ResourceExhaustedError(None, None, "no memory")
        return assign(self, value)

    def partly(fit, state):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "assign", refuse)
            give(fit, state)

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(epoch_sharing, "restore", partly)
        assert fits(True, told) == bare
    assert left[0] < 0
    assert any("no memory" in reason for reason, _ in told)


def test_an_error_of_the_users_training_passes_and_trains_once(monkeypatch):
    begun = []

    class Fails(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            begun.append(1)

        def on_epoch_end(self, epoch, logs=None):
            raise AttributeError("_fit_callbacks")  # like a name of ours that is gone

    told = []
    for _ in range(2):
        with reused_models(lambda *said: told.append(said)), pytest.raises(AttributeError) as raised:
            classifier(callbacks=[Fails()]).fit(X, Y)
        assert raised.value.__cause__ is None
    assert (len(begun), told) == (2, [])


def test_an_interruption_while_a_fit_is_prepared_passes(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_reuse, "_key", interrupted)
    estimator = classifier()
    with reused_models(), pytest.raises(KeyboardInterrupt):
        estimator.fit(X, Y)
    assert "model_" in vars(estimator)


def test_what_a_callback_trains_meanwhile_is_left_alone():
    class Another(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.inner = classifier(random_state=1).fit(X, Y)

    another = Another()
    with reused_models() as aided:
        estimator = classifier(fit__callbacks=[another]).fit(X, Y)
    assert (aided.n_new, aided.n_reused) == (1, 0)
    assert another.inner.model_ is not estimator.model_


def test_somebody_elses_patch_that_comes_between_stays():
    original = BaseWrapper._fit_keras_model
    calls = []
    try:
        with reused_models():
            ours = BaseWrapper._fit_keras_model

            @functools.wraps(ours)
            def theirs(self, *arguments, **named):
                calls.append(1)
                return ours(self, *arguments, **named)

            BaseWrapper._fit_keras_model = theirs
        assert BaseWrapper._fit_keras_model is theirs
        with reused_models() as aided:
            classifier().fit(X, Y)
        assert (calls, aided.n_new) == ([1], 1)
        assert BaseWrapper._fit_keras_model is theirs
    finally:
        BaseWrapper._fit_keras_model = original


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def two_inputs():
    inputs = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model(dict(zip("ab", inputs, strict=True)), keras.layers.Dense(2)(keras.layers.Add()(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


class TwoInputs(KerasClassifier):
    @property
    def feature_encoder(self):
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(lambda x: {"a": x, "b": -x})


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("estimator", "x", "given"),
    [
        (classifier(), scipy.sparse.csr_matrix(X), {}),
        (classifier(), X.tolist(), {}),
        (classifier(), X, {"validation_data": dataset()}),
        (classifier(), X, {"validation_data": (tf.constant(X), tf.constant(Y))}),
        (classifier(batch_size=-1), X,
         {"validation_data": (X, Y, np.ones(len(X))), "sample_weight": np.linspace(0.1, 1, len(X))}),
        (classifier(batch_size=None, fit__steps_per_epoch=2), X, {}),
        (TwoInputs(two_inputs, verbose=0, epochs=1, random_state=0), X, {}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("store")
@pytest.mark.filterwarnings("ignore:The scoring .* does not support sample_weight:UserWarning")
def test_data_of_any_kind_are_searched_as_without(estimator, x, given):
    named = {"cv": [(np.arange(30), np.arange(30, 40))], "refit": False, "error_score": "raise"}
    losses = []

    def look(fitted, *_):
        losses.extend(fitted.history_["loss"])
        return 1.0

    bare = GridSearchCV(clone(estimator), {"epochs": [2]}, scoring=look, **named)
    bare.fit(x, Y, **given)
    search = GridSearchCV(clone(estimator), {"epochs": [1, 2]}, scoring=loss, **named)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with mlflow_hp.record_search(search, progress=False, report=False):
            search.fit(x, Y, **given)
    assert search.cv_results_["split0_test_score"].tolist() == [-each for each in losses]


def test_a_search_that_goes_without_says_so_once(store, monkeypatch):
    grid = {"model__learning_rate": [0.1, 0.3]}
    named = {"cv": [(np.arange(20), np.arange(20, 40))], "refit": False, "scoring": loss}
    bare = GridSearchCV(classifier(), grid, **named).fit(X, Y)
    ours = GridSearchCV(classifier(), grid, **named)
    monkeypatch.setattr(of_scikeras.FIT_ARGUMENTS, "name", "mlflow_hp_other")
    with pytest.warns(RuntimeWarning, match="slower than it could") as told:
        run_id = record(ours, X, Y)
    assert len([each for each in told if "mlflow_hp" in str(each.message)]) == 1
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], bare.cv_results_["mean_test_score"])
    tags = store.get_run(run_id).data.tags
    assert "mlflow_hp.recording_error" not in tags
    assert re.fullmatch(
        r"2 x models are not reused: scikeras .* is not supported: .*mlflow_hp_other was not found; .*",
        tags["mlflow_hp.plain_trainings"],
    )
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}


@pytest.mark.thorough
@pytest.mark.slow
def test_workers_say_so_too(store):
    x = scipy.sparse.csr_matrix(X)
    run_id = record(GridSearchCV(classifier(), {"model__units": [2, 3]}, cv=2, refit=False, n_jobs=2), x, Y)
    tags = store.get_run(run_id).data.tags
    assert tags["mlflow_hp.plain_trainings"].startswith("4 x models are not reused: the data are a lil")
