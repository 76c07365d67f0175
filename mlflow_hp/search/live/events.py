"""What is told of the fits of a search: before one is computed, while it goes on, and when it came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_hp.search.resume.seen import Seen


class Planned(NamedTuple):
    """A fit that is about to be computed.

    Attributes
    ----------
    task : int
        Its number in the search (0-based).
    candidate, split : int
        Which combination (0-based, as in ``cv_results_``), and which fold (0-based).
    round : int
        Which of the calls of a search that computes its combinations in several, as successive halving (0-based).
    n_candidates, n_splits : int
        How many combinations are planned up to the end of this round, and how many folds each has.
    params : mapping of str to object
        The combination.
    """

    task: int
    candidate: int
    split: int
    round: int
    n_candidates: int
    n_splits: int
    params: Mapping[str, Any]


class Fold(NamedTuple):
    """A fit that came back.

    Attributes
    ----------
    task : int
        Its number in the search (0-based).
    started, ended : float
        In seconds since the epoch.
    events : sequence of Event
        What could not be sent while it ran.
    n_sent : int
        How many events were sent.
    scores : dict of str to float
        Scorer (``"score"`` where there is one) -> score on the test fold.
    train_scores : dict of str to float
        The same on the training folds; empty unless the search was asked for them.
    fit_seconds, score_seconds : float
        Of a training that was taken over, ``fit_seconds`` holds what this many epochs of it took.
    error : str or None
        The traceback where the fit failed.
    result : dict
        What scikit-learn's function returned; None where it is not known.
    trained_by : int or None
        Number of the fit whose training this one took over.
    seen : Seen or None
        What its process had loaded and read.
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
    seen: Seen | None = None


def fold_of(outcome: Outcome) -> Fold:
    """What scikit-learn's function returned, by names of ours."""
    result = outcome.result
    test, train = (
        scores if isinstance(scores, dict) else {} if scores is None else {"score": scores}
        for scores in (result["test_scores"], result.get("train_scores"))
    )
    times = result["fit_time"], result["score_time"]
    return Fold(*outcome[:5], test, train, *times, result["fit_error"], result, outcome.trained_by, outcome.seen)


class Started(NamedTuple):
    """The fit number `task` began at `time` (seconds since the epoch)."""

    task: int
    time: float


class Epoch(NamedTuple):
    """The Keras model that is the fit's number `fit` (0-based) ended the epoch `epoch` (0-based)."""

    task: int
    time: float
    fit: int
    epoch: int
    values: Mapping[str, float]


class Raised(NamedTuple):
    """An exception left the fit number `task`, and will end the search."""

    task: int
    time: float
    traceback: str


class Unrecorded(NamedTuple):
    """Something of the fit number `task` could not be recorded."""

    task: int
    time: float
    problem: str


class Plain(NamedTuple):
    """A Keras model of the fit number `task` was trained the plain way, for a `reason` that may be a fault."""

    task: int
    time: float
    reason: str
    is_fault: bool


class Outcome(NamedTuple):
    """What a fit hands back.

    Attributes
    ----------
    task : int
        Its number (0-based).
    started, ended : float
        In seconds since the epoch, by the worker's clock.
    events : list of Event
        Those that could not be sent while it ran.
    n_sent : int
        How many were sent.
    result : object
        What the function returned.
    trained_by : int or None
        Number of the fit whose training this one took over.
    seen : Seen or None
        What its process had loaded and read.
    """

    task: int
    started: float
    ended: float
    events: list[Event]
    n_sent: int
    result: Any
    trained_by: int | None = None
    seen: Seen | None = None


Event = Started | Epoch | Raised | Unrecorded | Plain | Outcome


class Call(NamedTuple):
    """A fit that is about to be computed, and how.

    Attributes
    ----------
    fit : Planned
    function : callable
        scikit-learn's.
    given : dict of str to object
        Its arguments by name.
    """

    fit: Planned
    function: Callable[..., dict[str, Any]]
    given: dict[str, Any]


class Pool(NamedTuple):
    """What computes the fits.

    Attributes
    ----------
    kind : {"here", "threads", "processes", "dask", "other"}
        This thread; threads of this process; other processes of this machine; a cluster of Dask's.
    cluster : distributed.Client or None
    """

    kind: str
    cluster: Any = None


class Address(NamedTuple):
    """Where messages go.

    Attributes
    ----------
    key : str
        Names the inbox in its own process.
    pid : int
        That process.
    socket : str or None
        Where other processes of the same machine connect; None where there are none.
    secret : bytes
        Known to those who may connect.
    on_dask : bool
        Whether the workers of a Dask cluster send, to the topic that is named by `key`.
    reuse : bool
        Whether those who send may train compiled models of earlier fits.
    """

    key: str
    pid: int
    socket: str | None
    secret: bytes
    on_dask: bool = False
    reuse: bool = False


class Question(NamedTuple):
    """A message that waits for an answer."""

    about: Any
