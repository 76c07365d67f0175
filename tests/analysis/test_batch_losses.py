"""Divergence within an epoch: noticed soon, and not where losses are noisy."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.diagnosis.batch_losses import BatchLosses

RNG = np.random.default_rng(0)


def diverges_at(losses, at_once=10):
    """Number of losses after which it is noticed, if they are looked at in groups; None if never."""
    watch = BatchLosses()
    for first in range(0, len(losses), at_once):
        if watch.add(losses[first : first + at_once].tolist()):
            return watch.n_steps
    return None


@pytest.mark.parametrize("growth", [1.1, 1.5, 3.0, 30.0])
def test_a_growing_loss_is_noticed_within_20_steps_of_ten_times_its_start(growth):
    losses = 2.0 * growth ** np.arange(200.0)
    clear = int(np.argmax(losses > 20.0))
    assert clear < diverges_at(losses[: clear + 30]) <= max(clear, 3) + 20


def test_a_loss_that_blows_up_later_and_stays_up_is_noticed():
    losses = np.concatenate([np.geomspace(2.3, 0.2, 300), np.full(60, 50.0)]) * np.exp(0.2 * RNG.normal(size=360))
    assert 300 < diverges_at(losses) <= 320


NOISY = {
    "log-normal": lambda rng: np.exp(1.5 * rng.normal(size=2000)),
    "squares of heavy tails": lambda rng: rng.standard_t(2, size=2000) ** 2,
    "falling": lambda rng: np.geomspace(5, 0.01, 2000) * np.exp(0.5 * rng.normal(size=2000)),
    "single spikes": lambda rng: np.where(rng.random(2000) < 0.05, 500.0, 1.0) * np.exp(0.1 * rng.normal(size=2000)),
    "restarts": lambda rng: (0.1 + 5.0 * (np.arange(2000) % 400 < 20)) * np.exp(0.3 * rng.normal(size=2000)),
    "overshoots at its start": lambda rng: 1 + 100 * np.exp(-((np.arange(2000) - 8) ** 2) / 18),
    "of a critic": lambda rng: np.cumsum(rng.normal(size=2000)),
    "zero": lambda rng: np.zeros(2000),
}


@pytest.mark.parametrize("kind", NOISY)
def test_a_noisy_loss_does_not_diverge(kind):
    assert [diverges_at(NOISY[kind](np.random.default_rng(seed))) for seed in range(10)] == [None] * 10


def test_levels_of_a_divergence():
    watch = BatchLosses()
    assert watch.add((2.0 ** np.arange(20.0)).tolist())
    assert (watch.n_steps, watch.start) == (14, pytest.approx(2.0))
    assert watch.level == pytest.approx(768.0)
