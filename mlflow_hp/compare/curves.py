"""Losses and learning rates by step, of all runs over each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.compare import figures
from mlflow_hp.compare.formatting import count
from mlflow_hp.compare.section import Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.downsampling import Points
    from mlflow_hp.compare.colors import Colouring
    from mlflow_hp.compare.comparability import Group
    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import Source

RUNS = 200
"""Runs that are drawn, the best."""
POINTS = 120_000
"""Points of one figure at the most; of more runs each has fewer."""
FEWEST_PIXELS = 40
MOST_WHOLE_TICKS = 12
"""Up to so many steps, each has a tick."""


class Curve(NamedTuple):
    """What is drawn in one figure: under which names, of which the first that a run has is taken, and its axes.

    Names with ``fold_0`` are of a combination, whose curves are by fold.
    """

    key: str
    title: str
    metrics: tuple[str, ...]
    unit: str


CURVES = (
    Curve("batch-loss", "Loss of each batch", ("batch/loss",), "step"),
    Curve("loss", "Loss by epoch", ("loss", "fold_0/loss"), "epoch"),
    Curve("val-loss", "Validation loss by epoch", ("val_loss", "fold_0/val_loss"), "epoch"),
    Curve("learning-rate", "Learning rate by step", ("batch/learning_rate",), "step"),
    Curve("learning-rate-epoch", "Learning rate by epoch", ("lr", "learning_rate", "fold_0/learning_rate"), "epoch"),
)


def curves_sections(group: Group, key: str, source: Source, colouring: Colouring, pixels: int) -> list[Section]:
    """A figure for each of ``CURVES`` that two points of a run are there for."""
    runs = group.runs[:RUNS]
    pixels = max(min(pixels, POINTS // (2 * len(runs))), FEWEST_PIXELS)
    found = []
    for curve in CURVES:
        drawn = _read(source, runs, curve, pixels)
        if any(len(points.steps) > 1 for points in drawn.values()):
            found.append(_section(curve, group, runs, drawn, colouring, f"{key}-{curve.key}"))
    return found


def _read(source: Source, runs: Sequence[RunFacts], curve: Curve, pixels: int) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for metric in curve.metrics:
        wanted = [run.run_id for run in runs if metric in run.metrics and run.run_id not in found]
        found |= source.points(wanted, metric, pixels) if wanted else {}
    return found


def _section(
    curve: Curve,
    group: Group,
    runs: Sequence[RunFacts],
    drawn: dict[str, Points],
    colouring: Colouring,
    key: str,
) -> Section:
    there = [run for run in runs if run.run_id in drawn]
    data = [_trace(run, drawn[run.run_id], colouring) for run in there]
    data.sort(key=lambda trace: "name" in trace)  # what is named is drawn over what is grey
    finite = np.concatenate([points.values[np.isfinite(points.values)] for points in drawn.values()])
    named = {"text": curve.title.partition(" by ")[0]}
    axis: dict[str, Any] = {"title": named, "type": figures.scale(finite.tolist())}
    words = [f"{len(there):,} of {count(len(group.runs), 'run')}. {colouring.said}".strip()]
    if any(points.n > len(points.steps) for points in drawn.values()):
        words.append("Long curves show the lowest and the highest value of each pixel: no spike is lost.")
    if any("fold_0/" in metric and any(metric in run.metrics for run in there) for metric in curve.metrics):
        words.append("Of a cross-validated combination it is that of its fold 0.")
    steps: dict[str, Any] = {"title": {"text": f"{curve.unit} (0-based)"}}
    if max(int(points.steps[-1]) for points in drawn.values()) <= MOST_WHOLE_TICKS:
        steps["dtick"] = 1
    figure = figures.figure(data, steps, axis)
    return Section(key, curve.title, 3, words, None, figure, f"{curve.title} of {count(len(there), 'run')}.")


def _trace(run: RunFacts, points: Points, colouring: Colouring) -> dict[str, Any]:
    name = figures.text(f"{run.name}, {run.author}", 90)
    values = [value if math.isfinite(value) else None for value in points.values.tolist()]
    return {
        "type": "scatter",
        "mode": "lines" if len(values) > 1 else "markers",
        "x": points.steps.tolist(),
        "y": [None if value is None else float(f"{value:.6g}") for value in values],
        "hovertemplate": "%{x}: %{y}<extra>" + name.replace("%{", "% {") + "</extra>",
        **colouring.of(run),
    }
