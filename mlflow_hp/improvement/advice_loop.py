"""The loop of following advice: which training to try next, from the findings and results so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlflow_hp.improvement.keywords import is_same
from mlflow_hp.improvement.proposals import KeywordChange, Proposal, halfway, proposals
from mlflow_hp.improvement.scores import compare, is_broken
from mlflow_hp.improvement.training_result import BETTER, FAILED, SAME, START, UNCOMPARED, WORSE, TrainingResult
from mlflow_hp.improvement.vocabulary import SYNONYMS, keyword_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.improvement.scores import Goal

SPENT, NOTHING_LEFT, NOT_REAL, NO_PROBLEM = (
    "all trainings are used up",
    "nothing is left to try",
    "the last change made no real difference",
    "no finding is a problem",
)


class AdviceLoop:
    """Decides which training to try next.

    It follows the first finding of the best training whose change touches a keyword. What made the result worse is
    taken back; if a change of one number went too far, half of it (on a logarithmic scale) is tried, else the next
    finding. No combination is tried twice, and the best training is never worse than the start. A start without a
    problem is left as it is, unless hints are asked for.

    Parameters
    ----------
    start : mapping of str to object
        Keyword values of the first training.
    trainings : int
        Trainings after the start, at most. Defaults to 3.
    defaults : mapping of str to object, optional
        Values of further keywords, which the start leaves at their defaults. Defaults to none.
    metric : str, optional
        What trainings are compared by. Defaults to the held-out loss.
    goal : {"min", "max"}, optional
        Whether lower or higher values of `metric` are better. Defaults to what its name says.
    stepwise : bool
        Whether a learning rate that a finding proposes with other changes is tried alone before all of them, to see
        what it does. Defaults to False.
    hints : bool
        Whether hints are followed though the start has no problem. Defaults to False: of a start that has one, they are
        followed after its problems.

    Attributes
    ----------
    trainings : list of TrainingResult
        All trainings, the start first.
    best : TrainingResult
        The best of them.
    ending : str
        Why there is no further proposal; empty while there is.

    Examples
    --------
    >>> from mlflow_hp.analysis import Finding
    >>> from mlflow_hp.improvement import AdviceLoop, Scores, TrainingResult
    >>> loop = AdviceLoop({"lr": 0.01})
    >>> evidence = {"suggested_learning_rate": 0.1}
    >>> slow = Finding("speed", "too slow", "The loss still falls.", evidence, severity="problem")
    >>> _ = loop.add(TrainingResult(loop.propose(), "run 0", (slow,), Scores({"val_loss": 2.0})))
    >>> _ = loop.add(TrainingResult(loop.propose(), "run 1", (), Scores({"val_loss": 1.0})))
    >>> loop.propose(), loop.ending, loop.best.hyperparameters
    (None, 'nothing is left to try', {'lr': 0.1})
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        trainings: int = 3,
        *,
        defaults: Mapping[str, Any] | None = None,
        metric: str | None = None,
        goal: Goal | None = None,
        stepwise: bool = False,
        hints: bool = False,
    ) -> None:
        self._start, self._defaults = dict(start), dict(defaults or {})
        self._budget, self._metric, self._goal, self._stepwise = trainings, metric, goal, stepwise
        self._hints = hints
        self.trainings: list[TrainingResult] = []
        self._best = 0
        self.ending = ""

    @property
    def best(self) -> TrainingResult:
        """The best training so far."""
        return self.trainings[self._best]

    @property
    def left_alone(self) -> list[Proposal]:
        """Proposals of the hints of a start without a problem, which are not followed; empty for others."""
        if self.ending != NO_PROBLEM:
            return []
        start = self.trainings[0]
        return list(proposals(start.findings, start.hyperparameters, self._defaults))

    @property
    def _base(self) -> TrainingResult:
        """The training whose advice is followed: the best; if that has no finite result, the last without one."""
        last, best = self.trainings[-1], self.best
        return last if last.verdict == SAME and self._is_broken(best) and self._is_broken(last) else best

    def _is_broken(self, training: TrainingResult) -> bool:
        """Whether a training has no finite loss; of one without a loss, the metric that trainings are compared by."""
        values = training.scores.values
        if self._metric in values and not values.keys() & {"loss", "val_loss"}:
            return not math.isfinite(values[self._metric])
        return is_broken(training.scores)

    def propose(self) -> Proposal | None:
        """Choose the next training.

        Returns
        -------
        Proposal or None
            None if there is none; then `ending` says why.
        """
        if not self.trainings:
            return Proposal(dict(self._start))
        if len(self.trainings) > self._budget:
            self.ending = SPENT
            return None
        last = self.trainings[-1]
        base = self._base
        from_findings = list(proposals(base.findings, base.hyperparameters, self._defaults, stepwise=self._stepwise))
        if from_findings and not self._hints and not _problems(self.trainings[0].findings):
            return self._first_untried([], NO_PROBLEM)
        if last.verdict == SAME and base is not last:  # hints are not worth a further training, a problem is
            of_problems = [each for each in from_findings if each.finding in _problems(base.findings)]
            return self._first_untried(of_problems, NOT_REAL)
        too_far = [last] if self._overshot(last) else []
        worse = [each for each in self.trainings if each.verdict == WORSE]
        halves_first, halves_last = ([halfway(each.proposal) for each in several] for several in (too_far, worse))
        return self._first_untried([*halves_first, *from_findings, *halves_last], NOTHING_LEFT)

    def add(self, training: TrainingResult) -> TrainingResult:
        """Add the result of the proposed training, and judge it against the best so far.

        Parameters
        ----------
        training : TrainingResult
            Its result.

        Returns
        -------
        TrainingResult
            The same with its verdict.
        """
        if not self.trainings:
            self.trainings.append(training._replace(verdict=FAILED if training.error else START))
            return self.trainings[0]
        by, verdict = "", FAILED
        if not training.error:
            by, gain, is_real = compare(
                training.scores, self.best.scores, self._changed(training), self._metric, self._goal
            )
            verdict = UNCOMPARED if not by else SAME if not is_real else BETTER if gain > 0 else WORSE
        judged = training._replace(verdict=verdict, compared_by=by)
        self.trainings.append(judged)
        if verdict == BETTER:
            self._best = len(self.trainings) - 1
        return judged

    def _first_untried(self, candidates: Iterable[Proposal | None], ending: str) -> Proposal | None:
        for candidate in candidates:
            proposal = None if candidate is None else self._from_base(candidate)
            if proposal is not None and not self._is_tried(proposal.hyperparameters):
                self.ending = ""
                return proposal
        self.ending = ending
        return None

    def _from_base(self, proposal: Proposal) -> Proposal:
        """Make the proposal's changes to the values of the base, which half of an earlier change does not know."""
        base = self._base.hyperparameters
        values = {**self._defaults, **base}
        new = {change.keyword: change.new for change in proposal.changes}
        changes = tuple(KeywordChange(keyword, values[keyword], value) for keyword, value in new.items())
        return proposal._replace(hyperparameters={**base, **new}, changes=changes)

    def _is_tried(self, hyperparameters: Mapping[str, Any]) -> bool:
        full = {**self._defaults, **hyperparameters}
        earlier = ({**self._defaults, **training.hyperparameters} for training in self.trainings)
        return any(each.keys() == full.keys() and all(is_same(each[k], full[k]) for k in full) for each in earlier)

    def _overshot(self, training: TrainingResult) -> bool:
        """Whether a change of one number went too far: to a result that is not finite, or to advice to go back."""
        if training.verdict != WORSE or halfway(training.proposal) is None:
            return False
        (change,) = training.proposal.changes
        value = training.scores.values.get(training.compared_by, math.nan)
        if not math.isfinite(value):
            return True
        for advice in proposals(training.findings, training.hyperparameters, self._defaults):
            for back in advice.changes:
                if back.keyword == change.keyword and isinstance(back.new, (int, float)):
                    return bool((back.new - back.old) * (change.new - change.old) < 0)
        return False

    def _changed(self, training: TrainingResult) -> set[str]:
        """Name the parameters, as findings do, that differ between a training and the best."""
        one, other = ({**self._defaults, **each.hyperparameters} for each in (training, self.best))
        different = {name for name in {*one, *other} if not is_same(one.get(name), other.get(name))}
        return {parameter for parameter in SYNONYMS if keyword_of(parameter, [*one, *other]) in different}


def _problems(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "problem"]
