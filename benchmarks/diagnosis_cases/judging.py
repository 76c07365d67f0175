"""Findings about recorded trainings, judged by what is wrong with them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.diagnosis_cases.case import HEALTHY, KINDS
from benchmarks.diagnosis_cases.recordings import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.diagnosis_cases.case import Case
    from benchmarks.diagnosis_cases.recordings import Result, Results
    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.history import TrainingHistory


class Judgement(NamedTuple):
    """What the diagnosis says about one training.

    Attributes
    ----------
    case : Case
        The case.
    role : str
        ``"start"`` or ``"twin"``.
    findings : sequence of Finding
        Those that are no praise: problems and hints, in their order.
    is_right : bool
        Whether the first problem names a cause.
    is_named : bool
        Whether any problem or hint does.
    is_problem : bool
        Whether anything is called a problem.
    """

    case: Case
    role: str
    findings: Sequence[Finding]
    is_right: bool
    is_named: bool
    is_problem: bool


def diagnose(folder: Path) -> list[Finding]:
    """Diagnose a recorded history as a user's own fit."""
    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.history import TrainingHistory

    return diagnosis.diagnose(TrainingHistory.open(folder))


def judge(case: Case, role: str, findings: Sequence[Finding]) -> Judgement:
    """Judge the findings about a training of a case."""
    said = [each for each in findings if each.severity != "fine"]
    problems = [each for each in said if each.severity == "problem"]
    is_right = bool(problems) and _names(problems[0], case.causes)
    return Judgement(case, role, said, is_right, any(_names(each, case.causes) for each in said), bool(problems))


def _names(finding: Finding, causes: frozenset[str]) -> bool:
    return finding.name in causes or any(change.parameter in causes for change in finding.change)


def judge_all(results: Results, cases: Sequence[Case], seed: int = 0) -> list[Judgement]:
    """Judge all recorded trainings of cases, of one seed."""
    recorded = results.read()
    by_name = {case.name: case for case in cases}
    judgements = []
    for case in cases:
        for role in case.roles:
            key = Job(case.name, role, seed).key(by_name)
            if key in recorded and not recorded[key].error:
                judgements.append(judge(case, role, diagnose(results.folder / key)))
    return judgements


def table(judgements: Sequence[Judgement]) -> str:
    """Table of the judgements by kind, in Markdown."""
    head = "| kind | faulty | right cause first | named at all | anything said | twins | called a problem |"
    lines = [head, "|---|" + "---:|" * 6]
    faulty = [each for each in judgements if each.case.kind != HEALTHY]
    for kind in (*KINDS, "all"):
        of_kind = [each for each in faulty if kind in (each.case.kind, "all")]
        starts = [each for each in of_kind if each.role == "start"]
        twins = [each for each in of_kind if each.role == "twin"]
        if of_kind:
            cells = [
                len(starts), _share(starts, "is_right"), _share(starts, "is_named"), _share(starts, "is_problem"),
                len(twins), _share(twins, "is_problem"),
            ]  # fmt: skip
            lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    healthy = [each for each in judgements if each.case.kind == HEALTHY]
    n_given = sum(bool(each.findings) for each in healthy)
    problems = f"Healthy trainings called a problem: {_share(healthy, 'is_problem')} of {len(healthy)}"
    lines += ["", f"{problems}; given a problem or a hint: {n_given}."]
    return "\n".join(lines)


def _share(judgements: Sequence[Judgement], name: str) -> str:
    count = sum(getattr(each, name) for each in judgements)
    return f"{count} ({count / len(judgements):.0%})" if judgements else "0"


def wrong(judgements: Sequence[Judgement]) -> str:
    """List what was said of the trainings that are judged wrong."""

    def lines(title: str, is_listed: Callable[[Judgement], bool]) -> list[str]:
        listed = [each for each in judgements if is_listed(each)]
        return ["", f"### {title} ({len(listed)})", "", *map(_line, listed)]

    return "\n".join(
        [
            *lines(
                "Faults whose first problem is not the cause",
                lambda each: each.case.kind != HEALTHY and each.role == "start" and not each.is_right,
            ),
            *lines("Twins with a problem", lambda each: each.role == "twin" and each.is_problem),
            *lines("Healthy trainings with a problem", lambda each: each.case.kind == HEALTHY and each.is_problem),
        ]
    )


def _line(judgement: Judgement) -> str:
    case = judgement.case
    causes = f" [{case.kind}: {', '.join(sorted(case.causes))}]" if judgement.role == "start" and case.causes else ""
    said = "; ".join(_brief(each) for each in judgement.findings) or "nothing"
    return f"- {case.name}{causes}: {said}"


def _brief(finding: Finding) -> str:
    changes = ", ".join(f"{each.parameter} {each.old} -> {each.new}" for each in finding.change)
    return f"{finding.severity} {finding.name} ({finding.verdict})" + (f" {{{changes}}}" if changes else "")


def harms(results: Results, cases: Sequence[Case], seeds: int) -> list[tuple[Case, bool, str]]:
    """Whether each fault hurts: its score by 2 points, or its loss by 5 %, in the mean of the seeds."""
    recorded = results.read()
    by_name = {case.name: case for case in cases}
    rows = []
    for case in cases:
        runs = {role: [recorded.get(Job(case.name, role, i).key(by_name)) for i in range(seeds)] for role in case.roles}
        every = [each for role in runs.values() for each in role]
        errors = ["not recorded" if each is None else each.error for each in every if each is None or each.error]
        if errors:
            rows.append((case, False, errors[0]))
            continue
        means = {role: {name: _mean(each, name) for name in ("score", "loss")} for role, each in runs.items()}
        start, twin = means["start"], means.get("twin", means["start"])
        hurts = twin["score"] - start["score"] >= 0.02
        hurts |= start["loss"] >= 1.05 * twin["loss"] and twin["score"] >= start["score"]
        text = f"score {start['score']:.3f} -> {twin['score']:.3f}, loss {start['loss']:.3g} -> {twin['loss']:.3g}"
        rows.append((case, hurts or case.harm == "told", text))
    return rows


def harmless(results: Results, cases: Sequence[Case], seeds: int) -> list[Case]:
    """Cases whose faults did not hurt: what was said about them is not judged."""
    rows = harms(results, cases, seeds)
    return [case for case, hurts, text in rows if case.twin is not None and not hurts and text.startswith("score")]


def _mean(runs: Sequence[Result | None], name: str) -> float:
    values = [getattr(each, name) for each in runs]
    return sum(values) / len(values) if all(map(math.isfinite, values)) else math.nan


def reported_too_early(results: Results, cases: Sequence[Case], seed: int = 0) -> str:
    """Count the healthy trainings of which a problem is reported while they train that is none at their end."""
    from mlflow_hp.history import TrainingHistory

    recorded, by_name = results.read(), {case.name: case for case in cases}
    early: dict[str, set[str]] = {}
    keys = {case.name: Job(case.name, "start", seed).key(by_name) for case in cases if case.kind == HEALTHY}
    judged = {name: key for name, key in keys.items() if key in recorded and not recorded[key].error}
    for name, key in judged.items():
        history = TrainingHistory.open(results.folder / key)
        at_end = {each.name for each in diagnose(results.folder / key) if each.severity == "problem"}
        if told := _told_live(history) - at_end:
            early[name] = told
    lines = [f"- {name}: {', '.join(sorted(told))}" for name, told in early.items()]
    return "\n".join(
        [f"Problems reported while they train, and not at their end: {len(early)} of {len(judged)}", *lines]
    )


def _told_live(history: TrainingHistory) -> set[str]:
    """Names of the problems that the looks at the ends of all epochs but the last report."""
    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.training.live_findings import CERTAIN

    columns = {name: values for name, values in history.steps.items() if not np.ma.isMaskedArray(values)}
    told: set[str] = set()
    before: set[tuple[str, str]] = set()
    for count in range(1, history.n_epochs):
        is_seen = columns["epoch"] <= history.epochs["epoch"][count - 1]
        so_far = TrainingHistory.from_arrays(
            {name: values[is_seen] for name, values in columns.items()},
            {name: values[:count] for name, values in history.epochs.items()},
            meta=dict(history.meta),
            program=history.program,
        )
        true = diagnosis.diagnose(so_far, so_far=True)
        problems = [each for each in true if each.severity == "problem"]
        told |= {each.name for each in problems if each.name in CERTAIN or (each.name, each.verdict) in before}
        before = {(each.name, each.verdict) for each in true}
    return told
