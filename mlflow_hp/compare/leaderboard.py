"""Leaderboard, and scores against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.compare import figures
from mlflow_hp.compare.colors import group_name
from mlflow_hp.compare.formatting import duration, has_several_authors, number, quoted
from mlflow_hp.compare.judging import epoch_judged, is_by_best
from mlflow_hp.compare.section import Cell, RunCell, Section, Table
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.compare.comparability import RunGroup
    from mlflow_hp.compare.run_summary import RunFacts

MAX_OWNERS_IN_TEXT = 5
"""Owners named in the sentence; the table has all."""


def leaderboard_section(group: RunGroup, key: str, by: str | None) -> Section | None:
    """List the best run of each author, or of each value of `by`, with number of runs and total time.

    None for a single author, unless `by` asks for it.
    """
    if by is None and not has_several_authors(group.runs):
        return None
    by = by or "author"
    owners: dict[str, list[RunFacts]] = {}
    for run in group.runs:
        owners.setdefault(group_name(run, by), []).append(run)
    by_best = any(is_by_best(run, group.metric) for run in group.runs)
    rows: list[list[Cell]] = []
    for rank, (owner, runs) in enumerate(owners.items()):  # sorted by best run, since the runs are sorted
        best = runs[0]
        total = sum(run.seconds or 0.0 for run in runs)
        cell = RunCell(best.run_id, best.experiment_id, best.name)
        epoch: list[Cell] = [epoch_judged(best, group.metric)] if by_best else []
        rows.append([rank + 1, owner, best.metrics[group.metric], *epoch, cell, len(runs), total])
    first = next(iter(owners))
    value = number(group.runs[0].metrics[group.metric])
    words = []
    if len(owners) > 1:
        words.append(f"{first} has the best run, {group.metric} {value} ({group.better}).")
        numbers = [f"{owner} {len(runs)}" for owner, runs in list(owners.items())[:MAX_OWNERS_IN_TEXT]]
        n_others = len(owners) - MAX_OWNERS_IN_TEXT
        rest = f", the rest by {count(n_others, 'other')}" if n_others > 0 else ""
        words.append(f"Number of runs: {', '.join(numbers)}{rest}.")
    judged_by = ["judged by"] if by_best else []
    columns = ["rank", by, f"best {group.metric}", *judged_by, "run", "runs", "total seconds"]
    return Section(key, f"Leaderboard by {by}", 3, words, Table(f"The best run of each {by}", columns, rows))


def time_section(group: RunGroup, key: str, by: str | None) -> Section | None:
    """Draw scores against time; None if fewer than two runs have a time."""
    by = by or "author"
    timed = [run for run in group.runs if run.seconds]
    if len(timed) < 2:
        return None
    sign = -1 if group.goal == "max" else 1
    front: list[RunFacts] = []
    for run in sorted(timed, key=lambda run: (run.seconds, sign * run.metrics[group.metric])):
        if not front or sign * run.metrics[group.metric] < sign * front[-1].metrics[group.metric]:
            front.append(run)
    owners: dict[str, list[RunFacts]] = {}
    for run in timed:
        owners.setdefault(group_name(run, by), []).append(run)
    by_number = sorted(owners, key=lambda owner: -len(owners[owner]))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front: none is better and faster",
            "x": [run.seconds for run in front],
            "y": [run.metrics[group.metric] for run in front],
            "line": {"color": figures.GREY, "width": 2, "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    for index, owner in enumerate(by_number):
        runs = owners[owner]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": figures.text(owner),
                "showlegend": index < figures.MAX_NAMED,
                "x": [run.seconds for run in runs],
                "y": [run.metrics[group.metric] for run in runs],
                "text": [figures.text(run.name, 90) for run in runs],
                "hovertemplate": "%{text}<br>%{y:.6g} after %{x:.4g} s<extra></extra>",
                "marker": figures.marker(index),
            }
        )
    fastest, best = front[0], front[-1]
    pareto = f"Pareto-optimal (no other run is both better and faster): {len(front)} of {count(len(timed), 'run')}"
    words = [f"The best took {duration(best.seconds or 0)}. {pareto}."]
    if fastest is not best:
        words.append(
            f"The fastest, {quoted(fastest, group.runs)}, took {duration(fastest.seconds or 0)} for "
            f"{number(fastest.metrics[group.metric])}."
        )
    words.append("Times are those of the whole run, on the machine that it ran on.")
    x_axis = {"title": {"text": "seconds"}, "type": "log"}
    y_axis = {"title": {"text": figures.text(group.metric)}, "type": figures.scale(group.scores)}
    figure = figures.figure(data, x_axis, y_axis)
    alt = f"{group.metric} against the seconds of {count(len(timed), 'run')}. {words[0]}"
    return Section(key, "Time against score", 3, words, None, figure, alt)
