"""What is known of one fit of a search: before it is computed, and when it came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.search.seen import Seen
    from mlflow_hp.search.task import Event, Outcome


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
