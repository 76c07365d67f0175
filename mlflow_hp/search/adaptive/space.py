"""Space of an adaptive search: lists, distributions of SciPy and Optuna, several spaces, or a function of the trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from mlflow_hp.errors import UserError
from mlflow_hp.search.adaptive.space_parameter import space_parameter
from mlflow_hp.search.adaptive.study import new_study

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
    parameter = space_parameter(name, values)
    known = parameter.distribution
    if isinstance(known, optuna.distributions.FloatDistribution):
        suggestion: Any = trial.suggest_float(label, known.low, known.high, step=known.step, log=known.log)
    elif isinstance(known, optuna.distributions.IntDistribution):
        suggestion = trial.suggest_int(label, known.low, known.high, step=known.step, log=known.log)
    else:
        suggestion = trial.suggest_categorical(label, known.choices)
    return parameter.decode(suggestion)


class Suggestions(NamedTuple):
    """A combination as the trial of a study that suggested it: values and distributions by label."""

    params: dict[str, Any]
    distributions: dict[str, optuna.distributions.BaseDistribution]


def suggestions(space: Any, texts: Mapping[str, str]) -> Suggestions | None:
    """Convert a recorded combination to what a trial would have suggested; None if it is not in the space.

    Parameters
    ----------
    space : mapping, or sequence of mapping
        Space of an `mlflow_hp.AdaptiveSearchCV`.
    texts : mapping of str to str
        Parameters of the combination, as its run has them.

    Returns
    -------
    Suggestions or None
        The suggestions.
    """
    is_single = isinstance(space, Mapping)
    for which, part in enumerate([space] if is_single else space):
        if {*map(str, part)} != {*texts}:
            continue
        params: dict[str, Any] = {}
        distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        if not is_single:
            params[WHICH_SPACE] = which
            distributions[WHICH_SPACE] = optuna.distributions.CategoricalDistribution(range(len(space)))
        try:
            for name, values in part.items():
                label = name if is_single else f"{which}/{name}"
                parameter = space_parameter(name, values)
                params[label], distributions[label] = parameter.encode(texts[name]), parameter.distribution
        except (ValueError, OverflowError):
            continue
        return Suggestions(params, distributions)
    return None
