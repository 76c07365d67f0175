"""Read the file of a search space, such as that of a review, for any search of scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlflow_hp.errors import UserError

BOUNDS = {"low", "high"}


def read_space(path: str | Path) -> dict[str, Any]:
    """Read the file of a search space, such as ``next_space.yaml`` of a review.

    Parameters
    ----------
    path : str or Path
        A YAML or JSON file: parameters with lists of values, or with ``{"low": 1e-4, "high": 1e-1, "log": true}``.

    Returns
    -------
    dict of str to object
        ``param_grid``, or, with distributions of SciPy for the ranges, ``param_distributions``.

    Raises
    ------
    UserError
        If the file cannot be read, or is no search space.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mlflow_hp.search import read_space
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "next_space.yaml"
    >>> _ = path.write_text("{alpha: [0.1, 1.0]}")
    >>> read_space(path)
    {'alpha': [0.1, 1.0]}
    """
    try:
        space = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the file of a search space") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split()):.200}") from None
    if not isinstance(space, dict) or not space:
        raise UserError(f"{path} holds {space!r:.80}; a search space names parameters, each with its values")
    return {str(name): _values(path, name, values) for name, values in space.items()}


def _values(path: str | Path, name: Any, values: Any) -> Any:
    if isinstance(values, list) and values:
        return values
    if isinstance(values, dict) and BOUNDS <= set(values) <= BOUNDS | {"log"}:
        return _distribution(path, name, values)
    raise UserError(f"{path}: {name} is {values!r:.80}; give a list of values, or low, high and log")


def _distribution(path: str | Path, name: Any, values: dict[str, Any]) -> Any:
    from scipy.stats import loguniform, randint, uniform

    low, high, is_log = values["low"], values["high"], values.get("log", False)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (low, high))
    if not numbers or not low < high or (is_log and low <= 0):
        raise UserError(f"{path}: {name} is {values!r:.80}; low has to be less than high, and over 0 if log is true")
    if is_log:
        return loguniform(low, high)
    return randint(low, high + 1) if isinstance(low, int) and isinstance(high, int) else uniform(low, high - low)
