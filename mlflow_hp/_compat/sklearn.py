"""Private names of scikit-learn: the parts of a search that compute its fits."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.patch import Patch
from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, call, warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RECORDED_AFTERWARDS = "the search is recorded when it has ended, not live"
SEARCHES = "sklearn.model_selection._search"

PARALLEL = PrivateName("scikit-learn", SEARCHES, "Parallel", kind=type, fallback=RECORDED_AFTERWARDS)
"""Class whose instance computes the fits of a search. Fallback: the search is recorded when it has ended."""

FIT_AND_SCORE = PrivateName("scikit-learn", SEARCHES, "_fit_and_score", takes=call(
    None, None, None, train=None, test=None, parameters=None, split_progress=None, candidate_progress=None,
    scorer=None, verbose=0, fit_params=None, score_params=None,
), fallback=RECORDED_AFTERWARDS)  # fmt: skip
"""Function that computes a fit; its arguments identify candidate and fold. Fallback: as above."""

CALLBACKS = PrivateName(
    "scikit-learn", "CallbackContext", "_callbacks", fallback="each fit carries the contexts of all, which takes longer"
)
"""Callbacks that a search notifies of its fits; older versions do not have them. Fallback: the context is sent with
each fit."""

CALLBACKS_OF_ESTIMATOR = PrivateName("scikit-learn", "BaseEstimator", "_skl_callbacks", fallback=CALLBACKS.fallback)
"""Callbacks of an estimator; most have none. Fallback: it counts as having none."""

FAILURES = PrivateName(
    "scikit-learn",
    SEARCHES,
    "_warn_or_raise_about_fit_failures",
    takes=call([], 0.0),
    fallback="a round of an adaptive search in which all fits fail ends it",
)
"""Function that warns of failed fits of a round, and raises if all have failed. Fallback: as scikit-learn has it."""
UNBOUNDED = "the largest score of a scorer made by make_scorer counts as unknown"
SCORE_FUNCTION = PrivateName("scikit-learn", "_BaseScorer", "_score_func", fallback=UNBOUNDED)
"""Function of a scorer. Fallback: nothing is pruned by it."""

SCORE_SIGN = PrivateName("scikit-learn", "_BaseScorer", "_sign", kind=int, fallback=UNBOUNDED)
"""-1 for a scorer of an error. Fallback: as above."""

SCORE_SETTINGS = PrivateName("scikit-learn", "_BaseScorer", "_kwargs", kind=dict, fallback=UNBOUNDED)
"""Arguments of a scorer's function. Fallback: as above."""


def search_class() -> Any:
    """Return the base class of all searches of scikit-learn."""
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

    return next(cls for cls in GridSearchCV.__mro__ if issubclass(RandomizedSearchCV, cls))


def parallel_holder() -> Any:
    """Return the module in which a search looks up `PARALLEL`.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikit-learn computes fits in another way.
    """
    import joblib

    if not issubclass(PARALLEL.of(), joblib.Parallel):
        raise PARALLEL.unsupported("is not a joblib.Parallel")
    FIT_AND_SCORE.of()
    return sys.modules[SEARCHES]


class FitArguments(NamedTuple):
    """Arguments of one call of `FIT_AND_SCORE`.

    Attributes
    ----------
    by_name : dict of str to object
        All arguments.
    candidate, n_candidates, split, n_splits : int
        Numbers of the candidate and of the fold (0-based), and how many there are in this round.
    params : mapping of str to object
        Params of the candidate.
    """

    by_name: dict[str, Any]
    candidate: int
    n_candidates: int
    split: int
    n_splits: int
    params: Mapping[str, Any]


def arguments_of(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> FitArguments:
    """Read the arguments of one fit of a search.

    Raises
    ------
    UnsupportedVersionError
        If they do not identify candidate and fold.
    """
    try:
        by_name = inspect.signature(function).bind(*arguments, **named).arguments
        (candidate, n_candidates), (split, n_splits) = by_name["candidate_progress"], by_name["split_progress"]
        params = by_name["parameters"]
        numbers = (int(candidate), int(n_candidates), int(split), int(n_splits))
    except (KeyError, TypeError, ValueError) as error:
        raise FIT_AND_SCORE.unsupported(f"is called with other arguments: {type(error).__name__}: {error}") from None
    return FitArguments(_without_empty_context(by_name), *numbers, {} if params is None else params)


class FitResult(NamedTuple):
    """Result of one call of `FIT_AND_SCORE`.

    Attributes
    ----------
    test_scores, train_scores : dict of str to float
        Scorer (``"score"`` if there is only one) -> score.
    fit_seconds, score_seconds : float
    error : str or None
        Traceback of a failed fit.
    """

    test_scores: dict[str, float]
    train_scores: dict[str, float]
    fit_seconds: float
    score_seconds: float
    error: str | None


def result_of(result: Any) -> FitResult:
    """Read the result of one fit of a search.

    Raises
    ------
    UnsupportedVersionError
        If it is not as expected.
    """
    try:
        test, train = (
            scores if isinstance(scores, dict) else {} if scores is None else {"score": scores}
            for scores in (result["test_scores"], result.get("train_scores"))
        )
        return FitResult(test, train, result["fit_time"], result["score_time"], result["fit_error"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FIT_AND_SCORE.unsupported(f"returned an unexpected result: {type(error).__name__}: {error}") from None


def _without_empty_context(arguments: dict[str, Any]) -> dict[str, Any]:
    """Remove the callback context from a fit's arguments if it holds no callback.

    A context refers to those of all fits, so that pickling them takes time quadratic in their number.
    """
    context = arguments.get("callback_ctx")
    if context is None:
        return arguments
    try:
        callbacks = CALLBACKS.of(context)
    except UnsupportedVersionError as error:
        warn_once(error)
        return arguments
    if callbacks or getattr(arguments["estimator"], CALLBACKS_OF_ESTIMATOR.name, None):
        return arguments
    return {**arguments, "callback_ctx": None, "caller": None}


_rounds_of: dict[int, list[Any]] = {}


@contextlib.contextmanager
def failures_at_the_end(search: Any) -> Iterator[None]:
    """Let scikit-learn judge the failed fits of all rounds of a search together, at the end of the block.

    Parameters
    ----------
    search : BaseSearchCV
        A search whose ``fit`` evaluates candidates in rounds inside the block.

    Raises
    ------
    ValueError
        As of scikit-learn, if all fits have failed.
    """
    try:
        judge, holder = FAILURES.of(), sys.modules[SEARCHES]
    except UnsupportedVersionError as error:
        warn_once(error)
        yield
        return
    rounds = _rounds_of[id(search)] = []
    try:
        with _failures.on(holder):
            yield
    finally:
        del _rounds_of[id(search)]
    judge(rounds, search.error_score)


def _collect(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def collect(results: list[Any], error_score: Any) -> None:
        search = sys._getframe(1).f_locals.get("self")  # the caller is known in no other way
        rounds = _rounds_of.get(id(search))
        if rounds is None:
            original(results, error_score)
        else:
            rounds += results

    return collect


_failures = Patch(FAILURES.name, _collect)


def uncomputed(result: Mapping[str, Any]) -> dict[str, Any]:
    """Make the result of a fit that is not computed from that of another: no failure, but without scores and times.

    A row of ``cv_results_`` whose times are nan therefore has folds that were not computed.
    """
    nan = float("nan")
    scores = {name: result[name] for name in ("test_scores", "train_scores") if name in result}
    without = {name: dict.fromkeys(value, nan) if isinstance(value, dict) else nan for name, value in scores.items()}
    return {**result, **without, "fit_time": nan, "score_time": nan, "fit_error": None}


class ScoreFunction(NamedTuple):
    """Function of a scorer, its sign (-1 for an error), and its arguments."""

    function: Callable[..., Any]
    sign: int
    settings: Mapping[str, Any]


def score_function(scorer: Any) -> ScoreFunction | None:
    """Return the function of a scorer of scikit-learn's ``make_scorer``; None for any other.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikit-learn keeps it elsewhere.
    """
    from sklearn.metrics import get_scorer

    if not isinstance(scorer, type(get_scorer("accuracy"))):
        return None
    return ScoreFunction(SCORE_FUNCTION.of(scorer), SCORE_SIGN.of(scorer), SCORE_SETTINGS.of(scorer))
