"""Trials as rows: for the table of a parent run, its pictures, and its counts."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.search_results import SearchResults
from mlflow_hp.analysis.search_space import varying
from mlflow_hp.search.naming import param_values
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import SCORE_METRIC, VALUE_METRIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class TrialRow(NamedTuple):
    """One trial.

    Attributes
    ----------
    number : int
        Number of the trial (0-based).
    state : str
        State by its library, such as ``"COMPLETE"``.
    params : dict of str to object
        Its parameters.
    values : dict of str to float
        Its result by objective, as its library has it; empty without one.
    scores : dict of str to tuple of float
        Scorer -> score of each execution, larger is better; empty unless it is complete.
    seconds : float
        Duration; nan if it is unknown.
    attributes : dict of str to object
        The user's attributes.
    """

    number: int
    state: str
    params: dict[str, Any]
    values: dict[str, float]
    scores: dict[str, tuple[float, ...]]
    seconds: float
    attributes: Mapping[str, Any]


def scorer_of(name: str | None, *, maximizes: bool) -> str:
    """Name the score that belongs to an objective: larger is better, as in scikit-learn.

    Parameters
    ----------
    name : str or None
        Name of the objective; None if it has none.
    maximizes : bool
        Whether larger values of the objective are better.
    """
    return name or SCORE_METRIC if maximizes else f"neg_{name or VALUE_METRIC}"


def to_csv(rows: Sequence[TrialRow]) -> str:
    """Write trials as CSV: number, state, values, ``params_*``, ``user_attrs_*`` and seconds, without secrets."""
    objectives = dict.fromkeys(name for row in rows for name in row.values)
    params = dict.fromkeys(name for row in rows for name in row.params)
    attributes = dict.fromkeys(name for row in rows for name in row.attributes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["number", "state", *objectives, *(f"params_{n}" for n in params), *(f"user_attrs_{n}" for n in attributes),
         "seconds"]
    )  # fmt: skip
    for row in rows:
        texts, attribute_texts = param_values(row.params), param_values(row.attributes)
        writer.writerow(
            [
                row.number,
                row.state,
                *(row.values.get(name, "") for name in objectives),
                *(masked(texts[name], name) if name in texts else "" for name in params),
                *(masked(attribute_texts[name], name) if name in attribute_texts else "" for name in attributes),
                "" if np.isnan(row.seconds) else row.seconds,
            ]
        )
    return text.getvalue()


def results_of(rows: Sequence[TrialRow]) -> SearchResults | None:
    """Convert trials to the results of a search with an execution in place of a fold; None if none is complete."""
    complete = [row for row in rows if row.scores]
    if not complete:
        return None
    scorers = list(complete[0].scores)
    n_executions = max(len(scores) for row in complete for scores in row.scores.values())
    scores = {scorer: np.full((len(rows), n_executions), np.nan) for scorer in scorers}
    for index, row in enumerate(rows):
        for scorer in row.scores.keys() & scores.keys():
            scores[scorer][index, : len(row.scores[scorer])] = row.scores[scorer]
    mean = scores[scorers[0]].mean(axis=1)
    ordered = np.where(np.isnan(mean), -np.inf, mean)
    ranks = 1 + len(rows) - np.searchsorted(np.sort(ordered), ordered, side="right")
    candidates = [
        {name: masked(value, name) if isinstance(value, str) else value for name, value in row.params.items()}
        for row in rows
    ]
    seconds = np.array([row.seconds for row in rows], np.float64)
    return SearchResults(
        candidates, scores, None, seconds, np.full(len(rows), np.nan), ranks, scorers[0], varying(candidates)
    )
