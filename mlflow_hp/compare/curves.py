"""Losses and learning rates of all runs by step, in one figure each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.compare import figures
from mlflow_hp.compare.formatting import count, with_author
from mlflow_hp.compare.section import Section
from mlflow_hp.tracking.tags import BATCH_LEARNING_RATE_METRIC, BATCH_LOSS_METRIC, FOLD_METRIC_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.downsampling import Points
    from mlflow_hp.compare.colors import Colouring
    from mlflow_hp.compare.comparability import RunGroup
    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import RunSource

MAX_RUNS = 200
"""Runs that are drawn, the best."""
MAX_POINTS = 120_000
"""Points of one figure; of more runs, each has fewer."""
MIN_PIXELS = 40
MAX_STEP_TICKS = 12
"""Up to this many steps, each has a tick."""
FIRST_FOLD = f"{FOLD_METRIC_PREFIX}0/"
"""Prefix of the metrics by epoch of a candidate's first fold."""


class CurveFigure(NamedTuple):
    """One figure of curves: its title, the metrics, of which the first that a run has is drawn, and the x axis.

    Metrics that begin with `FIRST_FOLD` belong to candidates, whose curves are by fold.
    """

    key: str
    title: str
    metrics: tuple[str, ...]
    unit: str


CURVES = (
    CurveFigure("batch-loss", "Loss of each batch", (BATCH_LOSS_METRIC,), "step"),
    CurveFigure("loss", "Loss by epoch", ("loss", FIRST_FOLD + "loss"), "epoch"),
    CurveFigure("val-loss", "Validation loss by epoch", ("val_loss", FIRST_FOLD + "val_loss"), "epoch"),
    CurveFigure("learning-rate", "Learning rate by step", (BATCH_LEARNING_RATE_METRIC,), "step"),
    CurveFigure(
        "learning-rate-epoch", "Learning rate by epoch", ("lr", "learning_rate", FIRST_FOLD + "learning_rate"), "epoch"
    ),
)


def curves_sections(group: RunGroup, key: str, source: RunSource, colouring: Colouring, pixels: int) -> list[Section]:
    """Draw each of ``CURVES`` for which a run has at least two points."""
    runs = group.runs[:MAX_RUNS]
    pixels = max(min(pixels, MAX_POINTS // (2 * len(runs))), MIN_PIXELS)
    sections = []
    for curve in CURVES:
        histories = _read(source, runs, curve, pixels)
        if any(len(points.steps) > 1 for points in histories.values()):
            sections.append(_section(curve, group, runs, histories, colouring, f"{key}-{curve.key}"))
    return sections


def _read(source: RunSource, runs: Sequence[RunFacts], curve: CurveFigure, pixels: int) -> dict[str, Points]:
    histories: dict[str, Points] = {}
    for metric in curve.metrics:
        run_ids = [run.run_id for run in runs if metric in run.metrics and run.run_id not in histories]
        histories |= source.points(run_ids, metric, pixels) if run_ids else {}
    return histories


def _section(
    curve: CurveFigure,
    group: RunGroup,
    runs: Sequence[RunFacts],
    histories: dict[str, Points],
    colouring: Colouring,
    key: str,
) -> Section:
    drawn = [run for run in runs if run.run_id in histories]
    data = [_trace(run, with_author(run, drawn, ", "), histories[run.run_id], colouring) for run in drawn]
    data.sort(key=lambda trace: "name" in trace)  # coloured lines over grey ones
    finite = np.concatenate([points.values[np.isfinite(points.values)] for points in histories.values()])
    y_axis: dict[str, Any] = {
        "title": {"text": curve.title.partition(" by ")[0]},
        "type": figures.scale(finite.tolist()),
    }
    words = [f"{len(drawn):,} of {count(len(group.runs), 'run')}. {colouring.sentence}".strip()]
    if any(points.n > len(points.steps) for points in histories.values()):
        words.append("Long curves show the lowest and the highest value of each pixel: no spike is lost.")
    if any(FIRST_FOLD in metric and any(metric in run.metrics for run in drawn) for metric in curve.metrics):
        words.append("The curve of a cross-validated candidate is that of its fold 0.")
    x_axis: dict[str, Any] = {"title": {"text": f"{curve.unit} (0-based)"}}
    if max(int(points.steps[-1]) for points in histories.values()) <= MAX_STEP_TICKS:
        x_axis["dtick"] = 1
    figure = figures.figure(data, x_axis, y_axis)
    return Section(key, curve.title, 3, words, None, figure, f"{curve.title} of {count(len(drawn), 'run')}.")


def _trace(run: RunFacts, name: str, points: Points, colouring: Colouring) -> dict[str, Any]:
    name = figures.text(name, 90)
    values = [value if math.isfinite(value) else None for value in points.values.tolist()]
    return {
        "type": "scatter",
        "mode": "lines" if len(values) > 1 else "markers",
        "x": points.steps.tolist(),
        "y": [None if value is None else float(f"{value:.6g}") for value in values],
        "hovertemplate": "%{x}: %{y}<extra>" + name.replace("%{", "% {") + "</extra>",
        **colouring.of(run),
    }
