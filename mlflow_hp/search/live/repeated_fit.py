"""One fit of a search with several seeds: scikit-learn gets the mean score over them, the record each seed's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SEED_SCORES = "mlflow_hp_seed_scores"
"""Entry of a fit's result with the scores of each seed; scikit-learn does not get it."""
SEED_PARAM = "random_state"
"""Name of the parameters of scikit-learn's and scikeras' estimators that hold a seed."""


class RepeatedFit:
    """Callable in place of scikit-learn's fit function, which calls it with several seeds.

    The first seed is the estimator's own. Where an estimator has no seed, its fits draw from the global generators.

    Parameters
    ----------
    function : callable
        scikit-learn's function.
    repeats : int
        Number of seeds.
    """

    def __init__(self, function: Callable[..., dict[str, Any]], repeats: int) -> None:
        self.function = function
        self.repeats = repeats

    def __call__(self, **named: Any) -> dict[str, Any]:
        """Call the function once for each seed, with its named arguments."""
        return mean_result([self.function(**each) for each in self.arguments(named)])

    def arguments(self, named: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the arguments with each seed."""
        for repeat in range(self.repeats):
            seeded = {
                "estimator": with_seed(named["estimator"], repeat),
                "parameters": _params_with_seed(named["parameters"], repeat),
            }
            yield {**named, **seeded}


def without_seeds(result: Any) -> Any:
    """Result of a fit as scikit-learn expects it."""
    if not isinstance(result, dict) or SEED_SCORES not in result:
        return result
    return {name: value for name, value in result.items() if name != SEED_SCORES}


def with_seed(estimator: Any, repeat: int) -> Any:
    """Clone an estimator with all of its seeds replaced by those of a repeat; repeat 0 keeps them."""
    from sklearn.base import clone

    copied = clone(estimator)
    seeds = {
        name: seed_of(value, repeat)
        for name, value in copied.get_params(deep=True).items()
        if name.rpartition("__")[2] == SEED_PARAM
    }
    return copied.set_params(**seeds) if seeds else copied


def seed_of(value: Any, repeat: int) -> Any:
    """Seed of a repeat (0-based), derived from the first one: an int, a generator, or None."""
    if repeat == 0 or value is None:
        return value
    if isinstance(value, np.random.RandomState):
        return int(copy.deepcopy(value).randint(2**31 - 1, size=repeat)[-1])
    return int(np.random.SeedSequence([int(value), repeat]).generate_state(1)[0] >> 1)


def _params_with_seed(params: Mapping[str, Any] | None, repeat: int) -> Mapping[str, Any] | None:
    if not params:
        return params
    seeded = {}
    for name, value in params.items():
        if name.rpartition("__")[2] == SEED_PARAM:
            seeded[name] = seed_of(value, repeat)
        else:
            seeded[name] = with_seed(value, repeat) if _is_estimator(value) else value
    return seeded


def _is_estimator(value: Any) -> bool:
    return hasattr(value, "get_params") and hasattr(value, "set_params") and not isinstance(value, type)


def mean_result(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean of scores and times of a fit with several seeds, the first error, and the scores of each seed."""
    mean = dict(results[0])
    seed_scores: dict[str, list[float]] = {}
    for name in ("test_scores", "train_scores", "fit_time", "score_time"):
        if name not in mean:
            continue
        values = [result[name] for result in results]
        if isinstance(values[0], dict):
            by_scorer = {scorer: [float(value[scorer]) for value in values] for scorer in values[0]}
            mean[name] = {scorer: float(np.mean(scores)) for scorer, scores in by_scorer.items()}
        else:
            by_scorer = {"score": [float(value) for value in values]}
            mean[name] = float(np.mean(by_scorer["score"]))
        if name == "test_scores":
            seed_scores = by_scorer
    mean["fit_error"] = next((result["fit_error"] for result in results if result["fit_error"] is not None), None)
    return {**mean, SEED_SCORES: seed_scores}
