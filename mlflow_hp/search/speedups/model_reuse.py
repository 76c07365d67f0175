"""Compiled Keras models reused between scikeras fits that share an architecture.

Most of a short Keras fit goes into tracing: the functions that train and predict are built anew for each model. Inside
`reused_models` the user's model function is still called for each fit, so what it draws from random generators is
drawn; then the state of the model it gave is copied into one that has been traced, which is trained in its place. The
numbers stay the same bit for bit: traced functions depend on the architecture alone, everything else is in variables.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.speedups.isolation import is_isolated
from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture
from mlflow_hp.search.speedups.scikeras_fit import KerasFit, sped_up, untold

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from mlflow_hp.search.speedups.scikeras_fit import Tell

MOST_MODELS = 16
"""Models kept at most, for searches over architectures."""
MOST_BYTES = 256 * 2**20
"""Bytes that the weights of the models kept may take together; the last one used is kept in any case."""
HELD = "somebody besides the estimator refers to the model, or to a part of it"


@dataclass
class Reuse:
    """What became of the Keras fits inside a `reused_models`.

    Attributes
    ----------
    n_reused, n_new : int
        Fits that trained a model of an earlier fit, and those that trained the one just built.
    reasons : Counter of str
        Why models could not be reused at all, and how many.
    """

    n_reused: int = 0
    n_new: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def reused_models(tell: Tell = untold) -> Iterator[Reuse]:
    """Have scikeras fits inside the block train compiled models of earlier fits of this thread, where that is the same.

    Meant around one fit of a search at a time, in the process that computes it; the models are kept between the blocks
    until `forget_models`. Never put it around the refit: its model is the user's to keep.

    A model is reused only when nobody else can reach it or a part of it any more: neither its estimator nor a list, a
    closure, a callback, a bound method of the user's. Nor is one exchanged for it that somebody besides its estimator
    holds already.

    Parameters
    ----------
    tell : callable
        Told why a fit trains a new model, and whether for a fault rather than a known limit.
    """
    reuse = Reuse()

    def told(reason: str, is_fault: bool) -> None:
        reuse.reasons[reason] += 1
        tell(f"models are not reused: {reason}", is_fault)

    with sped_up(lambda fit: _reusing(fit, reuse, told), told):
        yield reuse


def forget_models() -> None:
    """Give up the models that this thread keeps."""
    _kept.models.clear()


def _reusing(fit: KerasFit, reuse: Reuse, tell: Tell) -> Generator[bool, None, None]:
    """Train the model of an earlier fit in place of the new one, where there is one that computes the same."""
    reuse.n_new += 1  # until it is known to be otherwise
    key = _key(fit)
    new = _Kept(fit.estimator.model_)
    if not new.is_free(fit.n_references_to_model()):
        raise NotShareableError(HELD)
    kept = _kept.models.pop(key, None)
    if kept is not None and not kept.is_free():
        tell(HELD, False)
        kept = None
    if kept is not None and kept.take_over(new.model, key[0]):
        fit.estimator.model_ = kept.model
        reuse.n_new -= 1
        reuse.n_reused += 1
    else:
        kept = new
    del new
    yield True
    _kept.keep(key, kept)


class _Kept:
    """A model that has been traced, or is about to be.

    Attributes
    ----------
    model : keras.Model
        The model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._barren: set[type] = set()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the optimizer's state."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return sum(variable.value.dtype.size * math.prod(variable.shape) for variable in variables)

    def is_free(self, known: int = 0) -> bool:
        """Whether nobody can reach the model or its state, but for so many `known` references to the model."""
        import keras
        import tensorflow as tf

        state = (keras.Variable, tf.Variable)
        return not weakref.getweakrefcount(self.model) and is_isolated([self.model], 1 + known, state, self._barren)

    def take_over(self, new: Any, expected: Any) -> bool:
        """Give the model the state of a `new` one, which has not been trained.

        Gives False where its own architecture is not as `expected` any more: a callback may have changed it.
        """
        model = self.model
        try:
            if architecture(model) != expected:
                return False
        except NotShareableError:
            return False
        new.optimizer.build(new.trainable_variables)
        state = [*model.variables, *model.optimizer.variables]  # seeds of dropout are among them
        fresh = [*new.variables, *new.optimizer.variables]
        if [(each.shape, each.dtype) for each in state] != [(each.shape, each.dtype) for each in fresh]:
            return False
        for old, value in zip(state, fresh, strict=True):
            old.assign(value.value)
        model.stop_training = False
        model._initial_epoch = None
        return True  # metrics are reset by Keras when an epoch or an evaluation begins


class _Cache(threading.local):
    """The models kept in a thread, the last used one last."""

    def __init__(self) -> None:
        self.models: OrderedDict[Any, _Kept] = OrderedDict()

    def keep(self, key: Any, kept: _Kept) -> None:
        """Keep a model, and give up those longest unused where there are too many."""
        self.models[key] = kept
        self.models.move_to_end(key)
        while len(self.models) > 1 and (
            len(self.models) > MOST_MODELS or sum(each.nbytes for each in self.models.values()) > MOST_BYTES
        ):
            self.models.popitem(last=False)


_kept = _Cache()


def _key(fit: KerasFit) -> Any:
    """What decides the traced functions of a fit: the model, the shapes of its data, and what is set around it."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise NotShareableError(f"Keras runs on {keras.backend.backend()}")
    if not fit.is_plain():
        raise NotShareableError("the estimator goes on from an earlier training, or is not scikeras' own")
    if isinstance(fit.estimator.model, keras.Model):
        raise NotShareableError("the estimator was given a model, not a function that builds one")
    if fit.estimator.model_.optimizer.built:
        raise NotShareableError("the model's optimizer may have made steps already")
    from tensorflow.python.framework.config import is_op_determinism_enabled

    deterministic = fit.estimator._random_state is not None or is_op_determinism_enabled()
    return architecture(fit.estimator.model_), _shapes(fit), deterministic, keras.config.floatx()


def _shapes(fit: KerasFit) -> Any:
    """The shapes and types of the batches, as far as Keras tells TensorFlow when it traces."""
    arguments = fit.arguments()
    trained = _arrays((fit.x, fit.y, fit.sample_weight))
    share, given = arguments.get("validation_split"), arguments.get("validation_data")
    validated = _arrays(given)
    n = len(trained[0][1])
    n_valid = len(validated[0][1]) if validated else n - math.floor(n * (1 - share)) if share else 0
    n_train = n if validated else n - n_valid
    batch_size = _batch_size(arguments.get("batch_size"), n)
    steps = arguments.get("steps_per_epoch")
    valid_size = _batch_size(arguments.get("validation_batch_size"), n) or batch_size
    return (
        _batches(trained, n_train, batch_size or (math.ceil(n_train / steps) if steps else 32)),
        _batches(validated, n_valid, valid_size or 32) if n_valid else None,
        arguments.get("class_weight") is not None,
    )


def _batch_size(asked: int | None, n: int) -> int | None:
    """The batch size that scikeras makes of the one asked for."""
    return n if asked == -1 else asked


def _arrays(data: Any) -> list[tuple[Any, np.ndarray]]:
    """Each array of the data with its place; of anything else Keras makes batches in ways of its own."""
    from keras import tree

    arrays = [(path, each) for path, each in tree.flatten_with_path(data) if each is not None]
    for _, each in arrays:
        if not isinstance(each, np.ndarray):
            raise NotShareableError(f"the data are a {type(each).__name__}, not an array")
    return arrays


def _batches(arrays: list[tuple[Any, np.ndarray]], n: int, batch_size: int) -> Any:
    """Place, type and shape of each array of a batch; Keras tells the batch size where all batches are full."""
    size = batch_size if n % batch_size == 0 else None
    return tuple((path, each.dtype.str, (size, *each.shape[1:])) for path, each in arrays)
