"""Fits of a search that are not computed, because they are pruned or the time is over; and the order of the others."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp._compat.sklearn import uncomputed
from mlflow_hp.search.pruning.rules import rule_for
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow_hp.search.live.events import Call, Fold, PlannedFit
    from mlflow_hp.search.pruning.rules import Judgement
    from mlflow_hp.search.time_limit import TimeLimit

    Group = tuple[list[Call], str | None]

NOT_FINITE = "One or more of the (test|train) scores are non-finite"
"""Warning of scikit-learn, also of candidates that lack a fold on purpose."""


@contextlib.contextmanager
def expected_gaps(are_expected: bool) -> Iterator[None]:
    """Leave out scikit-learn's warning of scores that are missing, if they are; failed fits have one of their own."""
    if not are_expected:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NOT_FINITE, UserWarning)
        yield


class Skip(NamedTuple):
    """A planned fit that is not computed.

    Attributes
    ----------
    fit : PlannedFit
    reason : str
        Why.
    is_pruned : bool
        Whether it was pruned; else the time limit has cut it.
    """

    fit: PlannedFit
    reason: str
    is_pruned: bool


class Skipping:
    """Decides, when a fit of a search is about to be handed to the pool, whether it is computed.

    Parameters
    ----------
    search : BaseSearchCV
        The search that fits.
    prune : {"exact", "tested"} or None
    limit : TimeLimit
    skipped : callable
        Takes each `Skip`.
    remark : callable
        Takes messages to the user.

    Attributes
    ----------
    skips : list of Skip
    limit : TimeLimit
    """

    def __init__(
        self,
        search: Any,
        prune: str | None,
        limit: TimeLimit,
        *,
        skipped: Callable[[Skip], None],
        remark: Callable[[str], None],
    ) -> None:
        self.skips: list[Skip] = []
        self._search, self.limit = search, limit
        self._skipped, self._remark = skipped, remark
        self._rule, reason = rule_for(prune, search)
        if reason:
            remark(f"prune={prune!r}: nothing is pruned: {reason}")
        self._factor = getattr(search, "factor", None)  # of a halving search
        self._scores = np.empty((0, 0))
        self._lost: dict[int, str] = {}
        self._round, self._first = 0, 0
        self._template: dict[str, Any] | None = None

    def plan(self, fit: PlannedFit) -> None:
        """Note a planned fit."""
        n_before = len(self._scores)
        if fit.n_candidates > n_before:
            rows = np.full((fit.n_candidates - n_before, fit.n_splits), np.nan)
            self._scores = rows if not n_before else np.vstack([self._scores, rows])
        if self._factor is not None and fit.round != self._round:
            self._round, self._first = fit.round, fit.candidate
        if self._rule is not None and (reason := self._rule.cannot_judge(fit.params)):
            self._give_up(reason)

    def note(self, fit: PlannedFit, fold: Fold) -> None:
        """Take the scores of a finished fit."""
        if fold.result is not None and (fold.error is None or not callable(self._search.scoring)):
            self._template = self._template or fold.result
        refit = self._search.refit
        scorer = refit if isinstance(refit, str) and refit in fold.scores else "score"
        self._scores[fit.candidate, fit.split] = fold.scores.get(scorer, np.nan)

    def select(self, groups: Iterable[Group], results: dict[int, Any]) -> Iterator[Group]:
        """Yield the groups of fits in the order to compute them, without skipped ones, whose results go to `results`.

        A decision is made when the group is asked for, by the scores known by then.
        """
        for calls, epochs in groups if self._rule is None else self._best_first(groups):
            computed = []
            for call in calls:
                skip = self._skip(call.fit)
                if skip is None or self._template is None:
                    computed.append(call)
                    continue
                results[call.fit.task] = uncomputed(self._template)
                call.arguments.clear()
                self.skips.append(skip)
                self._skipped(skip)
            if computed:
                yield computed, epochs

    def _best_first(self, groups: Iterable[Group]) -> Iterator[Group]:
        """Yield a fold of each candidate first, then always that of the most promising candidate.

        Of exact pruning it is the order of fewest fits: only candidates that may be the best get another fold.
        """
        waiting = sorted(groups, key=lambda group: (group[0][0].fit.split, group[0][0].fit.task))
        leaders = np.array([calls[0].fit.candidate for calls, _ in waiting], np.int64) - self._first
        left = np.ones(len(waiting), bool)
        while left.any():
            judgement = self._judge()
            promise = np.zeros(len(waiting)) if judgement is None else judgement.promise[leaders]
            chosen = int(np.argmax(np.where(left, promise, -np.inf)))
            chosen = chosen if left[chosen] else int(np.argmax(left))
            left[chosen] = False
            yield waiting[chosen]

    def _skip(self, fit: PlannedFit) -> Skip | None:
        if self.limit.is_over:
            return Skip(fit, "the time was over", is_pruned=False)
        self._judge()
        reason = self._lost.get(fit.candidate)
        return None if reason is None else Skip(fit, reason, is_pruned=True)

    def _judge(self) -> Judgement | None:
        """Judge the candidates of this round, who is out stays out; None if that fails, and from then on."""
        if self._rule is None:
            return None
        scores = self._scores[self._first :].copy()
        n_best = 1 if self._factor is None else math.ceil(len(scores) / self._factor)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                judgement: Judgement = self._rule.judge(scores, n_best)
            for row in np.flatnonzero(judgement.is_hopeless):
                if self._first + row not in self._lost:
                    self._lost[self._first + int(row)] = judgement.reason(int(row))
        except Exception as error:  # noqa: BLE001 - the fits are computed
            self._give_up(f"{type(error).__name__}: {error}")
            return None
        return judgement

    def _give_up(self, reason: str) -> None:
        self._rule = None
        self._remark(f"no more is pruned from here on: {reason}")

    @property
    def has_complete(self) -> bool:
        """Whether a candidate of this round, or of any if the search has no rounds, has the scores of all its folds."""
        return bool(np.isfinite(self._scores[self._first :]).all(axis=1).any())

    @property
    def is_cut(self) -> bool:
        """Whether the time limit has cut fits."""
        return any(not skip.is_pruned for skip in self.skips)

    def sentences(self) -> list[str]:
        """Describe how many fits were pruned, and how many the time limit cut."""
        pruned = [skip for skip in self.skips if skip.is_pruned]
        cut = [skip for skip in self.skips if not skip.is_pruned]
        planned, sentences = f"of {count(self._scores.size, 'fit')}", []
        if pruned:
            candidates = count(len({skip.fit.candidate for skip in pruned}), "candidate")
            sentences.append(f"Pruned: {len(pruned):,} {planned}, of {candidates}; no failures.")
        if cut:
            candidates = count(len({skip.fit.candidate for skip in cut}), "candidate")
            sentences.append(
                f"Cut by the time budget of {self.limit.seconds:g} s: {len(cut):,} {planned}, of {candidates}; "
                f"`resume=True` computes only these.{self._doubt({skip.fit.candidate for skip in cut})}"
            )
        return sentences

    def _doubt(self, cut: set[int]) -> str:
        """Say that the search names one of the candidates that were cut as its best; empty if it does not."""
        best = getattr(self._search, "best_index_", None)
        if best not in cut:
            return ""
        choose = "; let refit choose by numpy.nanargmax" if callable(self._search.refit) else ""
        return f" best_index_={best} is one of them, with nan as its score: nothing says that it is the best{choose}."
