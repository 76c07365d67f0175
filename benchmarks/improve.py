"""What `mlflow_hp.improve` brings for trainings with known faults, and what random search does.

    python -m benchmarks.improve [--half tuning|held] [--cases TEXT ...] [--random SEEDS] [--judge-only]

The cases are those of `benchmarks.diagnosis` whose faults are in keywords; trainings are shared with it, in --folder.
Each case is improved with at most --trainings 3 after its start; --random N tries as many draws over the same keywords,
from N seeds. What is judged is the score on data that neither sees: within two points of the twin, which has no fault,
or within 5 % of its loss. Of healthy trainings: whether there is nothing to try.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from benchmarks.diagnosis_cases import all_cases
from benchmarks.diagnosis_cases.case import HEALTHY
from benchmarks.diagnosis_cases.recordings import Job, Results, record_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.diagnosis_cases.case import Case
    from benchmarks.diagnosis_cases.recordings import Result
    from mlflow_hp.improvement import AdviceLoop, Proposal

POINTS, SHARE_OF_LOSS = 0.02, 0.05
"""A result is as good as the twin's within so much of its score, or of its loss."""
REAL = 0.01
"""Share of the held-out loss that an improvement exceeds."""
SPACE: dict[str, Callable[[random.Random], Any]] = {
    "learning_rate": lambda draw: 10 ** draw.uniform(-5, 0),
    "batch_size": lambda draw: draw.choice([8, 16, 32, 64, 128, 256]),
    "epochs": lambda draw: draw.choice([5, 10, 20, 40]),
    "optimizer": lambda draw: draw.choice(["sgd", "adam", "rmsprop", "adagrad", "nadam"]),
    "momentum": lambda draw: draw.choice([0.0, 0.5, 0.9]),
    "clipnorm": lambda draw: draw.choice([None, 1.0]),
    "initializer": lambda draw: draw.choice(["glorot_uniform", "he_normal", "lecun_normal", "random_normal"]),
    "kernel_initializer": lambda draw: draw.choice(["glorot_uniform", "he_normal", "lecun_normal", "random_normal"]),
    "activation": lambda draw: draw.choice(["relu", "tanh", "sigmoid", "elu", "linear"]),
    "last_activation": lambda draw: draw.choice(["softmax", "sigmoid", "linear", "relu", "tanh"]),
    "loss": lambda draw: draw.choice(
        ["sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy", "mse", "mae"]
    ),
    "dropout": lambda draw: draw.choice([0.0, 0.2, 0.4, 0.6]),
    "l2": lambda draw: draw.choice([0.0, 1e-4, 1e-3, 1e-2]),
    "standardize": lambda draw: draw.choice([False, True]),
    "scale_targets": lambda draw: draw.choice([False, True]),
    "batch_normalization": lambda draw: draw.choice([False, True]),
    "shuffle": lambda draw: draw.choice([False, True]),
    "hidden": lambda draw: draw.choice([4, 8, 16, 32, 64, 128]),
    "units": lambda draw: draw.choice([4, 8, 16, 32, 64, 128]),
    "n_hidden": lambda draw: draw.choice([0, 1, 2, 3]),
}
"""What random search draws for each keyword."""


class Draws(NamedTuple):
    """Random search: the proposals of one seed, one after the other."""

    case: Case
    seed: int
    trainings: int

    def proposals(self) -> list[dict[str, Any]]:
        """Keyword values of its trainings after the start."""
        draw = random.Random(f"{self.case.name} {self.seed}")  # noqa: S311
        names = [name for name in self.case.start if name in SPACE]
        return [{**self.case.start, **{name: SPACE[name](draw) for name in names}} for _ in range(self.trainings)]


class Trainings:
    """Recorded trainings, and those that are due."""

    def __init__(self, results: Results, cases: Sequence[Case], n_processes: int, *, judge_only: bool) -> None:
        self.results, self.by_name = results, {case.name: case for case in cases}
        self.n_processes, self.judge_only = n_processes, judge_only

    def record(self, jobs: Sequence[Job]) -> None:
        """Train what is not recorded."""
        if not self.judge_only:
            record_all(self.results, self.results.missing(jobs, self.by_name), self.n_processes)

    def read(self, jobs: Sequence[Job]) -> list[Result | None]:
        """Results of trainings; None if it is missing."""
        recorded = self.results.read()
        return [recorded.get(job.key(self.by_name)) for job in jobs]

    def folder(self, job: Job) -> Path:
        """History of a training."""
        return self.results.folder / job.key(self.by_name)


def job_of(case: Case, keywords: dict[str, Any]) -> Job:
    """Training of a case with some keyword values."""
    return Job(case.name, "start", 0) if keywords == case.start else Job(case.name, "improvement", 0, keywords)


def add(loop: AdviceLoop, case: Case, proposal: Proposal, trainings: Trainings) -> bool:
    """Add a recorded training to a loop; False if it is missing."""
    from mlflow_hp.analysis.diagnosis import diagnose
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.improvement import TrainingResult
    from mlflow_hp.improvement.scores import scores_of

    job = job_of(case, proposal.hyperparameters)
    (result,) = trainings.read([job])
    if result is None:
        return False
    if result.error:
        loop.add(TrainingResult(proposal, result.key, error=result.error))
        return True
    history = TrainingHistory.open(trainings.folder(job))
    loop.add(TrainingResult(proposal, result.key, tuple(diagnose(history)), scores_of(history)))
    return True


def improved(cases: Sequence[Case], n_trainings: int, trainings: Trainings) -> dict[str, AdviceLoop]:
    """Follow the advice for all cases at once, a training of each in a round."""
    from mlflow_hp.improvement import AdviceLoop

    loops = {case.name: AdviceLoop(case.start, n_trainings) for case in cases}
    open_cases = list(cases)
    while open_cases:
        proposals = [(case, loops[case.name].propose()) for case in open_cases]
        due = [(case, proposal) for case, proposal in proposals if proposal is not None]
        trainings.record([job_of(case, proposal.hyperparameters) for case, proposal in due])
        open_cases = [case for case, proposal in due if add(loops[case.name], case, proposal, trainings)]
    return loops


def searched(draws: Sequence[Draws], trainings: Trainings) -> list[tuple[Case, AdviceLoop]]:
    """Try random values, and choose the best of them and the start as `improve` does."""
    from mlflow_hp.improvement import AdviceLoop, Proposal

    drawn = [(each, [each.case.start, *each.proposals()]) for each in draws]
    trainings.record([job_of(each.case, keywords) for each, several in drawn for keywords in several])
    searches = []
    for each, several in drawn:
        loop = AdviceLoop(each.case.start, each.trainings)
        are_there = [add(loop, each.case, Proposal(keywords), trainings) for keywords in several]
        if all(are_there):
            searches.append((each.case, loop))
    return searches


def as_good(result: Result, twin: Result) -> bool:
    """Whether a result is as good as the twin's."""
    return result.score >= twin.score - POINTS or result.loss <= twin.loss * (1 + SHARE_OF_LOSS)


def report(
    cases: Sequence[Case],
    loops: dict[str, AdviceLoop],
    searches: Sequence[tuple[Case, AdviceLoop]],
    trainings: Trainings,
    *,
    lists: bool,
) -> str:
    """Tables in Markdown."""
    recorded = trainings.results.read()
    twins = {
        case.name: recorded.get(Job(case.name, "twin", 0).key(trainings.by_name))
        for case in cases
        if case.kind != HEALTHY
    }
    rows: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    first, worse, silent, notes = [], [], [], []
    unfinished = 0
    for case in cases:
        loop, twin = loops[case.name], twins.get(case.name)
        if not loop.ending or (case.kind != HEALTHY and twin is None):  # a training is missing: not judged
            unfinished += 1
            continue
        steps = [recorded[each.run_id] for each in loop.trainings]
        start, best = steps[0], recorded[loop.best.run_id]
        tried = "; ".join(f"{each.proposal.finding and each.proposal.finding.name}: {each.proposal.name}, "
                          f"{each.verdict}, score {step.score:.3g}"
                          for each, step in zip(loop.trainings[1:], steps[1:], strict=True))  # fmt: skip
        if twin is None:
            silent.append(len(steps) == 1)
            notes += [f"- healthy {case.name}: {tried}"] if tried else []
            continue
        rows[case.kind].append((as_good(start, twin), as_good(best, twin)))
        worse.append(best.loss > start.loss * (1 + REAL) and best.score < start.score - POINTS)
        first += [steps[1].loss < start.loss * (1 - REAL)] if len(steps) > 1 else []
        if not as_good(best, twin):
            notes.append(f"- {case.name}: {start.score:.3g} -> {best.score:.3g}, twin {twin.score:.3g}: {tried}")
    everything = [row for several in rows.values() for row in several]
    lines = ["| kind | cases | start as good as the twin | after advice |", "|---|---:|---:|---:|"]
    for kind, several in (("all", everything), *sorted(rows.items())):
        before, after = (sum(row[i] for row in several) for i in range(2))
        lines.append(f"| {kind} | {len(several)} | {before} | {after} |")
    random_rows = [as_good(recorded[loop.best.run_id], twin) for case, loop in searches
                   if (twin := twins.get(case.name)) is not None]  # fmt: skip
    lines += [
        "",
        f"random search, tries as good as the twin: {sum(random_rows)} of {len(random_rows)}",
        f"the first proposal improves the held-out loss: {sum(first)} of {len(first)}",
        f"worse than the start on held-out data: {sum(worse)} of {len(worse)}",
        f"nothing to try, of healthy ones: {sum(silent)} of {len(silent)}",
        f"not judged, as trainings are missing: {unfinished}",
        *(["", *notes] if lists else []),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", default="tuning", choices=["tuning", "held"])
    parser.add_argument("--cases", nargs="*", help="only cases whose names contain one of these")
    parser.add_argument("--trainings", type=int, default=3, help="after the start")
    parser.add_argument("--random", type=int, default=0, help="seeds of random search")
    parser.add_argument("--every", type=int, default=1, help="random search for every n-th case")
    default = Path(tempfile.gettempdir(), "mlflow_hp-diagnosis")
    parser.add_argument("--folder", type=Path, default=default, help="of results and histories")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--judge-only", action="store_true", help="no training: what is recorded, again")
    parser.add_argument("--list", action="store_true", help="what was tried where it failed (of the tuning half only)")
    arguments = parser.parse_args()
    cases = [case for case in all_cases() if case.by_keywords and case.half == arguments.half]
    cases = [case for case in cases if not arguments.cases or any(part in case.name for part in arguments.cases)]
    faulty = [case for case in cases if case.kind != HEALTHY]
    results = Results(arguments.folder.absolute())
    trainings = Trainings(results, cases, arguments.processes, judge_only=arguments.judge_only)
    trainings.record([Job(case.name, "twin", 0) for case in faulty])
    loops = improved(cases, arguments.trainings, trainings)
    draws = [Draws(case, seed, arguments.trainings) for seed in range(arguments.random)
             for case in faulty[:: arguments.every]]  # fmt: skip
    searches = searched(draws, trainings)
    lists = arguments.list and arguments.half == "tuning"
    print(report(cases, loops, searches, trainings, lists=lists))


if __name__ == "__main__":
    main()
