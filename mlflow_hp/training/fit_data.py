"""Data that Keras' ``fit`` trains and validates on, as they are when it begins.

They are described at once, in the thread of the training: the program may change its arrays after the fit.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp._compat.tensorflow import dataset_content
from mlflow_hp.tracking.array_digest import UnknownDataError, digest_of, parts_of
from mlflow_hp.tracking.datasets import DataSet, describe, schema_of

if TYPE_CHECKING:
    from types import FrameType

FITS_WITH_DATA = 10
"""Number of fits of a run whose data are logged: a loop of fits would have a data set for each, and wait for it."""


def data_sets_of(frame: FrameType | None, model: Any) -> dict[str, DataSet]:
    """Describe the data of the ``fit`` of a model that is on the stack.

    Parameters
    ----------
    frame : frame
        Of the caller; ``fit`` is above it.
    model : keras.Model
        The model.

    Returns
    -------
    dict of str to DataSet
        Under ``training``, without the part that ``validation_split`` takes; and under ``validation``. Data of unknown
        content are left out: files, generators, a `tf.data.Dataset` made of these or of functions of Python.
    """
    names = fit_arguments(frame, model)
    if not names:
        return {}
    data_sets = {
        "training": _of(names.get("x"), names.get("y"), names.get("sample_weight")),
        "validation": _of(*unpacked(names["validation_data"])),
    }
    return {context: data_set for context, data_set in data_sets.items() if data_set is not None}


def fit_arguments(frame: FrameType | None, model: Any) -> dict[str, Any]:
    """Return the arguments of the ``fit`` of a model that is on the stack; empty if there is none.

    Parameters
    ----------
    frame : frame
        Of the caller; ``fit`` is above it.
    model : keras.Model
        The model.

    Returns
    -------
    dict of str to object
        As Keras has them when the training begins: ``x`` and ``y`` without the part that ``validation_split`` takes,
        ``validation_data`` with it.
    """
    while frame is not None:
        names = frame.f_locals if frame.f_code.co_name == "fit" else {}
        if names.get("self") is model and "validation_data" in names:
            return dict(names)
        frame = frame.f_back
    return {}


def unpacked(validation_data: Any) -> tuple[Any, ...]:
    """Split ``validation_data`` into features, targets and weights, as Keras does."""
    return validation_data if isinstance(validation_data, tuple) and len(validation_data) <= 3 else (validation_data,)


def _of(x: Any, y: Any = None, weights: Any = None) -> DataSet | None:
    tensorflow = sys.modules.get("tensorflow")
    if x is None:
        return None
    if tensorflow is not None and isinstance(x, tensorflow.data.Dataset):
        return _of_tensorflow(x)
    return describe(x, y, weights)


def _of_tensorflow(dataset: Any) -> DataSet | None:
    """Describe a `tf.data.Dataset` by the arrays it is made from and its transformations; None if they are unknown."""
    content = dataset_content(dataset)
    if content is None:
        return None
    try:
        sources = {"features": parts_of(content.arrays)}
        digest = digest_of(sources, content.steps)
    except UnknownDataError:
        return None
    n_elements = int(dataset.cardinality())
    shapes = [list(part.shape) for part in sources["features"] if math.prod(part.shape) > 1]
    return DataSet(digest, _schema(dataset), {"num_elements": max(n_elements, 0) or None, "array_shapes": shapes})


def _schema(dataset: Any) -> dict[str, Any]:
    import tensorflow as tf

    element = dataset.element_spec
    by_role = dict(zip(("features", "targets"), element if isinstance(element, tuple) else (element,), strict=False))
    specs = {}
    for role, each in by_role.items():
        tensors = tf.nest.flatten(each)
        if not all(isinstance(tensor, tf.TensorSpec) and tensor.shape.rank for tensor in tensors):
            return {}
        names = [""] if len(tensors) == 1 else [str(number) for number in range(len(tensors))]
        types = [np.dtype(tensor.dtype.as_numpy_dtype) for tensor in tensors]
        specs[role] = list(zip(names, types, (tuple(tensor.shape) for tensor in tensors), strict=True))
    return schema_of(specs)
