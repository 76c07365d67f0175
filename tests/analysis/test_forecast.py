"""Forecasts of curves that are cut off, and the epochs that bring nothing more."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.diagnosis.extrapolation import extrapolate
from mlflow_hp.analysis.diagnosis.forecast import brings_nothing_more, planned_epochs, will_not_learn
from mlflow_hp.history import TrainingHistory
from mlflow_hp.history.program import Callback, Program

EPOCH = np.arange(100, dtype=float)
SHAPES = {
    "power": 0.4 + (EPOCH + 1) ** -0.5,
    "exponential": 0.2 + np.exp(-EPOCH / 15),
    "overfits": np.exp(-EPOCH / 5) + 0.5 + 0.004 * EPOCH,
    "grows": 10 ** (EPOCH / 30),
    "negative": -3 + 2 / (1 + EPOCH),
}


def noisy(shape, seed, size=0.01):
    return shape * np.exp(size * np.random.default_rng(seed).normal(size=len(shape)))


def history(loss, *, validation=None, epochs=None, start=None, rates=None, program=None, **meta):
    steps = {"step": np.arange(5)} if start is None else {"batch_loss": np.full(5, start)}
    if rates is not None:
        steps["learning_rate"] = np.asarray(rates)
    table = {"epoch": np.arange(len(loss)), "loss": np.asarray(loss)}
    if validation is not None:
        table["val_loss"] = np.asarray(validation)
    if epochs is not None:
        meta["params"] = {"epochs": epochs}
    return TrainingHistory.from_arrays(steps, table, meta=meta, program=program)


@pytest.mark.parametrize("name", SHAPES)
def test_most_intervals_hold_the_end_of_a_made_curve(name):
    held = 0
    for seed in range(20):
        values = noisy(SHAPES[name], seed)
        ahead = extrapolate(values[:40], 100)
        assert ahead.low <= ahead.value <= ahead.high
        held += ahead.low <= values[-1] <= ahead.high
    assert held >= 14


def test_the_interval_becomes_narrower_as_the_curve_goes_on():
    widths = []
    for n in (20, 50, 90):
        ahead = extrapolate(noisy(SHAPES["power"], 0)[:n], 100)
        widths.append(ahead.high - ahead.low)
    assert widths[0] > widths[1] > 2 * widths[2]


def test_the_interval_of_a_positive_loss_does_not_go_below_zero():
    values = noisy(np.exp(-EPOCH / 10), 0, size=0.3)
    assert extrapolate(values[:30], 100).low >= 0


def test_scale_and_offset_of_a_loss_do_not_matter():
    values = noisy(SHAPES["negative"], 0)[:40]
    ahead, of_scaled = extrapolate(values, 100), extrapolate(1000 * values, 100)
    np.testing.assert_allclose(of_scaled, 1000 * np.array(ahead), rtol=1e-6)


def test_curves_that_are_constant_or_as_short_as_can_be():
    np.testing.assert_allclose(extrapolate(np.ones(10), 20), 1.0, atol=1e-2)
    np.testing.assert_allclose(extrapolate(np.zeros(10), 20), 0.0, atol=1e-2)
    assert all(np.isfinite(extrapolate(np.array([4.0, 3.0, 2.5, 2.2]), 5)))
    assert all(np.isfinite(extrapolate(10.0 ** np.arange(0, 300, 10), 5000)))


def test_a_long_curve_takes_no_longer_than_20_ms():
    values, seconds = noisy((np.arange(5000) + 1.0) ** -0.3, 0), []
    for _ in range(5):
        began = time.process_time()
        extrapolate(values, 10_000)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.02


def test_forecast_of_a_history():
    values = noisy(SHAPES["power"], 0)
    ahead = diagnosis.forecast(history(values[:40], epochs=100))
    assert (ahead.metric, ahead.n_epochs, ahead.n_left) == ("loss", 100, 60)
    assert ahead.low < values[-1] < ahead.high
    assert ahead.lowest == values[:40].min()
    validated = history(values[:40], validation=2 * values[:40], epochs=100)
    assert diagnosis.forecast(validated).metric == "val_loss"
    assert diagnosis.forecast(validated).value == pytest.approx(2 * ahead.value)
    assert diagnosis.forecast(history(values[:40]), n_epochs=100) == ahead


def test_no_forecast_where_none_is_possible():
    values = SHAPES["power"]
    assert diagnosis.forecast(history(values[:40])) is None  # the plan is unknown
    assert diagnosis.forecast(history(values[:40], epochs=40)) is None  # it is done
    assert diagnosis.forecast(history(values[:3], epochs=40)) is None
    assert diagnosis.forecast(history([1.0, np.nan, np.nan, np.nan, np.nan], epochs=40)) is None
    assert diagnosis.forecast(TrainingHistory.from_arrays({"step": [0]}), n_epochs=40) is None


def test_the_plan_of_the_program_comes_first():
    assert planned_epochs(history([1.0], epochs=20)) == 20
    assert planned_epochs(history([1.0], epochs=20, program=Program(fit={"epochs": 30}))) == 30
    assert planned_epochs(history([1.0], epochs="many")) is None


def test_epochs_after_the_fall_bring_nothing_more():
    values = noisy(0.5 + np.exp(-EPOCH / 4), 0, size=0.002)
    assert not any(brings_nothing_more(values[:k], 100) for k in range(1, 20))
    assert brings_nothing_more(values[:80], 100)
    finding = diagnosis.prospects(history(values[:80], epochs=100, start=2.0))
    assert (finding.name, finding.verdict, finding.severity) == ("forecast", "brings nothing more", "hint")
    assert finding.evidence["epochs_left"] == 20
    assert [(c.parameter, c.old, c.new) for c in finding.change] == [("epochs", 100, 80)]
    assert "remaining 20 of 100 epochs" in finding.text


@pytest.mark.parametrize("name", ["power", "exponential"])
def test_a_loss_that_still_falls_is_left_alone(name):
    values = noisy(SHAPES[name], 1)
    assert [k for k in range(8, 45) if diagnosis.prospects(history(values[:k], epochs=100, start=2.0))] == []


def test_a_rate_that_changes_may_still_bring_something():
    values = noisy(0.5 + np.exp(-EPOCH / 4), 0, size=0.002)[:80]
    schedules = {"rates": np.linspace(0.1, 0.01, 5)}, {"optimizer": {"name": "SGD", "learning_rate": "CosineDecay"}}
    for schedule in schedules:
        assert diagnosis.prospects(history(values, epochs=100, start=2.0, **schedule)) is None
    reduces = Program(fit={"epochs": 100}, callbacks=(Callback("ReduceLROnPlateau"),))
    assert diagnosis.prospects(history(values, start=2.0, program=reduces)) is None


def test_a_training_that_stays_at_its_start_will_not_learn():
    level = noisy(np.full(100, 2.3), 0, size=0.005)
    finding = diagnosis.prospects(history(level[:25], epochs=100, start=2.3))
    assert (finding.verdict, finding.severity) == ("will not learn", "problem")
    assert finding.change == ()
    far_above = noisy(np.full(100, 8.0), 0, size=0.2)
    optimizer = {"name": "Adam", "learning_rate": 1.0}
    finding = diagnosis.prospects(history(far_above[:25], epochs=100, start=2.3, optimizer=optimizer))
    assert finding.change[0][:3] == ("learning_rate", 1.0, 0.11)
    assert finding.suggestion == "learning_rate=0.11"


def test_trainings_that_learn_are_not_hopeless():
    early_plateau = 2.3 - 0.01 * EPOCH - 1.5 / (1 + np.exp(-(EPOCH - 25) / 4))
    for values in (early_plateau, noisy(SHAPES["power"], 0), SHAPES["exponential"]):
        assert [k for k in range(8, 100) if will_not_learn(values[:k], 100, values[0])] == []
    fast = noisy(np.full(100, 0.4), 0)  # had learned all by the end of the first epoch
    assert not any(will_not_learn(fast[:k], 100, 2.3) for k in range(8, 100))
    rescued = np.where(EPOCH < 40, 50.0, 1.0)
    assert will_not_learn(rescued[:30], 100, 2.3)
    assert not will_not_learn(rescued[:30], 100, 2.3, changes=True)


def test_a_fit_that_continues_another_has_learned_before():
    level = noisy(np.full(25, 0.3), 0, size=0.005)
    finding = diagnosis.prospects(history(level, epochs=100, start=0.3, first_epoch=50))
    assert finding is None or finding.verdict == "brings nothing more"
