"""State of Keras objects on which results depend: their configuration, and what that does not show."""

from __future__ import annotations

import base64
import functools
import marshal
import sys
import types
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlflow_hp._compat.keras import layers_of
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp.search.resume.bytecode import code_digest
from mlflow_hp.search.resume.sources import library

PLAIN_KINDS = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, np.ndarray)
STATE = ("name", "built", "train_function", "test_function", "predict_function", "stop_training", "stop_evaluating",
         "stop_predicting")  # fmt: skip
"""Attributes that Keras sets, and that say nothing of results."""


def configuration(value: Any) -> Any:
    """Configuration of an object, without the names of objects, which Keras numbers in each process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of functions that cannot be loaded again, which is not asked here
        return _without_names(value.get_config())


def hidden_state(value: Any) -> list[Any]:
    """State that the configuration of an object, and of the layers in it, does not show.

    That is functions and objects of the user's own that they use, such as an activation or a regularizer, the plain
    attributes of the user's own classes, what lookups have learned, and with what a model was compiled.
    """
    parts = []
    for each in _with_layers(value):
        attributes = {name: attribute for name, attribute in vars(each).items() if _counts(each, name, attribute)}
        parts += [attributes] if attributes else []
        parts += [each.get_vocabulary()] if hasattr(each, "get_vocabulary") else []
        parts += [each.optimizer, each.loss] if getattr(each, "compiled", False) is True else []
    return parts


def _with_layers(value: Any) -> list[Any]:
    keras: Any = sys.modules.get("keras")
    if keras is not None and isinstance(value, keras.Layer):
        try:
            return layers_of(value)
        except UnsupportedVersionError:
            return [value]
    return [value] if hasattr(value, "__dict__") else []


def _counts(value: Any, name: str, attribute: Any) -> bool:
    """Whether an attribute of an object is the user's own doing."""
    if name.startswith("_") or name in STATE:
        return False
    if isinstance(attribute, (types.FunctionType, functools.partial)) or library(type(attribute).__module__) is None:
        return True
    is_plain = type(attribute) in PLAIN_KINDS or isinstance(attribute, np.generic)
    return is_plain and library(type(value).__module__) is None


def _without_names(config: Any) -> Any:
    if isinstance(config, Mapping) and config.get("class_name") == "__lambda__":
        return "lambda", _without_lines(config.get("config"))
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    if isinstance(config, (list, tuple)):
        return [_without_names(each) for each in config]
    return np.asarray(config) if hasattr(config, "__array__") and not isinstance(config, np.generic) else config


def _without_lines(function: Any) -> Any:
    """Replace the code of a serialized lambda, which has line numbers, by its digest."""
    try:
        code = marshal.loads(base64.b64decode(function["code"]))  # noqa: S302 - Keras has just written it
        return {**function, "code": code_digest(code)}
    except (KeyError, TypeError, ValueError, EOFError, AttributeError):  # of another version of Keras
        return function
