"""Which runs are comparable, by what they are judged, and why the others are left out."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlflow_hp.compare.run_summary import fold_metrics
from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

Goal = Literal["min", "max"]

PREFERRED = ("mean_score", "val_accuracy", "val_loss", "distance", "test_score", "test_accuracy", "accuracy", "loss")
"""By what runs are judged unless it is said: the first of these that one has, after means over folds."""
LOWER = re.compile(r"loss|error|(^|_)(mae|mse|rmse|mape|msle)($|_)|distance|perplexity|deviance|seconds|excess|final_J")
"""Names of metrics of which less is better; not of scores of scikit-learn's searches, of which more always is."""
NOT_JUDGED_BY = re.compile(
    r"/|^(epoch|step|rank|nfev|njev|nhev|iterations|success|n_resources|report_seconds)|seconds$|^lr$"
)
PARENTS = ("search", "sweep")


class Group(NamedTuple):
    """Runs that can be compared.

    Attributes
    ----------
    runs : list of RunFacts
        The best first; equals in the order of their start.
    metric : str
        By what they are judged.
    goal : {"min", "max"}
        Which of its values are better.
    data_digest : str
        What all were trained on.
    split_digest : str or None
        How that was divided; None where none of them says it.
    """

    runs: list[RunFacts]
    metric: str
    goal: Goal
    data_digest: str
    split_digest: str | None

    @property
    def scores(self) -> list[float]:
        """Of each run."""
        return [run.metrics[self.metric] for run in self.runs]

    @property
    def fold_metric(self) -> str:
        """The name under which the scores of folds stand of which the metric is the mean; ``""`` where it is none."""
        return self.metric.removeprefix("mean_") if self.metric.startswith("mean_") else ""


class LeftOut(NamedTuple):
    """A run that is not compared, and why."""

    run: RunFacts
    reason: str


class Grouped(NamedTuple):
    """All runs: those of groups, the largest group first, and those left out."""

    groups: list[Group]
    left_out: list[LeftOut]


def grouped(
    facts: Sequence[RunFacts], metric: str | None = None, goal: Goal | None = None, *, unfinished: bool = False
) -> Grouped:
    """Sort runs into groups of the same data, the same split, and the same metric to judge by.

    Parameters
    ----------
    facts : sequence of RunFacts
    metric : str, optional
        By what to judge; by default what each kind of run is usually judged by, see ``PREFERRED``.
    goal : {"min", "max"}, optional
        Which values of it are better; by default told from its name.
    unfinished : bool
        Whether runs that are running are compared by what they have reached.

    Raises
    ------
    UserError
        Where `metric` is given, and no run has it.
    """
    if metric is not None and not any(metric in run.metrics for run in facts):
        there = Counter(name for run in facts for name in run.metrics if "/" not in name)
        raise UserError(
            f"metric {metric!r}: none of the {len(facts)} runs has it. They have "
            f"{', '.join(name for name, _ in there.most_common(12)) or 'no metrics'}"
        )
    parents = {run.parent_id for run in facts if run.kind != "fold"}
    left_out: list[LeftOut] = []
    by_key: dict[tuple[str, str | None, str], list[RunFacts]] = {}
    common = Counter(name for run in facts for name in run.metrics if not NOT_JUDGED_BY.search(name))
    for run in facts:
        judged_by = metric or _judged_by(run, common)
        reason = _reason(run, judged_by, parents, unfinished=unfinished)
        if reason is not None:
            left_out.append(LeftOut(run, reason))
        else:
            assert run.data_digest is not None
            by_key.setdefault((run.data_digest, run.split_digest, judged_by), []).append(run)
    groups = []
    for (data, split, judged_by), runs in by_key.items():
        if len(runs) == 1:
            left_out.append(LeftOut(runs[0], _alone(runs[0], judged_by, facts)))
            continue
        towards: Goal = goal or goal_of(judged_by)
        sign = -1 if towards == "max" else 1
        runs.sort(key=lambda run: (sign * run.metrics[judged_by], run.started))
        groups.append(Group(runs, judged_by, towards, data, split))
    groups.sort(key=lambda group: -len(group.runs))
    return Grouped(groups, left_out)


def goal_of(metric: str) -> Goal:
    """Whether more or less of a metric is better, told from its name."""
    return "max" if metric.startswith("mean_") or not LOWER.search(metric) else "min"


def _judged_by(run: RunFacts, common: Counter[str]) -> str:
    """The metric that says how good a run is; ``""`` where it has none."""
    if fold_metrics(run.metrics) or run.folds:
        means = [f"mean_{name}" for name in run.folds] or [f"mean_{n}" for n in fold_metrics(run.metrics)]
        return next((name for name in means if name in run.metrics), means[0])
    for name in PREFERRED:
        if name in run.metrics:
            return name
    others = [name for name in run.metrics if not NOT_JUDGED_BY.search(name)]
    return max(others, key=lambda name: (common[name], name), default="")


def _reason(run: RunFacts, metric: str, parents: set[str | None], *, unfinished: bool) -> str | None:
    """Why a run is not compared; None where it is."""
    if run.kind == "comparison":
        return "it is a comparison itself"
    if run.kind == "fold":
        return "it is a fold: its score is in the run of its combination"
    if run.run_id in parents and run.kind in (*PARENTS, ""):
        return "the runs nested in it stand for it"
    if run.status in ("RUNNING", "SCHEDULED") and not unfinished:
        return "it has not ended"
    if run.status in ("FAILED", "KILLED"):
        return f"it did not end well: {run.status}"
    if run.data_digest is None:
        return (
            "nothing says what it was trained on: record it with this package, call mlflow.log_input, or set the tag "
            "mlflow_hp.data_digest"
        )
    if metric not in run.metrics:
        return f"it has no metric {metric}" if metric else "it has no metric to judge it by"
    if not math.isfinite(run.metrics[metric]) or abs(run.metrics[metric]) > 1e300:  # MLflow keeps infinities as that
        return f"its {metric} is not finite"
    return None


def _alone(run: RunFacts, metric: str, facts: Sequence[RunFacts]) -> str:
    """Why a run that could be compared has none beside it."""
    others = [other for other in facts if other.run_id != run.run_id and other.data_digest == run.data_digest]
    if not others:
        return f"no other run was trained on its data ({run.data_digest})"
    if all(other.split_digest != run.split_digest for other in others):
        return "the others on its data divided them differently"
    return f"no other comparable run on its data and split is judged by {metric}"
