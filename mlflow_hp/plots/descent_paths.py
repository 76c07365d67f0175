"""Paths over a cost surface, prepared for drawing: cut where they diverge, downsampled, and clipped to the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.downsampling import downsample

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_POINTS = 4000
"""Points of a path that are drawn; a longer one is downsampled."""
MAX_HEIGHT_RATIO = 100.0
"""A path is drawn up to this many times the height above the minimum of the highest start, or of J* itself."""


class DrawnPath(NamedTuple):
    """Path as it is drawn: steps (n,), w (n,), b (n,), and whether it leaves the window for good.

    The last point of a path that is cut is just outside the window.
    """

    steps: np.ndarray
    w: np.ndarray
    b: np.ndarray
    cut: bool


class StepNumbering(NamedTuple):
    """Unit of a path's points, and number of its first point: -1 where step 0 leads to the second point."""

    unit: str = "step"
    start: int = -1

    def describe(self, index: int) -> str:
        """Describe point `index` (0-based) of a path, for example "after step 7"."""
        number = int(index) + self.start
        if number < 0:
            return f"before the first {self.unit}"
        return f"{'after' if self.start < 0 else 'at'} {self.unit} {number}"


def max_height(heights_by_path: Mapping[str, np.ndarray], lowest: float) -> float:
    """Height above the minimum up to which paths are drawn if no window is set."""
    start = max((float(heights[0]) for heights in heights_by_path.values() if np.isfinite(heights[0])), default=0.0)
    limit = MAX_HEIGHT_RATIO * max(start, lowest) or np.inf
    peaks = [float(heights.max()) for heights in heights_by_path.values() if heights.max() <= limit]
    return 2 * max(*peaks, start) if peaks and len(peaks) < len(heights_by_path) else limit


def n_points_below(heights: np.ndarray, limit: float) -> int:
    """Number of points before the first that is higher than `limit`; the start counts at any finite height."""
    is_below = np.isfinite(heights) & (heights <= limit)
    is_below[0] = np.isfinite(heights[0])
    return len(heights) if is_below.all() else int(np.argmin(is_below))


def drawn_path(path_w: np.ndarray, path_b: np.ndarray, end: int, w: np.ndarray, b: np.ndarray) -> DrawnPath:
    """Downsample the first `end` points of a path, and add the next, moved to just outside the window of `w`, `b`."""
    steps = downsample(np.arange(end), path_w[:end], path_b[:end], buckets=MAX_POINTS // 4)
    cut = end < len(path_w)
    drawn_w, drawn_b = path_w[steps], path_b[steps]
    if end and cut and np.isfinite([path_w[end], path_b[end]]).all():
        before, after = (np.array([path_w[i], path_b[i]]) for i in (end - 1, end))
        direction = after / 2 - before / 2  # halves: no overflow
        direction *= min(2.0, 2 / float((np.abs(direction) / (np.ptp(w), np.ptp(b))).max()))
        steps = np.append(steps, end)
        drawn_w, drawn_b = np.append(drawn_w, before[0] + direction[0]), np.append(drawn_b, before[1] + direction[1])
    outside = bool(end) and not is_inside(drawn_w[-1:], drawn_b[-1:], w, b).all()
    return DrawnPath(steps, drawn_w, drawn_b, cut or outside)


def is_inside(path_w: np.ndarray, path_b: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether each point lies in the window of the axes `w` and `b`."""
    return (path_w >= w[0]) & (path_w <= w[-1]) & (path_b >= b[0]) & (path_b <= b[-1])


def leaving_step(path: DrawnPath, w: np.ndarray, b: np.ndarray) -> int:
    """Step from which a path stays outside the window, else its last finite step."""
    inside = np.flatnonzero(is_inside(path.w, path.b, w, b))
    after = inside[-1] + 1 if len(inside) else 0
    return int(path.steps[min(after, len(path.steps) - 1)])
