"""What the diagnosis finds in trainings whose faults are known, and what it claims of healthy ones.

    python -m benchmarks.diagnosis [--half tuning|held] [--kinds KIND ...] [--cases TEXT ...] [--judge-only]

Each case is a training of seconds; a faulty one has a twin, the same program without the fault. All are recorded into
--folder, by --processes fresh processes, and what is there already is not trained again (--again for all). Then their
findings are judged: is the cause in the change that the first problem proposes, in any; is anything said; and is a
problem claimed of healthy trainings and of twins. The cases are in two halves by a hash of their names: rules were
tuned with one, and judged with the other, then tuned with both. The new ones were written by somebody who had not seen
the rules; these were judged with them once, and then tuned with them, too. A fault that does not hurt in these
recordings, by 2 points of the score or 5 % of the loss on held-out data, is none and left out; but for those that no
number shows (metrics, callbacks).

--judge-only  no training: findings about what is recorded, again, in seconds
--list        what is said about each case that is judged wrong
--harm        whether each fault hurts: scores of both on held-out data, from --seeds 2 seeds
--live        what is reported while healthy trainings run, and is no problem at their end
--proposals   follow the first problem's proposal of each faulty case that has hyperparameters, once: is it better?
--all-of-them the same for each proposal, of hints and healthy cases too: what the probabilities are estimated from
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from benchmarks.diagnosis_cases import all_cases, judging, proposals
from benchmarks.diagnosis_cases.recordings import Job, Results, record_all, work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", default="tuning", choices=["tuning", "held", "new", "both"])
    parser.add_argument("--kinds", nargs="*", help="only cases of these kinds")
    parser.add_argument("--cases", nargs="*", help="only cases whose names contain one of these")
    default = Path(tempfile.gettempdir(), "mlflow_hp-diagnosis")
    parser.add_argument("--folder", type=Path, default=default, help="of results and histories")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each case; the first is judged")
    parser.add_argument("--judge-only", action="store_true")
    parser.add_argument("--again", action="store_true", help="train all again")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--harm", action="store_true")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--proposals", action="store_true")
    parser.add_argument("--all-of-them", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    results = Results(arguments.folder.absolute())
    cases = all_cases()
    by_name = {case.name: case for case in cases}
    if arguments.worker:
        work(results, [Job(**each) for each in json.load(sys.stdin)], by_name)
        return
    halves = ("tuning", "held") if arguments.half == "both" else (arguments.half,)
    cases = [case for case in cases if case.half in halves]
    cases = [case for case in cases if not arguments.kinds or case.kind in arguments.kinds]
    cases = [case for case in cases if not arguments.cases or any(part in case.name for part in arguments.cases)]
    if not arguments.judge_only:
        jobs = [Job(case.name, role, seed) for seed in range(arguments.seeds) for case in cases for role in case.roles]
        record_all(results, results.missing(jobs, by_name, again=arguments.again), arguments.processes)
    if arguments.harm:
        for case, hurts, text in judging.harms(results, cases, arguments.seeds):
            verdict = "healthy" if case.twin is None else "hurts" if hurts else "NO HARM"
            print(f"{verdict} | {case.kind} | {case.name} | {text}")
        return
    harmless = judging.harmless(results, cases, arguments.seeds)
    cases = [case for case in cases if case not in harmless]
    judgements = judging.judge_all(results, cases)
    print(f"{len(cases)} cases, half: {arguments.half}; left out, since their faults did not hurt: {len(harmless)}\n")
    print(judging.table(judgements))
    if arguments.list:
        print(judging.wrong(judgements))
    if arguments.live:
        print(judging.reported_too_early(results, cases))
    if arguments.proposals:
        every = arguments.all_of_them
        print(f"\n{proposals.follow(results, cases, arguments.processes, all_of_them=every, lists=arguments.list)}")


if __name__ == "__main__":
    main()
