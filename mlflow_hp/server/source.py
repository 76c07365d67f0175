"""Runs that a comparison may read for the sender of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.compare import open_source
from mlflow_hp.compare.section import finite
from mlflow_hp.server import queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow.entities import Experiment, Run

    from mlflow_hp.analysis.downsampling import Points
    from mlflow_hp.compare.metric_history import Axis
    from mlflow_hp.server.permissions import ReadFilter


class ReadableSource:
    """`mlflow_hp.compare.RunSource` of the server's store that returns only what the sender may read.

    Every id is checked, also those in tags: a comparison follows the tag of a parent run, and anyone may write any
    id there.
    """

    def __init__(self, store: Any, readable: ReadFilter) -> None:
        self._store = store
        self._unfiltered = open_source(store)
        self._readable = readable
        self._decisions: dict[str, bool] = {}

    def readable_runs(self, run_ids: Sequence[str]) -> list[str]:
        """Keep the runs that exist and may be read; a deleted run and a hidden one look the same."""
        experiment_of = queries.experiments_of(self._store, run_ids)
        allowed = set(self._allowed(set(experiment_of.values())))
        return [run_id for run_id in run_ids if experiment_of.get(run_id) in allowed]

    def search(self, experiment_ids: Sequence[str], filter_string: str, limit: int | None) -> Iterator[Run]:
        """Search the experiments that may be read."""
        return self._unfiltered.search(self._allowed(experiment_ids), filter_string, limit)

    def runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Get the runs that may be read, by id."""
        return self._unfiltered.runs(self.readable_runs(run_ids))

    def experiment(self, experiment_id: str) -> Experiment:
        """Get the experiment of a run that may be read."""
        return self._unfiltered.experiment(experiment_id)

    def experiment_named(self, name: str) -> Experiment | None:
        """Find an experiment that may be read, by name."""
        experiment = self._unfiltered.experiment_named(name)
        return experiment if experiment is not None and self._allowed([experiment.experiment_id]) else None

    def points(
        self,
        run_ids: Sequence[str],
        metric: str,
        pixels: int = 600,
        start: int | None = None,
        end: int | None = None,
        axis: Axis = "step",
        window: int = 1,
    ) -> dict[str, Points]:
        """Read a metric of runs that `readable_runs` returned."""
        return self._unfiltered.points(run_ids, metric, pixels, start, end, axis, window)

    def _allowed(self, experiment_ids: Sequence[str] | set[str]) -> list[str]:
        if undecided := [experiment_id for experiment_id in experiment_ids if experiment_id not in self._decisions]:
            allowed = set(self._readable(undecided))
            self._decisions |= {experiment_id: experiment_id in allowed for experiment_id in undecided}
        return [experiment_id for experiment_id in experiment_ids if self._decisions[experiment_id]]


def plain_points(points: Points) -> dict[str, Any]:
    """Convert points for JSON; values that are not finite become None, a gap in the line. Times are in milliseconds."""
    values = [None if value is None or abs(value) >= 1.79e308 else value for value in finite(points.values.tolist())]
    return {"steps": points.steps.tolist(), "values": values, "n": points.n, "times": points.times.tolist()}
