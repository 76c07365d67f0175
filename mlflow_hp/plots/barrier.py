"""The loss between the ends of two trainings, by position on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, add_note, finish, log_if_wide, new_axes, short, style_of
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.surfaces.barrier import Barrier

MAX_NAME = 60
"""Letters of the name of a run in labels."""


class BarrierInfo(NamedTuple):
    """Numbers and texts of the losses between two ends.

    Attributes
    ----------
    t : ndarray of shape (n,)
        Positions, 0 to 1.
    losses : dict of str to ndarray of shape (n,)
        Losses by label, which names the height of the barrier; nan where not finite.
    styles : tuple of int
        Number of the style of each of the losses: one way has the same in all pictures.
    ends : tuple of float
        Losses at the two ends.
    label : str
        Label of the axis of positions.
    title : str
        Note on rows, alignment and statistics.
    """

    t: np.ndarray
    losses: dict[str, np.ndarray]
    styles: tuple[int, ...]
    ends: tuple[float, float]
    label: str
    title: str


def barrier_info(barrier: Barrier) -> BarrierInfo:
    """Compute the labels of the losses between two ends.

    Parameters
    ----------
    barrier : Barrier
        From `mlflow_hp.barrier`.

    Returns
    -------
    BarrierInfo
        Numbers for `draw_barrier`.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp import barrier
    >>> from mlflow_hp.history import Snapshots
    >>> from mlflow_hp.plots import barrier_info
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> ends = [Snapshots(np.array([0]), {"dense/kernel": np.full((1, 1, 1), w)}, 1, 0) for w in (1.0, -1.0)]
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> info = barrier_info(barrier(*ends, model, x, 0 * x, align=False, curve_steps=0, progress=False))
    >>> list(info.losses)
    ['straight line: barrier 0']
    """
    ways = {
        "straight line": (barrier.line, barrier.line_barrier),
        "line, units aligned": (barrier.aligned, barrier.aligned_barrier),
        "trained curve": (barrier.curve, barrier.curve_barrier),
    }
    losses = {
        f"{name}: barrier {height:.3g}": np.where(np.isfinite(values), values, np.nan)
        for name, (values, height) in ways.items()
        if values is not None
    }
    notes = [f"loss over {count(barrier.n_samples, 'sample')}"]
    if barrier.curve is not None:
        notes.append(f"curve trained for {count(barrier.curve_steps, 'step')}")
    if barrier.batch_norm:
        notes.append(f"batch normalisation: {barrier.batch_norm}")
    alignment = f"alignment {barrier.alignment}" if barrier.aligned is None else barrier.alignment
    first, second = (short(title, MAX_NAME) for title in barrier.titles)
    separator = "\n" if len(first) + len(second) > MAX_NAME else " "
    return BarrierInfo(
        barrier.t,
        losses,
        tuple(index for index, (values, _) in enumerate(ways.values()) if values is not None),
        (float(barrier.line[0]), float(barrier.line[-1])),
        f"position t, from {first} (0){separator}to {second} (1)",
        f"{' · '.join(notes)}\n{alignment}",
    )


def draw_barrier(info: BarrierInfo, axes: Axes | None = None) -> Axes:
    """Draw the losses by position, and the straight line between the losses of the ends that barriers rise above.

    Parameters
    ----------
    info : BarrierInfo
        Numbers of the picture.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp import barrier
    >>> from mlflow_hp.history import Snapshots
    >>> from mlflow_hp.plots import barrier_info, draw_barrier
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> ends = [Snapshots(np.array([0]), {"dense/kernel": np.full((1, 1, 1), w)}, 1, 0) for w in (1.0, -1.0)]
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> between = barrier(*ends, model, x, 0 * x, align=False, curve_steps=0, progress=False)
    >>> draw_barrier(barrier_info(between)).figure.savefig("barrier.png")
    """
    if axes is None:
        axes = new_axes(8.0, 5.0)
    straight = (1 - info.t) * info.ends[0] + info.t * info.ends[1]
    for style, (label, losses) in zip(info.styles, info.losses.items(), strict=True):
        axes.plot(info.t, losses, linewidth=1.8, label=label, zorder=3, **style_of(style))
    axes.plot(info.t, straight, ":", color=COLOURS[7], linewidth=1.2, label="between the losses of the ends", zorder=2)
    axes.plot([0, 1], info.ends, "o", color="white", markeredgecolor="black", markersize=7, zorder=4, clip_on=False)
    log_if_wide(axes, np.concatenate([*info.losses.values(), straight]))
    axes.set_xlim(0, 1)
    axes.set_xlabel(info.label)
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=9)
    add_note(axes, info.title)
    finish(axes, "loss between the ends of two trainings")
    return axes
