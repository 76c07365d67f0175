"""Paths over a surface as they are drawn: how far they are followed, thinned, and where they leave the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_POINTS = 4000
"""Points of a path that are drawn; a longer one is thinned evenly."""
HIGHEST = 100.0
"""A path is drawn up to this many times the height above the minimum, of the highest start or of J* itself."""


class DrawnPath(NamedTuple):
    """One path as it is drawn: steps (n,), w (n,), b (n,), and whether it leaves the window for good.

    The last point of one that is not followed further is just outside, on its way out.
    """

    steps: np.ndarray
    w: np.ndarray
    b: np.ndarray
    cut: bool


class Counted(NamedTuple):
    """What a path's points are counted in, and the number of its start: -1 where the first step is number 0."""

    unit: str = "step"
    start: int = -1

    def said(self, index: int) -> str:
        """Where a path is at its point `index`, in words."""
        number = int(index) + self.start
        if number < 0:
            return f"before the first {self.unit}"
        return f"{'after' if self.start < 0 else 'at'} {self.unit} {number}"


def most_height(above: Mapping[str, np.ndarray], lowest: float) -> float:
    """The height above the minimum up to which paths are drawn that choose their own window."""
    start = max((float(heights[0]) for heights in above.values() if np.isfinite(heights[0])), default=0.0)
    most = HIGHEST * max(start, lowest) or np.inf
    stay = [float(heights.max()) for heights in above.values() if heights.max() <= most]
    return 2 * max(*stay, start) if stay and len(stay) < len(above) else most


def reached(heights: np.ndarray, most: float) -> int:
    """How many points a path has before the first that is higher than `most`; its start counts wherever it is."""
    inside = np.isfinite(heights) & (heights <= most)
    inside[0] = np.isfinite(heights[0])
    return len(heights) if inside.all() else int(np.argmin(inside))


def drawn_path(path_w: np.ndarray, path_b: np.ndarray, end: int, w: np.ndarray, b: np.ndarray) -> DrawnPath:
    """The first `end` points of a path, thinned, and the next, shortened to be just outside the window of `w`, `b`."""
    steps = np.unique(np.linspace(0, end - 1, min(end, MOST_POINTS)).astype(int)) if end else np.zeros(0, int)
    cut = end < len(path_w)
    drawn_w, drawn_b = path_w[steps], path_b[steps]
    if end and cut and np.isfinite([path_w[end], path_b[end]]).all():
        before, after = (np.array([path_w[i], path_b[i]]) for i in (end - 1, end))
        towards = after / 2 - before / 2  # halves: no overflow
        towards *= min(2.0, 2 / float((np.abs(towards) / (np.ptp(w), np.ptp(b))).max()))
        steps = np.append(steps, end)
        drawn_w, drawn_b = np.append(drawn_w, before[0] + towards[0]), np.append(drawn_b, before[1] + towards[1])
    outside = bool(end) and not inside(drawn_w[-1:], drawn_b[-1:], w, b).all()
    return DrawnPath(steps, drawn_w, drawn_b, cut or outside)


def inside(path_w: np.ndarray, path_b: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which points lie in the window of the axes `w` and `b`."""
    return (path_w >= w[0]) & (path_w <= w[-1]) & (path_b >= b[0]) & (path_b <= b[-1])


def leaves(path: DrawnPath, w: np.ndarray, b: np.ndarray) -> int:
    """The first point of a path from which on it stays outside the picture, or its last before it is not finite."""
    within = np.flatnonzero(inside(path.w, path.b, w, b))
    after = within[-1] + 1 if len(within) else 0
    return int(path.steps[min(after, len(path.steps) - 1)])
