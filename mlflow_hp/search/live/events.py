"""Events of the fits of a search: planned, started, running, ended; and the messages that carry them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.sklearn import result_of
from mlflow_hp.search.live.repeated_fit import SEED_SCORES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_hp.search.live.workload import Workload
    from mlflow_hp.search.resume.dependencies import Dependencies


class PlannedFit(NamedTuple):
    """A fit to be computed: one candidate on one split.

    Attributes
    ----------
    task : int
        Number of the fit in the search (0-based).
    candidate, split : int
        Index of the candidate (0-based, as in ``cv_results_``) and of the split (0-based).
    round : int
        Number of the round (0-based), for a search that evaluates candidates in rounds, such as successive halving.
    n_candidates, n_splits : int
        Number of candidates planned up to the end of this round, and of splits.
    params : mapping of str to object
        Parameters of the candidate.
    """

    task: int
    candidate: int
    split: int
    round: int
    n_candidates: int
    n_splits: int
    params: Mapping[str, Any]


class Fold(NamedTuple):
    """A finished fit with its scores.

    Attributes
    ----------
    task : int
        Number of the fit in the search (0-based).
    started, ended : float
        In seconds since the epoch.
    events : sequence of Event
        Events that could not be sent while it ran.
    n_sent : int
        Number of events sent.
    scores : dict of str to float
        Scorer (``"score"`` if there is only one) -> score on the test fold.
    train_scores : dict of str to float
        The same on the training fold; empty unless the search has ``return_train_score=True``.
    fit_seconds, score_seconds : float
        If the training of another fit was reused, ``fit_seconds`` includes the time of those of its epochs.
    error : str or None
        Traceback if the fit failed.
    result : dict or None
        Result of scikit-learn's function; None if unknown. Defaults to None.
    trained_by : int or None
        Number of the fit whose training was reused, or continued. Defaults to None.
    dependencies : Dependencies or None
        Modules and files that its process had loaded and read; None if unknown. Defaults to None.
    workload : Workload or None
        Its process and what was trained; None if unknown. Defaults to None.
    is_vectorised : bool
        Whether it was trained with other fits in one program, not by Keras. Defaults to False.
    reused_seconds : float
        Part of ``fit_seconds`` that the reused training took. Defaults to 0.
    """

    task: int
    started: float
    ended: float
    events: Sequence[Event]
    n_sent: int
    scores: dict[str, float]
    train_scores: dict[str, float]
    fit_seconds: float
    score_seconds: float
    error: str | None
    result: dict[str, Any] | None = None
    trained_by: int | None = None
    dependencies: Dependencies | None = None
    workload: Workload | None = None

    @property
    def seed_scores(self) -> dict[str, list[float]]:
        """Scorer -> score of each seed on the test fold; empty unless the fit was repeated."""
        return (self.result or {}).get(SEED_SCORES, {})

    is_vectorised: bool = False
    reused_seconds: float = 0.0


def fold_of(outcome: Outcome) -> Fold:
    """Convert the result of scikit-learn's function to a `Fold`.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikit-learn returns something else.
    """
    result = outcome.result
    return Fold(*outcome[:5], *result_of(result), result, *outcome[6:])


class Started(NamedTuple):
    """Fit number `task` started at `time`, in seconds since the epoch."""

    task: int
    time: float


class Epoch(NamedTuple):
    """Keras fit number `fit` (0-based) inside of fit number `task` ended the epoch `epoch` (0-based)."""

    task: int
    time: float
    fit: int
    epoch: int
    values: Mapping[str, float]


class Raised(NamedTuple):
    """Fit number `task` raised an exception that ends the search."""

    task: int
    time: float
    traceback: str


class RecordingProblem(NamedTuple):
    """A part of fit number `task` could not be recorded."""

    task: int
    time: float
    problem: str


class PlainTraining(NamedTuple):
    """A Keras model of fit number `task` was trained without a speed-up, because of a fault or a known limit."""

    task: int
    time: float
    reason: str
    is_fault: bool


class Outcome(NamedTuple):
    """Return value of a fit in a worker.

    Attributes
    ----------
    task : int
        Number of the fit (0-based).
    started, ended : float
        In seconds since the epoch, by the worker's clock.
    events : list of Event
        Events that could not be sent while it ran.
    n_sent : int
        Number of events sent.
    result : object
        Result of scikit-learn's function.
    trained_by : int or None
        Number of the fit whose training was reused, or continued. Defaults to None.
    dependencies : Dependencies or None
        Modules and files that its process had loaded and read; None if unknown. Defaults to None.
    workload : Workload or None
        Its process and what was trained; None if unknown. Defaults to None.
    is_vectorised : bool
        Whether it was trained with other fits in one program, not by Keras. Defaults to False.
    reused_seconds : float
        Part of ``fit_seconds`` that the reused training took. Defaults to 0.
    """

    task: int
    started: float
    ended: float
    events: list[Event]
    n_sent: int
    result: Any
    trained_by: int | None = None
    dependencies: Dependencies | None = None
    workload: Workload | None = None
    is_vectorised: bool = False
    reused_seconds: float = 0.0


class UnknownOutcome(NamedTuple):
    """Result of a task that was not understood, with the task's index."""

    task: int
    result: Any


Event = Started | Epoch | Raised | RecordingProblem | PlainTraining | Outcome


class Call(NamedTuple):
    """A planned fit as a call of scikit-learn's function.

    Attributes
    ----------
    fit : PlannedFit
    function : callable
    arguments : dict of str to object
    """

    fit: PlannedFit
    function: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]


class Pool(NamedTuple):
    """The pool that computes the fits.

    Attributes
    ----------
    kind : {"here", "threads", "processes", "dask", "other"}
        This thread; threads of this process; other processes of this machine; a Dask cluster.
    cluster : distributed.Client or None
        The client of a Dask cluster. Defaults to None.
    """

    kind: str
    cluster: Any = None


class Address(NamedTuple):
    """Address of an inbox.

    Attributes
    ----------
    key : str
        Key of the inbox in its process.
    pid : int
        Id of that process.
    socket : str or None
        Socket for other processes of the same machine; None if only threads send.
    secret : bytes
        Authentication key of the socket.
    on_dask : bool
        Whether workers of a Dask cluster send, to the topic named by `key`. Defaults to False.
    reuse : bool
        Whether fits may train compiled models of earlier fits. Defaults to False.
    run_id : str or None
        Id of the search's run, which runs that a fit starts are nested in. Defaults to None.
    """

    key: str
    pid: int
    socket: str | None
    secret: bytes
    on_dask: bool = False
    reuse: bool = False
    run_id: str | None = None


class Question(NamedTuple):
    """A message whose sender waits for an answer."""

    about: Any
