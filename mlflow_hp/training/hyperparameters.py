"""Hyperparameters of a fit, from the compiled Keras model."""

from __future__ import annotations

import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp.tracking.run_presentation import run_name
from mlflow_hp.tracking.tags import BATCH_SIZE_PARAM

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMING_PARAMS = ("learning_rate", BATCH_SIZE_PARAM)
"""Params in the name of a run, the most telling first."""


def optimizer_settings(optimizer: Any) -> dict[str, Any]:
    """Name and settings of an optimizer, as numbers and strings.

    A learning rate schedule is represented by its name, its settings by ``learning_rate.<setting>``. float32 values
    become the shortest decimal number that rounds to them: 0.01, not 0.009999999776. Where ``get_config`` fails, as it
    does for a schedule of the user's that has none, the settings are read from the attributes.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(optimizer, "get_config"):
        return {"name": type(optimizer).__name__}
    settings: dict[str, Any] = {"name": type(optimizer).__name__}
    for name, value in _config(optimizer).items():
        if name == "name" or value is None:
            continue
        if isinstance(value, dict) and "class_name" in value:
            settings[name] = value["class_name"]
            inner = value.get("config", {})
            settings |= {f"{name}.{key}": _plain(v) for key, v in inner.items() if key != "name" and _is_plain(v)}
        elif _is_plain(value):
            settings[name] = _plain(value)
    return settings


def _config(optimizer: Any) -> dict[str, Any]:
    """Configuration of an optimizer, as far as it has one."""
    with contextlib.suppress(Exception):
        return dict(optimizer.get_config())
    arguments = {name for each in type(optimizer).__mro__ for name in _argument_names(each)}
    config = {name: value for name, value in vars(optimizer).items() if name in arguments and _is_plain(value)}
    schedules = [
        each for each in vars(optimizer).values() if isinstance(each, keras.optimizers.schedules.LearningRateSchedule)
    ]
    for schedule in schedules[:1]:
        plain = {name: value for name, value in vars(schedule).items() if name[0] != "_" and _is_plain(value)}
        config["learning_rate"] = {"class_name": type(schedule).__name__, "config": plain}
    if not schedules:
        with contextlib.suppress(Exception):
            config["learning_rate"] = float(optimizer.learning_rate)
    return config


def _argument_names(cls: type) -> list[str]:
    """Names of the arguments of a class's own constructor."""
    init = vars(cls).get("__init__")
    return list(inspect.signature(init).parameters)[1:] if inspect.isfunction(init) else []


def optimizer_params(optimizers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Params of the optimizers of a training for MLflow: those of the only one, or of each by its name.

    Parameters
    ----------
    optimizers : mapping of str to mapping
        What `optimizer_settings` returns, by the names of the optimizers' attributes in the model.

    Examples
    --------
    >>> from mlflow_hp.training.hyperparameters import optimizer_params
    >>> optimizer_params({"optimizer": {"name": "SGD", "learning_rate": 0.5}})
    {'optimizer': 'SGD', 'learning_rate': 0.5}
    >>> optimizer_params({"d_optimizer": {"name": "SGD", "learning_rate": 0.5}, "g_optimizer": {"name": "Adam"}})
    {'d_optimizer': 'SGD', 'd_optimizer.learning_rate': 0.5, 'g_optimizer': 'Adam'}
    """
    params: dict[str, Any] = {}
    for name, settings in optimizers.items():
        is_only = len(optimizers) == 1
        for setting, value in settings.items():
            if setting == "name":
                params["optimizer" if is_only else name] = value
            else:
                params[setting if is_only else f"{name}.{setting}"] = value
    return params


def hyperparameters(model: Any, keras_params: Mapping[str, Any]) -> dict[str, Any]:
    """Params of a fit for MLflow that are known before its first step.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    keras_params : mapping
        The ``params`` that Keras gives to callbacks: ``epochs`` and ``steps`` (per epoch; None if unknown).
    """
    params = {
        "epochs": keras_params.get("epochs"),
        "steps_per_epoch": keras_params.get("steps"),
        "loss": _name(getattr(model, "loss", None)),
    }
    if model.steps_per_execution != 1:
        params["steps_per_execution"] = model.steps_per_execution
    return {name: value for name, value in params.items() if value is not None}


def training_name(model: Any, params: Mapping[str, Any]) -> str:
    """Name of the run of a training: the model, its learning rate, and its batch size, where they are known.

    Parameters
    ----------
    model : keras.Model
        A model that the user has named appears by that name, others by their class.
    params : mapping of str to object
        Params of the training.

    Examples
    --------
    >>> import keras
    >>> from mlflow_hp.training.hyperparameters import training_name
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> training_name(model, {"loss": "mse", "learning_rate": 0.01, "batch_size": 32})
    'Sequential learning_rate=0.01 batch_size=32'
    """
    cls = type(model).__name__
    own = str(getattr(model, "name", "") or cls)
    is_own = not re.fullmatch(rf"{re.escape(_snake_case(cls))}(_\d+)?", own)
    known = {name: params[name] for name in NAMING_PARAMS if params.get(name) is not None}
    return run_name(own if is_own else cls, known)


def _snake_case(name: str) -> str:
    """Name that Keras gives to an object of a class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float, np.generic)) or value is None


def _plain(value: Any) -> Any:
    """Convert a float32 to the shortest decimal number that rounds to it."""
    if isinstance(value, (float, np.floating)) and float(np.float32(value)) == float(value):
        return float(str(np.float32(value)))
    return value.item() if isinstance(value, np.generic) else value


def _name(loss: Any) -> str | None:
    """Name of the argument ``loss``: a string, function, object, or a structure of these."""
    if loss is None or isinstance(loss, str):
        return loss
    if isinstance(loss, dict):
        return ", ".join(f"{key}: {_name(value)}" for key, value in loss.items())
    if isinstance(loss, (list, tuple)):
        return ", ".join(str(_name(value)) for value in loss)
    return getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)
