"""Which hyperparameters matter, over all combinations that the team has tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.compare import figures
from mlflow_hp.compare.differences import varying_params
from mlflow_hp.compare.formatting import count
from mlflow_hp.compare.section import Section, Table

if TYPE_CHECKING:
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.compare.comparability import Group

FEWEST_RUNS = 8
"""Under so many, a ranking of parameters says nothing."""
MOST_PARAMS = 30
IDENTITY_FROM = 10
"""A param of words with so many values, one for nearly every run, is a name and no setting."""


def importance_section(group: Group, key: str) -> Section | None:
    """Shares of the parameters; None where there are too few runs or parameters."""
    from mlflow_hp.analysis.importance import importance, variance_shares

    results = results_of(group)
    if results is None:
        return None
    shares, exact = importance(results), variance_shares(results)
    if not shares:
        return None
    first, share = next(iter(shares.items()))
    authors = len({run.author for run in group.runs})
    over = f"{count(len(group.runs), 'combination')} of {count(authors, 'author')}"
    words = [
        f"Over {over}, {first} decides most about being among the best: {share:.0%} (Optuna's PED-ANOVA).",
        "What was tried together can't be told apart: shares say what to try next, not what causes what.",
    ]
    if exact is not None:
        words.append("The combinations are a full grid: the exact shares of the variance of its scores are given too.")
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
    table = Table("What each parameter decides over being among the best", columns, rows)
    return Section(key, "Which parameters matter", 3, words, table, figure, f"Share of each parameter; {words[0]}")


def results_of(group: Group) -> SearchResults | None:
    """A group as the results of one search, larger scores better, a combination for each run; None where it is none.

    Parameters that were only ever changed together can't be told apart: they are one, named ``first & second``.
    """
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import ABSENT, parameter

    runs = group.runs
    params = varying_params(runs)[:MOST_PARAMS]
    if len(runs) < FEWEST_RUNS or not params:
        return None
    candidates = [{name: _value(run.params.get(name, ABSENT)) for name in params} for run in runs]
    together: dict[tuple[int, ...], list[str]] = {}
    for name in params:
        known = parameter(candidates, name)
        if known.kind != "category" or len(known.levels) <= max(IDENTITY_FROM, len(runs) / 2):
            place = {code: index for index, code in enumerate(dict.fromkeys(known.codes.tolist()))}
            together.setdefault(tuple(place[code] for code in known.codes.tolist()), []).append(name)
    names = [" & ".join(alike) for alike in together.values()]
    first = [alike[0] for alike in together.values()]
    candidates = [dict(zip(names, (own[name] for name in first), strict=True)) for own in candidates]
    scores = np.array(group.scores, np.float64)[:, None] * (1 if group.goal == "max" else -1)
    seconds = np.array([run.seconds if run.seconds is not None else np.nan for run in runs])
    ranks = np.arange(1, len(runs) + 1)
    return SearchResults(candidates, {"score": scores}, None, seconds, seconds, ranks, "score", tuple(names))


def _value(text: str) -> Any:
    """A param as the value that it is the text of, as far as that is a number."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
