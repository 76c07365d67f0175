"""Scores of a group's runs, and which differences are significant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.compare import figures
from mlflow_hp.compare.differences import varying_params
from mlflow_hp.compare.formatting import count, has_several_authors, number, quoted, short, with_author
from mlflow_hp.compare.judging import epoch_judged, is_by_best
from mlflow_hp.compare.section import Cell, RunCell, Section, Table
from mlflow_hp.tracking.tags import FOLDS_DIGEST_TAG, N_RESOURCES_METRIC

if TYPE_CHECKING:
    from mlflow_hp.analysis.significance import Winner
    from mlflow_hp.compare.comparability import RunGroup
    from mlflow_hp.compare.run_summary import RunFacts

MAX_ROWS = 200
"""Runs in table and figure, the best; the page and the store have the others."""
UNTESTED = (
    "Differences cannot be tested: there are no scores on the same folds to pair. A difference between two single runs "
    "may come from their seeds alone; repeat the best with several seeds, or cross-validate."
)
MAX_PARAMS = 5
"""Columns of the table for hyperparameters."""
VERDICTS = ("best", "not significantly worse", "significantly worse", "not tested")


class FoldTest(NamedTuple):
    """Paired test of a group's runs over their folds.

    Attributes
    ----------
    folds : list of tuple of float
        Scores of the folds of each run, in the order of the group; empty for runs without folds.
    paired : ndarray of int
        Indices of the runs with the same folds as the best run that has any, that one first.
    winner : Winner or None
        Result of the test of the paired runs; None for fewer than two.
    """

    folds: list[tuple[float, ...]]
    paired: np.ndarray
    winner: Winner | None

    def verdict(self, index: int) -> tuple[float | None, str]:
        """Corrected p-value of run `index` against the best paired run, and its meaning: one of ``VERDICTS``."""
        best, tied, worse, untested = VERDICTS
        place = np.flatnonzero(self.paired == index)
        if self.winner is None or not place.size:
            return None, untested
        if place[0] == self.winner.best:
            return None, best
        p = float(self.winner.adjusted[place[0]])
        if not np.isfinite(p):
            return None, untested
        return p, tied if self.winner.tied[place[0]] else worse


def fold_test(group: RunGroup) -> FoldTest:
    """Test each run against the best, paired over the folds."""
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.significance import winner

    folds, paired = paired_runs(group)
    if len(paired) < 2:
        return FoldTest(folds, paired, None)
    scores = np.array([folds[i] for i in paired], np.float64)
    if group.goal == "min":
        scores = -scores
    seconds = np.array([group.runs[i].seconds or np.nan for i in paired])
    ranks = np.arange(1, len(paired) + 1)
    results = SearchResults([{}] * len(paired), {"score": scores}, None, seconds, seconds, ranks, "score", ())
    return FoldTest(folds, paired, winner(results))


def paired_runs(group: RunGroup) -> tuple[list[tuple[float, ...]], np.ndarray]:
    """Scores of the folds of each run, and the indices of the runs with those of the best that has any.

    Runs have the same folds if data, split, ``cv``, number of folds and, after halving, resources are the same; if the
    ``cv`` of a search cannot be identified, only runs of that search do.
    """
    folds = [run.folds.get(group.fold_metric, ()) if group.fold_metric else () for run in group.runs]
    complete = [i for i, row in enumerate(folds) if len(row) > 1 and np.isfinite(row).all()]
    if not complete:
        return folds, np.zeros(0, np.int64)
    first, row = group.runs[complete[0]], folds[complete[0]]
    same = [
        i for i in complete if same_folds(group.runs[i], first) and _size(group.runs[i], folds[i]) == _size(first, row)
    ]
    return folds, np.array(same, np.int64)


def same_folds(run: RunFacts, other: RunFacts) -> bool:
    """Whether two runs are of the same data, split and ``cv``."""
    return _folds_key(run) == _folds_key(other)


def scores_section(group: RunGroup, key: str) -> Section:
    """Show runs by score, with the standard deviation over folds and the result of the test."""
    test = fold_test(group)
    return Section(
        key,
        "Scores, and which differences are real",
        3,
        _words(group, test),
        _table(group, test),
        _figure(group, test),
        f"{group.metric} of each run, the best first, with the standard deviation over its folds where it has any.",
    )


def _folds_key(run: RunFacts) -> tuple[Any, ...]:
    folds = run.tag(FOLDS_DIGEST_TAG) or run.parent_id or run.run_id  # without a digest, other searches may differ
    return run.data_digest, run.split_digest, folds


def _size(run: RunFacts, row: tuple[float, ...]) -> tuple[Any, ...]:
    return len(row), run.metrics.get(N_RESOURCES_METRIC)


def _words(group: RunGroup, test: FoldTest) -> list[str]:
    best = group.runs[0]
    score = number(best.metrics[group.metric])
    which = f"The best of {len(group.runs)}" if len(group.runs) > 1 else "The only run"
    words = [f"{which} is {quoted(best, group.runs)}: {group.metric} {score} ({group.better})."]
    winner = test.winner
    if winner is None:
        return [*words, UNTESTED]
    n_others = len(test.paired) - 1
    n_tied = int(winner.tied.sum()) - 1
    n_splits = len(test.folds[test.paired[0]])
    first = group.runs[test.paired[winner.best]]
    name = "it" if first.run_id == best.run_id else f"“{first.name}”, the best with folds,"
    compared = f"{n_tied} of the {n_others} others" if n_tied else f"Each of the {n_others} others"
    compared = "The only other run" if n_others == 1 else compared
    verb = "are" if n_tied > 1 else "is"
    words.append(
        f"{compared} with the same {count(n_splits, 'fold')} {verb} {'not ' if n_tied else ''}significantly worse than "
        f"{name}"
    )
    words[-1] += (
        " (paired over the folds with Nadeau and Bengio's variance, as for k-fold; Holm's correction over all, "
        f"level {winner.level:g})."
    )
    if n_tied and np.isfinite(winner.visible):
        words.append(
            f"So few folds cannot show differences below about {number(winner.visible)}: runs without a significant "
            "difference need not be equal."
        )
    cheapest = group.runs[test.paired[winner.cheapest]]
    if cheapest.run_id != first.run_id and cheapest.seconds and first.seconds:
        words.append(
            f"{quoted(cheapest, group.runs)} is within one standard error of it and took "
            f"{number(cheapest.seconds)} seconds instead of {number(first.seconds)}."
        )
    if n_others + 1 < len(group.runs):
        words.append(
            f"{count(len(group.runs) - n_others - 1, 'run')} without scores on these folds cannot be tested against "
            "them."
        )
    return words


def _table(group: RunGroup, test: FoldTest) -> Table:
    params = varying_params(group.runs)
    shown = params[:MAX_PARAMS]
    tested = test.winner is not None
    with_authors = has_several_authors(group.runs)
    columns = ["rank", "run", *(["author"] if with_authors else []), group.metric]
    by_best = any(is_by_best(run, group.metric) for run in group.runs)
    columns += ["judged by"] if by_best else []
    columns += ["std over folds", "folds", "p, corrected", "verdict"] if tested else []
    unfinished = any(run.status != "FINISHED" for run in group.runs)
    columns += ["seconds", *(["status"] if unfinished else []), *shown]
    rows: list[list[Cell]] = []
    for index, run in enumerate(group.runs[:MAX_ROWS]):
        row: list[Cell] = [index + 1, RunCell(run.run_id, run.experiment_id, run.name)]
        row += [run.author] if with_authors else []
        row.append(run.metrics[group.metric])
        row += [epoch_judged(run, group.metric)] if by_best else []
        if tested:
            folds = test.folds[index]
            row += [float(np.std(folds)) if folds else None, len(folds) or None, *test.verdict(index)]
        row += [run.seconds, *([run.status.lower()] if unfinished else [])]
        rows.append([*row, *(short(run.params.get(name, "")) for name in shown)])
    which = f"The best {MAX_ROWS} of {len(group.runs)} runs" if len(group.runs) > MAX_ROWS else "All runs"
    n_hidden = len(params) - MAX_PARAMS
    hidden = f"; {n_hidden} more hyperparameters differ, see below" if n_hidden > 0 else ""
    return Table(f"{which} by {group.metric}, the best first{hidden}", columns, rows)


def _figure(group: RunGroup, test: FoldTest) -> dict[str, Any]:
    """Draw dots with error bars: a row with its name for each of few runs, by rank for many."""
    runs = group.runs[:MAX_ROWS]
    few = len(runs) <= 2 * figures.MAX_NAMED
    by_verdict: dict[str, list[int]] = {}
    for index in range(len(runs)):
        by_verdict.setdefault(test.verdict(index)[1], []).append(index)
    data = []
    for verdict in (verdict for verdict in VERDICTS if verdict in by_verdict):
        chosen = by_verdict[verdict]
        ranks = [index + 1 for index in chosen]
        values = [runs[i].metrics[group.metric] for i in chosen]
        bars = [float(np.std(test.folds[i])) if test.folds[i] else 0.0 for i in chosen]
        x, y, bar = (values, ranks, "error_x") if few else (ranks, values, "error_y")
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": verdict,
            "showlegend": test.winner is not None,
            "x": x,
            "y": y,
            "text": [figures.text(with_author(runs[i], runs, ", "), 90) for i in chosen],
            "hovertemplate": "%{text}<br>%{" + ("x" if few else "y") + ":.6g}<extra></extra>",
            "marker": figures.marker(VERDICTS.index(verdict) if test.winner else 0),
        }
        if any(bars):
            trace[bar] = {"type": "data", "array": bars, "thickness": 1.2, "width": 3}
        data.append(trace)
    score_axis = {"title": {"text": figures.text(group.metric)}, "type": figures.scale(group.scores)}
    if not few:
        return figures.figure(data, "rank", score_axis)
    name_axis = {
        "tickvals": list(range(1, len(runs) + 1)),
        "ticktext": [figures.text(with_author(run, runs)) for run in runs],
        "range": [len(runs) + 0.6, 0.4],
    }
    return figures.figure(data, score_axis, name_axis, height=140 + 22 * len(runs))
