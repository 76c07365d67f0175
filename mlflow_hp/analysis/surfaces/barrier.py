"""The loss between the ends of two trainings: on the straight line, and on a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from mlflow_hp.analysis.surfaces.plane import Weights
    from mlflow_hp.analysis.surfaces.weight_matching import Permutations


class Barrier(NamedTuple):
    """Losses between the ends of two trainings of one architecture.

    The height of a barrier is the highest of ``loss(t) - ((1 - t) loss(0) + t loss(1))`` over `t` (Entezari et al.
    2022, "The role of permutation invariance in linear mode connectivity of neural networks", equation 1; Frankle et
    al. 2020 subtract the mean of the two ends instead). It is 0 if the ends are connected, and infinite where a loss on
    the way is not finite.

    Attributes
    ----------
    t : ndarray of shape (n,)
        Positions, 0 (first end) to 1 (second end).
    line : ndarray of shape (n,)
        Losses on the straight line between the ends as recorded.
    aligned : ndarray of shape (n,), or None
        Losses on the line to the second end with its hidden units permuted, which is the same function; None if left
        out.
    curve : ndarray of shape (n,), or None
        Losses on the trained curve between the ends as recorded; None if left out.
    titles : tuple of str
        Names of the two runs.
    n_samples : int
        Rows of data that the losses are the mean of.
    curve_steps : int
        Steps that the curve was trained for.
    alignment : str
        What the permutation does, or the reason why it was left out.
    batch_norm : str
        Treatment of the statistics of batch normalisation; empty for a model without.
    permutations : dict of str to ndarray of shape (n_units,)
        Layer -> the unit of the second run that takes each place; empty if alignment was left out.
    aligned_weights : dict of str to ndarray, or None
        Trainable weights of the second end, permuted; names are those of the first run.
    bend : dict of str to ndarray, or None
        Control point of the curve: its weights are ``(1 - t)^2 first + 2 t (1 - t) bend + t^2 second``.
    sources : tuple of str
        Sources of the weights of the two runs: "snapshots", "history" or "logged model".
    """

    t: np.ndarray
    line: np.ndarray
    aligned: np.ndarray | None
    curve: np.ndarray | None
    titles: tuple[str, str]
    n_samples: int
    curve_steps: int
    alignment: str
    batch_norm: str
    permutations: Permutations
    aligned_weights: Weights | None
    bend: Weights | None
    sources: tuple[str, str]

    @property
    def line_barrier(self) -> float:
        """Height of the barrier on the straight line."""
        return barrier_height(self.t, self.line)

    @property
    def aligned_barrier(self) -> float | None:
        """Height of the barrier on the line to the permuted end; None if left out."""
        return None if self.aligned is None else barrier_height(self.t, self.aligned)

    @property
    def curve_barrier(self) -> float | None:
        """Height of the barrier on the curve; None if left out."""
        return None if self.curve is None else barrier_height(self.t, self.curve)

    def metrics(self) -> dict[str, float]:
        """Return the heights for ``mlflow.log_metrics``; what was left out is missing."""
        heights = {"line": self.line_barrier, "aligned": self.aligned_barrier, "curve": self.curve_barrier}
        return {f"barrier/{name}": height for name, height in heights.items() if height is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return all but the weights for ``mlflow.log_dict``; numbers that are not finite as text."""
        return {
            "runs": list(self.titles),
            "sources": list(self.sources),
            "barriers": {name.rpartition("/")[2]: _plain(value) for name, value in self.metrics().items()},
            "t": self.t.tolist(),
            "losses": {
                name: [_plain(value) for value in losses]
                for name, losses in (("line", self.line), ("aligned", self.aligned), ("curve", self.curve))
                if losses is not None
            },
            "n_samples": self.n_samples,
            "curve_steps": self.curve_steps,
            "alignment": self.alignment,
            "batch_norm": self.batch_norm,
        }


def barrier_height(t: np.ndarray, losses: np.ndarray) -> float:
    """Return the highest of losses (n,) above the straight line between the first and the last, at least 0."""
    above = losses - ((1 - t) * losses[0] + t * losses[-1])
    return float(max(above.max(), 0.0)) if np.isfinite(above).all() else float("inf")


def _plain(value: float) -> float | str:
    return float(value) if np.isfinite(value) else str(float(value))
