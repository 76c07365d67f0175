"""Plots of one training: loss by batch and by epoch, weights and learning rate by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.downsampling import downsample
from mlflow_hp.history.step_record import batch_values, learning_rates
from mlflow_hp.plots.figure import (
    COLOURS,
    MAX_DRAWN,
    add_title,
    axes_with_room_for_legend,
    legend_on_right,
    log_if_wide,
    new_axes,
    style_of,
    whole_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from mlflow_hp.history import TrainingHistory

MAX_POINTS = 5000
"""Points of a curve that are drawn; a longer one is downsampled."""
MAX_MARKED_EPOCHS = 30
"""Up to this many epochs, a curve has a marker at each."""


class Curve(NamedTuple):
    """One curve: x (n,), y (n,), its label, and its style ("line", "points" or "steps").

    Attributes
    ----------
    x : ndarray of shape (n,)
        Values on the x axis.
    y : ndarray of shape (n,)
        Values on the y axis.
    label : str
        Label in the legend.
    style : {"line", "points", "steps"}
        How it is drawn. Defaults to ``"line"``.
    """

    x: np.ndarray
    y: np.ndarray
    label: str
    style: str = "line"


class CurvesInfo(NamedTuple):
    """Curves of one plot.

    Attributes
    ----------
    curves : list of Curve
        Curves from back to front.
    x_label, y_label : str
        Labels of the axes.
    references : dict of str to float
        Label -> height of a dashed line.
    first_not_finite : float or None
        First x at which a curve is NaN or infinite.
    is_log : bool
        Whether the y axis is logarithmic however far the values spread. Defaults to False.
    """

    curves: list[Curve]
    x_label: str
    y_label: str
    references: dict[str, float]
    first_not_finite: float | None
    is_log: bool = False


def curves_info(
    curves: list[Curve],
    x_label: str,
    y_label: str,
    references: Mapping[str, float] | None = None,
    *,
    is_log: bool = False,
) -> CurvesInfo:
    """Downsample `curves` without losing a spike, and find where they stop being finite.

    Parameters
    ----------
    curves : list of Curve
        Lines, from back to front.
    x_label : str
        Name of the x axis.
    y_label : str
        Name of the y axis.
    references : mapping of str to float, optional
        Label -> height of a dashed line. Defaults to None.
    is_log : bool
        Whether the y axis is logarithmic however far the values spread. Defaults to False.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    broken = [curve.x[~np.isfinite(curve.y)] for curve in curves]
    first = min((float(x[0]) for x in broken if len(x)), default=None)
    drawn = [_downsampled(curve) for curve in curves]
    return CurvesInfo(drawn, x_label, y_label, dict(references or {}), first, is_log)


def loss_by_batch(history: TrainingHistory) -> CurvesInfo:
    """Compute curves of the loss of each batch, and of the running loss that Keras shows, by step.

    A training without a ``loss``, such as one of several networks, has the curves of all its values of batches.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    steps = history.steps
    curves = []
    if "batch_loss" in steps:
        curves.append(Curve(steps["step"], steps["batch_loss"], "of the batch alone", "points"))
    if "running_loss" in steps:
        curves.append(Curve(steps["step"], steps["running_loss"], "running mean of the epoch"))
    if not curves:
        curves = [Curve(steps["step"], values, name, "points") for name, values in batch_values(steps).items()]
    return curves_info(curves, "step", "loss")


def metric_by_epoch(history: TrainingHistory, metric: str = "loss") -> CurvesInfo:
    """Compute curves of a metric of training and validation by epoch.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    metric : str
        Name of the metric. Defaults to ``"loss"``.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    names = {"training": metric, "validation": f"val_{metric}"}
    curves = [
        Curve(history.epochs["epoch"], history.epochs[name], label)
        for label, name in names.items()
        if name in history.epochs
    ]
    return curves_info(curves, "epoch", metric)


def learning_rate_by_step(history: TrainingHistory) -> CurvesInfo:
    """Compute the curve of the learning rate by step.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    rates = learning_rates(history.steps)
    curves = [Curve(history.steps["step"], rate, name, "steps") for name, rate in rates.items()]
    return curves_info(curves, "step", "learning rate")


def weights_by_step(values: np.ndarray, name: str, references: Mapping[str, float] | None = None) -> CurvesInfo:
    """Compute the curve of a weight: `values` (n_steps + 1,), of which the first, before step 0, is drawn at -1.

    Parameters
    ----------
    values : ndarray of shape (n_steps + 1,)
        The weight.
    name : str
        Label of the axis.
    references : mapping of str to float, optional
        Label -> height of a dashed line. Defaults to None.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    curve = Curve(np.arange(-1, len(values) - 1), np.asarray(values, np.float64), name)
    return curves_info([curve], "step (-1: before the first)", name, references)


def draw_curves(info: CurvesInfo, axes: Axes | None = None) -> Axes:
    """Draw curves and reference lines, and mark where values stop being finite.

    The y axis is logarithmic if the values span many decades, or if `info` asks for it.

    Parameters
    ----------
    info : CurvesInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    labels = [*(curve.label for curve in info.curves), *info.references]
    legend_right = len(labels) > 5
    if axes is None:
        axes = axes_with_room_for_legend(labels) if legend_right else new_axes()
    points = sum(curve.style == "points" for curve in info.curves)
    curves = [curve._replace(y=np.where(np.abs(curve.y) <= MAX_DRAWN, curve.y, np.nan)) for curve in info.curves]
    for index, curve in enumerate(curves):
        style = style_of(index) | {"label": curve.label, "zorder": 2 + index}
        if curve.style == "points":
            many = len(curve.x) > 300
            style |= {"linestyle": "none", "marker": ".", "markersize": 3 if many else 5}
            axes.plot(curve.x, curve.y, alpha=0.35 if many else 0.7, **style)
            continue
        if curve.style == "line" and info.x_label == "epoch" and len(curve.x) <= MAX_MARKED_EPOCHS:
            style |= {"marker": "o", "markersize": 4}
        axes.plot(curve.x, curve.y, drawstyle="steps-post" if curve.style == "steps" else "default",
                  linewidth=2.0 if points else 1.6, **style)  # fmt: skip
    for index, (label, height) in enumerate(info.references.items()):
        axes.axhline(height, color=COLOURS[(2 + index) % 7], linestyle="--", linewidth=1.3, label=label)
    if info.is_log and any((curve.y > 0).any() for curve in curves):
        axes.set_yscale("log")
    else:
        log_if_wide(axes, np.concatenate([np.empty(0), *(curve.y for curve in curves)]))
    axes.set(xlabel=info.x_label, ylabel=info.y_label)
    whole_numbers(axes)
    if axes.get_xlim()[1] - axes.get_xlim()[0] < 1:  # a single step or epoch
        axes.set_xlim(axes.get_xlim()[0] - 0.5, axes.get_xlim()[1] + 0.5)
    if not any(np.isfinite(curve.y).any() for curve in curves):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=COLOURS[7])
    axes.grid(visible=True, alpha=0.25)
    if info.first_not_finite is not None:
        axes.axvline(info.first_not_finite, color=COLOURS[1], linewidth=1.0)
        note = f"not finite from {info.x_label.split(' ')[0]} {info.first_not_finite:.0f}"
        axes.set_title(note, color=COLOURS[1], fontsize=10)
    if legend_right:
        legend_on_right(axes)
    elif len(labels) > 1:
        axes.legend(loc="best", edgecolor="none", framealpha=0.85)  # a line behind it leaves the text readable
    add_title(axes, f"{info.y_label} by {info.x_label.split(' (')[0]}")
    return axes


def _downsampled(curve: Curve) -> Curve:
    index = downsample(curve.x, curve.y, buckets=MAX_POINTS // 2)
    return curve._replace(x=curve.x[index], y=curve.y[index])
