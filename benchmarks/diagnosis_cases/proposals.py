"""First proposals of the diagnosis, followed once by trainings whose hyperparameters are keywords."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.diagnosis_cases import judging
from benchmarks.diagnosis_cases.case import HEALTHY
from benchmarks.diagnosis_cases.recordings import Job, record_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.diagnosis_cases.case import Case
    from benchmarks.diagnosis_cases.recordings import Results
    from mlflow_hp.analysis.diagnosis import Finding

KEYWORDS = {
    "kernel_initializer": ("kernel_initializer", "initializer"),
    "rate": ("dropout",),
    "regularizer": ("l2",),
    "units": ("hidden", "units"),
    "layers": ("n_hidden",),
}
"""Parameters of changes -> keywords of the programs, where they differ."""

BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
"""Limits of the probabilities that are counted together."""

SAME_WITHIN = 0.01
"""Losses that differ by less are the same."""


class Proposal(NamedTuple):
    """Proposal that was followed: of a finding, with both held-out losses."""

    case: Case
    finding: Finding
    keywords: dict[str, Any]
    before: float
    after: float

    @property
    def result(self) -> str:
        """``"improved"``, ``"unchanged"`` or ``"hurt"``."""
        if self.after < self.before * (1 - SAME_WITHIN):
            return "improved"
        return "unchanged" if self.after <= self.before * (1 + SAME_WITHIN) else "hurt"


def changed(findings: Sequence[Finding], keywords: dict[str, Any]) -> tuple[Finding, dict[str, Any]] | None:
    """Apply the changes of the first finding that has any for these keywords."""
    for finding in findings:
        values = {
            name: change.new
            for change in finding.change
            for name in KEYWORDS.get(change.parameter, (change.parameter,))
            if name in keywords and change.new is not None
        }
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
        if any(keywords[name] != value for name, value in plain.items()):
            return finding, {**keywords, **plain}
    return None


def follow(results: Results, cases: Sequence[Case], n_processes: int, *, lists: bool) -> str:
    """Train each case once more as it is proposed, and report what that brought, in Markdown."""
    by_name = {case.name: case for case in cases}
    starts = [each for each in judging.judge_all(results, cases) if each.role == "start" and each.case.by_keywords]
    proposed = {each.case.name: changed(each.findings, each.case.start) for each in starts}
    faulty = [each.case for each in starts if each.case.kind != HEALTHY]
    jobs = [Job(case.name, "proposal", 0, change[1]) for case in faulty if (change := proposed[case.name])]
    record_all(results, results.missing(jobs, by_name), n_processes)
    recorded = results.read()
    proposals = []
    for job in jobs:
        case, change = by_name[job.case], proposed[job.case]
        before, after = (recorded[each.key(by_name)] for each in (Job(case.name, "start", 0), job))
        if change is not None and not after.error:
            proposals.append(Proposal(case, *change, before.loss, after.loss))
    healthy = [proposed[each.case.name] for each in starts if each.case.kind == HEALTHY]
    report = _report(proposals, len(faulty), len(healthy), sum(each is None for each in healthy))
    return f"{report}\n\n{_listed(proposals)}" if lists else report


def _report(proposals: Sequence[Proposal], n_faulty: int, n_healthy: int, n_silent: int) -> str:
    faults = f"Of {n_faulty} faulty trainings, {len(proposals)} get a proposal for their keywords"
    lines = [f"{faults}; of {n_healthy} healthy ones, {n_silent} get none.", ""]
    lines += ["| followed once | improved | unchanged | hurt |", "|---|---:|---:|---:|"]
    for kind in ("all", *sorted({each.case.kind for each in proposals})):
        counts = _counts([each.result for each in proposals if kind in (each.case.kind, "all")])
        lines.append(f"| {kind} | {counts} |")
    lines += ["", "| probability | proposals | mean of what was said | improved |", "|---|---:|---:|---:|"]
    for low, high in itertools.pairwise(BINS):
        inside = [each for each in proposals if low <= (each.finding.probability or -1) < high]
        if inside:
            said = sum(each.finding.probability or 0 for each in inside) / len(inside)
            share = sum(each.result == "improved" for each in inside) / len(inside)
            lines.append(f"| {low:.1f} to {min(high, 1):.1f} | {len(inside)} | {said:.2f} | {share:.2f} |")
    return "\n".join(lines)


def _listed(proposals: Sequence[Proposal]) -> str:
    """List the proposals that did not improve anything."""
    return "\n".join(
        f"- {each.case.name}: {each.result}, loss {each.before:.3g} -> {each.after:.3g} by {each.finding.name} "
        f"{ {name: value for name, value in each.keywords.items() if value != each.case.start[name]} }"
        for each in proposals
        if each.result != "improved"
    )


def _counts(results: Sequence[str]) -> str:
    return " | ".join(str(results.count(name)) for name in ("improved", "unchanged", "hurt"))
