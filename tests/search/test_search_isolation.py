"""A model that somebody can still reach, in whatever way, is his: the next fit trains another."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import copy
import functools
import gc
import operator
import sys
import threading
import types
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from scikeras.wrappers import KerasClassifier

from mlflow_hp.search.speedups import model_reuse
from mlflow_hp.search.speedups.isolation import is_isolated
from mlflow_hp.search.speedups.model_reuse import REFERRED_TO, forget_models, reused_models

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = (X.sum(1) > 0).astype(int)
MODULE = types.ModuleType("a_module_of_the_users")
sys.modules[MODULE.__name__] = MODULE
LOCAL, CONTEXT = threading.local(), contextvars.ContextVar("kept", default=None)


class Holder:
    kept = None

    def __init__(self, it=None):
        self.it = it


class Slots:
    __slots__ = ("it",)


class Watching(keras.callbacks.Callback):
    """A callback of the user's, which keeps its model, as all do."""


def network():
    inputs = keras.Input((4,))
    hidden = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dropout(0.1)])(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(hidden))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def classifier(model=network, **named):
    return KerasClassifier(model, **{"epochs": 1, "verbose": 0, "random_state": 0, **named})


@pytest.fixture
def nothing_kept():
    forget_models()
    yield
    forget_models()


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    """What is there before is no model of these tests: to look through it for circles takes most of a second."""
    fitted()  # which imports much
    forget_models()
    gc.collect()
    gc.freeze()
    yield
    TRAINED.clear()
    forget_models()


def fitted(**named):
    """A fit inside of the block, and how many models were reused."""
    with reused_models() as record:
        estimator = classifier(**named).fit(X, Y)
    return estimator, record


def closure(model):
    return lambda: model


def generator(model):
    yield 0
    yield model


def started(model):
    it = generator(model)
    next(it)
    return it


def slots(model):
    it = Slots()
    it.it = model
    return it


def in_a_module(model):
    MODULE.kept = model


def in_a_class(model):
    Holder.kept = model.layers


def in_a_thread(model):
    LOCAL.kept = model


def in_a_context(model):
    CONTEXT.set(model)


def waiting(model):
    """A thread that runs, with the model in a variable of one of its functions."""
    over = threading.Event()

    def work(model):
        over.wait()
        del model

    thread = threading.Thread(target=work, args=(model,), daemon=True)
    thread.start()
    return over, thread


def objects(model):
    array = np.empty(1, object)
    array[0] = model
    return array


def an_error(model):
    return KeyError(model.layers[-1])


def function_of(model):
    return tf.function(model)


WAYS = {
    "estimator": None,
    "copy of the estimator": copy.copy,
    "the model": lambda model: model,
    "list": lambda model: [model],
    "deque in a dict": lambda model: {"it": collections.deque([(model,)])},
    "key": lambda model: {model: 1},
    "set": lambda model: {model},
    "attribute": Holder,
    "slots": slots,
    "objects in an array": objects,
    "closure": closure,
    "default of a lambda": lambda model: lambda it=model: it,
    "bound method": lambda model: model.predict,
    "its __call__": lambda model: model.__call__,
    "partial": lambda model: functools.partial(operator.add, model),
    "generator": started,
    "generator not begun": generator,
    "iterator": lambda model: iter([1, model]),
    "map": lambda model: map(model, [X]),
    "thread": waiting,
    "module": in_a_module,
    "class": in_a_class,
    "thread-local": in_a_thread,
    "context": in_a_context,
    "error": an_error,
    "weak": weakref.ref,
    "weak set": lambda model: weakref.WeakSet([model]),
    "tf.function": function_of,
    "layer": lambda model: model.layers[-1],
    "layer of a layer": lambda model: model.layers[1].layers[0],
    "sub-model": lambda model: keras.Model(model.input, model.layers[1].output),
    "sub-model within": lambda model: model.layers[1],
    "layers": lambda model: model.layers,
    "method of a layer": lambda model: model.layers[-1].get_weights,
    "variable": lambda model: model.weights[0],
    "TensorFlow's variable": lambda model: model.weights[0].value,
    "method of a variable": lambda model: model.weights[0].numpy,
    "optimizer": lambda model: model.optimizer,
    "learning rate": lambda model: model.optimizer.learning_rate,
    "optimizer's state": lambda model: model.optimizer.variables[-1],
    "metric": lambda model: model.metrics[-1],
    "history": lambda model: model.history,
    "input": lambda model: model.input,
    "output of a layer": lambda model: model.layers[1].output,
    "attributes": vars,
    "what was traced": lambda model: model.train_function,
    "what predicts": lambda model: (model.predict(X, verbose=0), model.predict_function)[1],
    "copy of its attributes": lambda model: copy.copy(vars(model)),
}


@contextlib.contextmanager
def kept(way, estimator):
    """What is kept in this way, as long as the block lasts."""
    held = [estimator if WAYS[way] is None else WAYS[way](estimator if "estimator" in way else estimator.model_)]
    del estimator
    try:
        yield
    finally:
        if way == "thread":
            over, thread = held[0]
            over.set()
            thread.join()
            del over, thread
        held.clear()
        Holder.kept = MODULE.kept = LOCAL.kept = None
        CONTEXT.set(None)


def newly_trained():
    """A model as the cache has it, which was trained, has predicted, and is nobody else's."""
    estimator = classifier().fit(X, Y)
    estimator.predict(X)
    cached = model_reuse._CachedModel(estimator.model_, set())
    del estimator
    gc.collect()
    return cached


TRAINED = []


@pytest.fixture
def trained():
    """One for all tests, as long as each lets it go."""
    gc.collect()
    if not (TRAINED and TRAINED[0].is_free()):
        TRAINED[:] = [newly_trained()]
    return TRAINED[0]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("way", WAYS)
def test_whoever_holds_it_is_seen(way, trained):
    def free():
        """Whether it is, by what it was told before and by a first look."""
        return trained.is_free(), model_reuse._CachedModel(trained.model, set()).is_free(1)

    assert free() == (True, True)
    with kept(way, types.SimpleNamespace(model_=trained.model)):
        gc.collect()  # a sub-model and the like leave circles that nobody holds
        assert free() == (False, False)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("way", ["estimator", "copy of the estimator", "the model", "layer", "weak"])
def test_whoever_holds_it_keeps_it(way):
    estimator, record = fitted()
    watched = [weakref.ref(variable) for variable in estimator.model_.variables]
    before = [variable().numpy() for variable in watched]
    with kept(way, estimator):
        del estimator
        gc.collect()
        _, record = fitted(random_state=1)
        assert record.n_reused == 0
        if way != "weak":
            assert record.reasons == {REFERRED_TO: 1}
        for variable, value in zip(watched, before, strict=True):
            if variable() is not None:
                np.testing.assert_array_equal(variable().numpy(), value)


def test_a_callback_that_was_there_in_training_keeps_its_model():
    watching = Watching()
    estimator, _ = fitted(callbacks=watching)
    before = watching.model.get_weights()
    del estimator
    assert fitted(random_state=1)[1].n_reused == 0
    for one, other in zip(watching.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.thorough
@pytest.mark.usefixtures("nothing_kept")
def test_what_was_held_and_is_no_more_is_reused_again():
    counts = []
    for fit in range(5):
        estimator, record = fitted()
        counts.append(record.n_reused)
        held = [estimator.model_.optimizer] if fit == 1 else []
        del estimator
    assert counts == [0, 1, 0, 1, 1]
    assert held == []


KEEPS = [lambda model: model, lambda model: model.predict, lambda model: model.layers[0], weakref.ref]


def trained_while_kept(keeps, aided):
    """Two fits of what is kept in each of these ways when it is built: the weights of what was kept and trained."""
    made = []  # a list of all models made, as a script has it that looks at them later

    def build():
        model = network()
        made.append([keep(model) for keep in keeps])
        return model

    found = []
    for random_state in (0, 1):
        with reused_models() if aided else contextlib.nullcontext():
            estimator = classifier(build, random_state=random_state).fit(X, Y)
        assert [keep(estimator.model_) for keep in keeps] == made[-1]
        model = made[-1][0] if keeps[0](estimator.model_) is estimator.model_ else estimator.model_
        found += [*model.get_weights(), *estimator.model_.get_weights()]
    return found


@pytest.fixture(scope="module")
def bare():
    return trained_while_kept(KEEPS, False)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("keep", KEEPS)
def test_a_model_that_was_kept_while_it_was_built_is_the_one_that_is_trained(keep, bare):
    for one, other in zip(trained_while_kept([keep], True), bare, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_optimizers_and_metrics_that_models_share_are_not_overwritten():
    shared = keras.layers.Dense(2, "softmax")

    def build():
        model = keras.Sequential([keras.Input((4,)), shared])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    estimators = []
    for _ in range(2):
        with reused_models() as record:
            estimators.append(classifier(build).fit(X, Y))
        assert record.n_reused == 0


def test_two_that_hold_each_other_are_alone():
    one, other = Holder(), Holder()
    one.it, other.it = other, one
    thing = [one]
    del one
    assert not is_isolated(thing, 0, (Holder,), set())
    del other
    assert is_isolated(thing, 0, (Holder,), set())
    assert not is_isolated(thing, 1, (Holder,), set())


def test_a_type_that_was_passed_over_and_leads_to_the_state_now_is_seen():
    one, barren = Holder(Slots()), set()
    one.it.it = 1
    thing = [one]
    del one
    assert is_isolated(thing, 0, (Holder,), barren)
    assert Slots in barren
    thing[0].it.it = thing[0]
    assert is_isolated(thing, 0, (Holder,), barren)
    assert Slots not in barren
    held = thing[0].it
    assert not is_isolated(thing, 0, (Holder,), barren)
    del held
    thing[0].it = None
