"""Made searches with a known optimum: healthy ones, and ones with one defect each.

A score is a surface over the parameters plus the noise of a cross-validation: a difficulty of each fold, which all
candidates share; noise of each candidate and fold; and a part of a candidate that all its folds share, since their
training sets overlap, of the size that Nadeau and Bengio (2003) derive. Whether a search is healthy is decided by its
surface and noise, never by a review.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis import from_cv_results

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.analysis import SearchResults

DEFECTS = (
    "edge", "infeasible", "too_short", "too_long", "overfit", "late_variance", "nuisance", "power", "no_effect",
    "interaction",
)  # fmt: skip
HALVES = {"tuning": 0, "held": 2_000_000}
"""First seed of each half."""


class Axis(NamedTuple):
    """Numeric parameter of a made search, with its values, its optimum and its weight."""

    name: str
    low: float
    high: float
    log: bool
    whole: bool
    n_levels: int


class Case(NamedTuple):
    """Made search.

    Attributes
    ----------
    kind : str
        ``"healthy"``, or the defect.
    parameters : tuple of str
        Those that the defect is about.
    results : SearchResults
    curves : dict
        As in `mlflow_hp.analysis.review.review`.
    truth : callable
        Candidate -> its score without noise.
    name : str
        Seed and form.
    chance : float
        Score of guessing.
    """

    kind: str
    parameters: tuple[str, ...]
    results: SearchResults
    curves: dict[int, list[dict[str, np.ndarray]]]
    truth: Callable[[dict[str, Any]], float]
    name: str
    chance: float = 0.1


RATE = Axis("learning_rate", 1e-4, 1e-1, True, False, 4)
OTHERS = (
    Axis("dropout", 0.05, 0.5, False, False, 4),
    Axis("momentum", 0.1, 0.9, False, False, 5),
    Axis("batch_size", 16, 256, True, True, 5),
    Axis("alpha", 1e-6, 1e-2, True, False, 5),
    Axis("epochs", 10, 80, True, True, 4),
)
CATEGORIES = {"optimizer": ["SGD", "Adam", "RMSprop"], "activation": ["relu", "tanh"], "hidden": ["32", "64", "64-64"]}


def levels(axis: Axis, n: int) -> list[Any]:
    values = np.geomspace(axis.low, axis.high, n) if axis.log else np.linspace(axis.low, axis.high, n)
    return [round(v) if axis.whole else float(f"{v:.3g}") for v in values]


def place(axis: Axis, value: float) -> float:
    value = max(float(value), 1e-12)
    return (
        float(np.log(value / axis.low) / np.log(axis.high / axis.low))
        if axis.log
        else (value - axis.low) / (axis.high - axis.low)
    )


def make(seed: int, kind: str) -> Case:
    """Make the search of a seed; those whose surface is not what `kind` says are drawn again."""
    for attempt in itertools.count():
        case = _draw(np.random.default_rng([seed, attempt, len(kind)]), kind, f"{kind} {seed}")
        if case is not None:
            return case
    raise AssertionError


def _draw(rng: np.random.Generator, kind: str, name: str) -> Case | None:
    drawn = bool(rng.random() < 0.4)
    n_splits = int(rng.choice([3, 5, 10]))
    n_numeric = int(rng.choice([1, 2, 2])) if kind not in ("interaction", "no_effect") else int(rng.choice([2, 2, 3]))
    axes = [RATE._replace(n_levels=int(rng.integers(4, 7)))]
    axes += [OTHERS[i] for i in rng.choice(len(OTHERS), n_numeric - 1, replace=False)]
    axes = [axis._replace(n_levels=max(axis.n_levels - int(rng.integers(0, 2)), 3)) for axis in axes]
    categories = {}
    if kind == "nuisance" or (n_numeric < 3 and rng.random() < 0.4):
        key = str(rng.choice(list(CATEGORIES)))
        categories = {key: CATEGORIES[key]}
    target: tuple[str, ...] = ()
    optimum = {axis.name: rng.uniform(0.3, 0.7) for axis in axes}
    weight = {axis.name: rng.uniform(0.1, 0.5) for axis in axes}
    offset = (
        {value: -0.02 * rank for rank, value in enumerate(rng.permutation(list(*categories.values())))}
        if categories
        else {}
    )
    shift = {value: rng.uniform(-0.05, 0.05) for value in offset}
    fold_noise = rng.uniform(0.003, 0.01)
    cross, limit = 0.0, np.inf
    power, is_basin = float(rng.choice([2.0, 1.5, 3.0])), bool(rng.random() < 0.3)
    if kind == "edge":
        axis = axes[int(rng.integers(len(axes)))]
        upper = bool(rng.random() < 0.5) or axis.name == "epochs"
        if axis.name in ("dropout", "momentum"):
            upper = axis.name == "momentum"
        step = 1 / (axis.n_levels - 1)
        outside = rng.uniform(0.5, 1.8) * step
        if axis.name in ("dropout", "momentum"):
            outside = rng.uniform(0.02, 0.1)
        optimum[axis.name] = 1 + outside if upper else -outside
        weight[axis.name] = rng.uniform(0.15, 0.5)
        target = (axis.name,)
    if kind == "power":
        fold_noise = rng.uniform(0.02, 0.05)
        weight = {key: value * 0.1 for key, value in weight.items()}
        offset = {key: value * 0.1 for key, value in offset.items()}
    if kind == "no_effect":
        axis = axes[int(rng.integers(1, len(axes)))]
        weight[axis.name], target = 0.0, (axis.name,)
    if kind == "infeasible":
        axis = axes[0]
        limit = optimum[axis.name] + rng.uniform(0.02, 0.2)
        target = (axis.name,)
    if kind == "interaction":
        cross, target = rng.choice([-1, 1]) * rng.uniform(1.0, 1.6), (axes[0].name, axes[1].name)
    if kind == "nuisance" and rng.random() < 0.5:  # a value whose rates were all too low or too high
        drawn = False

    by_name = {axis.name: axis for axis in axes}

    def truth(candidate: dict[str, Any]) -> float:
        value = 0.95 if kind != "overfit" else 0.8
        u = {}
        for axis in axes:
            u[axis.name] = place(axis, candidate[axis.name]) if axis.name in candidate else 0.5
            moved = optimum[axis.name] + (sum(shift.get(v, 0) for k, v in candidate.items() if k in categories)
                                          if axis.name == RATE.name else 0)  # fmt: skip
            distance = abs(u[axis.name] - moved)
            loss = (1 - np.exp(-((distance / 0.35) ** 2))) / 2 if is_basin else distance**power
            value -= weight[axis.name] * loss
        if cross:
            first, second = (u[n] - optimum[n] for n in target)
            mean_weight = np.sqrt(weight[target[0]] * weight[target[1]])
            value -= cross * mean_weight * first * second
        value += sum(offset.get(v, 0) for k, v in candidate.items() if k in categories)
        return float(max(value, 0.1))

    if kind == "interaction":
        power, is_basin = 2.0, False
    grids: dict[str, list[Any]] = {axis.name: levels(axis, axis.n_levels) for axis in axes} | categories
    if drawn:
        n = int(rng.integers(24, 61))
        candidates = []
        for _ in range(n):
            candidate: dict[str, Any] = {}
            for axis in axes:
                u = rng.random()
                number = axis.low * (axis.high / axis.low) ** u if axis.log else axis.low + u * (axis.high - axis.low)
                candidate[axis.name] = round(number) if axis.whole else float(number)
            candidates.append(candidate | {k: str(rng.choice(v)) for k, v in categories.items()})
    else:
        candidates = [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]
    if kind == "nuisance":
        key = next(iter(categories))
        target = (key,)
        if rng.random() < 0.5 or drawn:  # one rate for all optimizers, or a few for each value
            if key == "optimizer" and rng.random() < 0.5:
                rate = candidates[0][RATE.name]
                candidates = [c | {RATE.name: rate} for c in candidates]
                candidates = [dict(t) for t in {tuple(c.items()) for c in candidates}]
                candidates = [{k: v for k, v in c.items() if k != RATE.name} for c in candidates]
                if len(axes) < 2:
                    return None
            else:
                kept = rng.choice(sorted({c[RATE.name] for c in candidates}), 2, replace=False)
                if drawn:
                    return None
                candidates = [c for c in candidates if c[RATE.name] in kept]
        else:
            worst = min(offset, key=lambda value: offset[value])
            shift[worst] = float(rng.choice([-1, 1]) * rng.uniform(0.8, 1.2))
    if not 6 <= len(candidates) <= 100 and kind != "nuisance":
        return None
    if len(candidates) < 4:
        return None
    means = np.array([truth(candidate) for candidate in candidates])
    sd = fold_noise * np.sqrt(1 / n_splits + 1 / (n_splits - 1))
    feasible = np.array([place(axes[0], c[axes[0].name]) <= limit if axes[0].name in c else True for c in candidates])
    if kind == "infeasible" and not (2 <= (~feasible).sum() <= 0.5 * len(candidates)):
        return None
    ordered = np.sort(means[feasible])[::-1]
    if kind not in ("power", "nuisance") and ordered[0] - np.median(ordered) < 6 * np.sqrt(2) * sd:
        return None
    if kind == "power" and ordered[0] - np.min(ordered[: int(len(ordered) * 0.7)]) > 1.5 * np.sqrt(2) * sd:
        return None
    if kind not in ("power", "nuisance") and not _effective(
        candidates, means, by_name, grids, sd, target if kind == "no_effect" else (), feasible
    ):
        return None
    if kind == "interaction" and not _crosses(truth, by_name, target, optimum, sd):
        return None
    n = len(candidates)
    shared = fold_noise * np.sqrt(1 / (n_splits - 1)) * rng.normal(size=(n, 1))
    scores = means[:, None] + shared + fold_noise * rng.normal(size=(n, n_splits)) + 0.01 * rng.normal(size=n_splits)
    if kind == "infeasible":
        bad = int((~feasible).sum())
        way = rng.random()
        constant = 0.1 + 0.01 * rng.normal(size=n_splits) * np.ones((bad, 1))  # a constant prediction
        scores[~feasible] = (
            np.nan if way < 0.4 else constant if way < 0.7 else 0.1 + 0.01 * rng.normal(size=(bad, n_splits))
        )
    if kind != "infeasible" and rng.random() < 0.15:
        scores[int(rng.integers(n))] = np.nan  # one that failed for a reason of its own
    table: dict[str, Any] = {"params": candidates} | {f"split{i}_test_score": scores[:, i] for i in range(n_splits)}
    gap = rng.uniform(0.0, 0.4)
    if kind == "overfit" or rng.random() < 0.3:
        gap = rng.uniform(0.7, 1.0) if kind == "overfit" else gap
        train = 1 - (1 - scores) * (1 - gap)
        table |= {f"split{i}_train_score": np.minimum(train[:, i], 1.0) for i in range(n_splits)}
    table["mean_fit_time"] = np.exp(rng.normal(size=n) * 0.2)
    curves = {}
    if (
        kind in ("too_short", "too_long", "late_variance")
        or (kind == "healthy" and rng.random() < 0.5)
        or (kind == "overfit" and rng.random() < 0.5)
    ):
        curves = _curves(rng, kind, means, n_splits)
    return Case(kind, target, from_cv_results(table), curves, truth, name + (" drawn" if drawn else " grid"))


def _effective(
    candidates: list[dict[str, Any]], means: np.ndarray, axes: dict[str, Axis], grids: dict[str, list[Any]], sd: float,
    idle: tuple[str, ...], feasible: np.ndarray,
) -> bool:  # fmt: skip
    """Whether each parameter but the idle ones has an effect near the best that the noise does not hide."""
    best = candidates[int(np.where(feasible, means, -1).argmax())]
    others = dict(zip(map(str, candidates), means, strict=True))
    for name in grids:
        if name in idle:
            continue
        if name in axes:
            u = np.array([place(axes[name], c[name]) for c in candidates])
            at = place(axes[name], best[name])
            near = means[np.abs(u - at) > 0.3]
            if near.size and means.max() - near.max() < 3 * sd:
                return False
        else:
            rest = [others[str(c)] for c in candidates if c[name] != best[name]]
            if means.max() - max(rest) < 3 * sd:
                return False
    return True


def _crosses(
    truth: Callable[[dict[str, Any]], float], axes: dict[str, Axis], target: tuple[str, ...],
    optimum: dict[str, float], sd: float,
) -> bool:  # fmt: skip
    """Whether the best of the first parameter moves with the second by more than the noise."""
    first, second = (axes[name] for name in target)
    middle = {name: levels(axis, 101)[round(100 * np.clip(optimum[name], 0, 1))] for name, axis in axes.items()}
    values = levels(first, 21)
    ends = [[truth({**middle, first.name: v, second.name: end}) for v in values] for end in levels(second, 2)]
    low, high = np.array(ends)
    x, y = int(low.argmax()), int(high.argmax())
    return bool(min(low[x] - low[y], high[y] - high[x]) > 5 * np.sqrt(2) * sd)


def _curves(
    rng: np.random.Generator, kind: str, means: np.ndarray, n_splits: int
) -> dict[int, list[dict[str, np.ndarray]]]:
    """Losses by epoch of each candidate and fold."""
    n_epochs = int(rng.integers(16, 61))
    epoch = np.arange(n_epochs)
    rate = rng.uniform(6, 10) / n_epochs
    level = 2 * (means.max() - means) + 0.15
    noise = rng.uniform(0.001, 0.004)
    if kind == "too_short":
        rate = rng.uniform(0.8, 2.0) / n_epochs
    if kind == "late_variance":
        better = np.sort(level)[: min(6, len(level))]
        noise = np.sqrt(n_splits) * max(float(np.median(better - better[0])), 0.002) * rng.uniform(1.5, 4)
    if kind == "healthy":
        better = np.sort(level)[: min(6, len(level))]
        noise = np.sqrt(n_splits) * float(np.median(better[1:] - better[0])) * rng.uniform(0.05, 0.25)
    curves = {}
    for index, floor in enumerate(level):
        folds = []
        for _ in range(n_splits):
            loss = floor + 2 * np.exp(-rate * (epoch + 1))
            train = 0.8 * loss
            if kind == "too_long":
                top = rng.uniform(0.0, 0.06) * n_epochs
                loss = floor + 0.3 * np.abs(epoch - top) / n_epochs
                loss = np.where(epoch <= top, floor + 0.1 * (top - epoch) / max(top, 1), loss)
            if kind == "overfit":
                turn = rng.uniform(0.3, 0.6) * n_epochs
                loss = loss + np.where(epoch > turn, rng.uniform(0.5, 1.5) * (epoch - turn) / n_epochs, 0)
            folds.append({"val_loss": loss + noise * rng.normal(size=n_epochs),
                          "loss": train + 0.2 * noise * rng.normal(size=n_epochs)})  # fmt: skip
        curves[index] = folds
    return curves
