"""Sources of runs: a tracking store behind a client, or the server's own store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from mlflow_hp._compat.mlflow import store_of
from mlflow_hp.compare import metric_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import mlflow
    from mlflow.entities import Experiment, Run

    from mlflow_hp.analysis.downsampling import Points
    from mlflow_hp.compare.metric_history import Axis

RUNS_PER_PAGE = 1000
PIXELS = 600
"""Default width of a curve on the screen."""


class RunSource(Protocol):
    """Read access that a comparison needs.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.compare import open_source
    >>> source = open_source(mlflow.MlflowClient())
    >>> source.experiment_named("there is no such experiment") is None
    True
    """

    def search(self, experiment_ids: Sequence[str], filter_string: str, limit: int | None) -> Iterator[Run]:
        """Search runs by an MLflow filter string, newest first, at most `limit`.

        Parameters
        ----------
        experiment_ids : sequence of str
            Ids of the experiments.
        filter_string : str
            In MLflow's language.
        limit : int or None
            How many at most; None for all.

        Returns
        -------
        iterator of Run
            The runs.
        """

    def runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Get the existing runs among `run_ids`, by id.

        Parameters
        ----------
        run_ids : sequence of str
            Ids of runs.

        Returns
        -------
        dict of str to Run
            Runs by id.
        """

    def experiment(self, experiment_id: str) -> Experiment:
        """Get an experiment by id.

        Parameters
        ----------
        experiment_id : str
            Its id.

        Returns
        -------
        Experiment
            The experiment.
        """

    def experiment_named(self, name: str) -> Experiment | None:
        """Find an experiment by name; None if there is none.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        Experiment or None
            The experiment; None if there is none.
        """

    def points(
        self,
        run_ids: Sequence[str],
        metric: str,
        pixels: int = PIXELS,
        start: int | None = None,
        end: int | None = None,
        axis: Axis = "step",
        window: int = 1,
    ) -> dict[str, Points]:
        """Read a metric by step, by id of the runs that have it, from step `start` to `end`, both inclusive.

        With more than two points per pixel, each pixel keeps its lowest and its highest point.

        Parameters
        ----------
        run_ids : sequence of str
            Ids of runs.
        metric : str
            Name of the metric.
        pixels : int
            Width of the picture: a run with more than two points for each is downsampled. Defaults to 600.
        start : int, optional
            First step. Defaults to the first there is.
        end : int, optional
            Last step. Defaults to the last there is.
        axis : {"step", "log", "time"}
            What the pixels divide evenly: the steps, their logarithm, or the time. Defaults to ``"step"``.
        window : int
            Points that each value is the mean of, centred; an even number counts as the next, and a fifth of the
            history is the most. Defaults to 1: not smoothed.

        Returns
        -------
        dict of str to Points
            Points by run id.
        """


class TrackingSource:
    """`RunSource` over an MLflow client or a tracking store, which share the methods used.

    Parameters
    ----------
    reader : mlflow.MlflowClient or AbstractStore
        A store applies no permissions: a server has to filter by what the sender of a request may read.
    """

    def __init__(self, reader: mlflow.MlflowClient | Any) -> None:
        self._reader = reader
        self._experiments: dict[str, Experiment] = {}

    @property
    def _store(self) -> Any:
        return store_of(self._reader) or self._reader

    def search(self, experiment_ids: Sequence[str], filter_string: str = "", limit: int | None = None) -> Iterator[Run]:
        """See `RunSource`."""
        token, left = None, limit
        while experiment_ids and left != 0:
            size = RUNS_PER_PAGE if left is None else min(left, RUNS_PER_PAGE)
            page = self._reader.search_runs(
                list(experiment_ids), filter_string, ViewType.ACTIVE_ONLY, size, ["attributes.start_time DESC"], token
            )
            token, left = page.token, None if left is None else left - len(page)
            yield from page
            if not token:
                return

    def runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """See `RunSource`. Gets one run by id, then all others of its experiment in one search, and so on."""
        runs_by_id: dict[str, Run] = {}
        missing = list(dict.fromkeys(run_ids))
        while missing:
            first = missing.pop(0)
            try:
                run = self._reader.get_run(first)
            except MlflowException as error:
                if error.get_http_status_code() >= 500:
                    raise
                continue
            runs_by_id[first] = run
            for start in range(0, len(missing), RUNS_PER_PAGE):
                ids = ", ".join(f"'{run_id}'" for run_id in missing[start : start + RUNS_PER_PAGE] if run_id.isalnum())
                if ids:
                    others = self.search([run.info.experiment_id], f"attributes.run_id IN ({ids})", None)
                    runs_by_id |= {other.info.run_id: other for other in others}
            missing = [run_id for run_id in missing if run_id not in runs_by_id]
        return {run_id: runs_by_id[run_id] for run_id in dict.fromkeys(run_ids) if run_id in runs_by_id}

    def experiment(self, experiment_id: str) -> Experiment:
        """See `RunSource`."""
        if experiment_id not in self._experiments:
            self._experiments[experiment_id] = self._reader.get_experiment(experiment_id)
        return self._experiments[experiment_id]

    def experiment_named(self, name: str) -> Experiment | None:
        """See `RunSource`."""
        experiment: Experiment | None = self._reader.get_experiment_by_name(name)
        return experiment

    def points(
        self,
        run_ids: Sequence[str],
        metric: str,
        pixels: int = PIXELS,
        start: int | None = None,
        end: int | None = None,
        axis: Axis = "step",
        window: int = 1,
    ) -> dict[str, Points]:
        """See `RunSource`."""
        view = metric_history.View(pixels, (start, end), axis, window)
        return metric_history.read(self._store, run_ids, metric, view)


def open_source(reader: mlflow.MlflowClient | Any) -> RunSource:
    """Make a source from an ``mlflow.MlflowClient``, or from the tracking store of a server.

    Parameters
    ----------
    reader : MlflowClient or store
        What reads.

    Returns
    -------
    RunSource
        The source.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.compare import open_source
    >>> open_source(mlflow.MlflowClient()).runs([])
    {}
    """
    return TrackingSource(reader)
