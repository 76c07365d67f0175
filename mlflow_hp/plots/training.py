"""Curves of one training: loss by batch and by epoch, parameters and learning rate by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import (
    COLOURS,
    LARGEST,
    axes_with_legend_beside,
    entitle,
    legend_beside,
    log_if_wide,
    new_axes,
    style_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.diagnosis import RangeTest
    from mlflow_hp.history import TrainingHistory

MOST_POINTS = 5000
"""Points of a curve that are drawn; of a longer one, the lowest and highest of each stretch."""
FEW_EPOCHS = 30
"""Curves over up to this many epochs have a mark at each."""


class Curve(NamedTuple):
    """One line: x (n,), y (n,), its label, and how it is drawn ("line", "points", "steps")."""

    x: np.ndarray
    y: np.ndarray
    label: str
    style: str = "line"


class CurvesInfo(NamedTuple):
    """Curves in one picture.

    Attributes
    ----------
    curves : list of Curve
        From back to front.
    x_label, y_label : str
        The axes.
    references : dict of str to float
        Label -> height of a dashed line.
    first_not_finite : float or None
        The x from which a curve holds NaN or infinity.
    """

    curves: list[Curve]
    x_label: str
    y_label: str
    references: dict[str, float]
    first_not_finite: float | None


def curves_info(
    curves: list[Curve], x_label: str, y_label: str, references: Mapping[str, float] | None = None
) -> CurvesInfo:
    """The numbers of a picture of `curves`: thinned without losing a spike, and where they stop being finite."""
    broken = [curve.x[~np.isfinite(curve.y)] for curve in curves]
    first = min((float(x[0]) for x in broken if len(x)), default=None)
    return CurvesInfo([_thinned(curve) for curve in curves], x_label, y_label, dict(references or {}), first)


def loss_by_batch(history: TrainingHistory) -> CurvesInfo:
    """Each batch's own loss, and the running loss as Keras shows it, by step."""
    steps = history.steps
    curves = [Curve(steps["step"], steps["batch_loss"], "of the batch alone", "points")]
    if "running_loss" in steps:
        curves.append(Curve(steps["step"], steps["running_loss"], "running mean of the epoch"))
    return curves_info(curves, "step", "loss")


def metric_by_epoch(history: TrainingHistory, metric: str = "loss") -> CurvesInfo:
    """A metric by epoch, of training and, where there is one, of validation."""
    names = {"training": metric, "validation": f"val_{metric}"}
    curves = [
        Curve(history.epochs["epoch"], history.epochs[name], label)
        for label, name in names.items()
        if name in history.epochs
    ]
    return curves_info(curves, "epoch", metric)


def learning_rate_by_step(history: TrainingHistory) -> CurvesInfo:
    """The learning rate that was in force, by step."""
    curve = Curve(history.steps["step"], history.steps["learning_rate"], "learning rate", "steps")
    return curves_info([curve], "step", "learning rate")


def weights_by_step(values: np.ndarray, name: str, references: Mapping[str, float] | None = None) -> CurvesInfo:
    """A weight after each step, from before the first: `values` (n_steps + 1,), drawn at -1, 0, 1, ..."""
    curve = Curve(np.arange(-1, len(values) - 1), np.asarray(values, np.float64), name)
    return curves_info([curve], "step (-1: before the first)", name, references)


def draw_curves(info: CurvesInfo, axes: Axes | None = None) -> Axes:
    """Draw curves, references and the mark of what is not finite; the y axis is logarithmic where that helps."""
    from matplotlib.ticker import MaxNLocator

    labels = [*(curve.label for curve in info.curves), *info.references]
    beside = len(labels) > 5
    if axes is None:
        axes = axes_with_legend_beside(labels) if beside else new_axes()
    points = sum(curve.style == "points" for curve in info.curves)
    curves = [curve._replace(y=np.where(np.abs(curve.y) <= LARGEST, curve.y, np.nan)) for curve in info.curves]
    for index, curve in enumerate(curves):
        style = style_of(index) | {"label": curve.label, "zorder": 2 + index}
        if curve.style == "points":
            many = len(curve.x) > 300
            style |= {"linestyle": "none", "marker": ".", "markersize": 3 if many else 5}
            axes.plot(curve.x, curve.y, alpha=0.35 if many else 0.7, **style)
            continue
        if curve.style == "line" and info.x_label == "epoch" and len(curve.x) <= FEW_EPOCHS:
            style |= {"marker": "o", "markersize": 4}
        axes.plot(curve.x, curve.y, drawstyle="steps-post" if curve.style == "steps" else "default",
                  linewidth=2.0 if points else 1.6, **style)  # fmt: skip
    for index, (label, height) in enumerate(info.references.items()):
        axes.axhline(height, color=COLOURS[(2 + index) % 7], linestyle="--", linewidth=1.3, label=label)
    log_if_wide(axes, np.concatenate([curve.y for curve in curves]))
    axes.set(xlabel=info.x_label, ylabel=info.y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_xlim()[1] - axes.get_xlim()[0] < 1:  # a single step or epoch
        axes.set_xlim(axes.get_xlim()[0] - 0.5, axes.get_xlim()[1] + 0.5)
    if not any(np.isfinite(curve.y).any() for curve in curves):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=COLOURS[7])
    axes.grid(visible=True, alpha=0.25)
    if info.first_not_finite is not None:
        axes.axvline(info.first_not_finite, color=COLOURS[1], linewidth=1.0)
        said = f"not finite from {info.x_label.split(' ')[0]} {info.first_not_finite:.0f}"
        axes.set_title(said, color=COLOURS[1], fontsize=10)
    if beside:
        legend_beside(axes)
    elif len(labels) > 1:
        axes.legend(frameon=False, loc="best")
    entitle(axes, f"{info.y_label} by {info.x_label.split(' (')[0]}")
    return axes


class FitInfo(NamedTuple):
    """Data with lines: x, y (n,), and label -> (w, b) of each line; names of the two axes."""

    x: np.ndarray
    y: np.ndarray
    lines: dict[str, tuple[float, float]]
    labels: tuple[str, str]


def draw_fit(info: FitInfo, axes: Axes | None = None) -> Axes:
    """Draw the data and, through them, each line ``y = w x + b``."""
    axes = new_axes() if axes is None else axes
    axes.plot(info.x, info.y, "o", color=COLOURS[7], alpha=0.45, markersize=4, label="data")
    ends = np.array([info.x.min(), info.x.max()])
    for index, (label, (w, b)) in enumerate(info.lines.items()):
        if np.isfinite([w, b]).all():
            axes.plot(ends, w * ends + b, color=COLOURS[1 - index % 2], linewidth=2.2, label=label,
                      linestyle=("-", "--")[index % 2])  # fmt: skip
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1])
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, loc="best")
    entitle(axes, "data and regression line")
    return axes


def _thinned(curve: Curve) -> Curve:
    """At most ``MOST_POINTS`` points: of each stretch the lowest and the highest, in their order."""
    n = len(curve.x)
    if n <= MOST_POINTS:
        return curve
    kept: set[int] = {0, n - 1}
    for stretch in np.array_split(np.arange(n), MOST_POINTS // 2):
        values = np.where(np.isfinite(curve.y[stretch]), curve.y[stretch], 0.0)
        kept |= {int(stretch[np.argmin(values)]), int(stretch[np.argmax(values)])}
    index = np.array(sorted(kept))
    return curve._replace(x=curve.x[index], y=curve.y[index])


class RangeTestInfo(NamedTuple):
    """Loss against learning rate (n,), its running mean, and the marked rates: label -> (rate, height)."""

    learning_rate: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    marks: dict[str, tuple[float, float]]
    divergence: float | None


def range_test_info(test: RangeTest, divergence: float | None) -> RangeTestInfo:
    """The numbers of the picture of a range test; `divergence` is the learning rate from which the loss grows."""
    marks = {}
    if test.steepest >= 0:
        for label, index in (("steepest fall", test.steepest), ("lowest", test.lowest)):
            rate = float(test.learning_rate[index])
            marks[f"{label}: {rate:.2g}"] = (rate, float(test.smoothed[index]))
    return RangeTestInfo(test.learning_rate, test.loss, test.smoothed, marks, divergence)


def draw_range_test(info: RangeTestInfo, axes: Axes | None = None) -> Axes:
    """Loss of each batch and its running mean against the learning rate, with the steepest fall and the divergence."""
    axes = new_axes() if axes is None else axes
    axes.plot(
        info.learning_rate, info.loss, ".", color=COLOURS[0], alpha=0.35, markersize=4, label="of the batch alone"
    )
    axes.plot(info.learning_rate, info.smoothed, color=COLOURS[1], linewidth=2.0, label="running mean")
    for index, (label, (rate, height)) in enumerate(info.marks.items()):
        axes.plot([rate], [height], "o*"[index], color=COLOURS[2 + 2 * index], markeredgecolor="black",
                  markersize=(10, 15)[index], zorder=5, label=label)  # fmt: skip
    if info.divergence is not None:
        axes.axvline(info.divergence, color=COLOURS[3], linestyle="--", label=f"diverges: {info.divergence:.2g}")
    axes.set_xscale("log")
    log_if_wide(axes, info.loss)
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, loc="best")
    entitle(axes, "learning rate range test: loss by learning rate")
    return axes
