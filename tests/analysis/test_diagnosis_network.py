"""Each rule on a training made to show it, on one that must not trigger it, and on noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.history import TrainingHistory

SEEDS = range(20)
SGD = {"optimizer": {"name": "SGD", "learning_rate": 0.1, "momentum": 0.0}, "params": {"loss": "crossentropy"}}
E = np.arange(60)
DECAY = 0.3 + 2 * np.exp(-E / 6)


def history(loss, val=None, meta=SGD, first=(2.3, 2.2, 2.4), **columns):
    epochs = {"epoch": np.arange(len(loss)), "loss": loss} | ({} if val is None else {"val_loss": val}) | columns
    steps = {"step": np.arange(len(first)), "batch_loss": np.asarray(first, float)}
    return TrainingHistory.from_arrays(steps, epochs, meta=meta)


def noisy(curve, seed, share=0.03):
    return curve * (1 + share * np.random.default_rng(seed).normal(size=len(curve)))


def names(findings):
    return [finding.name for finding in findings]


# The training loss


def test_a_small_learning_rate_learns_slowly():
    found = diagnosis.speed(history(2.3 - 0.004 * E))  # no end in sight: the largest change there is
    assert (found.verdict, found.evidence["suggested_learning_rate"]) == ("learns slowly", 1.0)
    assert found.suggestion == "learning_rate=1, or epochs=600"
    ahead = 0.004 * 60
    assert found.evidence["expected_fall"] == pytest.approx(ahead)


def test_how_much_faster_follows_from_how_the_falls_shrink():
    shrinks = 0.6  # a quarter of the epochs; nine tenths of what is left take log(0.1) / log(0.6) quarters more
    found = diagnosis.speed(history(0.2 + 2 * shrinks ** (E / 15)))
    factor = 1 + math.log(0.1) / math.log(shrinks) / 4
    assert found.evidence["suggested_learning_rate"] == pytest.approx(0.1 * factor, rel=0.02)
    assert found.evidence["suggested_epochs"] == pytest.approx(60 * factor, rel=0.02)


def test_without_a_learning_rate_the_words_say_what_to_change():
    schedule = {"optimizer": {"name": "SGD", "learning_rate": "ExponentialDecay"}}
    for meta in ({}, schedule):
        found = diagnosis.speed(history(2.3 - 0.004 * E, meta=meta))
        assert found.suggestion.startswith("a learning rate larger by 10")
        assert "suggested_learning_rate" not in found.evidence


@pytest.mark.parametrize("seed", SEEDS)
def test_a_noisy_slow_descent_is_slow(seed):
    assert diagnosis.speed(history(noisy(2.3 - 0.02 * E, seed))).verdict == "learns slowly"


@pytest.mark.parametrize("epochs", [10, 60])
@pytest.mark.parametrize("seed", SEEDS)
def test_noise_on_a_healthy_training_triggers_nothing_but_its_plateau(seed, epochs):
    loss = 0.3 + 2 * np.exp(-10 * np.arange(epochs) / epochs)
    healthy = history(noisy(loss, seed), noisy(1.1 * loss, seed + 100), accuracy=noisy(1 - loss / 3, seed, 0.01))
    assert set(names(diagnosis.diagnose(healthy, n_classes=10))) <= {
        "plateau",
        "trend",
        "noise_scale",
        "next_try",
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.005, 0.05])
def test_noise_about_a_level_is_no_movement(seed, share):
    level = history(noisy(np.ones(60), seed, share), noisy(np.ones(60), seed + 100, share), first=(1.0, 1.1, 0.9))
    assert names(diagnosis.diagnose(level))[:-1] in (["plateau", "trend"], ["trend"], ["plateau"])


def test_jumps_are_an_oscillation():
    found = diagnosis.oscillation(history(0.5 + 0.2 * (-1.0) ** E))
    assert (found.verdict, found.suggestion) == ("oscillates", "learning_rate=0.033")
    assert found.evidence["mean_rise"] == pytest.approx(0.4)
    assert found.evidence["share_of_epochs_rising"] == pytest.approx(29 / 59)


def test_what_is_no_oscillation():
    assert diagnosis.oscillation(history(DECAY)) is None
    spike = DECAY.copy()
    spike[[20, 40]] = 3
    assert diagnosis.oscillation(history(spike)) is None
    near_zero = 2 * np.exp(-E.astype(float)) + 1e-4 * (1 + 0.5 * (-1.0) ** E)
    assert diagnosis.oscillation(history(near_zero)) is None


def test_a_loss_that_grows_diverges():
    found = diagnosis.divergence(history(2.3 * 1.1**E))
    assert (found.verdict, found.suggestion) == ("diverges", "learning_rate=0.033")
    within_the_first_epoch = diagnosis.divergence(history(np.full(20, 1e6), first=(2.3, 40.0, 1e4)))
    assert within_the_first_epoch.verdict == "diverges"
    assert within_the_first_epoch.evidence["loss_growth"] == pytest.approx(1e6 / 40)
    assert diagnosis.divergence(history(DECAY)) is None
    assert diagnosis.divergence(history(np.full(20, 2.4))) is None


# Validation


def test_the_ideal_number_of_epochs():
    val = np.where(E < 20, 2.0 - 0.09 * E, 0.2)
    val[20] = 0.2  # the last improvement
    found = diagnosis.plateau(history(DECAY, val))
    assert found.evidence["ideal_epochs"] == 21
    assert found.suggestion == "epochs=21, which is enough"
    assert "after epoch 21: in the 39 epochs after it the validation loss" in found.text
    assert diagnosis.plateau(history(val)).evidence["ideal_epochs"] == 21  # of the training loss


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_hardly_moves_the_ideal_number_of_epochs(seed):
    exact = int(np.argmax(DECAY <= 1.09 * 0.3)) + 1
    assert diagnosis.plateau(history(noisy(DECAY, seed))).evidence["ideal_epochs"] == pytest.approx(exact, abs=10)


@pytest.mark.parametrize("curve", [2.3 - 0.0002 * E, 2.3 - 0.03 * E, 2 / (E + 1), 2 * 0.9**E])
def test_a_loss_that_still_falls_has_no_plateau(curve):
    assert diagnosis.plateau(history(curve, first=curve[:3])) is None


def test_a_loss_that_never_fell():
    found = diagnosis.plateau(history(noisy(np.full(60, 2.303), 0, 1e-4), first=(2.30, 2.31, 2.30)))
    assert found.verdict == "learns nothing"
    assert "ideal_epochs" not in found.evidence
    goes_on = diagnosis.plateau(history(np.full(60, 0.3), first=(0.3, 0.3), meta={"first_epoch": 60}))
    assert (goes_on.verdict, goes_on.evidence["ideal_epochs"]) == ("stopped learning", 1)
    in_the_first_epoch = diagnosis.plateau(history(np.full(60, 0.3), first=(2.3, 2.2, 2.4)))
    assert in_the_first_epoch.evidence["ideal_epochs"] == 1


def test_overfitting_and_from_where():
    val = np.where(E < 20, 2 - 0.075 * E, 0.5 + 0.01 * (E - 20))
    found = diagnosis.overfit(history(2 * 0.9**E, val))
    assert found.evidence["overfit_epoch"] == 20
    assert found.evidence["ideal_epochs"] == 21
    end = val[-10:].mean()
    assert found.evidence["generalization_gap"] == pytest.approx(end - (2 * 0.9**E)[-10:].mean())
    assert "dropout" in found.suggestion
    assert "early stopping" in found.suggestion


def test_what_is_no_overfitting():
    val = np.where(E < 20, 2 - 0.075 * E, 0.5 + 0.01 * (E - 20))
    assert diagnosis.overfit(history(2 * 0.9**E)) is None
    assert diagnosis.overfit(history(val, val)) is None  # the training loss rises too
    assert diagnosis.overfit(history(2 * 0.9**E, 0.5 + 2 * 0.9**E)) is None  # a gap alone
    assert diagnosis.overfit(history(2 * 0.9**E, DECAY + 2e-4 * E)) is None  # a rise by 4 %


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("epochs", [8, 60, 300])
def test_a_noisy_validation_loss_is_no_overfitting(seed, epochs):
    falling = 2 * 0.9 ** np.arange(epochs)
    assert diagnosis.overfit(history(falling, noisy(np.full(epochs, 0.5), seed, 0.05))) is None


def classifier(accuracy, loss, first=(2.3, 2.3, 2.3)):
    return history(loss, first=first, accuracy=accuracy)


def test_chance_and_what_from():
    flat = np.full(60, math.log(10))
    zero = diagnosis.chance(classifier(noisy(np.full(60, 0.1), 0), flat), 10)
    assert (zero.verdict, "initialisation" in zero.suggestion) == ("at chance", True)
    slow = diagnosis.chance(classifier(np.full(60, 0.13), 2.3 - 0.0002 * E), 10)
    assert slow.suggestion.startswith("learning_rate=1")
    jumpy = diagnosis.chance(classifier(np.full(60, 0.1), flat, first=(2.3, 80.0, 5.0)), 10)
    assert jumpy.suggestion == "learning_rate=0.011"
    above = diagnosis.chance(classifier(np.full(60, 0.1), flat + 0.5), 10)
    assert above.suggestion == "learning_rate=0.011"
    slow_from_above = diagnosis.chance(classifier(np.full(60, 0.1), flat + 2 - 0.001 * E), 10)
    assert slow_from_above.suggestion.startswith("learning_rate=1")
    jumps = diagnosis.chance(classifier(np.full(60, 0.1), flat + (-1.0) ** E), 10)
    assert jumps.suggestion == "learning_rate=0.033"


@pytest.mark.parametrize(("n_classes", "accuracy"), [(2, 0.56), (10, 0.2), (1000, 0.003)])
def test_a_little_better_than_chance_is_not_chance(n_classes, accuracy):
    assert diagnosis.chance(classifier(np.full(60, accuracy), DECAY), n_classes) is None
    assert diagnosis.chance(classifier(np.full(60, 1 / n_classes), DECAY), n_classes).verdict == "at chance"
    assert diagnosis.chance(history(DECAY), n_classes) is None  # no accuracy


# All together


def test_a_diverging_network():
    loss = np.r_[2.3, 5.0, 1e4, np.full(10, np.nan)]
    diverging = history(loss, first=(2.3, 3.0, 1e9, np.nan), accuracy=np.full(13, 0.1))
    found = diagnosis.diagnose(diverging, n_classes=10, dead={"a": 1.0})
    assert names(found) == ["not_finite", "next_try"]
    assert found[-1].suggestion == "learning_rate=0.011"


def test_overfitting_is_not_sent_to_more_epochs():
    val = np.where(E < 20, 2 - 0.075 * E, 0.5 + 0.01 * (E - 20))
    found = diagnosis.diagnose(history(2 * 0.98**E, val))
    assert names(found) == ["overfit", "next_try"]
    assert "from epoch 21 on" in found[0].text
    assert found[-1].evidence == {"suggested_epochs": 21}


def test_a_validation_loss_that_stopped_is_not_sent_to_a_larger_learning_rate():
    found = diagnosis.diagnose(history(2.3 - 0.02 * E, np.where(E < 20, 2 - 0.075 * E, 0.5)))
    assert names(found) == ["plateau", "next_try"]
    assert found[-1].suggestion == "epochs=21, which is enough"


def test_a_slow_network_at_chance():
    found = diagnosis.diagnose(classifier(np.full(60, 0.13), 2.3 - 0.0002 * E), n_classes=10)
    assert names(found) == ["chance", "speed", "trend", "next_try"]
    assert found[-1].suggestion == found[1].suggestion == "learning_rate=1, or epochs=600"


def test_a_healthy_network_that_still_learns():
    found = diagnosis.diagnose(history(2 / (E + 1.0)))
    assert names(found) == ["trend", "next_try"]
    assert found[-1].suggestion == "learning_rate=0.2, or epochs=120"


def test_the_last_recorded_shares_of_units_count_unless_others_are_given():
    shares = {
        "dead_units/a": np.r_[0.9, 0.6, np.full(58, np.nan)],
        "saturated_units/b": np.r_[0.7, np.full(59, np.nan)],
    }
    recorded = history(2 / (E + 1.0), **shares)
    found = {finding.name: finding for finding in diagnosis.diagnose(recorded)}
    assert list(found) == ["dead_units", "saturated_units", "trend", "next_try"]
    assert found["dead_units"].evidence["largest_dead_share"] == 0.6
    assert found["trend"].suggestion is None
    of_network = diagnosis.diagnose(recorded, dead={"a": 0.1})
    assert names(of_network) == ["saturated_units", "trend", "next_try"]
    assert names(diagnosis.diagnose(recorded, dead={}, saturated={})) == ["trend", "next_try"]


def suggestions():
    """Trainings of all kinds, each with what it is called."""
    val = np.where(E < 20, 2 - 0.075 * E, 0.5 + 0.01 * (E - 20))
    for loss in (DECAY, 2.3 - 0.02 * E, 2.3 * 1.1**E, 0.5 + 0.2 * (-1.0) ** E, np.full(60, 2.3), 2 * 0.98**E):
        for validation in (None, val, loss):
            for accuracy in (np.full(60, 0.1), np.full(60, 0.9)):
                yield history(loss, validation, accuracy=accuracy)


@pytest.mark.parametrize("training", list(suggestions()))
@pytest.mark.parametrize("dead", [None, {"a": 0.9}])
def test_suggestions_never_contradict_each_other(training, dead):
    found = diagnosis.diagnose(training, n_classes=10, dead=dead)
    assert found[-1].name == "next_try"
    rates = {f.evidence["suggested_learning_rate"] > 0.1 for f in found if "suggested_learning_rate" in f.evidence}
    epochs = {f.evidence["suggested_epochs"] for f in found if "suggested_epochs" in f.evidence}
    assert len(rates) <= 1
    assert len(epochs) <= 1
    assert len(set(names(found))) == len(found)
    verdicts = {f.verdict for f in found}
    assert "still falling" not in verdicts or not verdicts & {"stopped learning", "overfits", "oscillates"}
    told = [f.suggestion for f in found[:-1] if f.suggestion]
    assert bool(told) == (found[-1].suggestion is not None)
    json.dumps(diagnosis.to_json(found), allow_nan=False)


@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 7, 8])
def test_short_trainings(epochs):
    for loss in (np.zeros(epochs), np.full(epochs, np.inf), np.arange(epochs) - 3.0, 2.0 ** -np.arange(epochs)):
        found = diagnosis.diagnose(history(loss, loss, accuracy=loss), n_classes=10)
        assert found[-1].name == "next_try"
        assert epochs >= 8 or set(names(found)) <= {"chance", "trend", "next_try"}


# The regression's words


def test_the_arrival_says_that_its_excess_is_a_mean_and_over_how_many_steps():
    x = np.array([-1.0, 0.0, 1.0])
    surface = LinearRegressionSurface(x, 2 * x + np.array([1.0, -2.0, 1.0]))  # J* = 2, J = 2 + 2/3 (w - 2)^2 + b^2
    w, b = np.linspace(-1, 0, 101), np.zeros(101)
    found = {f.name: f for f in (diagnosis.distance(surface, w, b), diagnosis.arrival(surface, w, b))}
    mean = np.mean((w[-10:] - 2) ** 2 / 3)
    assert f"over the last 10 steps the cost is on average {mean:.2%} above the minimum" in found["arrival"].text
    assert f"{4 / 3:.2%} in J away" in found["distance"].text
