"""What a search and its combinations are called in MLflow: names of runs, params, metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mlflow_hp.analysis.search_space import value_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_VALUE_IN_NAME = 40


def candidate_name(params: Mapping[str, Any], varying: Sequence[str]) -> str:
    """The name of a combination's run, as ``learning_rate=0.01 momentum=0.9``: of the parameters that vary.

    The steps and parts that a parameter belongs to (``model__``) are left away where what remains names one alone.
    """
    chosen = [name for name in params if name in varying] or list(params)
    ends = Counter(name.rpartition("__")[2] for name in {*varying, *chosen})
    words = []
    for name in chosen:
        end = name.rpartition("__")[2]
        text = value_text(params[name])
        if len(text) > LONGEST_VALUE_IN_NAME:
            text = f"{text[: LONGEST_VALUE_IN_NAME - 1]}…"
        words.append(f"{end if ends[end] == 1 else name}={text}")
    return " ".join(words) or "defaults"


def space_of(search: Any) -> list[Mapping[str, Any]]:
    """The search space: grids or distributions by parameter; empty where `search` keeps none that is known."""
    space: Any = getattr(search, "param_grid", None) or getattr(search, "param_distributions", None) or []
    return [space] if hasattr(space, "items") else list(space)


def varying(space: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that have more than one value in a search space, in their order."""
    names = dict.fromkeys(name for part in space for name in part)
    return [name for name in names if len(space) > 1 or _several(space[0][name])]


def _several(values: Any) -> bool:
    return hasattr(values, "rvs") or not hasattr(values, "__len__") or len(values) > 1


def param_values(params: Mapping[str, Any]) -> dict[str, str]:
    """Params as texts: every digit of a number, functions and classes by name, others on one line."""
    return {name: _text(value) for name, value in params.items()}


def _text(value: Any) -> str:
    item = getattr(value, "item", None)
    if getattr(value, "shape", None) == () and item is not None:
        value = item()
    return repr(value) if isinstance(value, float) else value_text(value)


def search_params(search: Any) -> dict[str, str]:
    """What is asked of a search."""
    names = ("scoring", "cv", "n_iter", "n_candidates", "factor", "resource", "refit", "n_jobs", "random_state")
    known = {"search": type(search), "estimator": search.estimator}
    known |= {name: getattr(search, name) for name in names if hasattr(search, name)}
    space = space_of(search)
    for number, part in enumerate(space):
        group = "space" if len(space) == 1 else f"space_{number}"
        known |= {f"{group}/{name}": _values(values) for name, values in part.items()}
    return param_values(known)


def _values(values: Any) -> str:
    """A parameter's values, or its distribution as ``loguniform(0.001, 0.1)``."""
    distribution = getattr(values, "dist", None)
    if hasattr(values, "rvs") and distribution is not None:
        given = [*map(_text, values.args), *(f"{k}={_text(v)}" for k, v in values.kwds.items())]
        return f"{distribution.name}({', '.join(given)})"
    if hasattr(values, "__iter__") and not isinstance(values, str):
        return f"[{', '.join(map(_text, values))}]"
    return _text(values)


def score_name(scorer: str, kind: str = "") -> str:
    """The metric of a scorer: ``score``, ``train_score``, ``mean_score``; of one among several ``test_<scorer>``, ...

    Parameters
    ----------
    scorer : str
        As in ``cv_results_``: ``"score"`` where there is one.
    kind : {"", "train", "mean", "std", "rank"}
        The score on the test folds, on the training folds, or a figure over the test folds.
    """
    if scorer == "score":
        return {"": "score", "rank": "rank"}.get(kind, f"{kind}_score")
    what = "train" if kind == "train" else "test" if not kind else f"{kind}_test"
    return f"{what}_{scorer}"
