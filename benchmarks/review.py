"""What the review of a search finds in made searches whose defects are known, and what it claims of healthy ones.

    python -m benchmarks.review [--half tuning|held] [--cases N] [--list]

Of each defect --cases searches (default 200), of healthy ones three times as many: `review_cases` makes them. A review
is right if it has a finding of the defect about the right parameter. Alarms are counted for healthy searches (any
finding), and for each rule over all searches without its defect. For an edge, does the next space hold a point whose
true score is better than that of the best point of the search?

--half  the rules were tuned with one half of the seeds, and judged with the other once
--list  the cases that are judged wrong
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.review_cases import DEFECTS, HALVES, make
from mlflow_hp.analysis.review import review

if TYPE_CHECKING:
    from benchmarks.review_cases import Case
    from mlflow_hp.analysis.review import Review

IMPLIED = {
    "edge": {"nuisance", "too_short", "too_long", "infeasible"},
    "nuisance": {"edge", "power", "no_effect", "too_short", "too_long", "interaction"},
    "interaction": {"nuisance"},
    "overfit": {"too_long"},
    "too_long": {"overfit"},
}
"""Defect -> findings that are true of it as well."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", default="tuning", choices=list(HALVES))
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    alarms: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for kind in ("healthy", *DEFECTS):
        n = arguments.cases * (3 if kind == "healthy" else 1)
        right, better, any_alarm = 0, [], 0
        for number in range(n):
            case = make(HALVES[arguments.half] + number, kind)
            result = review(case.results, curves=case.curves, chance=case.chance)
            names = {finding.name.partition("/")[0] for finding in result.findings}
            is_right = kind == "healthy" or _is_right(case, result)
            right += is_right
            false = names - {kind} - IMPLIED.get(kind, set())
            any_alarm += bool(false)
            alarms.update(false)
            without.update(set(DEFECTS) - {kind})
            if kind == "edge":
                better.append(_holds_better(case, result))
            if arguments.list and (not is_right or false):
                print(f"  {case.name}: {'' if is_right else 'MISSED '}{sorted(f.name for f in result.findings)}")
        line = f"{kind:14} n {n:4}  " + ("" if kind == "healthy" else f"right {right / n:6.1%}  ")
        print(
            f"{line}another finding {any_alarm / n:6.1%}"
            + (f"  next space better {np.mean(better):6.1%}" if better else "")
        )
    print("false alarms by rule: " + ", ".join(f"{rule} {alarms[rule] / without[rule]:.1%}" for rule in DEFECTS))


def _is_right(case: Case, result: Review) -> bool:
    kinds = {case.kind}
    if case.kind == "edge" and case.parameters == ("epochs",):
        kinds = {"too_short", "too_long"}
    found = [f for f in result.findings if f.name.partition("/")[0] in kinds]
    if not case.parameters:
        return bool(found)
    return any(set(finding.where.values()) >= set(case.parameters) for finding in found)


def _holds_better(case: Case, result: Review) -> bool:
    """Whether the best point of a grid of the next space, or the best of 30 draws, truly is better."""
    if result.next_space is None:
        return False
    tried = max(case.truth(candidate) for candidate in case.results.candidates)
    rng = np.random.default_rng(0)
    space = result.next_space
    if all(isinstance(values, list) for values in space.values()):
        points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    else:
        points = [
            {name: _drawn(values, rng) for name, values in space.items()} for _ in range(len(case.results.candidates))
        ]
    return max(map(case.truth, points)) > tried


def _drawn(values: Any, rng: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]
    low, high = values["low"], values["high"]
    if values.get("log"):
        return float(low * (high / low) ** rng.random())
    return int(rng.integers(low, high + 1)) if isinstance(low, int) else float(rng.uniform(low, high))


if __name__ == "__main__":
    main()
