"""Names of a search's runs, params and metrics in MLflow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mlflow_hp.analysis.search_space import value_text
from mlflow_hp.tracking.run_presentation import run_name
from mlflow_hp.tracking.tags import CV_PARAM, SPACE_PARAM_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_VALUE_LENGTH = 40
"""Longest value in the name of a run, in characters."""


def candidate_name(params: Mapping[str, Any], varying: Sequence[str]) -> str:
    """Name of a candidate's run: its varying parameters, as ``learning_rate=0.01 momentum=0.9``.

    The prefix of a parameter (``model__``) is dropped if the rest is unique.
    """
    names = [name for name in params if name in varying] or list(params)
    ends = Counter(name.rpartition("__")[2] for name in {*varying, *names})
    parts = []
    for name in names:
        end = name.rpartition("__")[2]
        text = value_text(params[name])
        if len(text) > MAX_VALUE_LENGTH:
            text = f"{text[: MAX_VALUE_LENGTH - 1]}…"
        parts.append(f"{end if ends[end] == 1 else name}={text}")
    return " ".join(parts) or "defaults"


def space_of(search: Any) -> list[Mapping[str, Any]]:
    """The search space: grids or distributions by parameter; empty if a function draws from it, or it is not known."""
    space: Any = getattr(search, "param_grid", None) or getattr(search, "param_distributions", None) or []
    if callable(space):
        return []
    return [space] if hasattr(space, "items") else [part for part in space if hasattr(part, "items")]


def varying(space: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters with more than one value in a search space, in their order."""
    names = dict.fromkeys(name for part in space for name in part)
    return [name for name in names if len(space) > 1 or _several(space[0][name])]


def _several(values: Any) -> bool:
    return hasattr(values, "rvs") or not hasattr(values, "__len__") or len(values) > 1


def param_values(params: Mapping[str, Any]) -> dict[str, str]:
    """Convert params to text: all digits of a number, functions and classes by name, others on one line."""
    return {name: _text(value) for name, value in params.items()}


def _text(value: Any) -> str:
    item = getattr(value, "item", None)
    if getattr(value, "shape", None) == () and item is not None:
        value = item()
    return repr(value) if isinstance(value, float) else value_text(value)


def search_name(search: Any) -> str:
    """Name of the parent run of a search, as ``GridSearchCV of Ridge``: its class and the estimator's."""
    steps = getattr(search.estimator, "steps", None)
    estimator = steps[-1][1] if steps else search.estimator  # of a pipeline, what it ends in
    return run_name(f"{type(search).__name__} of {type(estimator).__name__}")


def search_params(search: Any) -> dict[str, str]:
    """Params of the parent run: settings and space of the search."""
    names = ("scoring", CV_PARAM, "n_iter", "n_candidates", "factor", "resource", "refit", "n_jobs", "random_state")
    values = {"search": type(search), "estimator": search.estimator}
    values |= {name: getattr(search, name) for name in names if hasattr(search, name)}
    space = space_of(search)
    for number, part in enumerate(space):
        group = SPACE_PARAM_PREFIX if len(space) == 1 else f"{SPACE_PARAM_PREFIX}_{number}"
        values |= {f"{group}/{name}": _space_text(space_values) for name, space_values in part.items()}
    return param_values(values)


def _space_text(values: Any) -> str:
    """Text of a parameter's values, or of its distribution, as ``loguniform(0.001, 0.1)``."""
    distribution = getattr(values, "dist", None)
    if hasattr(values, "rvs") and distribution is not None:
        arguments = [*map(_text, values.args), *(f"{k}={_text(v)}" for k, v in values.kwds.items())]
        return f"{distribution.name}({', '.join(arguments)})"
    if hasattr(values, "__iter__") and not isinstance(values, str):
        return f"[{', '.join(map(_text, values))}]"
    return _text(values)
