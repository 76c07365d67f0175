"""Search spaces over a perceptron: those of the tutorials, or the user's own as JSON or a YAML file."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from mlflow_hp.errors import UserError
from projects import arguments, models
from projects.arguments import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MAX_VALUES = 100_000
SHARE = arguments.number(0, 1, open_high=True)


class Hyperparameter(NamedTuple):
    """Hyperparameter that a search may vary.

    Attributes
    ----------
    read : callable
        As of a `Parameter`.
    help : str
        Line for ``--help``.
    """

    read: Callable[[str], Any]
    help: str


HYPERPARAMETERS = {
    "hidden": Hyperparameter(lambda text: arguments.text_of(arguments.sizes(text)),
                     "units of the hidden layers, with dashes between them"),
    "activation": Hyperparameter(arguments.one_of(models.activation_names), "of the hidden layers"),
    "initializer": Hyperparameter(arguments.one_of(models.initializer_names), "of all layers' kernels"),
    "dropout": Hyperparameter(SHARE, "share of the units dropped at each step, after each hidden layer"),
    "optimizer": Hyperparameter(arguments.one_of(models.optimizer_names), "any of Keras' optimizers, by name"),
    "learning_rate": Hyperparameter(arguments.number(0, open_low=True), "learning rate"),
    "momentum": Hyperparameter(SHARE, "momentum, for optimizers that have one"),
    "batch_size": Hyperparameter(arguments.whole(1), "samples in a batch"),
    "epochs": Hyperparameter(arguments.whole(1), "passes over the training folds"),
}  # fmt: skip
"""Hyperparameters in a search space: parameters of `search_settings.estimator`."""
TUTORIALS: dict[str, dict[str, dict[str, Any]]] = {
    "grid": {
        "init": {
            "initializer": [
                "uniform", "lecun_uniform", "normal", "zero", "glorot_normal", "glorot_uniform", "he_normal",
                "he_uniform",
            ],
        },
        "batch_epochs_init": {
            "batch_size": [8, 32, 128],
            "epochs": [5, 10, 20],
            "initializer": ["glorot_uniform", "normal", "uniform"],
        },
        "lr_momentum_epochs": {
            "optimizer": ["SGD"],
            "learning_rate": [0.001, 0.01, 0.1],
            "momentum": [0.1, 0.3, 0.5, 0.7, 0.9],
            "epochs": [5, 10],
        },
    },
    "space": {
        "rate_and_dropout": {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "dropout": {"low": 0.0, "high": 0.5},
        },
        "layers": {
            "hidden": [f"{first}-{second}" for first in (256, 512, 784) for second in (128, 256, 512)],
            "dropout": [0.3, 0.4, 0.5],
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": [4, 8, 16, 32],
            "epochs": [10, 20, 30, 40],
        },
        "small_layers": {
            "hidden": [f"{first}-{second}" for first in (64, 128, 256) for second in (32, 64, 128)],
            "dropout": [0.1, 0.2, 0.3, 0.4, 0.5],
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": [8, 16, 32, 64],
            "epochs": [10, 20, 30],
        },
    },
}  # fmt: skip
"""The tutorials' spaces, and one for small images, by the entry point's parameter and by name."""
BOUNDS = {"low", "high"}


def parameters(**defaults: str) -> list[Parameter]:
    """Make the parameters of an entry point for the hyperparameters that a search does not vary: name -> default."""
    return [Parameter(name, default, *HYPERPARAMETERS[name], several=False) for name, default in defaults.items()]


def read(text: str, parameter: str) -> dict[str, Any]:
    """Read the search space of an entry point: a tutorial's by name, JSON, or the path of a YAML or JSON file.

    Parameters
    ----------
    text : str
        Text of the parameter.
    parameter : {"grid", "space"}
        Name of the entry point's parameter. Values of a space are drawn at random: besides lists of values it may hold
        ``{"low": 1e-4, "high": 1e-2, "log": true}``.

    Returns
    -------
    dict
        Parameter of `search_settings.estimator` -> its values, or the distribution to draw them from.

    Raises
    ------
    UserError
        If the text cannot be read, is not a space, is empty, or names an unknown hyperparameter.
    """
    space = TUTORIALS[parameter].get(text) or _parsed(text, parameter)
    if not isinstance(space, dict) or not space:
        raise UserError(
            f"{parameter}={text!r:.80} has to name parameters, each with its values; it contains {space!r:.80}"
        )
    varied = {}
    for name, values in space.items():
        check_name(str(name), HYPERPARAMETERS, parameter)
        is_random = parameter == "space"
        varied[str(name)] = _values(f"{parameter}: {name}", HYPERPARAMETERS[name], values, is_random=is_random)
    return varied


def check_name(name: str, valid_names: Collection[str], parameter: str) -> None:
    """Raise a UserError for an invalid name, with the most similar valid one."""
    if name not in valid_names:
        similar = difflib.get_close_matches(name, valid_names, n=1, cutoff=0.5)
        hint = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join(sorted(valid_names))}"
        raise UserError(f"{parameter} names {name!r}, which does not exist; {hint}")


def _parsed(text: str, parameter: str) -> Any:
    """Parse JSON in `text`, or the file that it names."""
    try:
        if text.lstrip().startswith(("{", "[")):
            return _small(json.loads(text))
        return _small(yaml.safe_load(Path(text).expanduser().read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(
            f"{parameter}={text!r:.200}: {error.strerror}; name one of {', '.join(TUTORIALS[parameter])}, a YAML "
            'file by its full path, or give JSON such as {"epochs": [5, 10]}'
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        form = "JSON" if isinstance(error, json.JSONDecodeError) else "YAML"
        reason = " ".join(str(error).split())
        raise UserError(f"{parameter}={text!r:.200} cannot be read as {form}: {reason:.200}") from None


def _small(space: Any) -> Any:
    """Refuse a space that is too large to enumerate: with YAML's aliases, a few lines can contain any number."""
    pending, n = [space], 0
    while pending:
        n += 1
        if n > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        value = pending.pop()
        if isinstance(value, list | dict):
            pending += value.values() if isinstance(value, dict) else value
    return space


def _values(title: str, hyperparameter: Hyperparameter, values: Any, *, is_random: bool) -> Any:
    """Distinct values for the estimator, or a distribution."""
    if isinstance(values, dict):
        if not is_random:
            raise UserError(f"{title} is {values!r:.80}; a grid needs a list of values")
        return _distribution(title, hyperparameter, values)
    distinct: list[Any] = []
    for value in values if isinstance(values, list) else [values]:
        converted = _value(title, hyperparameter, value)
        if converted not in distinct:
            distinct.append(converted)
    if not distinct:
        raise UserError(f"{title} has no values; give it one or more")
    return distinct


def _value(title: str, hyperparameter: Hyperparameter, value: Any) -> Any:
    """Convert one value; sizes may be a list, and YAML reads 1e-3 as text."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return hyperparameter.read(text)
    except ValueError as error:
        raise UserError(f"{title}={value!r} has to be {error}") from None


def _distribution(title: str, hyperparameter: Hyperparameter, settings: Mapping[str, Any]) -> Any:
    """Uniform distribution from ``low`` to ``high``, on a log scale if ``log``; of whole numbers if both are."""
    from scipy.stats import loguniform, randint, uniform

    example = f'{title} is {dict(settings)!r:.80}; numbers are drawn from {{"low": 0.001, "high": 0.1, "log": true}}'
    log = settings.get("log", False)
    if not BOUNDS <= set(settings) <= BOUNDS | {"log"} or not isinstance(log, bool):
        raise UserError(example)
    low, high = (_value(title, hyperparameter, settings[name]) for name in ("low", "high"))
    if isinstance(low, str) or not low < high or (log and (low <= 0 or isinstance(low, int))):
        raise UserError(f"{example}, low less than high, and both fractions over 0 if log is true")
    if isinstance(low, int):
        return randint(low, high + 1)
    return loguniform(low, high) if log else uniform(low, high - low)
