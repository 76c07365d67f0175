"""Statistics of the data that are trained on, gathered from the batches of the first epoch as they pass by."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from mlflow_hp.history.program import ArrayStatistics, DataStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FEATURES = 4096
"""Size of the last axis above which all values of an array are one feature."""
CLASSES = 1026
"""Number of bins for the classes -1, 0, ..., 1,024."""
ALL_BATCHES = 64
"""Number of batches whose inputs are all counted; of later ones each ``EVERY``-th, and those that are not finite."""
EVERY = 16
FEWEST_SAMPLES = 8
"""Size of a batch from which it counts that all of its samples are of one class."""
OF_FEATURES = ("n", "bad", "sum", "squares", "products")
"""Sums of each feature: numbers of finite and other values, their sum and sum of squares, and the sum of their products
with the target."""
FEW_FEATURES = 32
"""Number of features up to which each batch is counted, with the products of inputs and target."""
OF_ARRAYS = ("fractions", "not_binary", "not_one_hot", "one_class", "batches")
"""Sums of an array: numbers of values that are not whole or not binary, of rows that are not one-hot, and of large
batches, of one class and of any."""


class _Shape(NamedTuple):
    """Form of an array: its shape without the axis of the batch, dtype, number of features, and how it is counted."""

    shape: tuple[int | None, ...]
    dtype: str
    n_features: int
    is_target: bool

    @classmethod
    def of(cls, part: Any, is_target: bool) -> _Shape:
        """Form of a batch."""
        shape = tuple(part.shape[1:])
        n_features = shape[-1] if shape and shape[-1] and shape[-1] <= MAX_FEATURES else 1
        return cls(shape, part.dtype.name, n_features, is_target)

    @property
    def has_classes(self) -> bool:
        """Whether its numbers may be classes: one number a sample."""
        return self.is_target and math.prod(size or 2 for size in self.shape) == 1

    @property
    def is_small_table(self) -> bool:
        """Whether it is an input of few features."""
        return not self.is_target and self.shape == (self.n_features,) and self.n_features <= FEW_FEATURES

    @property
    def may_be_one_hot(self) -> bool:
        return self.is_target and len(self.shape) == 1 and 1 < self.n_features < CLASSES

    @property
    def n_classes(self) -> int:
        """Number of bins of classes: 0 where there are none."""
        return CLASSES if self.has_classes else self.n_features if self.may_be_one_hot else 0


class DataReader:
    """Gathers statistics of inputs and targets, eagerly or while a step is traced; no batch is drawn for it.

    All targets of the first epoch are counted; inputs of the first ``ALL_BATCHES`` batches, then of each
    ``EVERY``-th. Arrays that are no dense numbers are left out.
    """

    def __init__(self) -> None:
        self._shapes: list[_Shape] = []
        self._names: list[str] = []
        self._totals: list[_Totals] = []
        self._is_off = False
        self._is_active: Any = None
        self._counts: Any = None

    def start(self) -> None:
        """Begin a fit, with data of its own."""
        self._is_off = False
        if self._is_active is not None:
            self._is_active.assign(True)
            self._counts.assign(np.zeros(1 + len(self._shapes)))
            for form, totals in zip(self._shapes, self._totals, strict=True):
                totals.clear(form)

    def end_epoch(self) -> None:
        """Count no further batches: those of later epochs are the same data."""
        if self._is_active is not None:
            self._is_active.assign(False)

    def keep(self, data: Any) -> None:
        """Count a batch, as ``train_step`` gets it. Nothing is raised.

        Parameters
        ----------
        data : nested structure of tensors
            Inputs, or a tuple of inputs, targets and sample weights.
        """
        if not self._is_off:
            try:
                self._keep(data)
            except Exception:  # noqa: BLE001 - the step itself is traced, or runs
                self._is_off = True

    def _keep(self, data: Any) -> None:
        import tensorflow as tf

        if tf.distribute.has_strategy():
            raise ValueError("the batch is one of several replicas")
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        parts = [(part, False) for part in keras.tree.flatten(x)] + [(part, True) for part in keras.tree.flatten(y)]
        arrays = [part for part, _ in parts if _is_dense(part)]
        forms = [_Shape.of(part, is_target) for part, is_target in parts if _is_dense(part)]
        if self._is_active is None:
            self._make_variables(forms, [*_names_of(x), *_names_of(y)], parts)
        elif forms != self._shapes:
            raise ValueError("the batch has other forms than the first")
        if tf.executing_eagerly():
            if bool(self._is_active):
                self._count(arrays)
            return
        with tf.device("CPU:0"):  # a GPU would finish all steps before the condition is known
            is_active = self._is_active.read_value()
        tf.cond(is_active, lambda: self._count(arrays), lambda: tf.constant(0.0, tf.float64))

    def _make_variables(self, forms: list[_Shape], names: list[str], parts: list[Any]) -> None:
        import tensorflow as tf

        self._names = [name for name, (part, _) in zip(names, parts, strict=True) if _is_dense(part)]
        self._shapes = forms
        with tf.init_scope(), tf.device("CPU:0"):
            self._counts = tf.Variable(np.zeros(1 + len(forms)), trainable=False)
            self._totals = [_Totals.of(form) for form in forms]
            self._is_active = tf.Variable(True, trainable=False)

    def _count(self, arrays: list[Any]) -> Any:
        """Add a batch to the totals; return the number of batches."""
        import tensorflow as tf

        index = self._counts[0]
        is_due = tf.logical_or(index < ALL_BATCHES, tf.equal(index % EVERY, 0))
        samples = [tf.cast(tf.shape(part)[0], tf.float64) for part in arrays]
        self._counts.assign_add(tf.stack([tf.constant(1.0, tf.float64), *samples]))
        targets = [part for part, form in zip(arrays, self._shapes, strict=True) if form.has_classes]
        target = targets[0] if len(targets) == 1 and sum(form.is_target for form in self._shapes) == 1 else None
        for part, form, totals in zip(arrays, self._shapes, self._totals, strict=True):
            if form.is_target:
                totals.add(_counter(form)(part))
            elif form.is_small_table:
                totals.add(_counter(form)(part) if target is None else _counter(form, target.dtype.name)(part, target))
            else:
                is_finite = tf.math.is_finite(tf.reduce_sum(part)) if part.dtype.is_floating else True
                is_counted = tf.logical_or(is_due, tf.logical_not(is_finite))
                _when(is_counted, functools.partial(_add, part, form, totals))
        return index

    def statistics(self) -> DataStatistics | None:
        """Return the statistics so far; None if there are none.

        Returns
        -------
        DataStatistics or None
            Those of inputs and targets.
        """
        if self._is_off or self._is_active is None:
            return None
        n_batches, *n_samples = map(int, self._counts.numpy())
        if not n_batches:
            return None
        inputs: list[ArrayStatistics] = []
        targets: list[ArrayStatistics] = []
        for name, form, totals, n in zip(self._names, self._shapes, self._totals, n_samples, strict=True):
            (targets if form.is_target else inputs).append(_statistics(name, form, totals.read(form), n, n_batches))
        if {each.n_samples for each in targets} != {each.n_samples for each in inputs}:
            inputs = [each._replace(target_products=None) for each in inputs]
        return DataStatistics(tuple(inputs), tuple(targets))


class _Totals(NamedTuple):
    """Variables of an array: its sums, one after the other, and the lowest and highest value of each feature."""

    sums: Any
    low: Any
    high: Any

    @classmethod
    def of(cls, form: _Shape) -> _Totals:
        """Make them, at the values before the first batch."""
        import tensorflow as tf

        return cls(*(tf.Variable(value, trainable=False) for value in _start(form)))

    def clear(self, form: _Shape) -> None:
        """Set them to the values before the first batch."""
        for variable, value in zip(self, _start(form), strict=True):
            variable.assign(value)

    def add(self, counted: tuple[Any, Any, Any]) -> None:
        """Add what was counted of a batch."""
        import tensorflow as tf

        sums, low, high = counted
        self.sums.assign_add(sums)
        self.low.assign(tf.minimum(self.low, low))
        self.high.assign(tf.maximum(self.high, high))

    def read(self, form: _Shape) -> dict[str, np.ndarray]:
        """Return the totals by name: of features (n_features,), of the array (), of classes (n_classes,)."""
        sums, low, high = (variable.numpy() for variable in self)
        n = form.n_features
        of_features = dict(zip(OF_FEATURES, sums[: n * len(OF_FEATURES)].reshape(-1, n), strict=True))
        rest = sums[n * len(OF_FEATURES) :]
        of_arrays = dict(zip(OF_ARRAYS, rest, strict=False))
        return {**of_features, **of_arrays, "classes": rest[len(OF_ARRAYS) :], "min": low, "max": high}


@functools.lru_cache(256)
def _counter(form: _Shape, target: str | None = None) -> Callable[..., Any]:
    """Return a function that counts a batch, traced once in a process for all models with data of this form.

    Parameters
    ----------
    form : _Shape
        Of the array.
    target : str, optional
        Type of the targets of which there is one for each sample, given as the second argument. Defaults to none.

    Returns
    -------
    callable
        It returns sums, as `_Totals` has them, lowest and highest values.
    """
    import tensorflow as tf

    def count(value: Any, *targets: Any) -> tuple[Any, Any, Any]:
        table = tf.cast(tf.reshape(value, [-1, form.n_features]), tf.float64)
        is_finite = tf.math.is_finite(table)
        known = tf.where(is_finite, table, tf.zeros_like(table))
        n = tf.math.count_nonzero(is_finite, axis=0, dtype=tf.float64)
        bad = tf.cast(tf.shape(table)[0], tf.float64) - n
        products = tf.zeros(form.n_features, tf.float64)
        if targets:
            column = tf.cast(tf.reshape(targets[0], [-1, 1]), tf.float64)
            n_rows = tf.minimum(tf.shape(column)[0], tf.shape(table)[0])
            products = tf.reduce_sum(table[:n_rows] * column[:n_rows], axis=0)
        fractions = tf.math.count_nonzero(tf.math.floor(known) - known, dtype=tf.float64)
        of_features = [n, bad, tf.reduce_sum(known, axis=0), tf.reduce_sum(known * known, axis=0), products]
        of_classes = _of_classes(table, form) if form.is_target else [tf.zeros(4, tf.float64)]
        infinity = tf.fill(tf.shape(table), tf.constant(math.inf, tf.float64))
        low = tf.reduce_min(tf.where(is_finite, table, infinity), axis=0)
        high = tf.reduce_max(tf.where(is_finite, table, -infinity), axis=0)
        return tf.concat([*of_features, fractions[tf.newaxis], *of_classes], axis=0), low, high

    with tf.init_scope():
        signature = [tf.TensorSpec([None, *form.shape], form.dtype)]
        signature += [] if target is None else [tf.TensorSpec(None, target)]
        counter: Callable[..., Any] = tf.function(
            count, input_signature=signature, autograph=False
        ).get_concrete_function()
    return counter


def _of_classes(table: Any, form: _Shape) -> list[Any]:
    """Count the classes of targets: the last four sums of ``OF_ARRAYS``, and the samples of each class."""
    import tensorflow as tf

    binary = tf.logical_or(tf.equal(table, 0), tf.equal(table, 1))
    not_binary = tf.math.count_nonzero(~binary, dtype=tf.float64)
    zero = tf.constant(0.0, tf.float64)
    if not form.n_classes:
        return [tf.stack([not_binary, zero, zero, zero])]
    not_one_hot = zero
    if form.may_be_one_hot:
        is_row = tf.logical_and(tf.reduce_all(binary, axis=1), tf.equal(tf.reduce_sum(table, axis=1), 1))
        not_one_hot = tf.math.count_nonzero(~is_row, dtype=tf.float64)
        classes, first = tf.argmax(table, axis=1), 0
    else:
        bounded = tf.clip_by_value(tf.where(tf.math.is_finite(table), table, -tf.ones_like(table)), -1, CLASSES - 2)
        classes, first = tf.cast(tf.reshape(bounded, [-1]), tf.int64), -1
    bins = tf.cast(classes - first, tf.int32)
    counts = tf.math.bincount(bins, minlength=form.n_classes, maxlength=form.n_classes, dtype=tf.int64)
    is_large = tf.shape(table)[0] >= FEWEST_SAMPLES
    is_one = tf.logical_and(is_large, tf.equal(tf.math.count_nonzero(counts), 1))
    of_batches = [tf.cast(is_one, tf.float64), tf.cast(is_large, tf.float64)]
    return [tf.stack([not_binary, not_one_hot, *of_batches]), tf.cast(counts, tf.float64)]


def _add(part: Any, form: _Shape, totals: _Totals) -> None:
    totals.add(_counter(form)(part))


def _when(condition: Any, do: Callable[[], Any]) -> None:
    """Do something on a condition, eagerly or in a graph."""
    import tensorflow as tf

    if tf.executing_eagerly():
        if bool(condition):
            do()
    else:

        def done() -> Any:
            do()
            return tf.constant(0.0, tf.float64)

        tf.cond(condition, done, lambda: tf.constant(0.0, tf.float64))


def _is_dense(part: Any) -> bool:
    import tensorflow as tf

    return (
        isinstance(part, tf.Tensor)
        and part.shape.rank not in (None, 0)
        and (part.dtype.is_floating or part.dtype.is_integer or part.dtype.is_bool)
    )


def _names_of(structure: Any) -> list[str]:
    """Names of the arrays in a structure: keys of a dict, numbers of a list; empty for a single array."""
    if isinstance(structure, dict):
        flat = keras.tree.flatten({key: key for key in structure})
        return flat if len(flat) == len(keras.tree.flatten(structure)) else [""] * len(keras.tree.flatten(structure))
    n_parts = len(keras.tree.flatten(structure))
    return [""] if n_parts == 1 else [str(number) for number in range(n_parts)]


def _start(form: _Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Totals before the first batch: sums, lowest and highest values."""
    n, sums = form.n_features, len(OF_FEATURES) * form.n_features + len(OF_ARRAYS) + form.n_classes
    return np.zeros(sums), np.full(n, math.inf), np.full(n, -math.inf)


def _statistics(
    name: str, form: _Shape, totals: dict[str, np.ndarray], n_samples: int, n_batches: int
) -> ArrayStatistics:
    n = totals["n"]
    with np.errstate(all="ignore"):
        mean = np.where(n > 0, totals["sum"] / n, math.nan)
        std = np.sqrt(np.maximum(totals["squares"] / n - mean**2, 0))
        std = np.where(totals["min"] == totals["max"], 0.0, std)
        not_finite = totals["bad"] / (n + totals["bad"])
    is_integer = not totals["fractions"]
    low, high = float(totals["min"].min()), float(totals["max"].max())
    is_one_hot = form.may_be_one_hot and not totals["not_one_hot"]
    counts = None
    if is_one_hot or (form.has_classes and is_integer and low >= -1 and high <= CLASSES - 3 and n.all()):
        first = 0 if form.may_be_one_hot else -1
        counts = {int(index) + first: int(totals["classes"][index]) for index in np.flatnonzero(totals["classes"])}
    return ArrayStatistics(
        name,
        form.shape,
        form.dtype,
        n_samples,
        n_batches,
        mean=_floats(mean),
        std=_floats(std),
        min=_floats(totals["min"]),
        max=_floats(totals["max"]),
        not_finite=_floats(not_finite),
        is_integer=bool(is_integer),
        counts=counts,
        is_one_hot=bool(is_one_hot),
        is_binary=bool(form.is_target and not totals["not_binary"]),
        target_products=_floats(totals["products"] / n) if _has_products(form, totals) else None,
        one_class_batches=float(totals["one_class"] / totals["batches"]) if counts and totals["batches"] else None,
    )


def _has_products(form: _Shape, totals: dict[str, np.ndarray]) -> bool:
    """Whether the products with the target were summed, and are those of all samples."""
    products = totals["products"]
    return form.is_small_table and bool(products.any() and np.isfinite(products).all()) and not totals["bad"].any()


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
