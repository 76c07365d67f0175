"""How good the runs of a group are, and which differences are real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.compare import figures
from mlflow_hp.compare.differences import varying_params
from mlflow_hp.compare.formatting import count, number, short
from mlflow_hp.compare.section import Cell, RunCell, Section, Table

if TYPE_CHECKING:
    from mlflow_hp.analysis.significance import Winner
    from mlflow_hp.compare.comparability import Group
    from mlflow_hp.compare.run_summary import RunFacts

ROWS = 200
"""Runs in the table and in the figure, the best; the page and the store have the others."""
UNTESTED = (
    "Whether differences are real can't be told: there are no scores on the same folds to pair. A difference between "
    "two single runs can be that of their seeds; repeat the best with several, or cross-validate."
)
PARAMS = 5
"""Columns of the table for hyperparameters."""


class Judged(NamedTuple):
    """A group's scores over the folds.

    Attributes
    ----------
    folds : list of tuple of float
        Of each run of the group, in its order; empty where it has none.
    paired : ndarray of int
        Indices of the runs with the same folds as the best run that has any, itself first.
    winner : Winner or None
        Of the paired; None where there are fewer than two.
    """

    folds: list[tuple[float, ...]]
    paired: np.ndarray
    winner: Winner | None

    def verdict(self, index: int) -> tuple[float | None, str]:
        """The corrected p of a run of the group against the best of the paired, and what it means."""
        place = np.flatnonzero(self.paired == index)
        if self.winner is None or not place.size:
            return None, "not tested"
        if place[0] == self.winner.best:
            return None, "the best"
        p = float(self.winner.adjusted[place[0]])
        if not np.isfinite(p):
            return None, "not tested"
        return p, "can't be told from the best" if self.winner.tied[place[0]] else "worse"


def judge(group: Group) -> Judged:
    """Test each run against the best over folds, paired, as far as they were made alike.

    Folds are the same where data, split, ``cv``, their number and, after halving, the resources are; of a search whose
    ``cv`` can't be known again, only within it.
    """
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.significance import winner

    folds = [run.folds.get(group.fold_metric, ()) if group.fold_metric else () for run in group.runs]
    whole = [i for i, row in enumerate(folds) if len(row) > 1 and np.isfinite(row).all()]
    if not whole:
        return Judged(folds, np.zeros(0, np.int64), None)
    same = _folds_key(group.runs[whole[0]], folds[whole[0]])
    paired = np.array([i for i in whole if _folds_key(group.runs[i], folds[i]) == same], np.int64)
    if len(paired) < 2:
        return Judged(folds, paired, None)
    scores = np.array([folds[i] for i in paired], np.float64)
    if group.goal == "min":
        scores = -scores
    seconds = np.array([group.runs[i].seconds or np.nan for i in paired])
    ranks = np.arange(1, len(paired) + 1)
    results = SearchResults([{}] * len(paired), {"score": scores}, None, seconds, seconds, ranks, "score", ())
    return Judged(folds, paired, winner(results))


def scores_section(group: Group, key: str) -> Section:
    """The runs by their score, with the spread over folds, and what the test says."""
    judged = judge(group)
    return Section(
        key,
        "Scores, and which differences are real",
        3,
        _words(group, judged),
        _table(group, judged),
        _figure(group, judged),
        f"{group.metric} of each run, the best first, with the standard deviation over its folds where it has any.",
    )


def _folds_key(run: RunFacts, row: tuple[float, ...]) -> tuple[Any, ...]:
    folds = run.tag("folds_digest") or run.parent_id or run.run_id  # without the digest they may be other rows
    return (run.data_digest, run.split_digest, folds, len(row), run.metrics.get("n_resources"))


def _words(group: Group, judged: Judged) -> list[str]:
    best = group.runs[0]
    better = "more is better" if group.goal == "max" else "less is better"
    score = number(best.metrics[group.metric])
    words = [f"The best of {len(group.runs)} is “{best.name}” by {best.author}: {group.metric} {score} ({better})."]
    winner = judged.winner
    if winner is None:
        return [*words, UNTESTED]
    n = len(judged.paired)
    tied = int(winner.tied.sum()) - 1
    n_splits = len(judged.folds[judged.paired[0]])
    first = group.runs[judged.paired[winner.best]]
    name = "it" if first.run_id == best.run_id else f"“{first.name}”, the best with folds,"
    words.append(
        f"{tied} of the {n - 1} others with the same {n_splits} folds can't be told from {name}"
        if tied
        else f"Each of the {n - 1} others with the same {n_splits} folds is worse than {name}"
    )
    words[-1] += (
        " (paired over the folds with Nadeau and Bengio's variance, as for k-fold; Holm's correction over all, "
        f"level {winner.level:g})."
    )
    if tied and np.isfinite(winner.visible):
        words.append(
            f"With so few folds a difference among them under about {number(winner.visible)} stays unseen: "
            "what can't be told need not be equal."
        )
    cheap = group.runs[judged.paired[winner.cheapest]]
    if cheap.run_id != first.run_id and cheap.seconds and first.seconds:
        words.append(
            f"“{cheap.name}” by {cheap.author} is within one standard error of it and took {number(cheap.seconds)} "
            f"seconds in place of {number(first.seconds)}."
        )
    if n < len(group.runs):
        words.append(f"{count(len(group.runs) - n, 'run')} without scores on these folds can't be tested against them.")
    return words


def _table(group: Group, judged: Judged) -> Table:
    params = varying_params(group.runs)
    shown = params[:PARAMS]
    tested = judged.winner is not None
    columns = ["rank", "run", "author", group.metric]
    columns += ["std over folds", "folds", "p, corrected", "verdict"] if tested else []
    unfinished = any(run.status != "FINISHED" for run in group.runs)
    columns += ["seconds", *(["status"] if unfinished else []), *shown]
    rows: list[list[Cell]] = []
    for index, run in enumerate(group.runs[:ROWS]):
        row: list[Cell] = [index + 1, RunCell(run.run_id, run.experiment_id, run.name), run.author]
        row.append(run.metrics[group.metric])
        if tested:
            folds = judged.folds[index]
            row += [float(np.std(folds)) if folds else None, len(folds) or None, *judged.verdict(index)]
        row += [run.seconds, *([run.status.lower()] if unfinished else [])]
        rows.append([*row, *(short(run.params.get(name, "")) for name in shown)])
    of = f"The best {ROWS} of {len(group.runs)} runs" if len(group.runs) > ROWS else "All runs"
    hidden = f"; {len(params) - PARAMS} more hyperparameters differ, see below" if len(params) > PARAMS else ""
    return Table(f"{of} by {group.metric}, the best first{hidden}", columns, rows)


def _figure(group: Group, judged: Judged) -> dict[str, Any]:
    """Dots with bars: names beside them where there are few, ranks where there are many."""
    runs = group.runs[:ROWS]
    few = len(runs) <= 2 * figures.NAMED
    kinds: dict[str, list[int]] = {}
    for index in range(len(runs)):
        kinds.setdefault(judged.verdict(index)[1], []).append(index)
    order = ["the best", "can't be told from the best", "worse", "not tested"]
    data = []
    for kind in (kind for kind in order if kind in kinds):
        chosen = kinds[kind]
        places = [index + 1 for index in chosen]
        values = [runs[i].metrics[group.metric] for i in chosen]
        bars = [float(np.std(judged.folds[i])) if judged.folds[i] else 0.0 for i in chosen]
        x, y, bar = (values, places, "error_x") if few else (places, values, "error_y")
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": kind,
            "showlegend": judged.winner is not None,
            "x": x,
            "y": y,
            "text": [figures.text(f"{runs[i].name}, {runs[i].author}", 90) for i in chosen],
            "hovertemplate": "%{text}<br>%{" + ("x" if few else "y") + ":.6g}<extra></extra>",
            "marker": figures.marker(order.index(kind) if judged.winner else 0),
        }
        if any(bars):
            trace[bar] = {"type": "data", "array": bars, "thickness": 1.2, "width": 3}
        data.append(trace)
    height = {"title": {"text": figures.text(group.metric)}, "type": figures.scale(group.scores)}
    if not few:
        return figures.figure(data, "rank", height)
    axis = {
        "tickvals": list(range(1, len(runs) + 1)),
        "ticktext": [figures.text(f"{run.name} · {run.author}") for run in runs],
        "range": [len(runs) + 0.6, 0.4],
    }
    return figures.figure(data, height, axis, height=140 + 22 * len(runs))
