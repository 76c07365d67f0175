"""Compiled Keras models reused between scikeras fits that share an architecture.

Most of a short Keras fit goes into tracing: the functions that train and predict are built anew for each model. Inside
`reused_models` the user's model function is still called for each fit, so what it draws from random generators is
drawn; then the state of the model it gave is copied into one that has been traced, which is trained in its place. The
numbers stay the same bit for bit: traced functions depend on the architecture alone, everything else is in variables.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import threading
import types
import weakref
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.architecture import NotShareableError, architecture
from mlflow_hp.search.intercept import KerasFit, intercepted

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_MODELS = 16
"""Models kept at the most, for searches over architectures."""
MOST_BYTES = 256 * 2**20
"""Bytes that the weights of the models kept may take together; the last one used is kept in any case."""


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
def reused_models() -> Iterator[Reuse]:
    """Have scikeras fits inside the block train compiled models of earlier fits of this thread, where that is the same.

    Meant around one fit of a search at a time, in the process that computes it; the models are kept between the blocks
    until `forget_models`. Never put it around the refit: its model is the user's to keep.

    A model is reused only when nothing outside of it refers to it any more: neither its estimator nor anybody else.
    """
    reuse = Reuse()
    with intercepted(lambda fit: _fit(fit, reuse)):
        yield reuse


def forget_models() -> None:
    """Give up the models that this thread keeps."""
    _kept.models.clear()


def _fit(fit: KerasFit, reuse: Reuse) -> None:
    """Train the model of an earlier fit in place of the new one, where there is one that computes the same."""
    estimator = fit.estimator
    try:
        key = _key(fit)
    except NotShareableError as reason:
        reuse.reasons[str(reason)] += 1
        reuse.n_new += 1
        fit.run()
        return
    kept = _kept.models.pop(key, None)
    if kept is not None and kept.is_free() and kept.take_over(estimator.model_, key[0]):
        estimator.model_ = kept.model
        reuse.n_reused += 1
    else:
        kept = _Kept(estimator.model_)
        reuse.n_new += 1
    kept.estimator = weakref.ref(estimator)
    fit.run()
    _kept.keep(key, kept)


class _Kept:
    """A model that has been traced.

    Attributes
    ----------
    model : keras.Model
        The model.
    estimator : weakref.ref
        Who trained it last.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.estimator: Any = None
        self._optimizer_state = _FreshState(model.optimizer, model.trainable_variables)
        self._own_references: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the optimizer's state."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return sum(variable.value.dtype.size * math.prod(variable.shape) for variable in variables)

    def is_free(self) -> bool:
        """Whether nobody can see the model but Keras' own objects within it.

        Looking through all of Python's objects takes tens of milliseconds, so it is done only when the number of
        references is another than when the answer was yes.
        """
        if self.estimator() is not None:
            return False
        references = sys.getrefcount(self.model)
        if references == self._own_references:
            return True
        referrers = gc.get_referrers(self.model)  # running functions are not among them, but counted as references
        if references > len(referrers) + 1 or not all(self._owns(each) for each in referrers):
            return False
        self._own_references = references
        return True

    def _owns(self, referrer: Any) -> bool:
        """Whether it is a part of the model: bound methods, closures of traced functions, the last history."""
        model = self.model
        return (
            referrer is self
            or referrer is vars(self)
            or isinstance(referrer, types.CellType)
            or (isinstance(referrer, types.MethodType) and referrer.__self__ is model)
            or (isinstance(referrer, dict) and all(value is not model for value in referrer.values()))
            or referrer is getattr(model, "history", None)
        )

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
        if [v.shape for v in model.variables] != [v.shape for v in new.variables]:
            return False
        for old, fresh in zip(model.variables, new.variables, strict=True):  # seeds of dropout are among them
            old.assign(fresh.value)
        self._optimizer_state.restore(new.optimizer)
        model.stop_training = False
        model._initial_epoch = None
        return True  # metrics are reset by Keras when an epoch or an evaluation begins


class _FreshState:
    """The state of an optimizer that has not made a step; constant tensors are kept as one number."""

    def __init__(self, optimizer: Any, variables: Any) -> None:
        if not optimizer.built:
            optimizer.build(variables)
        self._values = [(variable, _constant(variable.numpy())) for variable in optimizer.variables]

    def restore(self, new: Any) -> None:
        """Set it again, with the learning rate and whatever else a `new` optimizer of the same kind has."""
        import keras

        given = {variable.name: variable.value for variable in new.variables}
        for variable, value in self._values:
            fresh = given.get(variable.name, value)
            variable.assign(keras.ops.full(variable.shape, fresh, variable.dtype) if np.ndim(fresh) == 0 else fresh)


def _constant(value: np.ndarray) -> Any:
    """An array, or the one number that all of its elements are."""
    return value.flat[0] if value.size and (value == value.flat[0]).all() else value


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
    n = _length(fit.x)
    share, given = arguments.get("validation_split"), arguments.get("validation_data")
    n_valid = _length(given[0]) if given is not None else n - math.floor(n * (1 - share)) if share else 0
    n_train = n - n_valid if given is None else n
    batch_size = _batch_size(arguments.get("batch_size"), n)
    steps = arguments.get("steps_per_epoch")
    valid_size = _batch_size(arguments.get("validation_batch_size"), n) or batch_size
    return (
        _batches(
            (fit.x, fit.y, fit.sample_weight), n_train, batch_size or (math.ceil(n_train / steps) if steps else 32)
        ),
        _batches(given, n_valid, valid_size or 32) if n_valid else None,
        arguments.get("class_weight") is not None,
    )


def _batch_size(asked: int | None, n: int) -> int | None:
    """The batch size that scikeras makes of the one asked for."""
    return n if asked == -1 else asked


def _length(data: Any) -> int:
    """The number of samples."""
    from keras import tree

    return len(tree.flatten(data)[0])


def _batches(data: Any, n: int, batch_size: int) -> Any:
    """Place, type and shape of each array of a batch; Keras tells the batch size where all batches are full."""
    from keras import tree

    size = batch_size if n % batch_size == 0 else None
    arrays = [(path, each) for path, each in tree.flatten_with_path(data) if each is not None]
    for _, each in arrays:
        if not isinstance(each, np.ndarray):
            raise NotShareableError(f"the data are a {type(each).__name__}, not an array")
    return tuple((path, each.dtype.str, (size, *each.shape[1:])) for path, each in arrays)
