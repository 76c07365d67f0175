"""How often a forecast's interval holds the final loss, and what ending fits by it saves and costs.

    python -m benchmarks.forecast [--keras 150] [--numpy 520] [--made 400] [--curves FILE] [--tune]

Curves are recorded from real trainings of small networks in Keras and in NumPy (digits, wine, breast cancer, diabetes,
iris and made data; SGD, momentum, Adam, RMSprop; constant rates, cosine, steps, exponentials, restarts, warm-up;
batches of 8 to 256; dropout, decay, wrong labels), a sixth of them broken, and others are made. Half of them are for
tuning; the other half is judged. Each is forecast after 1/3, 0.4, 0.5, ... 0.9 of its epochs; and after every epoch it
is asked whether the fit is to be ended. A healthy training ends well below the loss before its first step; a doomed one
does not. ``--tune`` prints the coefficients of `mlflow_hp.analysis.diagnosis.extrapolation` from the half for tuning.
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
LOST = 0.02
"""Share of the lowest loss by which an ended training would have improved for its end to be wrong."""


class Stop(NamedTuple):
    """End of a training by a rule: epochs done, of how many, and by how much the rest would have lowered the lowest."""

    n_done: int
    n_epochs: int
    missed: float


def record(n_keras: int, n_numpy: int, n_made: int) -> list[Curve]:
    """Train and make the curves."""
    from benchmarks.training_curves import keras_trainings, small_trainings

    curves = [small_trainings.trained_curve(seed) for seed in tqdm(range(n_numpy), desc="NumPy")]
    curves += [keras_trainings.trained_curve(10_000 + seed) for seed in tqdm(range(n_keras), desc="Keras")]
    return curves + made_curves(n_made, seed=1)


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
                began = time.perf_counter()
                ahead = extrapolate(curve.values[:k], n)
                seconds.append(time.perf_counter() - began)
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
        wrong = [curve for curve, end in ended if end.missed > LOST * abs(curve.values[: end.n_done].min())]
        saved, saved_of_healthy = (
            float(np.mean([0.0 if end is None else 1 - end.n_done / end.n_epochs for end in ends] or [0.0]))
            for ends in ([stop(curve, rule) for curve in doomed], [end for _, end in of_healthy])
        )
        print(f"| {rule} | {len(ended)} | {len(wrong)} | {saved:.0%} | {saved_of_healthy:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keras", type=int, default=150)
    parser.add_argument("--numpy", type=int, default=520)
    parser.add_argument("--made", type=int, default=400)
    parser.add_argument("--curves", type=Path, help="file to keep the curves in, or to take them from")
    parser.add_argument("--tune", action="store_true", help="judge by the half for tuning, and print coefficients")
    arguments = parser.parse_args()
    if arguments.curves is not None and arguments.curves.exists():
        curves: list[Curve] = pickle.loads(arguments.curves.read_bytes())  # noqa: S301 - our own file
    else:
        curves = record(arguments.keras, arguments.numpy, arguments.made)
        if arguments.curves is not None:
            arguments.curves.write_bytes(pickle.dumps(curves))
    chosen = curves[::2] if arguments.tune else curves[1::2]
    print(f"{len(chosen)} curves, {'for tuning' if arguments.tune else 'held back'}\n")
    if arguments.tune:
        print(fit_coefficients(chosen, SHARES))
    coverage(chosen)
    ending(chosen)


if __name__ == "__main__":
    main()
