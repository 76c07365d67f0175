"""Loss of a network on a plane through its weight space, with the paths of its trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.downsampling import downsample
from mlflow_hp.plots.descent_paths import MAX_POINTS
from mlflow_hp.plots.figure import (
    COLOURS,
    add_note,
    axes_with_room_for_legend,
    figure_of,
    finish,
    legend_on_right,
    new_axes,
    style_of,
)
from mlflow_hp.plots.surface import LEVELS
from mlflow_hp.plots.ticks import rounded, tick_text, whole_ticks
from mlflow_hp.plots.wording import in_words
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.surfaces.plane import Landscape

VALLEY = 0.02
"""Share of the grid below the lowest contour."""


class PlanePath(NamedTuple):
    """Path up to its last finite point: steps (n,), a (n,), b (n,), and whether more points followed."""

    steps: np.ndarray
    a: np.ndarray
    b: np.ndarray
    cut: bool


class LandscapeInfo(NamedTuple):
    """Numbers and texts of a loss landscape.

    Attributes
    ----------
    a, b : ndarray of shape (n,)
        Axes of the grid.
    loss : ndarray of shape (len(b), len(a))
        Loss at (b[row], a[column]); nan where it is not finite.
    levels : ndarray
        Contour levels, ascending: round numbers, about geometrically spaced above the lowest loss; empty if the loss is
        flat.
    lowest : float
        Lowest loss on the grid.
    paths : dict of str to PlanePath
        Paths by label.
    labels : tuple of str
        Labels of the two axes.
    title : str
        Note on steps drawn, samples and points computed.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    levels: np.ndarray
    lowest: float
    paths: dict[str, PlanePath]
    labels: tuple[str, str]
    title: str


def landscape_info(landscape: Landscape) -> LandscapeInfo:
    """Compute contour levels, downsampled paths and labels.

    Parameters
    ----------
    landscape : Landscape
        From `mlflow_hp.training.landscape`.

    Returns
    -------
    LandscapeInfo
        Numbers for `draw_landscape`.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp import TrainingRecorder
    >>> from mlflow_hp.plots import landscape_info
    >>> from mlflow_hp.training import landscape
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.arange(16.0).reshape(8, 2) / 16
    >>> recorder = TrainingRecorder(report=False, snapshot_megabytes=1)
    >>> with mlflow.start_run():
    ...     _ = model.fit(x, x.sum(axis=1), batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    >>> losses = landscape(model, {"sgd": recorder.snapshots}, x, x.sum(axis=1), resolution=9, progress=False)
    >>> info = landscape_info(losses)
    >>> list(info.paths)
    ['sgd']
    """
    loss = np.where(np.isfinite(landscape.loss), landscape.loss, np.nan)
    lowest = float(np.nanmin(loss)) if np.isfinite(loss).any() else 0.0
    above = (loss - lowest)[loss > lowest]
    levels = np.zeros(0)
    if above.size:
        top = float(above.max())
        bottom = min(max(float(np.quantile(above, VALLEY)), 1e-6 * top), top / 10)
        levels = rounded(lowest + np.geomspace(bottom, top, LEVELS))
    paths = {label: _drawn(path, landscape.steps[label]) for label, path in landscape.paths.items()}
    if landscape.variance_shares is None:
        labels = ("random direction 1", "random direction 2")
    else:
        whose = "path's" if len(paths) == 1 else "paths'"
        shares = [_percent(share) for share in landscape.variance_shares]
        labels = (
            f"1st principal direction ({shares[0]} of the {whose} variance)",
            f"2nd principal direction ({shares[1]})",
        )
    title = f"path: {landscape.sampling} · loss over {count(landscape.n_samples, 'sample')}"
    if landscape.evaluated < loss.size:
        title += f" · {landscape.evaluated:,} of {loss.size:,} points computed, the others interpolated"
    if np.isnan(loss).any():
        title += " · grey: not finite"
    return LandscapeInfo(landscape.a, landscape.b, loss, levels, lowest, paths, labels, title)


def draw_landscape(info: LandscapeInfo, axes: Axes | None = None) -> Axes:
    """Draw contours with their values, and paths with start (square) and end (circle).

    Parameters
    ----------
    info : LandscapeInfo
        Numbers of the picture.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp import TrainingRecorder
    >>> from mlflow_hp.plots import draw_landscape, landscape_info
    >>> from mlflow_hp.training import landscape
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.arange(16.0).reshape(8, 2) / 16
    >>> recorder = TrainingRecorder(report=False, snapshot_megabytes=1)
    >>> with mlflow.start_run():
    ...     _ = model.fit(x, x.sum(axis=1), batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    >>> losses = landscape(model, {"sgd": recorder.snapshots}, x, x.sum(axis=1), resolution=9, progress=False)
    >>> draw_landscape(landscape_info(losses)).figure.savefig("descent.png")
    """
    several = len(info.paths) > 1
    if axes is None:
        axes = axes_with_room_for_legend(list(info.paths), 8.0, 6.0) if several else new_axes(9.0, 6.0)
    _contours(info, axes)
    for index, (label, path) in enumerate(info.paths.items()):
        if several:
            axes.plot(path.a, path.b, linewidth=1.6, label=in_words(label), zorder=3, **style_of(index))
        else:
            _by_step(path, axes)
        size, colour = (6, style_of(index)["color"]) if several else (9, COLOURS[1])
        hidden = "_" if several else ""  # an underscore keeps a label out of the legend
        start, end = f"{hidden}start", f"{hidden}end"
        axes.plot(path.a[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=size, zorder=4,
                  label=start)  # fmt: skip
        if not path.cut:
            axes.plot(path.a[-1:], path.b[-1:], "o", color=colour, markeredgecolor="black", markersize=size + 1,
                      zorder=5, label=end)  # fmt: skip
    if several:
        legend_on_right(axes)
    elif info.paths:
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    add_note(axes, info.title)
    finish(axes, "loss around the trained weights")
    return axes


def _drawn(path: np.ndarray, steps: np.ndarray) -> PlanePath:
    """Take the points before the first that is not finite, downsampled."""
    finite = np.isfinite(path).all(axis=1)
    end = len(path) if finite.all() else int(np.argmin(finite))
    chosen = downsample(np.arange(end), *path[:end].T, buckets=MAX_POINTS // 4)
    return PlanePath(steps[chosen], path[chosen, 0], path[chosen, 1], end < len(path))


def _percent(share: float) -> str:
    """Format a share in percent, with enough digits to differ from 0 % and 100 %."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


def _contours(info: LandscapeInfo, axes: Axes) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke

    window = (info.a[0], info.a[-1], info.b[0], info.b[-1])
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1], xlim=window[:2], ylim=window[2:])
    if not info.levels.size:
        return
    lowest, highest = info.levels[[0, -1]] - info.lowest
    norm = LogNorm(lowest, highest * (highest / lowest))  # the lighter half of the colours keeps labels readable
    above = np.ma.masked_invalid(np.maximum(info.loss - info.lowest, 1e-300))
    colours = colormaps["Blues"].with_extremes(bad="#a0a0a0")
    axes.imshow(above, norm=norm, cmap=colours, alpha=0.5, extent=window, origin="lower", aspect="auto", zorder=0,
                interpolation="bilinear")  # fmt: skip
    lines = axes.contour(info.a, info.b, info.loss, info.levels, colors="#4a6785", linewidths=0.8, zorder=1)
    labels = axes.clabel(lines, list(info.levels[::2]), fontsize=8, fmt=tick_text, colors="#1f3347")
    for label in labels:
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _by_step(path: PlanePath, axes: Axes) -> None:
    """Draw a path coloured by the number of steps taken, with a colour bar."""
    from matplotlib.collections import LineCollection

    points = np.column_stack([path.a, path.b])
    if len(points) > 2:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(list(segments), cmap="plasma", array=path.steps[1:], linewidths=2.0, zorder=3)
        axes.add_collection(lines)
        figure_of(axes).colorbar(
            lines,
            ax=axes,
            label="steps taken",
            pad=0.02,
            ticks=whole_ticks(),
        )
    else:
        axes.plot(path.a, path.b, color=COLOURS[1], linewidth=2.0, zorder=3)
