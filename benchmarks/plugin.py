"""What the plugin adds to ``import mlflow``, and what the first run of a program waits for.

Each round imports MLflow in a new process, once with the plugin and once without, in turn:
``python -m benchmarks.plugin``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

IMPORT = """
import importlib.metadata, time
entry_points, load = importlib.metadata.entry_points, importlib.metadata.EntryPoint.load
own = 0.0
def is_ours(entry):
    return entry.value.startswith("mlflow_hp.tracking.run_context")
def chosen(**given):
    return [entry for entry in entry_points(**given) if {keep} or not is_ours(entry)]
def timed(entry):
    began = time.perf_counter()
    provider = load(entry)
    if is_ours(entry):
        provider()
        global own
        own = time.perf_counter() - began
    return provider
importlib.metadata.entry_points, importlib.metadata.EntryPoint.load = chosen, timed
began, worked = time.perf_counter(), time.process_time()
import mlflow
print(time.perf_counter() - began, time.process_time() - worked, own)
"""
FIRST = """
import time
import mlflow_hp.tracking.run_context, mlflow_hp.tracking.runs
for _ in range(2):
    began = time.perf_counter()
    mlflow_hp.tracking.run_context.ProvenanceContext().tags()
    print(time.perf_counter() - began)
"""


def main() -> None:
    """Print medians, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(rounds):
        for keep, times in found.items():
            times.append(printed(IMPORT.format(keep=keep)))
    own = [times[2] for times in found[True]]
    print(f"median of {rounds} rounds, in ms")
    print(f"the plugin is loaded in  {statistics.median(own):.2f}, at most {max(own):.2f}")
    for column, name in enumerate(("wall clock", "processor")):
        without, with_it = ([times[column] for times in found[keep]] for keep in (False, True))
        added = [a - b for a, b in zip(with_it, without, strict=True)]
        low, _, high = statistics.quantiles(added, n=4)
        print(f"import mlflow, {name}:  {statistics.median(without):.0f} without the plugin; with it "
              f"{statistics.median(added):+.1f} (quartiles {low:+.1f} to {high:+.1f})")  # fmt: skip
    firsts = [printed(FIRST) for _ in range(rounds)]
    for index, name in enumerate(("first", "next")):
        print(f"tags of the {name} run of a process:  {statistics.median(times[index] for times in firsts):.1f}")


def printed(program: str) -> list[float]:
    """The seconds that a program prints, in milliseconds."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [1000 * float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
