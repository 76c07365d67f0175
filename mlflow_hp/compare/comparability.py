"""Groups of comparable runs, the metric that ranks each group, and why other runs are left out."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlflow_hp.compare.fold_scores import fold_metrics
from mlflow_hp.compare.judging import Judge, how_judged, judged
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.tracking.tags import DATA_DIGEST_TAG, MEAN_METRIC_PREFIX, MEAN_SCORE_METRIC, TEST_SCORE_METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

Goal = Literal["min", "max"]

PREFERRED = (
    MEAN_SCORE_METRIC,
    "val_accuracy",
    "val_loss",
    "distance",
    TEST_SCORE_METRIC,
    "test_accuracy",
    "accuracy",
    "loss",
)
"""Default metrics to rank runs by: the first that a run has, unless it has a mean over folds."""
LOWER = re.compile(r"loss|error|(^|_)(mae|mse|rmse|mape|msle)($|_)|distance|perplexity|deviance|seconds|excess|final_J")
"""Names of metrics that are better when lower. Scores of scikit-learn's searches are always better when higher."""
NO_SCORE = re.compile(
    r"/|^(epoch|step|rank|nfev|njev|nhev|iterations|success|n_resources|report_seconds)|seconds$|^lr$"
)
PARENTS = ("search", "sweep", "improvement")


class RunGroup(NamedTuple):
    """Comparable runs.

    Attributes
    ----------
    runs : list of RunFacts
        Best first; ties in the order of their start.
    metric : str
        Metric that ranks them.
    goal : {"min", "max"}
        Whether lower or higher values are better.
    data_digest : str
        Digest of the data that all were trained on.
    split_digest : str or None
        Digest of the split; None if it was not recorded.
    """

    runs: list[RunFacts]
    metric: str
    goal: Goal
    data_digest: str
    split_digest: str | None

    @property
    def scores(self) -> list[float]:
        """Value of the metric for each run."""
        return [run.metrics[self.metric] for run in self.runs]

    @property
    def better(self) -> str:
        """Direction of the metric, and the epochs by which the runs are judged, in words."""
        better = "higher is better" if self.goal == "max" else "lower is better"
        return f"{better}; {how_judged(self.runs, self.metric)}"

    @property
    def fold_metric(self) -> str:
        """Name of the metric that holds the scores of the folds; ``""`` if the ranking metric is not their mean."""
        return self.metric.removeprefix(MEAN_METRIC_PREFIX) if self.metric.startswith(MEAN_METRIC_PREFIX) else ""


class LeftOut(NamedTuple):
    """Run that is not compared, and the reason."""

    run: RunFacts
    reason: str


class Grouping(NamedTuple):
    """Groups of comparable runs, the largest first, and the runs left out."""

    groups: list[RunGroup]
    left_out: list[LeftOut]


def group_runs(
    facts: Sequence[RunFacts],
    metric: str | None = None,
    goal: Goal | None = None,
    *,
    unfinished: bool = False,
    judge: Judge = "auto",
) -> Grouping:
    """Group runs by data, split and ranking metric.

    Parameters
    ----------
    facts : sequence of RunFacts
    metric : str, optional
        Metric to rank runs by. Defaults to the usual one of each kind of run, see ``PREFERRED``.
    goal : {"min", "max"}, optional
        Whether lower or higher values are better. Defaults to a guess from the metric's name.
    unfinished : bool
        Whether to compare running runs, too, by their latest values. Defaults to False.
    judge : {"auto", "best", "last"}
        Whether runs are judged by their best epoch or by their last; "auto" by that of the model that each has kept.
        Defaults to ``"auto"``.

    Raises
    ------
    UserError
        If no run has `metric`, or for another `judge`.
    """
    facts = judged(facts, judge)
    if metric is not None and not any(metric in run.metrics for run in facts):
        available = Counter(name for run in facts for name in run.metrics if "/" not in name)
        raise UserError(
            f"metric {metric!r}: no run has it, of {count(len(facts), 'run')}. There is "
            f"{', '.join(name for name, _ in available.most_common(12)) or 'no metric'}"
        )
    parents = {run.parent_id for run in facts if run.kind != "fold"}
    left_out: list[LeftOut] = []
    by_key: dict[tuple[str, str | None, str], list[RunFacts]] = {}
    common = Counter(name for run in facts for name in run.metrics if not NO_SCORE.search(name))
    for run in facts:
        ranked_by = metric or _default_metric(run, common)
        reason = _reason(run, ranked_by, parents, unfinished=unfinished)
        if reason is not None:
            left_out.append(LeftOut(run, reason))
        else:
            assert run.data_digest is not None
            by_key.setdefault((run.data_digest, run.split_digest, ranked_by), []).append(run)
    groups = []
    for (data, split, ranked_by), runs in by_key.items():
        if len(runs) == 1:
            left_out.append(LeftOut(runs[0], _reason_alone(runs[0], ranked_by, facts)))
            continue
        group_goal: Goal = goal or goal_of(ranked_by)
        sign = -1 if group_goal == "max" else 1
        runs.sort(key=lambda run: (sign * run.metrics[ranked_by], run.started))
        groups.append(RunGroup(runs, ranked_by, group_goal, data, split))
    groups.sort(key=lambda group: -len(group.runs))
    return Grouping(groups, left_out)


def goal_of(metric: str) -> Goal:
    """Guess from the name of a metric whether lower or higher is better."""
    return "max" if metric.startswith(MEAN_METRIC_PREFIX) or not LOWER.search(metric) else "min"


def _default_metric(run: RunFacts, common: Counter[str]) -> str:
    """Choose the metric to rank a run by; ``""`` if it has none."""
    if fold_metrics(run.metrics) or run.folds:
        names = list(run.folds) or fold_metrics(run.metrics)
        means = [f"{MEAN_METRIC_PREFIX}{name}" for name in names]
        return next((name for name in means if name in run.metrics), means[0])
    for name in PREFERRED:
        if name in run.metrics:
            return name
    others = [name for name in run.metrics if not NO_SCORE.search(name)]
    return max(others, key=lambda name: (common[name], name), default="")


def _reason(run: RunFacts, metric: str, parents: set[str | None], *, unfinished: bool) -> str | None:
    """Why a run is not compared; None if it is."""
    if run.kind == "comparison":
        return "it is a comparison itself"
    if run.kind == "fold":
        return "it is a fold: its score is in the run of its candidate"
    if run.run_id in parents and run.kind in (*PARENTS, ""):
        return "its nested runs are compared instead"
    if run.status in ("RUNNING", "SCHEDULED") and not unfinished:
        return "it has not ended"
    if run.status in ("FAILED", "KILLED"):
        return f"its status is {run.status}, not FINISHED"
    if run.data_digest is None:
        return (
            "its data are not known: record it with this package, call mlflow.log_input, or set the tag "
            f"{DATA_DIGEST_TAG}"
        )
    if metric not in run.metrics:
        return f"it has no metric {metric}" if metric else "it has no metric to rank it by"
    if not math.isfinite(run.metrics[metric]) or abs(run.metrics[metric]) > 1e300:  # MLflow stores infinities so
        return f"its {metric} is not finite"
    return None


def _reason_alone(run: RunFacts, metric: str, facts: Sequence[RunFacts]) -> str:
    """Why a comparable run has nothing to be compared with."""
    if len(facts) == 1:
        return "it is the only one: add a run that was trained on the same data"
    others = [other for other in facts if other.run_id != run.run_id and other.data_digest == run.data_digest]
    if not others:
        return f"no other run was trained on its data ({run.data_digest})"
    if all(other.split_digest != run.split_digest for other in others):
        return "the other runs on its data used a different split"
    return f"no other comparable run on its data and split is ranked by {metric}"
