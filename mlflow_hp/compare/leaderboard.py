"""Who has the best run, and what scores cost in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.compare import figures
from mlflow_hp.compare.colors import value_of
from mlflow_hp.compare.formatting import duration, number
from mlflow_hp.compare.section import Cell, RunCell, Section, Table

if TYPE_CHECKING:
    from mlflow_hp.compare.comparability import Group
    from mlflow_hp.compare.run_summary import RunFacts

NAMED_OWNERS = 5
"""In the sentence; the table has all."""


def leaderboard_section(group: Group, key: str, by: str | None) -> Section:
    """The best run of each author, or of what else runs are grouped by, with their number and their time."""
    by = by or "author"
    owners: dict[str, list[RunFacts]] = {}
    for run in group.runs:
        owners.setdefault(value_of(run, by), []).append(run)
    rows: list[list[Cell]] = []
    for rank, (owner, runs) in enumerate(owners.items()):  # the runs are sorted, so owners are by their best
        best = runs[0]
        total = sum(run.seconds or 0.0 for run in runs)
        cell = RunCell(best.run_id, best.experiment_id, best.name)
        rows.append([rank + 1, owner, best.metrics[group.metric], cell, len(runs), total])
    first = next(iter(owners))
    words = [f"{first} has the best run, {group.metric} {number(group.runs[0].metrics[group.metric])}."]
    if len(owners) > 1:
        shares = [f"{owner} {len(runs)}" for owner, runs in list(owners.items())[:NAMED_OWNERS]]
        rest = f" and of {len(owners) - NAMED_OWNERS} others the rest" if len(owners) > NAMED_OWNERS else ""
        words.append(f"Runs of each: {', '.join(shares)}{rest}.")
    columns = ["place", by, f"best {group.metric}", "run", "runs", "seconds in all"]
    return Section(key, f"Leaderboard by {by}", 3, words, Table(f"The best run of each {by}", columns, rows))


def time_section(group: Group, key: str, by: str | None) -> Section | None:
    """Scores against the time that they took; None where no run says it."""
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
        owners.setdefault(value_of(run, by), []).append(run)
    named = sorted(owners, key=lambda owner: -len(owners[owner]))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "nothing better in less time",
            "x": [run.seconds for run in front],
            "y": [run.metrics[group.metric] for run in front],
            "line": {"color": figures.BEHIND, "width": 2, "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    for index, owner in enumerate(named):
        own = owners[owner]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": figures.text(owner),
                "showlegend": index < figures.NAMED,
                "x": [run.seconds for run in own],
                "y": [run.metrics[group.metric] for run in own],
                "text": [figures.text(run.name, 90) for run in own],
                "hovertemplate": "%{text}<br>%{y:.6g} after %{x:.4g} s<extra></extra>",
                "marker": figures.marker(index),
            }
        )
    cheapest, best = front[0], front[-1]
    few = f"for {len(front)} of the {len(timed)} runs, nothing better took less time"
    words = [f"The best took {duration(best.seconds or 0)}; {few}."]
    if cheapest is not best:
        words.append(
            f"The fastest, “{cheapest.name}” by {cheapest.author}, took {duration(cheapest.seconds or 0)} for "
            f"{number(cheapest.metrics[group.metric])}."
        )
    words.append("Times are those of the whole run, on whatever machine it ran.")
    axis = {"title": {"text": "seconds"}, "type": "log"}
    height = {"title": {"text": figures.text(group.metric)}, "type": figures.scale(group.scores)}
    figure = figures.figure(data, axis, height)
    alt = f"{group.metric} against the seconds of {len(timed)} runs. {words[0]}"
    return Section(key, "Time against score", 3, words, None, figure, alt)
