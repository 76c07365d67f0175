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

MOST_VALUES = 100_000
SHARE = arguments.number(0, 1, open_high=True)


class Varied(NamedTuple):
    """A hyperparameter that a search may vary.

    Attributes
    ----------
    read : callable
        As of a `Parameter`.
    help : str
        A line for ``--help``.
    """

    read: Callable[[str], Any]
    help: str


VARIED = {
    "hidden": Varied(lambda text: arguments.shown(arguments.sizes(text)),
                     "units of the hidden layers, with dashes between them"),
    "activation": Varied(arguments.one_of(models.activation_names), "of the hidden layers"),
    "initializer": Varied(arguments.one_of(models.initializer_names), "of all layers' kernels"),
    "dropout": Varied(SHARE, "share of the units left out at each step, behind each hidden layer"),
    "optimizer": Varied(arguments.one_of(models.optimizer_names), "any of Keras' optimizers, by name"),
    "learning_rate": Varied(arguments.number(0, open_low=True), "learning rate"),
    "momentum": Varied(SHARE, "momentum, for optimizers that have one"),
    "batch_size": Varied(arguments.whole(1), "samples in a batch"),
    "epochs": Varied(arguments.whole(1), "passes over the training folds"),
}  # fmt: skip
"""What a search space may name: parameters of `searching.estimator`."""
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
    """The parameters of an entry point for the values of what a search does not vary: name -> default."""
    return [Parameter(n, default, VARIED[n].read, VARIED[n].help, several=False) for n, default in defaults.items()]


def read(text: str, asked: str) -> dict[str, Any]:
    """The space that an entry point's parameter gives: a tutorial's by name, JSON, or the path of a YAML or JSON file.

    Parameters
    ----------
    text : str
        What the user wrote.
    asked : {"grid", "space"}
        The entry point's parameter. From a space values are drawn at random: beside lists of values it may hold
        ``{"low": 1e-4, "high": 1e-2, "log": true}``.

    Returns
    -------
    dict
        Parameter of `searching.estimator` -> its values, or the distribution to draw them from.

    Raises
    ------
    UserError
        For what can't be read, is no space, is empty, or names a parameter that there isn't.
    """
    space = TUTORIALS[asked].get(text) or _parsed(text, asked)
    if not isinstance(space, dict) or not space:
        raise UserError(f"{asked}={text!r:.80} has to name parameters, each with its values; it gives {space!r:.80}")
    found = {}
    for name, values in space.items():
        check_name(str(name), VARIED, asked)
        found[str(name)] = _values(f"{asked}: {name}", VARIED[name], values, drawn=asked == "space")
    return found


def check_name(name: str, known: Collection[str], where: str) -> None:
    """Raise a UserError for a name that is not `known`, with the nearest that is."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise UserError(f"{where} names {name!r}, which there is not; {meant}")


def _parsed(text: str, asked: str) -> Any:
    """What JSON in `text`, or the file that it names, holds."""
    try:
        if text.lstrip().startswith(("{", "[")):
            return _small(json.loads(text))
        return _small(yaml.safe_load(Path(text).expanduser().read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(
            f"{asked}={text!r:.200}: {error.strerror}; name one of {', '.join(TUTORIALS[asked])}, a YAML file by its "
            'whole path, or give JSON such as {"epochs": [5, 10]}'
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        form = "JSON" if isinstance(error, json.JSONDecodeError) else "YAML"
        told = " ".join(str(error).split())
        raise UserError(f"{asked}={text!r:.200} can't be read as {form}: {told:.200}") from None


def _small(space: Any) -> Any:
    """The space, if it is one that can be gone through: with YAML's aliases a few lines can stand for any number."""
    waiting, n = [space], 0
    while waiting:
        n += 1
        if n > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        value = waiting.pop()
        if isinstance(value, list | dict):
            waiting += value.values() if isinstance(value, dict) else value
    return space


def _values(where: str, varied: Varied, values: Any, *, drawn: bool) -> Any:
    """The values as the estimator takes them, each once, or a distribution."""
    if isinstance(values, dict):
        if not drawn:
            raise UserError(f"{where} is {values!r:.80}; a grid needs a list of values")
        return _distribution(where, varied, values)
    found: list[Any] = []
    for value in values if isinstance(values, list) else [values]:
        as_read = _value(where, varied, value)
        if as_read not in found:
            found.append(as_read)
    if not found:
        raise UserError(f"{where} has no values; give it one or more")
    return found


def _value(where: str, varied: Varied, value: Any) -> Any:
    """One value; sizes may be a list, and YAML reads 1e-3 as text."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return varied.read(text)
    except ValueError as error:
        raise UserError(f"{where}={value!r} has to be {error}") from None


def _distribution(where: str, varied: Varied, given: Mapping[str, Any]) -> Any:
    """Uniform from ``low`` to ``high``, on a logarithmic scale where ``log`` is true; whole numbers where they are."""
    from scipy.stats import loguniform, randint, uniform

    example = f'{where} is {dict(given)!r:.80}; numbers are drawn from {{"low": 0.001, "high": 0.1, "log": true}}'
    log = given.get("log", False)
    if not BOUNDS <= set(given) <= BOUNDS | {"log"} or not isinstance(log, bool):
        raise UserError(example)
    low, high = (_value(where, varied, given[name]) for name in ("low", "high"))
    if isinstance(low, str) or not low < high or (log and (low <= 0 or isinstance(low, int))):
        raise UserError(f"{example}, low less than high, and both fractions over 0 where log is true")
    if isinstance(low, int):
        return randint(low, high + 1)
    return loguniform(low, high) if log else uniform(low, high - low)
