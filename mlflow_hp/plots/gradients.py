"""Plots of the gradients of a training: norms by layer, noise scale, and sharpness against the edge of stability."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis import noise_scale_by_step
from mlflow_hp.history.step_record import gradient_norms, learning_rates
from mlflow_hp.plots.curves import Curve, curves_info
from mlflow_hp.plots.figure import (
    COLOURS,
    MAX_DRAWN,
    figure_of,
    finish,
    new_axes,
    whole_numbers,
)
from mlflow_hp.plots.wording import MAX_LINE_LENGTH, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.plots.curves import CurvesInfo

MAX_BINS = 200
"""Largest number of columns, of equally many steps each."""
MAX_LABELS = 48
"""Up to this many rows, each is labelled; of more, each second, third, ..."""
MIN_KNOWN = 10
MIN_SHARE_KNOWN = 0.1
"""Least number of windows with a known noise scale that are drawn, and their share of all: a few dots show no course,
and of many windows a few have an estimate by chance."""
EDGE_OF_STABILITY = 2.0
"""Learning rate x sharpness at which full-batch gradient descent begins to oscillate."""


class GradientNormsInfo(NamedTuple):
    """Norms of the gradients by tensor and step.

    Attributes
    ----------
    tensors : list of str
        Names of the tensors, from input to output.
    edges : ndarray of shape (n_bins + 1,)
        First step of each bin; the last is the one after the last step.
    norms : ndarray of shape (n_tensors, n_bins)
        Mean norm over the steps of each bin; nan where one of them is not finite.
    """

    tensors: list[str]
    edges: np.ndarray
    norms: np.ndarray


def gradient_norms_by_step(history: TrainingHistory) -> GradientNormsInfo:
    """Compute the norm of the gradient of each tensor, before clipping, by step.

    Parameters
    ----------
    history : TrainingHistory
        A training with recorded gradients.

    Returns
    -------
    GradientNormsInfo
        Numbers for `draw_gradient_norms`.

    Examples
    --------
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.plots import gradients
    >>> steps = {"step": [0, 1], "gradient_norm_of/a": [1.0, 0.5], "gradient_norm_of/b": [2.0, float("nan")]}
    >>> gradients.gradient_norms_by_step(TrainingHistory.from_arrays(steps)).norms
    array([[1. , 0.5],
           [2. , nan]])
    """
    by_tensor = gradient_norms(history.steps)
    width = max(1, -(-history.n_steps // MAX_BINS))
    starts = np.arange(0, history.n_steps, width)
    counts = np.diff([*starts, history.n_steps])
    norms = np.array(list(by_tensor.values()), np.float64).reshape(len(by_tensor), history.n_steps)
    norms = np.where(np.abs(norms) <= MAX_DRAWN, norms, np.nan)
    means = np.add.reduceat(norms, starts, axis=1) / counts if len(starts) else norms
    first = history.steps["step"][0] if "step" in history.steps and len(starts) else 0
    return GradientNormsInfo(list(by_tensor), first + np.array([*starts, history.n_steps]), means)


def draw_gradient_norms(info: GradientNormsInfo, axes: Axes | None = None) -> Axes:
    """Draw the norms as a heatmap with a logarithmic colour scale, from the input at the top to the output.

    Norms of 0 are black; what is not finite is orange.

    Parameters
    ----------
    info : GradientNormsInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    rows = len(info.tensors)
    labels = [short(name, MAX_LINE_LENGTH // 4) for name in info.tensors]
    if axes is None:
        longest = max(map(len, labels), default=0)
        axes = new_axes(7.5 + 0.07 * longest, min(10.0, max(3.0, 0.2 * rows + 1.4)))
    _coloured(info, axes)
    shown_rows = np.arange(0, rows, max(1, -(-rows // MAX_LABELS)))
    axes.set_yticks(shown_rows, [labels[row] for row in shown_rows], fontsize=8 if rows <= 30 else 6.5)
    axes.invert_yaxis()
    axes.set(xlabel="step", ylabel="from input to output")
    whole_numbers(axes)
    finish(axes, "norm of the gradient by tensor and step")
    return axes


def _coloured(info: GradientNormsInfo, axes: Axes) -> None:
    """Draw the cells and their colour bar, and note the cells without a colour of the scale."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    is_zero, is_broken = info.norms < 1 / MAX_DRAWN, bool(np.isnan(info.norms).any())
    positive = info.norms[info.norms >= 1 / MAX_DRAWN]
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
    if high < 10 * low:  # a decade at least: nearly equal norms look alike
        middle = low * np.sqrt(high / low)
        low, high = middle / np.sqrt(10), middle * np.sqrt(10)
    colours = mpl.colormaps["viridis"].with_extremes(under="black", bad=COLOURS[1])
    shown = np.ma.masked_invalid(np.where(is_zero, low / 2, info.norms))
    rows = np.arange(len(info.tensors) + 1) - 0.5
    mesh = axes.pcolormesh(info.edges - 0.5, rows, shown, cmap=colours, norm=LogNorm(low, high), rasterized=True)
    extend = "min" if is_zero.any() else "neither"
    figure_of(axes).colorbar(mesh, ax=axes, label="norm of the gradient", extend=extend, pad=0.02)
    notes = ["black: 0"] * bool(is_zero.any()) + ["orange: not finite"] * is_broken
    if notes:
        axes.set_title(", ".join(notes), color=COLOURS[1] if is_broken else COLOURS[7], fontsize=10)


def noise_scale_curve(history: TrainingHistory) -> CurvesInfo:
    """Compute the curve of the gradient noise scale by step, next to the batch size.

    Windows in which noise or drift leave the gradient unknown have no point.

    Parameters
    ----------
    history : TrainingHistory
        A training with recorded gradients, or weights of plain SGD.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`; without curves where fewer than ``MIN_KNOWN`` windows, or than ``MIN_SHARE_KNOWN`` of
        all, have a noise scale.
    """
    series = noise_scale_by_step(history)
    known = np.isfinite(series.scale)
    curves = []
    if known.sum() >= max(MIN_KNOWN, MIN_SHARE_KNOWN * len(known)):
        batches = Curve(
            np.array([0, history.n_steps - 1]), np.full(2, float(series.batch)), f"batch size {series.batch}"
        )
        curves = [Curve(series.step[known], series.scale[known], "noise scale", "points"), batches]
    return curves_info(curves, "step", "gradient noise scale (samples)")


def sharpness_curve(history: TrainingHistory) -> CurvesInfo:
    """Compute the curve of learning rate x sharpness by step, next to the edge of stability.

    Gradient descent oscillates along a direction whose curvature, the largest eigenvalue of the Hessian, is over
    2 / learning rate; training of networks often rises to that edge and stays there (Cohen, Kaur, Li, Kolter and
    Talwalkar 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability). The line is that of
    gradient descent without momentum; with momentum m it is 2 + 2 m. The edge of Adam is one of the Hessian scaled by
    Adam's own rates, of which the sharpness tells nothing.

    The axis is logarithmic if a value is further than a decade from the edge: small ones would look like 0. Values that
    are not positive, where the loss curves upwards in no direction, are left out and counted in the label.

    Parameters
    ----------
    history : TrainingHistory
        A training with one optimizer and the step column ``sharpness``, with numbers where it was computed.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`; without curves if no learning rate or no positive sharpness is known.
    """
    rate, sharpness = learning_rates(history.steps).get("learning rate"), history.steps.get("sharpness")
    label, curves, is_log = "learning rate x sharpness", [], False
    if rate is not None and sharpness is not None:
        known = np.flatnonzero(np.isfinite(sharpness))
        product = rate[known] * sharpness[known]
        positive = product > 0
        left_out = f" (not drawn: {(~positive).sum()} of {len(known)}, not positive)" * (not positive.all())
        if positive.any():
            lowest, highest = product[positive].min(), product[positive].max()
            is_log = bool(lowest < EDGE_OF_STABILITY / 10 or highest > EDGE_OF_STABILITY * 10)
            curves = [Curve(history.steps["step"][known[positive]], product[positive], f"{label}{left_out}")]
    references = {f"edge of stability of plain gradient descent: {EDGE_OF_STABILITY:g}": EDGE_OF_STABILITY}
    return curves_info(curves, "step", label, references, is_log=is_log)
