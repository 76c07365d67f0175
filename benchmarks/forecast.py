"""How often a forecast's interval holds the final loss, and what ending fits by it saves and costs.

    python -m benchmarks.forecast [--keras 50] [--numpy 270] [--made 200] [--curves FILE] [--tune]

Curves are recorded from real trainings of small networks in Keras and in NumPy (digits, wine, breast cancer, diabetes,
iris and made data; SGD, momentum, Adam, RMSprop; constant rates, cosine, steps, exponentials, restarts, warm-up;
batches of 8 to 256; dropout, decay, wrong labels), a sixth of them broken, and others are made. Those that are judged
have other seeds than those that the coefficients were fitted to. Each is forecast after 1/3, 0.4, 0.5, ... 0.9 of its
epochs; and after every epoch it is asked whether the fit is to be ended. A healthy training ends well below the loss
before its first step; a doomed one does not. ``--tune`` takes the curves for tuning, and prints the coefficients of
`mlflow_hp.analysis.diagnosis.extrapolation`.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.training_curves import Curve, is_doomed, is_healthy
from benchmarks.training_curves.made import made_curves
from benchmarks.training_curves.tuning import fit_coefficients
from mlflow_hp.analysis.diagnosis.curve import MIN_EPOCHS
from mlflow_hp.analysis.diagnosis.extrapolation import MIN_VALUES, extrapolate
from mlflow_hp.analysis.diagnosis.forecast import brings_nothing_more, will_not_learn

SHARES = (1 / 3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of a curve's epochs after which it is forecast."""
SEEDS = {"tuning": (0, 10_000, 1), "held back": (1_000_000, 2_000_000, 2)}
"""First seeds of the trainings in NumPy and in Keras, and the seed of the made curves."""
LOST = (0.02, 1e-3)
"""Shares of the lowest loss and of the fall to it; an end is wrong if the training would have improved by more."""


class Stop(NamedTuple):
    """End of a training by a rule: epochs done, of how many, and by how much the rest would have lowered the lowest."""

    n_done: int
    n_epochs: int
    missed: float


def record(n_keras: int, n_numpy: int, n_made: int, purpose: str) -> list[Curve]:
    """Train and make the curves."""
    from benchmarks.training_curves import keras_trainings, small_trainings

    of_numpy, of_keras, of_made = SEEDS[purpose]
    curves = [small_trainings.trained_curve(of_numpy + i) for i in tqdm(range(n_numpy), desc="NumPy")]
    curves += [keras_trainings.trained_curve(of_keras + i) for i in tqdm(range(n_keras), desc="Keras")]
    return curves + made_curves(n_made, seed=of_made)


def coverage(curves: list[Curve]) -> None:
    """Print the share of intervals that hold the final value, by share of the epochs and by kind."""
    rows: list[tuple[str, float, bool, float]] = []
    seconds = []
    for curve in curves:
        n, scale = len(curve.values), float(np.ptp(curve.values))
        if not np.isfinite(scale):
            continue
        for share in SHARES:
            k = max(MIN_VALUES, int(np.ceil(share * n)))
            if k < n:
                began = time.process_time()
                ahead = extrapolate(curve.values[:k], n)
                seconds.append(time.process_time() - began)
                holds = ahead.low <= curve.values[-1] <= ahead.high
                rows.append((curve.name.split(":")[0], share, bool(holds), (ahead.high - ahead.low) / (scale or 1)))
    print("| curves | forecasts | interval holds the end | median width, of the curve's range |\n|---|---|---|---|")

    def line(name: str, chosen: list[tuple[str, float, bool, float]]) -> None:
        width = np.median([row[3] for row in chosen])
        print(f"| {name} | {len(chosen)} | {np.mean([row[2] for row in chosen]):.1%} | {width:.3f} |")

    for kind in sorted({row[0] for row in rows}):
        line(kind, [row for row in rows if row[0] == kind])
    for share in SHARES:
        line(f"after {share:.0%} of the epochs", [row for row in rows if row[1] == share])
    line("all", rows)
    print(f"\na forecast takes {np.median(seconds) * 1e3:.1f} ms (longest {max(seconds) * 1e3:.1f} ms)\n")


def stop(curve: Curve, rule: str) -> Stop | None:
    """First epoch after which a rule ends the training; None if none does."""
    values, n = curve.values, len(curve.values)
    for k in range(1, n):
        known = values[:k]
        if not np.isfinite(known).all():
            return Stop(k, n, 0.0)
        if k < MIN_EPOCHS:
            continue
        if rule == "will not learn":
            ends = will_not_learn(known, n, curve.start, changes=curve.changes_rate)
        else:
            ends = not curve.changes_rate and brings_nothing_more(known, n)
        if ends:
            return Stop(k, n, float(known.min() - values[k:].min()))
    return None


def ending(curves: list[Curve]) -> None:
    """Print how many healthy trainings each rule ends, and what it saves of the doomed."""
    healthy, doomed = [c for c in curves if is_healthy(c)], [c for c in curves if is_doomed(c)]
    print(f"{len(healthy)} healthy trainings, {len(doomed)} doomed\n")
    print("| rule | healthy ended | of those, wrongly | epochs of the doomed saved | epochs of the healthy saved |")
    print("|---|---|---|---|---|")
    for rule in ("will not learn", "brings nothing more"):
        of_healthy = [(curve, stop(curve, rule)) for curve in healthy]
        ended = [(curve, end) for curve, end in of_healthy if end is not None]
        wrong = [curve for curve, end in ended if _is_wrong(curve, end)]
        saved, saved_of_healthy = (
            float(np.mean([0.0 if end is None else 1 - end.n_done / end.n_epochs for end in ends] or [0.0]))
            for ends in ([stop(curve, rule) for curve in doomed], [end for _, end in of_healthy])
        )
        print(f"| {rule} | {len(ended)} | {len(wrong)} | {saved:.0%} | {saved_of_healthy:.0%} |", flush=True)


def _is_wrong(curve: Curve, end: Stop) -> bool:
    lowest = float(curve.values[: end.n_done].min())
    return end.missed > max(LOST[0] * abs(lowest), LOST[1] * (curve.values[0] - lowest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keras", type=int, default=50)
    parser.add_argument("--numpy", type=int, default=270)
    parser.add_argument("--made", type=int, default=200)
    parser.add_argument("--curves", type=Path, help="file to keep the curves in, or to take them from")
    parser.add_argument("--tune", action="store_true", help="take the curves for tuning, and print coefficients")
    arguments = parser.parse_args()
    purpose = "tuning" if arguments.tune else "held back"
    if arguments.curves is not None and arguments.curves.exists():
        curves: list[Curve] = pickle.loads(arguments.curves.read_bytes())  # noqa: S301 - our own file
    else:
        curves = record(arguments.keras, arguments.numpy, arguments.made, purpose)
        if arguments.curves is not None:
            arguments.curves.write_bytes(pickle.dumps(curves))
    print(f"{len(curves)} curves, {purpose}\n")
    if arguments.tune:
        print(fit_coefficients(curves, SHARES))
    coverage(curves)
    ending(curves)


if __name__ == "__main__":
    main()
