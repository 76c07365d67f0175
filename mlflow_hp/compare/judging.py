"""Judge each run by its best epoch or by its last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.tags import BEST_EPOCH_METRIC, BEST_METRIC_PREFIX, SAVED_MODEL_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

Judge = Literal["auto", "best", "last"]
JUDGES = ("auto", "best", "last")


def judged(facts: Sequence[RunFacts], judge: str) -> list[RunFacts]:
    """Replace the metrics of runs that are judged by their best epoch by those of that epoch.

    Parameters
    ----------
    facts : sequence of RunFacts
        Runs, with the last value of each metric.
    judge : {"auto", "best", "last"}
        "auto" judges a run by the epoch of the model that it has kept, which its tag ``mlflow_hp.saved_model`` names.
        A run without a best epoch is judged by its last.

    Raises
    ------
    UserError
        For another `judge`.
    """
    if judge not in JUDGES:
        raise UserError(f"judge={judge!r:.80} is none of {', '.join(map(repr, JUDGES))}")
    return [
        _at_best(run) if judge == "best" or (judge == "auto" and run.tag(SAVED_MODEL_TAG) == "best") else run
        for run in facts
    ]


def is_by_best(run: RunFacts, metric: str) -> bool:
    """Whether the value of a metric is that of the best epoch."""
    return run.judged_by == "best" and f"{BEST_METRIC_PREFIX}{metric}" in run.metrics


def epoch_judged(run: RunFacts, metric: str) -> str:
    """Epoch whose value of a metric is used, in words that count epochs as Keras prints them, from 1."""
    return f"best, epoch {run.metrics[BEST_EPOCH_METRIC] + 1:.0f}" if is_by_best(run, metric) else "last"


def how_judged(runs: Sequence[RunFacts], metric: str) -> str:
    """State in words which values of a metric are used."""
    n_best = sum(is_by_best(run, metric) for run in runs)
    n_last = len(runs) - n_best
    if not n_best:
        return "judged by the last value of each run"
    if not n_last:
        return "judged by the best epoch of each run"
    return f"judged by the best epoch of {n_best:,}, and by the last value of {n_last:,}"


def _at_best(run: RunFacts) -> RunFacts:
    best = {
        name.removeprefix(BEST_METRIC_PREFIX): value
        for name, value in run.metrics.items()
        if name.startswith(BEST_METRIC_PREFIX) and name != BEST_EPOCH_METRIC
    }
    if BEST_EPOCH_METRIC not in run.metrics:  # a sweep has best/..., too
        return run
    return run._replace(metrics=run.metrics | best, judged_by="best")
