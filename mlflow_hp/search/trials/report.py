"""Report of trials for their parent run: pictures, sentences, and the table of the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.search_results import plus_minus
from mlflow_hp.analysis.search_space import candidate_text, value_text
from mlflow_hp.plots.trials import draw_trials_in_order, trials_info
from mlflow_hp.run_page.illustrated import ReportPart, illustrated
from mlflow_hp.search.report import MAX_LISTED, LocalReport, by_caption, search_pictures
from mlflow_hp.terminal import count
from mlflow_hp.tracking.artifact_paths import PLOTS_FOLDER, REPORT_FILE
from mlflow_hp.tracking.params_and_tags import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.search.trials.trial_row import TrialRow

MAX_DESCRIBED = 10
"""Trials in the table of the description."""
SPREAD_PICTURES = ("scores", "scores_by_fold", "score_by_fit_time")
"""Pictures that say which differences are significant, by the spread over executions."""


class _OfSingleScores(LocalReport):
    """Report without the pictures that compare scores of several executions."""

    def picture(self, name: str, axes: Axes) -> None:
        if name not in SPREAD_PICTURES:
            super().picture(name, axes)


def trial_sentences(rows: Sequence[TrialRow], results: SearchResults, front: Sequence[TrialRow]) -> list[str]:
    """Summarise trials in sentences: the best, and how many there are of each state.

    Parameters
    ----------
    rows : sequence of TrialRow
        All trials.
    results : SearchResults
        The same as a search.
    front : sequence of TrialRow
        With several objectives, the trials than which none is better in all; else empty.

    Returns
    -------
    list of str
        The sentences, the result first.
    """
    states: dict[str, int] = {}
    for row in rows:
        states[row.state] = states.get(row.state, 0) + 1
    listed = ", ".join(f"{n:,} {state.lower()}" for state, n in states.items())
    sentences = [f"{count(len(rows), 'trial')}: {listed}."]
    if front:
        numbers = ", ".join(str(row.number) for row in front[:MAX_DESCRIBED])
        more = ", ..." if len(front) > MAX_DESCRIBED else ""
        front_text = "The Pareto front, than whose trials none is better in all objectives"
        return [f"{front_text}: {numbers}{more}.", *sentences]
    best = int(np.argmin(results.ranks))
    row, n_executions = rows[best], len(next(iter(rows[best].scores.values())))
    label = candidate_text(row.params, list(row.params)).replace("`", "'") or "without parameters"
    if n_executions > 1:
        name, score = results.scorer, plus_minus(results.mean[best], results.std[best])
        value = f"mean {name} {score} over {count(n_executions, 'execution')}"
    else:
        value = ", ".join(f"{name} {value_text(each)}" for name, each in row.values.items())
    return [f"The best of {count(len(rows), 'trial')} is trial {row.number}, `{label}`: {value}.", *sentences]


def describe_trials(rows: Sequence[TrialRow], results: SearchResults, front: Sequence[TrialRow]) -> str:
    """Describe trials in Markdown: the result, how many there are, and a table of the best ten."""
    result, *sentences = trial_sentences(rows, results, front)
    columns, cells = _table(rows, results, front, MAX_DESCRIBED)
    lines = [columns, ["---"] * len(columns), *([plain(cell) for cell in row] for row in cells)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**Result**: {result}\n\n{' '.join(sentences)}\n\n{table}\n"


def draw_trials(
    folder: Path, rows: Sequence[TrialRow], results: SearchResults, front: Sequence[TrialRow], about: str
) -> None:
    """Draw the pictures and the report of trials into a folder, laid out as the artifacts of their parent run.

    Parameters
    ----------
    folder : Path
        The folder.
    rows, results, front
        As of `trial_sentences`. With several objectives, the scores of the first are drawn in the order of the trials.
    about : str
        Run and study, written below the title of each picture.
    """
    n_executions = results.fold_scores.shape[1]
    report = LocalReport(folder, about) if n_executions > 1 else _OfSingleScores(folder, about)
    if not front:
        search_pictures(report, results)
    report.picture("score_by_trial", draw_trials_in_order(trials_info([row.number for row in rows], results)))
    sentences = trial_sentences(rows, results, front)
    part = ReportPart("", sentences, *_table(rows, results, front, MAX_LISTED))
    content = illustrated("Trials", about, [part], by_caption(folder / PLOTS_FOLDER))
    report.file(REPORT_FILE).write_text(content, encoding="utf-8")


def _table(
    rows: Sequence[TrialRow], results: SearchResults, front: Sequence[TrialRow], n: int
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of the best trials, those of the front if there is one."""
    ranked = front or [rows[index] for index in np.argsort(results.ranks, kind="stable")]
    objectives = list(dict.fromkeys(name for row in rows for name in row.values))
    columns = ["trial", "state", *results.parameters, *objectives, "seconds"]
    cells = [
        [
            str(row.number),
            row.state.lower(),
            *(value_text(row.params.get(name, "")) for name in results.parameters),
            *(value_text(row.values.get(name, "")) for name in objectives),
            "" if np.isnan(row.seconds) else f"{row.seconds:.3g}",
        ]
        for row in ranked[:n]
    ]
    return columns, cells
