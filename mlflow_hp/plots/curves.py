"""Curves over steps, epochs or iterations, with reference lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.downsampling import downsample
from mlflow_hp.plots.figure import (
    COLOURS,
    MAX_DRAWN,
    axes_with_room_for_legend,
    finish,
    legend_on_right,
    log_if_wide,
    new_axes,
    spans_decades,
    styles_of,
    whole_numbers,
)
from mlflow_hp.plots.wording import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes

MAX_POINTS = 5000
"""Points of a curve that are drawn; a longer one is downsampled."""
MAX_MARKED_EPOCHS = 30
"""Up to this many epochs, a curve has a marker at each."""


class Curve(NamedTuple):
    """One curve: x (n,), y (n,), its label, and its style ("line", "points", "marked" or "steps").

    Attributes
    ----------
    x : ndarray of shape (n,)
        Values on the x axis.
    y : ndarray of shape (n,)
        Values on the y axis.
    label : str
        Label in the legend.
    style : {"line", "points", "marked", "steps"}
        How it is drawn; ``"marked"`` is a line with a marker at each point. Defaults to ``"line"``.
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
    y_limits : tuple of float, optional
        Ends of the y axis, which is linear then unless `is_log`. Defaults to None, for ends that fit the curves.
    groups : dict of str to str, optional
        Label -> group of each curve; groups differ in their line style, the curves of one in colour. Defaults to None.
    title : str
        Title of the figure. Defaults to ``""``, for the names of the axes.
    """

    curves: list[Curve]
    x_label: str
    y_label: str
    references: dict[str, float]
    first_not_finite: float | None
    is_log: bool = False
    y_limits: tuple[float, float] | None = None
    groups: dict[str, str] | None = None
    title: str = ""


def curves_info(
    curves: list[Curve],
    x_label: str,
    y_label: str,
    references: Mapping[str, float] | None = None,
    *,
    is_log: bool = False,
    groups: Mapping[str, str] | None = None,
    title: str = "",
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
    groups : mapping of str to str, optional
        Label -> group of each curve, as in `CurvesInfo`. Defaults to None.
    title : str
        Title of the figure. Defaults to ``""``, for the names of the axes.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    broken = [curve.x[~np.isfinite(curve.y)] for curve in curves]
    first = min((float(x[0]) for x in broken if len(x)), default=None)
    drawn = [_downsampled(curve) for curve in curves]
    return CurvesInfo(drawn, x_label, y_label, dict(references or {}), first, is_log, None,
                      dict(groups) if groups else None, title)  # fmt: skip


def on_one_scale(infos: Iterable[CurvesInfo]) -> list[CurvesInfo]:
    """Give the y axes of several pictures the same ends and the same scale, linear or logarithmic.

    Parameters
    ----------
    infos : iterable of CurvesInfo
        Pictures to compare, such as of the training loss and of the validation loss.

    Returns
    -------
    list of CurvesInfo
        The same pictures with ``y_limits``, and with ``is_log`` of all together; as they were where none has a finite
        value.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.plots import training
    >>> infos = [
    ...     training.curves_info([training.Curve(np.arange(2), np.array(y), name)], "epoch", name)
    ...     for name, y in (("loss", [1.0, 0.001]), ("val_loss", [1.0, 0.5]))
    ... ]
    >>> [info.is_log for info in training.on_one_scale(infos)]
    [True, True]
    """
    pictures = list(infos)
    values = np.concatenate([np.empty(0), *(curve.y for info in pictures for curve in info.curves)])
    values = values[np.abs(values) <= MAX_DRAWN]
    if not values.size:
        return pictures
    positive = values.size and float(values.min()) > 0
    is_log = bool(positive and (any(info.is_log for info in pictures) or spans_decades(values)))
    low, high = np.log10([values.min(), values.max()]) if is_log else (values.min(), values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    ends = (float(low - margin), float(high + margin))
    limits = (10 ** ends[0], 10 ** ends[1]) if is_log else ends
    return [info._replace(is_log=is_log, y_limits=limits) for info in pictures]


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
    labels = [in_words(label) for label in (*(curve.label for curve in info.curves), *info.references)]
    legend_right = len(labels) > 5
    is_own = axes is None
    if axes is None:
        axes = axes_with_room_for_legend(labels) if legend_right else new_axes()
    curves = [curve._replace(y=np.where(np.abs(curve.y) <= MAX_DRAWN, curve.y, np.nan)) for curve in info.curves]
    _draw_lines(curves, info, axes)
    for index, (label, height) in enumerate(info.references.items()):
        axes.axhline(height, color=COLOURS[(2 + index) % 7], linestyle="--", linewidth=1.3, label=label)
    if info.is_log and any((curve.y > 0).any() for curve in curves):
        axes.set_yscale("log")
    elif info.y_limits is None:
        log_if_wide(axes, np.concatenate([np.empty(0), *(curve.y for curve in curves)]))
    if info.y_limits is not None:
        axes.set_ylim(info.y_limits)
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
    if legend_right and is_own:
        legend_on_right(axes)
    elif len(labels) > 1:
        axes.legend(loc="best", edgecolor="none", framealpha=0.85, fontsize=9)  # a line behind it leaves text readable
    finish(axes, info.title or f"{info.y_label} by {info.x_label.split(' (')[0]}")
    return axes


def _draw_lines(curves: list[Curve], info: CurvesInfo, axes: Axes) -> None:
    """Draw the curves; the points behind lines are pale."""
    styles = styles_of([curve.label for curve in curves], info.groups)
    has_points = any(curve.style == "points" for curve in curves)
    has_lines = any(curve.style != "points" for curve in curves)
    for index, curve in enumerate(curves):
        style = styles[curve.label] | {"label": in_words(curve.label), "zorder": 2 + index}
        if curve.style == "points":
            many = len(curve.x) > 300
            style |= {"linestyle": "none", "marker": ".", "markersize": 3 if many else 5}
            axes.plot(curve.x, curve.y, alpha=0.35 if many or has_lines else 0.7, **style)
            continue
        by_epoch = curve.style == "line" and info.x_label == "epoch" and len(curve.x) <= MAX_MARKED_EPOCHS
        if by_epoch or curve.style == "marked":
            style |= {"marker": "o", "markersize": 4}
        axes.plot(curve.x, curve.y, drawstyle="steps-post" if curve.style == "steps" else "default",
                  linewidth=2.0 if has_points else 1.6, **style)  # fmt: skip


def _downsampled(curve: Curve) -> Curve:
    index = downsample(curve.x, curve.y, buckets=MAX_POINTS // 2)
    return curve._replace(x=curve.x[index], y=curve.y[index])
