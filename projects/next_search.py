"""The next space of a search's review, searched in a run of its own, in the same folds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.terminal import say
from mlflow_hp.tracking import artifact_paths, tags
from projects import grids
from projects.arguments import IMPROVE, Parameter, one_of
from projects.experiment import Outcome, ending, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.analysis import SearchResults
    from projects.search_settings import SearchSetup

THEN = Parameter(
    "then",
    "none",
    one_of(lambda: ["none", "review"]),
    "what follows the search; review: one of the next space that its review proposes",
    several=False,
)
SPACES = ("grid", "space")
"""Parameters that name a search space."""
RUN_NAME = "next space of the review"
NEXT_SCORE_METRIC = "next_best_score"
"""Metric of the search's run: the best mean score in the next space."""


class Next(NamedTuple):
    """Result of the next search: a sentence, and numbers for the run of the search before."""

    sentence: str
    numbers: dict[str, float]


def follow(
    setup: SearchSetup, search: Any, results: SearchResults, run_id: str, run: Callable[[SearchSetup, Any], Outcome]
) -> Next:
    """Search the next space of a search, in a run nested in the active one; if that fails, the sentence says so.

    Parameters
    ----------
    setup : SearchSetup
        Settings of the search.
    search : BaseSearchCV
        Fitted.
    results : SearchResults
        Its results.
    run_id : str
        Id of its parent run, which holds the next space.
    run : callable
        ``run(setup, search) -> Outcome``: records and reports a search in the active run.
    """
    import mlflow

    try:
        space = _next_space(run_id)
        if space is None:
            return Next("The review proposes no next space.", {})
        named = {name: f"{artifact_paths.NEXT_SPACE_FILE} of {run_id}" for name in SPACES if name in setup.settings}
        off = {THEN.name: "none", IMPROVE.name: 0, "resume": False, "halving": False}
        settings = {**setup.settings, **named, **off}
        with mlflow.start_run(run_name=RUN_NAME, nested=True) as active_run, ending(active_run.info.run_id):
            outcome = run(setup._replace(settings=settings), _search(setup, search, space, len(results.candidates)))
    except Exception as error:  # noqa: BLE001 - the search itself has succeeded; the traceback is in the run
        reason = f"{type(error).__name__}: {first_line(error)}"
        say(f"searching the next space failed: {reason}", file=sys.stderr)
        return Next(f"Searching the next space of the review failed: {reason}.", {})
    new, old = outcome.numbers[tags.BEST_SCORE_METRIC], float(results.mean[results.compared].max())
    verdict = "better than" if new > old else "no better than"
    return Next(
        f"The next space of the review holds a combination with mean {setup.scorer} {new:.4g} in the same folds, "
        f"{verdict} {old:.4g} before: run `{outcome.run_id}`.",
        {NEXT_SCORE_METRIC: new},
    )


def _next_space(run_id: str) -> Mapping[str, Any] | None:
    """Read the next space that the run of a search holds; None if there is none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=artifact_paths.NEXT_SPACE_FILE)
    except (MlflowException, OSError):
        return None
    return grids.read(path, "space")


def _search(setup: SearchSetup, search: Any, space: Mapping[str, Any], n_iter: int) -> Any:
    """Make the search of a space: all of a grid, or as many draws from ranges as there were combinations."""
    from sklearn import model_selection
    from sklearn.base import clone

    common = {"scoring": search.scoring, "cv": search.cv, "n_jobs": search.n_jobs, "refit": False}
    if all(isinstance(values, list) for values in space.values()):
        return model_selection.GridSearchCV(clone(search.estimator), dict(space), **common)
    return model_selection.RandomizedSearchCV(
        clone(search.estimator), dict(space), n_iter=n_iter, random_state=setup.settings["seed"], **common
    )
