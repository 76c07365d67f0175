"""Proposals of the diagnosis, followed once by trainings whose hyperparameters are keywords."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.diagnosis_cases import judging
from benchmarks.diagnosis_cases.case import HEALTHY
from benchmarks.diagnosis_cases.recordings import Job, record_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.diagnosis_cases.case import Case
    from benchmarks.diagnosis_cases.recordings import Results
    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.improvement import Proposal

BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
"""Limits of the probabilities that are counted together."""

SAME_WITHIN = 0.01
"""Losses that differ by less are the same."""


class Followed(NamedTuple):
    """Proposal that was followed, with the held-out losses before and after."""

    case: Case
    proposal: Proposal
    before: float
    after: float

    @property
    def finding(self) -> Finding:
        """Finding that led to it."""
        assert self.proposal.finding is not None
        return self.proposal.finding

    @property
    def result(self) -> str:
        """``"improved"``, ``"unchanged"`` or ``"hurt"``."""
        if self.after < self.before * (1 - SAME_WITHIN):
            return "improved"
        return "unchanged" if self.after <= self.before * (1 + SAME_WITHIN) else "hurt"


def follow(results: Results, cases: Sequence[Case], n_processes: int, *, all_of_them: bool, lists: bool) -> str:
    """Train each case once more as its first proposal says, or as each does, and report that in Markdown.

    Parameters
    ----------
    results : Results
        What is recorded; further trainings are added.
    cases : sequence of Case
        Cases, of which those with hyperparameters count.
    n_processes : int
        Trainings at the same time.
    all_of_them : bool
        Whether each proposal is followed, also of hints and of healthy trainings: from these the probabilities are
        estimated. Otherwise the first of each faulty training, if it is of a problem, as `improve` does.
    lists : bool
        Whether those that did not improve anything are listed.

    Returns
    -------
    str
        Tables.
    """
    from mlflow_hp.improvement.proposals import proposals

    by_name = {case.name: case for case in cases}
    starts = [each for each in judging.judge_all(results, cases) if each.role == "start" and each.case.by_keywords]
    proposed: dict[str, list[Proposal]] = {}
    for each in starts:
        found = list(proposals(each.findings, each.case.start, {}))
        problems = [p for p in found if p.finding is not None and p.finding.severity == "problem"]
        proposed[each.case.name] = found if all_of_them else problems[:1] if each.case.kind != HEALTHY else []
    jobs = [
        (Job(name, "proposal", 0, proposal.hyperparameters), proposal)
        for name, several in proposed.items()
        for proposal in several
    ]
    record_all(results, results.missing([job for job, _ in jobs], by_name), n_processes)
    recorded = results.read()
    followed = []
    for job, proposal in jobs:
        before, after = (recorded.get(each.key(by_name)) for each in (Job(job.case, "start", 0), job))
        if before is not None and after is not None and not after.error:
            followed.append(Followed(by_name[job.case], proposal, before.loss, after.loss))
    faulty = [each for each in starts if each.case.kind != HEALTHY]
    report = _report(followed, sum(bool(proposed[each.case.name]) for each in faulty), len(faulty))
    return f"{report}\n\n{_listed(followed)}" if lists else report


def _report(followed: Sequence[Followed], n_proposals: int, n_faulty: int) -> str:
    lines = [f"Of {n_faulty} faulty trainings, {n_proposals} get a proposal for their keywords.", ""]
    lines += ["| followed once | improved | unchanged | hurt |", "|---|---:|---:|---:|"]
    for kind in ("all", *sorted({each.case.kind for each in followed})):
        lines.append(f"| {kind} | {_counts([each for each in followed if kind in (each.case.kind, 'all')])} |")
    lines += ["", "| finding | severity | improved | unchanged | hurt |", "|---|---|---:|---:|---:|"]
    keys = Counter((each.finding.name, each.finding.severity) for each in followed)
    for key, _ in keys.most_common():
        of_finding = [each for each in followed if (each.finding.name, each.finding.severity) == key]
        lines.append(f"| {' | '.join(key)} | {_counts(of_finding)} |")
    lines += ["", "| probability | proposals | mean of what was said | improved |", "|---|---:|---:|---:|"]
    for low, high in itertools.pairwise(BINS):
        inside = [each for each in followed if low <= (each.finding.probability or -1) < high]
        if inside:
            said = sum(each.finding.probability or 0 for each in inside) / len(inside)
            share = sum(each.result == "improved" for each in inside) / len(inside)
            lines.append(f"| {low:.1f} to {min(high, 1):.1f} | {len(inside)} | {said:.2f} | {share:.2f} |")
    return "\n".join(lines)


def _listed(followed: Sequence[Followed]) -> str:
    """List the proposals that did not improve anything."""
    return "\n".join(
        f"- {each.case.name}: {each.result}, loss {each.before:.3g} -> {each.after:.3g} by {each.finding.name}: "
        f"{'; '.join(change.text for change in each.proposal.changes)}"
        for each in followed
        if each.result != "improved"
    )


def _counts(followed: Sequence[Followed]) -> str:
    results = [each.result for each in followed]
    return " | ".join(str(results.count(name)) for name in ("improved", "unchanged", "hurt"))
