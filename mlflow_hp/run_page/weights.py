"""Histogram of a tensor's weights at a step, where weights were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.run_page.numbers import rounded

if TYPE_CHECKING:
    from mlflow_hp.history.weight_snapshots import Snapshots

MAX_BINS = 60
"""Bins of a histogram at most."""


def histogram(kept: Snapshots, tensor: str = "", step: int | None = None) -> dict[str, Any]:
    """Count the weights of a tensor at the kept step nearest to one, and before the first step.

    Both have the same bins, the range of both divided evenly, so that they can be compared.

    Parameters
    ----------
    kept : Snapshots
        Weights at some steps.
    tensor : str
        Name of the tensor. Defaults to the first.
    step : int, optional
        Number of steps done. Defaults to the last that was kept.

    Returns
    -------
    dict of str to object
        For strict JSON: ``tensors``, the names; ``tensor``, ``step`` that was kept, ``n`` weights and ``n_not_finite``;
        ``edges`` of the bins, one more than there are counts; ``counts`` and ``first``, those before the first step.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import Snapshots
    >>> from mlflow_hp.run_page.weights import histogram
    >>> kept = Snapshots(np.array([0, 9]), {"dense/kernel": np.array([[0, 0], [0, 1]], np.float32)}, every=9, n_steps=9)
    >>> shown = histogram(kept)
    >>> shown["step"], sum(shown["counts"])
    (9, 2)
    """
    names = list(kept.tensors)
    name = tensor if tensor in kept.tensors else names[0]
    steps = np.asarray(kept.steps)
    index = len(steps) - 1 if step is None else int(np.abs(steps - step).argmin())
    first, now = (kept.tensors[name][i].astype(np.float64).ravel() for i in (0, index))
    finite, finite_first = now[np.isfinite(now)], first[np.isfinite(first)]
    both = np.concatenate([finite, finite_first])
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    n_bins = int(np.clip(2 * np.cbrt(max(len(now), 1)), 5, MAX_BINS))  # Rice's rule
    edges = np.linspace(low, high, n_bins + 1)
    return {
        "tensors": names,
        "tensor": name,
        "step": int(steps[index]),
        "n": len(now),
        "n_not_finite": len(now) - len(finite),
        "edges": rounded(edges),
        "counts": np.histogram(finite, edges)[0].tolist(),
        "first": np.histogram(finite_first, edges)[0].tolist(),
    }
