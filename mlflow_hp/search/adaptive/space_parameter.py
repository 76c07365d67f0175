"""One parameter of the space of an adaptive search, as Optuna sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna

from mlflow_hp.analysis.search_space import is_number
from mlflow_hp.errors import UserError
from mlflow_hp.search.naming import param_values

PRIMITIVES = (type(None), bool, int, float, str)
"""Types of choices that Optuna stores as they are."""


class SpaceParameter(NamedTuple):
    """One parameter of a space, as Optuna sees it.

    Attributes
    ----------
    distribution : optuna.distributions.BaseDistribution
        Distribution of what a trial suggests.
    decode : callable
        Suggestion -> value of the parameter.
    encode : callable
        Number or text of a value, as a recorded run has it -> suggestion; raises ValueError if it is not in the space.
    """

    distribution: optuna.distributions.BaseDistribution
    decode: Callable[[Any], Any]
    encode: Callable[[str], Any]


def space_parameter(name: Any, values: Any) -> SpaceParameter:
    """Convert the values or the distribution of a parameter.

    Parameters
    ----------
    name : str
        Name of the parameter.
    values : list, distribution of scipy.stats or of optuna.distributions
        What it may be.

    Returns
    -------
    SpaceParameter
        The parameter.

    Raises
    ------
    UserError
        If it is neither.
    """
    if not isinstance(name, str):
        raise UserError(f"param_distributions has the key {name!r:.200}: name parameters by texts")
    if isinstance(values, optuna.distributions.BaseDistribution):
        return _of_optuna(name, values)
    if hasattr(values, "rvs"):
        return _of_scipy(name, values)
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
        return _categorical(choices)
    by_index = optuna.distributions.CategoricalDistribution(range(len(choices)))
    return SpaceParameter(by_index, choices.__getitem__, lambda text: _place(text, choices))


def _categorical(choices: Sequence[Any]) -> SpaceParameter:
    distribution = optuna.distributions.CategoricalDistribution(choices)
    return SpaceParameter(distribution, _same, lambda text: choices[_place(text, choices)])


def _place(text: str, choices: Sequence[Any]) -> int:
    """Index of the choice with this text, or with this number."""
    for index, choice in enumerate(choices):
        if param_values({"": choice})[""] == text:
            return index
    for index, choice in enumerate(choices):
        if is_number(choice) and float(choice) == float(text):
            return index
    raise ValueError(text)


def _same(value: Any) -> Any:
    return value


def _number(distribution: optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution) -> Any:
    """Parameter that is the number which a trial suggests."""

    def encode(text: str) -> float:
        number = float(text)
        value: float = int(number) if isinstance(distribution, optuna.distributions.IntDistribution) else number
        steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
        if value != number or not distribution.low <= value <= distribution.high or abs(steps - round(steps)) > 1e-8:
            raise ValueError(text)
        return value

    return SpaceParameter(distribution, _same, encode)


def _of_optuna(name: str, values: optuna.distributions.BaseDistribution) -> SpaceParameter:
    if isinstance(values, (optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution)):
        return _number(values)
    if isinstance(values, optuna.distributions.CategoricalDistribution):
        return _categorical(values.choices)
    raise UserError(
        f"param_distributions[{name!r}]={values!r:.200} is of a kind that is not known: give a FloatDistribution, an "
        "IntDistribution or a CategoricalDistribution"
    )


def _of_scipy(name: str, values: Any) -> SpaceParameter:
    """Parameter with a distribution of SciPy: of common ones as Optuna knows them, of others by their quantiles."""
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
        return _number(optuna.distributions.FloatDistribution(low, high))
    if kind in ("loguniform", "reciprocal") and math.isclose(middle**2, low * high):  # not shifted
        return _number(optuna.distributions.FloatDistribution(low, high, log=True))
    if kind == "randint":
        return _number(optuna.distributions.IntDistribution(int(low), int(high)))
    return _by_quantile(values, is_whole=hasattr(distribution, "pmf"), low=low, high=high)


def _by_quantile(values: Any, *, is_whole: bool, low: float, high: float) -> SpaceParameter:
    """Parameter of which a trial suggests the quantile."""
    edge = 1e-9  # the quantiles 0 and 1 may be infinite

    def decode(share: float) -> float:
        value = values.ppf(min(max(share, edge), 1 - edge))
        return int(value) if is_whole else float(value)

    def encode(text: str) -> float:
        number = float(text)
        if not low <= number <= high or (is_whole and number != int(number)):
            raise ValueError(text)
        share = float(values.cdf(number))
        return share - float(values.pmf(number)) / 2 if is_whole else share

    return SpaceParameter(optuna.distributions.FloatDistribution(0.0, 1.0), decode, encode)
