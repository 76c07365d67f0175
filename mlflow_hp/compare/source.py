"""Where runs are read from: a tracking store behind a client, or the server's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from mlflow_hp.compare import metric_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import mlflow
    from mlflow.entities import Experiment, Run

    from mlflow_hp.analysis.downsampling import Points

RUNS_IN_A_PAGE = 1000
PIXELS = 600
"""Width of a curve on the screen, by default."""


class Source(Protocol):
    """What a comparison needs to read."""

    def search(self, experiment_ids: Sequence[str], filter_string: str, most: int | None) -> Iterator[Run]:
        """The runs of experiments that a filter in MLflow's language lets through, newest first; at most `most`."""

    def runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Those of `run_ids` that are there, by id."""

    def experiment(self, experiment_id: str) -> Experiment:
        """An experiment by its id."""

    def experiment_named(self, name: str) -> Experiment | None:
        """An experiment by its name; None where there is none."""

    def points(
        self,
        run_ids: Sequence[str],
        metric: str,
        pixels: int = PIXELS,
        start: int | None = None,
        end: int | None = None,
    ) -> dict[str, Points]:
        """A metric by step of those of `run_ids` that have it, from step `start` to step `end`, both included.

        A run with more than two points for each of the `pixels` is thinned to the lowest and the highest of each.
        """


class TrackingSource:
    """A `Source` over MLflow's client or over a tracking store, which have these methods in common.

    Parameters
    ----------
    reader : mlflow.MlflowClient or AbstractStore
        A store gives all that it holds: whoever serves others from it asks first what these may read.
    """

    def __init__(self, reader: mlflow.MlflowClient | Any) -> None:
        self._reader = reader
        self._experiments: dict[str, Experiment] = {}

    @property
    def _store(self) -> Any:
        client = getattr(self._reader, "_tracking_client", None)
        return self._reader if client is None else client.store

    def search(self, experiment_ids: Sequence[str], filter_string: str = "", most: int | None = None) -> Iterator[Run]:
        """See `Source`."""
        token, left = None, most
        while experiment_ids and left != 0:
            size = RUNS_IN_A_PAGE if left is None else min(left, RUNS_IN_A_PAGE)
            page = self._reader.search_runs(
                list(experiment_ids), filter_string, ViewType.ACTIVE_ONLY, size, ["attributes.start_time DESC"], token
            )
            token, left = page.token, None if left is None else left - len(page)
            yield from page
            if not token:
                return

    def runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """See `Source`: one is asked for by its id, and with it all those of its experiment."""
        found: dict[str, Run] = {}
        missing = list(dict.fromkeys(run_ids))
        while missing:
            first = missing.pop(0)
            try:
                run = self._reader.get_run(first)
            except MlflowException as error:
                if error.get_http_status_code() >= 500:
                    raise
                continue
            found[first] = run
            for start in range(0, len(missing), RUNS_IN_A_PAGE):
                ids = ", ".join(f"'{run_id}'" for run_id in missing[start : start + RUNS_IN_A_PAGE] if run_id.isalnum())
                if ids:
                    alike = self.search([run.info.experiment_id], f"attributes.run_id IN ({ids})", None)
                    found |= {other.info.run_id: other for other in alike}
            missing = [run_id for run_id in missing if run_id not in found]
        return {run_id: found[run_id] for run_id in dict.fromkeys(run_ids) if run_id in found}

    def experiment(self, experiment_id: str) -> Experiment:
        """See `Source`."""
        if experiment_id not in self._experiments:
            self._experiments[experiment_id] = self._reader.get_experiment(experiment_id)
        return self._experiments[experiment_id]

    def experiment_named(self, name: str) -> Experiment | None:
        """See `Source`."""
        found: Experiment | None = self._reader.get_experiment_by_name(name)
        return found

    def points(
        self,
        run_ids: Sequence[str],
        metric: str,
        pixels: int = PIXELS,
        start: int | None = None,
        end: int | None = None,
    ) -> dict[str, Points]:
        """See `Source`."""
        return metric_history.read(self._store, run_ids, metric, pixels, (start, end))


def open_source(reader: mlflow.MlflowClient | Any) -> Source:
    """A source over an ``mlflow.MlflowClient``, or over the tracking store of a server."""
    return TrackingSource(reader)
