"""Private names of TensorFlow."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, call, warn_once

if TYPE_CHECKING:
    from collections.abc import Iterator

DETERMINISM = PrivateName(
    "tensorflow",
    "tensorflow.python.framework.config",
    "is_op_determinism_enabled",
    takes=call(),
    fallback="TensorFlow counts as deterministic",
)
"""Whether op determinism is enabled, so that TensorFlow refuses nondeterministic operations. Fallback: it counts as
enabled: times of steps are measured outside of the graph, and models are not reused."""

CONTEXT = PrivateName(
    "tensorflow",
    "tensorflow.python.eager.context",
    "context",
    takes=call(),
    fallback="the GPUs of the driver are recorded, whether TensorFlow uses them or not",
)
"""State of TensorFlow. Fallback: TensorFlow is not asked which GPUs it uses."""

INITIALIZED = PrivateName("tensorflow", "Context", "_initialized", fallback=CONTEXT.fallback, kind=bool)
"""Whether TensorFlow is initialized. Fallback: as for `CONTEXT`."""

INPUTS = PrivateName(
    "tensorflow",
    "Dataset",
    "_inputs",
    takes=call(),
    fallback="a tf.data.Dataset is not logged among the data sets of the run",
)
"""Data sets that a `tf.data.Dataset` is made from. Fallback: no digest is made of it."""

SAME_ELEMENTS = re.compile("(Prefetch|Shuffle|Cache|Options|AssertCardinality)")
"""Names of transformations of a data set that keep its elements."""
KNOWN = re.compile(
    "(TensorSlice|Tensor|Range|(Parallel|Padded)?Batch|(Parallel)?Map|Zip|Take|Skip|Repeat|Filter|Concatenate|Window|"
    "_?Unbatch|Shard)Dataset"
)
"""Names of data sets whose elements follow from arrays, functions and other data sets alone."""
READING = re.compile(r"PyFunc|ReadFile|Dataset|Iterator|Lookup|ReadVariable")
"""Operations of a mapped function whose results depend on more than its arguments."""


def is_deterministic() -> bool:
    """Return whether TensorFlow refuses nondeterministic operations, such as reading its clock.

    Raises
    ------
    UnsupportedVersionError
        If this version of TensorFlow does not tell.
    """
    return bool(DETERMINISM.call(None))


def refuses_its_clock() -> bool:
    """Return whether a compiled step cannot read TensorFlow's clock; True also if that is unknown."""
    try:
        return is_deterministic()
    except UnsupportedVersionError as error:
        warn_once(error)
        return True


def is_initialized() -> bool:
    """Return whether TensorFlow is loaded and initialized; asking for its devices would initialize it."""
    module = sys.modules.get(CONTEXT.owner)
    if module is None or not hasattr(sys.modules.get("tensorflow"), "config"):  # or it is being imported
        return False
    try:
        return bool(INITIALIZED.of(CONTEXT.call(module)))
    except UnsupportedVersionError as error:
        warn_once(error)
        return False


class DatasetContent(NamedTuple):
    """Source of the elements of a `tf.data.Dataset`.

    Attributes
    ----------
    steps : str
        Transformations that change elements, with the operations of mapped functions.
    arrays : list of tf.Tensor
        Arrays that it is made from, and arguments of the transformations.
    """

    steps: str
    arrays: list[Any]


def dataset_content(dataset: Any) -> DatasetContent | None:
    """Read what the elements of a `tf.data.Dataset` follow from, without an element of it.

    Returns
    -------
    DatasetContent or None
        None if that is not in memory: files, generators, functions of Python.
    """
    steps: list[str] = []
    arrays: list[Any] = []
    try:
        return DatasetContent("\n".join(steps), arrays) if _add_content(dataset, steps, arrays) else None
    except UnsupportedVersionError as error:
        warn_once(error)
        return None


def _add_content(dataset: Any, steps: list[str], arrays: list[Any]) -> bool:
    """Add a data set and those that it is made from; return whether all is known."""
    import tensorflow as tf

    name, inputs = type(dataset).__name__.lstrip("_"), INPUTS.call(dataset)
    if not isinstance(inputs, list):
        raise INPUTS.unsupported(f"returned a {type(inputs).__name__}")
    if not SAME_ELEMENTS.match(name):
        if not KNOWN.match(name):
            return False
        steps.append(name)
        for value in vars(dataset).values():
            if hasattr(getattr(value, "function", None), "captured_inputs"):
                operations = sorted(set(_operations(value.function)))
                if any(READING.search(operation) for operation in operations):
                    return False
                steps.extend(operations)
                arrays.extend(value.function.captured_inputs)
            else:
                tensors = tf.nest.flatten(value) if isinstance(value, (list, tuple, dict)) else [value]
                arrays.extend(each for each in tensors if tf.is_tensor(each) and each.dtype != tf.variant)
    if any(array.dtype in (tf.variant, tf.resource) or not hasattr(array, "numpy") for array in arrays):
        return False
    return all(_add_content(each, steps, arrays) for each in inputs)


def _operations(function: Any) -> Iterator[str]:
    """Yield the operations of a function and of those that it calls, without numbers that differ between programs."""
    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(each.node_def for each in graph.library.function)):
        for node in nodes:
            attributes = [re.sub(r"_\d+", "", str(value)) for key, value in sorted(node.attr.items()) if key[0] != "_"]
            yield f"{node.op} {re.sub(r'_[0-9]+', '', ' '.join(node.input))} {' '.join(attributes)}"
