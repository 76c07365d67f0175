"""Reuse of compiled Keras models between scikeras fits that share an architecture.

Most of a short Keras fit is tracing: the functions that train and predict are built again for each model. Inside
`reused_models` the user's model function is still called for each fit, so random generators advance as before; then the
state of the new model is copied into an earlier one that is already traced, which is trained in its place. The results
stay the same bit for bit: traced functions depend on the architecture alone, everything else is in variables.
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

from mlflow_hp._compat.keras import start_at_first_epoch
from mlflow_hp._compat.scikeras import is_seeded
from mlflow_hp._compat.tensorflow import is_deterministic
from mlflow_hp.search.speedups.isolation import is_isolated
from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture
from mlflow_hp.search.speedups.scikeras_fit import KerasFit, ignore_reason, sped_up

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from mlflow_hp.search.speedups.scikeras_fit import OnPlain

MAX_MODELS = 16
"""Most models in the cache; a search over architectures needs several."""
MAX_BYTES = 256 * 2**20
"""Limit of the cached models' weights, in bytes; the last used model stays in any case."""
REFERRED_TO = "code besides the estimator refers to the model, or to a part of it"


@dataclass
class ReuseCounts:
    """Counts of the Keras fits inside a `reused_models` block.

    Attributes
    ----------
    n_reused, n_new : int
        Number of fits that trained a model of an earlier fit, and of those that trained the new one.
    reasons : Counter of str
        Reason why a model could not be reused -> number of models.
    """

    n_reused: int = 0
    n_new: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def reused_models(on_plain: OnPlain = ignore_reason) -> Iterator[ReuseCounts]:
    """Let scikeras fits inside the block train compiled models of earlier fits of this thread, where that is exact.

    Enter the block around one fit of a search at a time, in the process that computes it; the models are cached between
    blocks until `forget_models`. Do not enter it around the refit, whose model belongs to the user.

    A model is reused only if no other code can reach it or a part of it any more: not its estimator, nor a list,
    closure, callback or bound method of the user. A new model is not replaced if code besides its estimator refers to
    it already.

    Parameters
    ----------
    on_plain : callable
        Called with the reason why a fit trains a new model, and whether that is a fault rather than a known limit.
        Defaults to ignoring it.

    Yields
    ------
    ReuseCounts
    """
    counts = ReuseCounts()

    def count_reason(reason: str, is_fault: bool) -> None:
        counts.reasons[reason] += 1
        on_plain(f"models are not reused: {reason}", is_fault)

    with sped_up(lambda fit: _reuse(fit, counts, count_reason), count_reason):
        yield counts


def forget_models() -> None:
    """Empty this thread's cache of models."""
    _cache.models.clear()


def _reuse(fit: KerasFit, counts: ReuseCounts, on_plain: OnPlain) -> Generator[int, None, None]:
    """Replace the new model of a fit by one of an earlier fit, if there is one that computes the same."""
    counts.n_new += 1  # corrected below
    key = _key(fit)
    new = _CachedModel(fit.estimator.model_, _cache.barren_in_new)
    if not new.is_free(fit.n_references_to_model()):
        raise NotShareableError(REFERRED_TO)
    cached = _cache.models.pop(key, None)
    if cached is not None and not cached.is_free():
        on_plain(REFERRED_TO, False)
        cached = None
    if cached is not None and cached.copy_state(new.model, key[0]):
        fit.estimator.model_ = cached.model
        counts.n_new -= 1
        counts.n_reused += 1
    else:
        cached = new
        cached.barren = set()
    del new
    yield 0
    _cache.add(key, cached)


class _CachedModel:
    """A model that has been traced, or is about to be.

    Attributes
    ----------
    model : keras.Model
    barren : set of type
        Types that `is_isolated` may skip; after training others than before.
    """

    def __init__(self, model: Any, barren: set[type]) -> None:
        self.model = model
        self.barren = barren

    @property
    def nbytes(self) -> int:
        """Size of the weights and of the optimizer's state, in bytes."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return sum(variable.value.dtype.size * math.prod(variable.shape) for variable in variables)

    def is_free(self, known: int = 0) -> bool:
        """Whether no code can reach the model or its state, but for `known` references to the model."""
        import keras
        import tensorflow as tf

        state = (keras.Variable, tf.Variable)
        return not weakref.getweakrefcount(self.model) and is_isolated([self.model], 1 + known, state, self.barren)

    def copy_state(self, new_model: Any, expected: Any) -> bool:
        """Set the model to the state of a new, untrained one.

        Returns False if its own architecture is not as `expected` any more: a callback may have changed it.
        """
        model = self.model
        try:
            if architecture(model) != expected:
                return False
        except NotShareableError:
            return False
        start_at_first_epoch(model)
        new_model.optimizer.build(new_model.trainable_variables)
        state = [*model.variables, *model.optimizer.variables]  # includes dropout's seeds
        fresh = [*new_model.variables, *new_model.optimizer.variables]
        if [(each.shape, each.dtype) for each in state] != [(each.shape, each.dtype) for each in fresh]:
            return False
        for old, value in zip(state, fresh, strict=True):
            old.assign(value.value)
        model.stop_training = False
        return True  # Keras resets metrics when an epoch or an evaluation begins


class _Cache(threading.local):
    """Models of a thread, the last used one last."""

    def __init__(self) -> None:
        self.models: OrderedDict[Any, _CachedModel] = OrderedDict()
        self.barren_in_new: set[type] = set()

    def add(self, key: Any, cached: _CachedModel) -> None:
        """Add a model, and drop the least recently used ones if there are too many."""
        self.models[key] = cached
        self.models.move_to_end(key)
        while len(self.models) > 1 and (
            len(self.models) > MAX_MODELS or sum(each.nbytes for each in self.models.values()) > MAX_BYTES
        ):
            self.models.popitem(last=False)


_cache = _Cache()


def _key(fit: KerasFit) -> Any:
    """Key that determines the traced functions of a fit: the model, the shapes of its data, global settings."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise NotShareableError(f"Keras runs on {keras.backend.backend()}")
    if not fit.is_plain():
        raise NotShareableError("the estimator continues an earlier training, or is not scikeras' own")
    if isinstance(fit.estimator.model, keras.Model):
        raise NotShareableError("the estimator has a model, not a function that builds one")
    if fit.estimator.model_.optimizer.built:
        raise NotShareableError("the model's optimizer may have taken steps already")
    deterministic = is_deterministic() or is_seeded(fit.estimator)
    return architecture(fit.estimator.model_), _shapes(fit), deterministic, keras.config.floatx()


def _shapes(fit: KerasFit) -> Any:
    """Shapes and types of the batches, as far as traced functions depend on them."""
    arguments = fit.arguments()
    train_arrays = _arrays((fit.x, fit.y, fit.sample_weight))
    share, validation_data = arguments.get("validation_split"), arguments.get("validation_data")
    valid_arrays = _arrays(validation_data)
    n = len(train_arrays[0][1])
    n_valid = len(valid_arrays[0][1]) if valid_arrays else n - math.floor(n * (1 - share)) if share else 0
    n_train = n if valid_arrays else n - n_valid
    batch_size = _batch_size(arguments.get("batch_size"), n)
    steps = arguments.get("steps_per_epoch")
    valid_size = _batch_size(arguments.get("validation_batch_size"), n) or batch_size
    return (
        _batches(train_arrays, n_train, batch_size or (math.ceil(n_train / steps) if steps else 32)),
        _batches(valid_arrays, n_valid, valid_size or 32) if n_valid else None,
        arguments.get("class_weight") is not None,
    )


def _batch_size(batch_size: int | None, n: int) -> int | None:
    """Batch size of Keras for one of scikeras, where -1 means all."""
    return n if batch_size == -1 else batch_size


def _arrays(data: Any) -> list[tuple[Any, np.ndarray]]:
    """Arrays of nested data with their paths; Keras makes batches of other data in its own ways."""
    from keras import tree

    arrays = [(path, each) for path, each in tree.flatten_with_path(data) if each is not None]
    for _, each in arrays:
        if not isinstance(each, np.ndarray):
            raise NotShareableError(f"the data are a {type(each).__name__}, not an array")
    return arrays


def _batches(arrays: list[tuple[Any, np.ndarray]], n: int, batch_size: int) -> Any:
    """Path, type and shape of each array of a batch; the batch size is static only if all batches are full."""
    size = batch_size if n % batch_size == 0 else None
    return tuple((path, each.dtype.str, (size, *each.shape[1:])) for path, each in arrays)
