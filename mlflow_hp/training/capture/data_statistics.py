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
OF_FEATURES = ("n", "bad", "sum", "squares", "min", "max", "products")
"""Totals of each feature: numbers of finite and other values, their sum and sum of squares, their range, and the sum of
their products with the target."""
FEW_FEATURES = 32
"""Number of features up to which each batch is counted, with the products of inputs and target."""
OF_ARRAYS = ("samples", "fractions", "not_binary", "not_one_hot", "one_class", "batches")
"""Totals of an array: numbers of samples, of values that are not whole or not binary, of rows that are not one-hot, and
of large batches, of one class and of any."""


class _Shape(NamedTuple):
    """Form of an array: its shape without the axis of the batch, dtype, number of features, and how it is counted."""

    shape: tuple[int | None, ...]
    dtype: str
    n_features: int
    is_target: bool

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
        self._totals: list[dict[str, Any]] = []
        self._is_off = False
        self._is_active: Any = None
        self._n_batches: Any = None

    def start(self) -> None:
        """Begin a fit, with data of its own."""
        self._is_off = False
        if self._is_active is not None:
            self._is_active.assign(True)
            self._n_batches.assign(0)
            for totals in self._totals:
                for name, variable in totals.items():
                    variable.assign(_start(name, variable.shape))

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
        arrays = [(part, is_target) for part, is_target in parts if _is_dense(part)]
        if self._is_active is None:
            self._make_variables(arrays, [*_names_of(x), *_names_of(y)], parts)
        if tf.executing_eagerly():
            if bool(self._is_active):
                self._count(arrays)
            return
        with tf.device("CPU:0"):  # a GPU would finish all steps before the condition is known
            is_active = self._is_active.read_value()
        tf.cond(is_active, lambda: self._count(arrays), lambda: tf.constant(0, tf.int64))

    def _make_variables(self, arrays: list[Any], names: list[str], parts: list[Any]) -> None:
        import tensorflow as tf

        self._names = [name for name, (part, _) in zip(names, parts, strict=True) if _is_dense(part)]
        for part, is_target in arrays:
            shape = tuple(part.shape[1:])
            n_features = shape[-1] if shape and shape[-1] and shape[-1] <= MAX_FEATURES else 1
            self._shapes.append(_Shape(shape, part.dtype.name, n_features, is_target))
        with tf.init_scope(), tf.device("CPU:0"):
            self._n_batches = tf.Variable(0, dtype=tf.int64, trainable=False)
            for form in self._shapes:
                sizes: dict[str, list[int]] = {name: [form.n_features] for name in OF_FEATURES}
                sizes |= {name: [] for name in OF_ARRAYS}
                sizes |= {"classes": [form.n_classes]}
                self._totals.append(
                    {name: tf.Variable(_start(name, size), trainable=False) for name, size in sizes.items()}
                )
            self._is_active = tf.Variable(True, trainable=False)

    def _count(self, arrays: list[Any]) -> Any:
        """Add a batch to the totals; return the number of batches."""
        import tensorflow as tf

        index = self._n_batches.read_value()
        is_due = tf.logical_or(index < ALL_BATCHES, index % EVERY == 0)
        targets = [part for (part, _), form in zip(arrays, self._shapes, strict=True) if form.has_classes]
        target = targets[0] if len(targets) == 1 and sum(form.is_target for form in self._shapes) == 1 else None
        for (part, _), form, totals in zip(arrays, self._shapes, self._totals, strict=True):
            value = tf.cast(part, tf.float64) if not part.dtype.is_floating else part
            totals["samples"].assign_add(tf.cast(tf.shape(part)[0], tf.float64))
            if form.is_target:
                self._add(value, form, totals)
                self._add_classes(value, form, totals)
                continue
            if form.is_small_table:
                self._add(value, form, totals)
                if target is not None:
                    is_alike = tf.equal(tf.shape(target)[0], tf.shape(value)[0])
                    _when(is_alike, functools.partial(self._add_products, value, target, totals))
                continue
            is_finite = tf.math.is_finite(tf.reduce_sum(value))
            _when(tf.logical_or(is_due, ~is_finite), functools.partial(self._add, value, form, totals))
        return self._n_batches.assign_add(1)

    @staticmethod
    def _add(value: Any, form: _Shape, totals: dict[str, Any]) -> Any:
        """Add the values of an array to the totals of its features."""
        import tensorflow as tf

        table = tf.cast(tf.reshape(value, [-1, form.n_features]), tf.float64)
        is_finite = tf.math.is_finite(table)
        known = tf.where(is_finite, table, tf.zeros_like(table))
        n = tf.math.count_nonzero(is_finite, axis=0, dtype=tf.float64)
        totals["n"].assign_add(n)
        totals["bad"].assign_add(tf.cast(tf.shape(table)[0], tf.float64) - n)
        totals["sum"].assign_add(tf.reduce_sum(known, axis=0))
        totals["squares"].assign_add(tf.reduce_sum(known * known, axis=0))
        infinity = tf.fill(tf.shape(table), tf.constant(math.inf, tf.float64))
        totals["min"].assign(tf.minimum(totals["min"], tf.reduce_min(tf.where(is_finite, table, infinity), axis=0)))
        totals["max"].assign(tf.maximum(totals["max"], tf.reduce_max(tf.where(is_finite, table, -infinity), axis=0)))
        fractions = tf.math.count_nonzero(tf.math.floor(known) - known, dtype=tf.float64)
        return totals["fractions"].assign_add(fractions)

    @staticmethod
    def _add_products(value: Any, target: Any, totals: dict[str, Any]) -> Any:
        """Add the products of the features with the target."""
        import tensorflow as tf

        column = tf.cast(tf.reshape(target, [-1, 1]), tf.float64)
        products = tf.reduce_sum(tf.cast(value, tf.float64) * column, axis=0)
        return totals["products"].assign_add(products)

    @staticmethod
    def _add_classes(value: Any, form: _Shape, totals: dict[str, Any]) -> None:
        """Add the classes of targets to their totals."""
        import tensorflow as tf

        table = tf.cast(tf.reshape(value, [-1, form.n_features]), tf.float64)
        binary = tf.logical_or(tf.equal(table, 0), tf.equal(table, 1))
        totals["not_binary"].assign_add(tf.math.count_nonzero(~binary, dtype=tf.float64))
        if not form.n_classes:
            return
        if form.may_be_one_hot:
            is_row = tf.logical_and(tf.reduce_all(binary, axis=1), tf.equal(tf.reduce_sum(table, axis=1), 1))
            totals["not_one_hot"].assign_add(tf.math.count_nonzero(~is_row, dtype=tf.float64))
            classes, first = tf.argmax(table, axis=1), 0
        else:
            bounded = tf.clip_by_value(tf.where(tf.math.is_finite(table), table, -tf.ones_like(table)), -1, CLASSES - 2)
            classes, first = tf.cast(tf.reshape(bounded, [-1]), tf.int64), -1
        bins = tf.cast(classes - first, tf.int32)
        counts = tf.math.bincount(bins, minlength=form.n_classes, maxlength=form.n_classes, dtype=tf.int64)
        totals["classes"].assign_add(tf.cast(counts, tf.float64))
        is_large = tf.shape(table)[0] >= FEWEST_SAMPLES
        is_one = tf.logical_and(is_large, tf.equal(tf.math.count_nonzero(counts), 1))
        totals["batches"].assign_add(tf.cast(is_large, tf.float64))
        totals["one_class"].assign_add(tf.cast(is_one, tf.float64))

    def statistics(self) -> DataStatistics | None:
        """Return the statistics so far; None if there are none.

        Returns
        -------
        DataStatistics or None
            Those of inputs and targets.
        """
        if self._is_off or self._is_active is None:
            return None
        n_batches = int(self._n_batches)
        if not n_batches:
            return None
        inputs: list[ArrayStatistics] = []
        targets: list[ArrayStatistics] = []
        for name, form, variables in zip(self._names, self._shapes, self._totals, strict=True):
            totals = {key: variable.numpy() for key, variable in variables.items()}
            (targets if form.is_target else inputs).append(_statistics(name, form, totals, n_batches))
        if {each.n_samples for each in targets} != {each.n_samples for each in inputs}:
            inputs = [each._replace(target_products=None) for each in inputs]
        return DataStatistics(tuple(inputs), tuple(targets))


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


def _start(name: str, shape: Any) -> np.ndarray:
    """Value of a total before the first batch."""
    return np.full(tuple(shape), {"min": math.inf, "max": -math.inf}.get(name, 0.0))


def _statistics(name: str, form: _Shape, totals: dict[str, np.ndarray], n_batches: int) -> ArrayStatistics:
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
        int(totals["samples"]),
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
