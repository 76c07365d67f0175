"""Computed loss landscape of a network, as its page draws it: the surface, and the paths on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.run_page.numbers import rounded
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.analysis.surfaces.landscape_file import StoredLandscape


def landscape_view(landscape: StoredLandscape) -> dict[str, Any]:
    """Compute what is drawn of a landscape.

    Parameters
    ----------
    landscape : StoredLandscape
        As `mlflow_hp.analysis.surfaces.landscape_file.from_json` returns.

    Returns
    -------
    dict of str to object
        As `mlflow_hp.run_page.descent.descent` returns of a surface, with the ``kind`` "landscape", without a minimum:
        the height is the logarithm of the loss, or the loss where it is not positive everywhere; a path lies on the
        surface, where the weights are projected onto the plane. ``run`` of a path is the id of its run, or its label.
    """
    finite = landscape.loss[np.isfinite(landscape.loss)]
    is_log = bool((finite > 0).all())
    with np.errstate(invalid="ignore", divide="ignore"):
        heights = np.log10(landscape.loss) if is_log else landscape.loss
    shares = landscape.variance_shares
    if shares is None:
        labels = ["random direction 1", "random direction 2"]
        plane = "a plane along two random directions, normalised by filter"
    else:
        labels = [f"direction {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares)]
        whose = "path" if len(landscape.paths) == 1 else "paths"
        plane = f"the plane of most variance of the {whose} ({sum(shares):.0%} of it)"
    words = (
        f"The loss over {count(landscape.n_samples, 'sample')} on {plane}. Weights are projected onto the plane: "
        "what a path does outside of it is not seen."
    )
    return {
        "kind": "landscape",
        "labels": labels,
        "height": "log10 of the loss" if is_log else "loss",
        "words": words,
        "x": rounded(landscape.a),
        "y": rounded(landscape.b),
        "z": [rounded(row, 5) for row in heights],
        "paths": [
            {
                "run": path.run_id or path.label,
                "steps": path.steps.tolist(),
                "x": rounded(path.a),
                "y": rounded(path.b),
                "z": rounded(_between(landscape.a, landscape.b, heights, path.a, path.b), 5),
            }
            for path in landscape.paths
        ],
    }


def _between(a: np.ndarray, b: np.ndarray, heights: np.ndarray, at_a: np.ndarray, at_b: np.ndarray) -> np.ndarray:
    """Heights between the four neighbours of points, bilinear; those outside of the grid are moved to its edge."""
    column, u = _cell(a, at_a)
    row, v = _cell(b, at_b)
    low = heights[row, column] * (1 - u) + heights[row, column + 1] * u
    high = heights[row + 1, column] * (1 - u) + heights[row + 1, column + 1] * u
    return low * (1 - v) + high * v


def _cell(axis: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.clip(at, axis[0], axis[-1])
    index = np.clip(np.searchsorted(axis, at, side="right") - 1, 0, len(axis) - 2)
    return index, (at - axis[index]) / (axis[index + 1] - axis[index])
