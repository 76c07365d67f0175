"""Selection of the metrics of steps that go to MLflow; the history has all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS = ("summary", "all")
MAX_POINTS = 20_000
"""Points of the metrics of steps that a fit sends at most: more than a chart shows, in seconds."""


class MetricSelection(NamedTuple):
    """Selection of the metrics of steps of one fit.

    Attributes
    ----------
    metrics : {"summary", "all"}
        Whether there is one summary of the layers, or metrics of each tensor.
    every : int
        Interval of the steps that become points: 0, n, 2n, ...
    max_points : int or None
        Number of points that are sent at most; None for no limit.
    n_steps : int or None
        Number of steps of the fit, as far as it is known.
    """

    metrics: str = "summary"
    every: int = 1
    max_points: int | None = MAX_POINTS
    n_steps: int | None = None

    @property
    def n_rows(self) -> int | None:
        """Number of steps that become points, without a limit; None if it is unknown."""
        return None if self.n_steps is None else -(-self.n_steps // self.every)

    @property
    def header(self) -> dict[str, Any]:
        """Entries of the header of a journal, so that a recovery selects the same."""
        return {
            "metrics": self.metrics,
            "metrics_every": self.every,
            "max_points": self.max_points,
            "n_steps": self.n_steps,
        }

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> MetricSelection:
        """Read the selection from the header of a journal; earlier versions have sent all metrics at all steps."""
        return cls(
            header.get("metrics", "all"), header["metrics_every"], header.get("max_points"), header.get("n_steps")
        )
