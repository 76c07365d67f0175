"""What a comparison may read for the sender of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.compare import open_source
from mlflow_hp.compare.section import finite
from mlflow_hp.server import queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow.entities import Experiment, Run

    from mlflow_hp.analysis.downsampling import Points
    from mlflow_hp.server.permissions import Readable


class ReadableSource:
    """A `mlflow_hp.compare.Source` over the server's store that gives only what the sender may read.

    A comparison also follows tags, of a run to the one that it is nested in: anyone may write any id there.
    """

    def __init__(self, store: Any, readable: Readable) -> None:
        self._store = store
        self._all = open_source(store)
        self._readable = readable
        self._decided: dict[str, bool] = {}

    def readable_runs(self, run_ids: Sequence[str]) -> list[str]:
        """Those of the runs that are there and may be read: a deleted one and a hidden one look the same."""
        experiment_of = queries.experiments_of(self._store, run_ids)
        allowed = set(self._allowed(set(experiment_of.values())))
        return [run_id for run_id in run_ids if experiment_of.get(run_id) in allowed]

    def search(self, experiment_ids: Sequence[str], filter_string: str, most: int | None) -> Iterator[Run]:
        """The runs of those experiments that may be read."""
        return self._all.search(self._allowed(experiment_ids), filter_string, most)

    def runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Those that may be read."""
        return self._all.runs(self.readable_runs(run_ids))

    def experiment(self, experiment_id: str) -> Experiment:
        """An experiment, of a run that may be read."""
        return self._all.experiment(experiment_id)

    def experiment_named(self, name: str) -> Experiment | None:
        """An experiment that may be read, by its name."""
        found = self._all.experiment_named(name)
        return found if found is not None and self._allowed([found.experiment_id]) else None

    def points(
        self, run_ids: Sequence[str], metric: str, pixels: int = 600, start: int | None = None, end: int | None = None
    ) -> dict[str, Points]:
        """A metric of runs that may be read."""
        return self._all.points(run_ids, metric, pixels, start, end)

    def _allowed(self, experiment_ids: Sequence[str] | set[str]) -> list[str]:
        if new := [experiment_id for experiment_id in experiment_ids if experiment_id not in self._decided]:
            allowed = set(self._readable(new))
            self._decided |= {experiment_id: experiment_id in allowed for experiment_id in new}
        return [experiment_id for experiment_id in experiment_ids if self._decided[experiment_id]]


def plain_points(points: Points) -> dict[str, Any]:
    """Points for JSON; what is not finite becomes None, a gap in the line."""
    values = [None if value is None or abs(value) >= 1.79e308 else value for value in finite(points.values.tolist())]
    return {"steps": points.steps.tolist(), "values": values, "n": points.n}
