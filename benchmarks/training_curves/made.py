"""Made curves: power laws, exponentials, steps, plateaus and restarts, with noise of many kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.training_curves import Curve

if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]


def _power(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    return (epoch + rng.uniform(0.3, 3)) ** -rng.uniform(0.2, 1.5)


def _exponential(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    return np.exp(-epoch / (n * 10 ** rng.uniform(-1.5, 0.3)))


def _two_times(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    share = rng.uniform(0.2, 0.8)
    return share * _exponential(rng, epoch, n) + (1 - share) * _exponential(rng, epoch, n)


def _steps(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    values = _power(rng, epoch, n)
    for drop in rng.uniform(0.2, 0.9, rng.integers(1, 4)) * n:
        after = np.clip(epoch - drop, 0, None)
        values = values * (1 - rng.uniform(0.1, 0.5) * (1 - np.exp(-after / rng.uniform(0.5, 3))))
    return values


def _plateau(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    begins, width = rng.uniform(0.02, 0.25) * n, rng.uniform(0.02, 0.15) * n
    slow = 0.05 * (1 - np.exp(-epoch / n))
    return 1 - slow - rng.uniform(0.5, 0.9) / (1 + np.exp(-(epoch - begins) / width))


def _restarts(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    period = max(int(n * rng.uniform(0.1, 0.4)), 3)
    back = rng.uniform(0.02, 0.15) * np.exp(-(epoch % period) / (period * rng.uniform(0.05, 0.3)))
    return _power(rng, epoch, n) + back * (epoch >= period)


def _overfits(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    after = np.clip(epoch - rng.uniform(0.05, 0.6) * n, 0, None) / n
    return _two_times(rng, epoch, n) + rng.uniform(0.05, 0.8) * after ** rng.uniform(1, 1.5)


def _level(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    return np.zeros(n)


def _grows(rng: np.random.Generator, epoch: np.ndarray, n: int) -> np.ndarray:
    return 10 ** (rng.uniform(0.3, 4) * epoch / n)


SOUND: dict[str, Shape] = {
    "power law": _power, "exponential": _exponential, "two exponentials": _two_times, "steps": _steps,
    "plateau, then falls": _plateau, "restarts": _restarts, "overfits": _overfits,
}  # fmt: skip
BROKEN: dict[str, Shape] = {"level": _level, "grows": _grows}


def _noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise of unit size: normal, heavy-tailed, correlated, or with spikes."""
    normal = rng.normal(size=n)
    match rng.integers(4):
        case 0:
            return normal
        case 1:
            return rng.standard_t(3, n) / 3**0.5
        case 2:
            values, memory = np.zeros(n), rng.uniform(0.3, 0.8)
            for i in range(1, n):
                values[i] = memory * values[i - 1] + normal[i]
            return values * (1 - memory**2) ** 0.5
        case _:
            return normal + (rng.random(n) < 0.04) * rng.exponential(4, n)


def made_curves(count: int, seed: int) -> list[Curve]:
    """Make `count` curves, a sixth of them of trainings that learn nothing."""
    rng, curves = np.random.default_rng(seed), []
    for i in range(count):
        is_sound = i % 6 > 0
        shapes = SOUND if is_sound else BROKEN
        name = str(rng.choice(list(shapes)))
        n = int(np.exp(rng.uniform(np.log(15), np.log(200))))
        values = shapes[name](rng, np.arange(n, dtype=float), n)
        scale, floor = 10 ** rng.uniform(-2, 3), rng.choice([0.0, 1.0]) * rng.uniform(0, 1)
        floor += float(not is_sound)
        size = 10 ** rng.uniform(-4, -1.2)
        noise = size * _noise(rng, n)
        values = values + floor
        values = values * np.exp(noise) if rng.random() < 0.7 else np.abs(values + noise * np.ptp(values + 0.1))
        start = float(values[0] + max(values[0] - values[1], 0.0))
        curves.append(Curve(f"made: {name}", scale * values, scale * start, is_sound, name in ("steps", "restarts")))
    return curves
