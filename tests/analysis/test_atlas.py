"""Atlases: how descents end by the rules, the valley against known powers, and what is said of it."""

import math

import numpy as np
import pytest

from mlflow_hp.analysis.atlas import (
    CRAWLS,
    DIVERGES,
    GOOD,
    OSCILLATES,
    STUCK,
    Atlas,
    in_row,
    outcome,
    valley,
)  # fmt: skip

STEPS = np.arange(200)


def by_epoch(losses, n=20):
    return losses.reshape(n, -1).mean(axis=1)


def ends(losses):
    return outcome(losses, by_epoch(losses))


def test_descents_end_as_their_curves_do():
    assert ends(2.3 * np.exp(-STEPS / 20) + 0.1) == GOOD
    assert ends(2.3 * np.exp(-STEPS / 300)) == CRAWLS
    assert ends(2.3 * np.exp(STEPS / 40)) == DIVERGES
    assert ends(np.where(STEPS < 50, 2.3, np.nan)) == DIVERGES
    assert ends(np.where((STEPS // 10) % 2, 1.5, 0.8) * np.where(STEPS < 10, 4, 1)) == OSCILLATES
    assert ends(2.3 - 1e-4 * STEPS) == STUCK
    assert ends(np.where((STEPS > 3) & (STEPS < 8), 50.0, 2.3)) == DIVERGES  # blown up, and never below its start again


def test_the_row_decides_on_those_that_are_stuck_or_nearly_best():
    outcomes = np.array([[[STUCK], [CRAWLS], [CRAWLS], [GOOD], [STUCK]]], np.int8)
    last = np.array([[[2.2], [0.5], [0.14], [0.1], [2.3]]])
    assert in_row(outcomes, last, x_is_rate=True).ravel().tolist() == [CRAWLS, CRAWLS, GOOD, GOOD, DIVERGES]
    assert in_row(outcomes, last, x_is_rate=False).ravel().tolist() == [CRAWLS, CRAWLS, GOOD, GOOD, CRAWLS]


def known(power, noise=0.0, seeds=3):
    """Atlas whose best rate is 0.01 times the batch size to a power."""
    rng, x, y = np.random.default_rng(0), np.geomspace(1e-4, 10, 41), np.geomspace(8, 512, 7)
    distance = np.log(x[None, :] / (0.01 * y[:, None] ** power))
    loss = np.exp(0.3 * distance**2 - 2)[..., None] * np.exp(noise * rng.normal(size=(7, 41, seeds)))
    outcomes = np.full(loss.shape, GOOD, np.int8)
    return Atlas("learning_rate", "batch_size", x, y, loss[..., None], loss, outcomes, "val_loss")


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_power_of_the_valley_is_recovered(power):
    exact, noisy = valley(known(power)), valley(known(power, noise=0.1))
    assert exact.slope == pytest.approx(power, abs=0.01)
    np.testing.assert_allclose(exact.best, 0.01 * np.geomspace(8, 512, 7) ** power, rtol=0.03)
    assert noisy.low < power < noisy.high
    assert {0.0: "no dependence", 0.5: "square-root scaling", 1.0: "linear scaling"}[power] in noisy.words


def test_the_interval_covers_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(200):
        atlas = known(0.5)
        shift = np.exp(0.2 * rng.normal(size=7))
        moved = Atlas(*atlas[:4], atlas.epochs, _moved(atlas, shift), atlas.outcomes, "val_loss")
        inside += valley(moved).low < 0.5 < valley(moved).high
    assert 0.9 < inside / 200 < 0.99


def _moved(atlas, shift):
    distance = np.log(atlas.x[None, :] / (0.01 * (atlas.y**0.5 * shift)[:, None]))
    return np.exp(0.3 * distance**2 - 2)[..., None]


def test_a_valley_at_the_edge_is_unknown():
    atlas = known(0.5)
    narrow = atlas._replace(x=atlas.x[:5], loss=atlas.loss[:, :5], outcomes=atlas.outcomes[:, :5])
    assert np.isnan(valley(narrow).best).all()
    assert math.isnan(valley(narrow).slope)
    assert "too few rows" in valley(narrow).words


def test_a_point_where_a_seed_diverges_has_no_loss_and_the_worse_of_equal_outcomes():
    outcomes = np.array([[[GOOD, DIVERGES], [GOOD, GOOD]]], np.int8)
    atlas = Atlas(
        "a", "b", np.array([1.0, 2.0]), np.ones(1), np.ones((1, 2, 2, 1)), np.ones((1, 2, 2)), outcomes, "loss"
    )
    assert atlas.mean_loss.tolist() == [[math.inf, 1.0]]
    assert atlas.usual_outcomes.tolist() == [[DIVERGES, GOOD]]
