"""Learning rate range test: loss by learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.plots.figure import COLOURS, finish, log_if_wide, new_axes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.diagnosis import RangeTest


class RangeTestInfo(NamedTuple):
    """Loss against learning rate in a range test.

    Attributes
    ----------
    learning_rate : ndarray of shape (n,)
        Learning rates.
    loss : ndarray of shape (n,)
        Loss of each batch.
    smoothed : ndarray of shape (n,)
        Its centred mean over a twentieth of all batches.
    marks : dict of str to tuple of float
        Label -> (learning rate, height).
    divergence : float or None
        Learning rate from which the loss grows, if it does.
    """

    learning_rate: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    marks: dict[str, tuple[float, float]]
    divergence: float | None


def range_test_info(test: RangeTest, divergence: float | None) -> RangeTestInfo:
    """Compute the plot of a range test; `divergence` is the learning rate from which the loss grows, if any.

    Parameters
    ----------
    test : RangeTest
        Result of the test.
    divergence : float or None
        Learning rate from which the loss grows, if it does.

    Returns
    -------
    RangeTestInfo
        Numbers for `draw_range_test`.
    """
    marks = {}
    if test.steepest >= 0:
        for label, index in (("steepest fall", test.steepest), ("lowest", test.lowest)):
            rate = float(test.learning_rate[index])
            marks[f"{label}: {rate:.2g}"] = (rate, float(test.smoothed[index]))
    return RangeTestInfo(test.learning_rate, test.loss, test.smoothed, marks, divergence)


def draw_range_test(info: RangeTestInfo, axes: Axes | None = None) -> Axes:
    """Draw the loss of each batch and its centred mean against the learning rate, with the marked rates.

    Parameters
    ----------
    info : RangeTestInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    axes = new_axes() if axes is None else axes
    axes.plot(info.learning_rate, info.loss, ".", color=COLOURS[0], alpha=0.35, markersize=4, label="each batch")
    axes.plot(
        info.learning_rate,
        info.smoothed,
        color=COLOURS[1],
        linewidth=2.0,
        label="mean of the batches around (5 % of all)",
    )
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
    finish(axes, "learning rate range test: loss by learning rate")
    return axes
