"""Learning-rate schedules: the rate of every step against its formula, as a fit applied it and a recorder saw it."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

import mlflow_hp
from projects import arguments, learning_rate, schedules
from projects.schedules import Restarts
from tests.helpers.fits import X, Y, record, regression

STEPS_PER_EPOCH = 5
EPOCHS = 4


def chosen(**settings):
    defaults = {parameter.name: parameter.default for parameter in learning_rate.PARAMETERS}
    written = {"epochs": str(EPOCHS)} | {name: arguments.text_of(value) for name, value in settings.items()}
    return arguments.combinations(defaults | written, learning_rate.PARAMETERS)[0]


def applied(settings, **compiled):
    """The learning rate of each step of a fit of ``settings["epochs"]`` epochs of 5 steps."""
    rate, callbacks = schedules.learning_rate(settings, STEPS_PER_EPOCH)
    model = regression(keras.optimizers.SGD(rate), **compiled)
    fitted = record(model, epochs=settings["epochs"], callbacks=callbacks)
    return fitted.history.steps["learning_rate"]


def annealed(rates, lengths):
    """The cosine of each period, one behind the other (SGDR, equation 5, lowest rate 0)."""
    periods = [rate * 0.5 * (1 + np.cos(np.pi * np.arange(n) / n)) for rate, n in zip(rates, lengths, strict=True)]
    return np.concatenate(periods)


def values(schedule, n):
    return np.array([float(schedule(step)) for step in range(n)])


STEP = np.arange(EPOCHS * STEPS_PER_EPOCH)
EXPECTED = {
    "constant": ({"schedule": "constant", "learning_rate": 0.03}, np.full(20, 0.03)),
    "time decay, by default": ({"schedule": "time_decay", "learning_rate": 0.2}, 0.2 / (1 + 0.2 / EPOCHS * STEP)),
    "time decay": ({"schedule": "time_decay", "decay": 0.5}, 0.1 / (1 + 0.5 * STEP)),
    "no time decay": ({"schedule": "time_decay", "decay": 0}, np.full(20, 0.1)),
    "exponential": ({"schedule": "exponential", "k": 0.7}, 0.1 * np.exp(-0.7 * (STEP // STEPS_PER_EPOCH))),
    "restarts": ({"schedule": "restarts", "restart_epochs": 1, "restarts": 3}, annealed([0.1] * 4, [5] * 4)),
    "growing": (
        {"schedule": "restarts", "restart_epochs": 1, "restarts": 2, "restart_growth": 1.6},
        annealed([0.1] * 3, [5, 10, 15])[:20],  # 1, 1.6 and 2.56 epochs, as whole ones
    ),
    "last period to the end": (
        {"schedule": "restarts", "restart_epochs": 1, "restarts": 1},
        annealed([0.1] * 2, [5, 15]),
    ),
    "no restart": ({"schedule": "restarts", "restart_epochs": 1, "restarts": 0}, annealed([0.1], [20])),
    "cut off": (
        {"schedule": "restarts", "restart_epochs": 3, "restarts": 3, "restart_growth": 2},
        annealed([0.1] * 2, [15, 30])[:20],
    ),
}


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", EXPECTED)
def test_every_step_of_a_fit_has_the_rate_of_the_formula(name):
    settings, expected = EXPECTED[name]
    np.testing.assert_allclose(applied(chosen(**settings)), expected, rtol=2e-6)


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("compiled", [{"jit_compile": True}, {"steps_per_execution": 3}])
def test_restarts_in_a_compiled_fit(compiled):
    settings = chosen(schedule="restarts", restart_epochs=1, restarts=2, restart_growth=1.2)
    np.testing.assert_allclose(applied(settings, **compiled), annealed([0.1] * 3, [5, 5, 10]), rtol=2e-6)


def test_new_starts_are_drawn_log_uniformly_and_again_by_their_seed():
    drawn = {"schedule": "restarts", "epochs": 200, "restart_epochs": 1, "restarts": 199}
    drawn |= {"restart_low": 1e-4, "restart_high": 1.0}
    one, same, other = (schedules.restarts(chosen(**drawn, seed=seed), 2) for seed in (3, 3, 4))
    assert one.rates[0] == other.rates[0] == 0.1
    assert one.get_config() == same.get_config()
    assert one.rates[1] != other.rates[1]
    starts = np.array(one.rates[1:])
    assert len(np.unique(starts)) == 199
    assert starts.min() >= 1e-4
    assert starts.max() <= 1
    assert np.bincount((4 + np.log10(starts)).astype(int), minlength=4).min() > 30  # of some 50 in each decade


@pytest.mark.usefixtures("store")
def test_a_fit_starts_again_at_the_rates_that_were_drawn():
    settings = chosen(schedule="restarts", restart_epochs=1, restarts=3, restart_low=0.001, restart_high=0.01)
    rates = schedules.restarts(settings, STEPS_PER_EPOCH).rates
    assert all(0.001 <= rate <= 0.01 for rate in rates[1:])
    found = applied(settings)
    np.testing.assert_allclose(found[::STEPS_PER_EPOCH], rates, rtol=2e-6)
    np.testing.assert_allclose(found, annealed(rates, [5] * 4), rtol=2e-6)


def test_far_more_restarts_than_the_training_lasts():
    settings = chosen(schedule="restarts", restarts=10**9, restart_epochs=1, restart_growth=1.5)
    np.testing.assert_allclose(values(schedules.restarts(settings, 5), 20), annealed([0.1] * 3, [5, 10, 10])[:20], 2e-6)


def test_behind_the_last_period_the_rate_stays():
    schedule = Restarts([1.0, 0.5], [3, 2])
    np.testing.assert_allclose(values(schedule, 9), [1, 0.75, 0.25, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25], rtol=1e-6)


def test_restarts_come_back_from_their_config():
    schedule = Restarts([0.1, 0.03], [4, 6])
    again = Restarts.from_config(schedule.get_config())
    np.testing.assert_array_equal(values(again, 12), values(schedule, 12))
    kept = keras.optimizers.schedules.serialize(schedule)
    assert keras.optimizers.schedules.deserialize(kept).get_config() == schedule.get_config()


def test_a_saved_model_goes_on_where_it_was(tmp_path):
    model = regression(keras.optimizers.SGD(Restarts([0.1, 0.02], [7, 9])))
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer._learning_rate, Restarts)
    expected = annealed([0.1, 0.02], [7, 9])[10]
    assert float(again.optimizer.learning_rate) == pytest.approx(expected, rel=2e-6)
    for one in (model, again):
        one.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("low", "high", "n"), [(1e-5, 10.0, 240), (0.1, 0.2, 2)])
def test_growth_is_by_the_same_factor_at_each_step(low, high, n):
    found = values(schedules.growth(low, high, n), n)
    assert found[0] == pytest.approx(low, rel=1e-6)
    assert found[-1] == pytest.approx(high, rel=1e-5)
    np.testing.assert_allclose(found[1:] / found[:-1], (high / low) ** (1 / (n - 1)), rtol=1e-5)
    np.testing.assert_allclose(found, np.geomspace(low, high, n), rtol=1e-5)


def test_growth_over_a_single_step():
    assert float(schedules.growth(0.1, 0.5, 1)(0)) == pytest.approx(0.1)


@pytest.mark.usefixtures("store")
def test_growth_in_a_fit():
    model = regression(keras.optimizers.SGD(schedules.growth(1e-6, 1e-2, 10)))
    found = mlflow_hp.load_history(record(model).run_id).steps["learning_rate"]
    np.testing.assert_allclose(found, [1e-6 * math.exp(i / 9 * math.log(1e4)) for i in range(10)], rtol=1e-5)
