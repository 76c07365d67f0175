"""Learning rates as recorded: schedules that fall too early, count steps as epochs, or never end their warm-up."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.diagnosis.rate_schedule import rate_schedule
from mlflow_hp.history import TrainingHistory
from tests.helpers.programs_described import dense, features, labels, program

N, EPOCHS = 400, 20
STEPS = np.arange(N)
EPOCH_OF = STEPS // (N // EPOCHS)
X, Y = features(), labels()


def trained(rates, end=0.6, callbacks=(), planned=EPOCHS):
    """A classifier of three classes whose accuracy ends at `end`."""
    described = program(
        dense(32, "relu"), dense(3, "softmax"), metrics=("accuracy",), x=X, y=Y, callbacks=callbacks,
        optimizer={"name": "SGD"}, fit={"epochs": planned},
    )  # fmt: skip
    steps = {"step": STEPS, "batch_loss": np.linspace(1.1, 1.0, N), "learning_rate": np.asarray(rates, float)}
    epochs = {
        "epoch": np.arange(EPOCHS),
        "loss": np.linspace(1.1, 1.0, EPOCHS),
        "accuracy": np.linspace(1 / 3, end, EPOCHS),
    }
    return TrainingHistory.from_arrays(steps, epochs, program=described)


UNSUITABLE = {
    "a tenth of it each epoch": (0.1 * 0.1**EPOCH_OF, "falls too early"),
    "epochs for steps": (np.where(STEPS < 5, 0.1, 0.01), "within an epoch"),
    "a warm-up of a million steps": (0.005 * STEPS / 1e6, "warm-up"),
    "a warm-up from half of the way": (0.001 + 0.01 * STEPS / N, "warm-up"),
}
SUITABLE = {
    "constant": np.full(N, 0.1),
    "a third of it each quarter": 0.1 * (1 / 3) ** (EPOCH_OF // 5),
    "cosine": 0.05 * (1 + np.cos(np.pi * STEPS / N)),
    "restarts": 0.05 * (1 + np.cos(np.pi * (STEPS % 100) / 100)),
    "one cycle": np.interp(STEPS, [0, 120, N], [0.001, 0.1, 1e-6]),
    "a short warm-up": np.minimum(0.1, 0.1 * STEPS / 40),
    "a range test": 1e-5 * 1.03**STEPS,
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_an_unsuitable_schedule_is_the_problem(name):
    rates, cause = UNSUITABLE[name]
    (first, *others) = diagnosis.diagnose(trained(rates))
    assert (first.name, first.severity) == ("rate_schedule", "problem")
    assert cause in first.cause
    assert not {"plateau", "speed", "chance"} & {each.name for each in others}


@pytest.mark.parametrize("name", SUITABLE)
def test_usual_schedules_are_left_alone(name):
    assert rate_schedule(trained(SUITABLE[name])) is None


@pytest.mark.parametrize("name", UNSUITABLE)
def test_nothing_is_said_where_the_result_is_good(name):
    assert rate_schedule(trained(UNSUITABLE[name][0], end=0.99)) is None


@pytest.mark.parametrize("name", UNSUITABLE)
def test_a_part_of_a_training_tells_nothing(name):
    """As while it trains: a warm-up grows at first, and restarts are still to come."""
    assert rate_schedule(trained(UNSUITABLE[name][0], planned=2 * EPOCHS)) is None


def test_a_callback_that_waits_on_a_plateau_is_left_alone():
    rates = 0.1 * 0.09 ** (STEPS // 60)  # 0.1 would end at a limit, where rounding decides
    waits, not_at_all = ([("ReduceLROnPlateau", {"monitor": "loss", "patience": n})] for n in (3, 0))
    assert rate_schedule(trained(rates, callbacks=waits)) is None
    assert rate_schedule(trained(rates, callbacks=not_at_all)).verdict == "unsuitable schedule"
