"""Importance of hyperparameters over all runs of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.compare import figures
from mlflow_hp.compare.differences import varying_params
from mlflow_hp.compare.formatting import count
from mlflow_hp.compare.section import Section, Table

if TYPE_CHECKING:
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter
    from mlflow_hp.compare.comparability import RunGroup

MIN_RUNS = 8
"""With fewer runs, a ranking of parameters means nothing."""
MAX_PARAMS = 30
MAX_CATEGORIES = 10
"""A categorical param with more values, and a new one in every other run, is a name, not a setting."""


def importance_section(group: RunGroup, key: str) -> Section | None:
    """Draw the importance of each parameter; None with too few runs or parameters."""
    from mlflow_hp.analysis.importance import importance, variance_shares

    results = results_of(group)
    if results is None:
        return None
    shares, exact = importance(results), variance_shares(results)
    if not shares:
        return None
    first, share = next(iter(shares.items()))
    authors = len({run.author for run in group.runs})
    over = f"{count(len(group.runs), 'run')} of {count(authors, 'author')}"
    words = [
        f"Over {over}, {first} matters most for being among the best: {share:.0%} (Optuna's PED-ANOVA).",
        "Parameters that were only changed together count as one: shares tell what to try next, not what causes what.",
    ]
    if exact is not None:
        words.append("The runs are a full grid: the exact shares of the variance of their scores are given as well.")
    columns = ["parameter", "share", *(["exact share of the variance"] if exact else []), "values tried"]
    tried = {name: len(results.parameter(name).levels) for name in shares}
    rows: list[list[Any]] = [
        [name, value, *([exact[name]] if exact else []), tried[name]] for name, value in shares.items()
    ]
    names = list(shares)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [shares[name] for name in names],
        "y": [figures.text(name) for name in names],
        "marker": {"color": figures.COLOURS[0]},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    axis = {"autorange": "reversed", "type": "category"}
    share_axis = {"title": {"text": "share"}, "tickformat": ".0%"}
    figure = figures.figure([bars], share_axis, axis, height=120 + 28 * len(names), showlegend=False)
    table = Table("Share of each parameter in being among the best", columns, rows)
    return Section(key, "Which parameters matter", 3, words, table, figure, f"Share of each parameter; {words[0]}")


def results_of(group: RunGroup) -> SearchResults | None:
    """Convert a group to results of a search, a candidate per run, higher scores better; None with too few runs.

    Parameters that were only ever changed together become one, named ``first & second``.
    """
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import ABSENT, parameter

    runs = group.runs
    params = varying_params(runs)[:MAX_PARAMS]
    if len(runs) < MIN_RUNS or not params:
        return None
    candidates = [{name: _value(run.params.get(name, ABSENT)) for name in params} for run in runs]
    together: dict[tuple[int, ...], list[str]] = {}
    for name in params:
        tried = parameter(candidates, name)
        if is_setting(tried, len(runs)):
            order = {code: index for index, code in enumerate(dict.fromkeys(tried.codes.tolist()))}
            together.setdefault(tuple(order[code] for code in tried.codes.tolist()), []).append(name)
    names = [" & ".join(same) for same in together.values()]
    first = [same[0] for same in together.values()]
    candidates = [dict(zip(names, (values[name] for name in first), strict=True)) for values in candidates]
    scores = np.array(group.scores, np.float64)[:, None] * (1 if group.goal == "max" else -1)
    seconds = np.array([run.seconds if run.seconds is not None else np.nan for run in runs])
    ranks = np.arange(1, len(runs) + 1)
    return SearchResults(candidates, {"score": scores}, None, seconds, seconds, ranks, "score", tuple(names))


def is_setting(tried: Parameter, n_runs: int) -> bool:
    """Whether a param is a setting, not a name that is new in every other run."""
    return tried.kind != "category" or len(tried.levels) <= max(MAX_CATEGORIES, n_runs / 2)


def _value(text: str) -> Any:
    """Parse the text of a param as a number, if it is one."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
