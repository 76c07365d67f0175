"""Space of an adaptive search: lists, distributions of SciPy and Optuna, several spaces, or a function of the trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from mlflow_hp.errors import UserError
from mlflow_hp.search.adaptive.study import new_study

PRIMITIVES = (type(None), bool, int, float, str)
"""Types of choices that Optuna stores as they are."""
WHICH_SPACE = "which_space"
"""Name of the choice among several spaces in Optuna's trials."""


def check(space: Any) -> None:
    """Refuse a space that no combination can be drawn from.

    Raises
    ------
    UserError
        If it is empty or of another type, or a parameter has no values or what is not a distribution.
    """
    if callable(space):
        return
    parts = [space] if isinstance(space, Mapping) else space
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise UserError(
            f"param_distributions={space!r:.200} is no space: give a dict of parameters to lists or distributions, a "
            "list of such dicts, or a function that gets the trial and returns the parameters"
        )
    for part in parts:
        if not isinstance(part, Mapping) or not part:
            raise UserError(f"param_distributions has {part!r:.200}, which names no parameter: give a dict of some")
        for name, values in part.items():
            _draw(new_study().ask(), str(name), name, values)


def combination(trial: optuna.Trial, space: Any) -> dict[str, Any]:
    """Draw a combination of parameters, as the trial's sampler suggests.

    Parameters
    ----------
    trial : optuna.Trial
    space : mapping, sequence of mapping, or callable
        Space of an `mlflow_hp.AdaptiveSearchCV`.

    Returns
    -------
    dict of str to object
        Value of each parameter.
    """
    if callable(space):
        chosen = space(trial)
        if not isinstance(chosen, Mapping):
            raise UserError(
                f"param_distributions returned {chosen!r:.200} for a trial: return a dict of parameters to values"
            )
        return dict(chosen)
    if isinstance(space, Mapping):
        return {name: _draw(trial, name, name, values) for name, values in space.items()}
    which = trial.suggest_categorical(WHICH_SPACE, range(len(space)))
    return {name: _draw(trial, f"{which}/{name}", name, values) for name, values in space[which].items()}


def n_combinations(space: Any) -> float:
    """Count the combinations of a space; infinite if a parameter has a distribution, or a function draws them."""
    if callable(space):
        return math.inf
    parts = [space] if isinstance(space, Mapping) else space
    return sum(math.prod(_n_values(values) for values in part.values()) for part in parts)


def _n_values(values: Any) -> float:
    if isinstance(values, optuna.distributions.BaseDistribution):
        return 1 if values.single() else math.inf
    return math.inf if hasattr(values, "rvs") else len(values)


def _draw(trial: optuna.Trial, label: str, name: Any, values: Any) -> Any:
    """Value of a parameter; `label` is its name in Optuna's trial."""
    if not isinstance(name, str):
        raise UserError(f"param_distributions has the key {name!r:.200}: name parameters by texts")
    if isinstance(values, optuna.distributions.BaseDistribution):
        return _from_optuna(trial, label, name, values)
    if hasattr(values, "rvs"):
        return _from_scipy(trial, label, name, values)
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        raise UserError(
            f"param_distributions[{name!r}]={values!r:.200} is no distribution: give a list of values, or a "
            "distribution of scipy.stats or optuna.distributions"
        )
    if len(values) == 0:
        raise UserError(f"param_distributions[{name!r}] is empty: give at least one value")
    choices = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else list(values)
    is_plain = all(type(choice) in PRIMITIVES for choice in choices)
    if is_plain and len({(type(choice), choice) for choice in choices}) == len({*choices}) == len(choices):
        return trial.suggest_categorical(label, choices)
    return choices[trial.suggest_categorical(label, range(len(choices)))]


def _from_optuna(
    trial: optuna.Trial, label: str, name: str, values: optuna.distributions.BaseDistribution
) -> bool | float | str | None:
    if isinstance(values, optuna.distributions.FloatDistribution):
        return trial.suggest_float(label, values.low, values.high, step=values.step, log=values.log)
    if isinstance(values, optuna.distributions.IntDistribution):
        return trial.suggest_int(label, values.low, values.high, step=values.step, log=values.log)
    if isinstance(values, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(label, values.choices)
    raise UserError(
        f"param_distributions[{name!r}]={values!r:.200} is of a kind that is not known: give a FloatDistribution, an "
        "IntDistribution or a CategoricalDistribution"
    )


def _from_scipy(trial: optuna.Trial, label: str, name: str, values: Any) -> Any:
    """Value of a distribution of SciPy: of common ones as Optuna knows them, of others by their quantiles."""
    distribution = getattr(values, "dist", values)  # of a frozen one; one without parameters need not be frozen
    try:
        low, high = (float(end) for end in values.support())
        middle = float(values.ppf(0.5))
    except AttributeError:
        raise UserError(
            f"param_distributions[{name!r}]={values!r:.200} has no quantiles (`ppf`), which a sampler that learns "
            "needs: give a distribution of scipy.stats or optuna.distributions, or a list"
        ) from None
    except (TypeError, ValueError):
        low = middle = high = math.nan
    if not low <= middle <= high:
        raise UserError(
            f"param_distributions[{name!r}]={values!r:.200} lacks parameters, or has wrong ones: give them as in "
            "scipy.stats.randint(1, 10)"
        )
    kind = getattr(distribution, "name", "")
    if kind == "uniform":
        return trial.suggest_float(label, low, high)
    if kind in ("loguniform", "reciprocal") and math.isclose(middle**2, low * high):  # not shifted
        return trial.suggest_float(label, low, high, log=True)
    if kind == "randint":
        return trial.suggest_int(label, int(low), int(high))
    share = trial.suggest_float(label, 0.0, 1.0)
    edge = 1e-9  # the quantiles 0 and 1 may be infinite
    value = values.ppf(min(max(share, edge), 1 - edge))
    return int(value) if hasattr(distribution, "pmf") else float(value)
