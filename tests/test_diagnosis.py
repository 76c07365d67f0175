"""Each rule on a descent made to show it, and on one that must not trigger it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mlflow_hp import diagnosis
from mlflow_hp.history import TrainingHistory
from mlflow_hp.surfaces.linear_regression import LinearRegressionSurface

RNG = np.random.default_rng(0)
RAW = RNG.normal(26.0, 4.4, 200)
Y = 10.0 * RAW - 110 + RNG.normal(scale=20, size=200)
SCALED = (RAW - RAW.mean()) / RAW.std()


def descend(x, rate, steps, batch=None, optimizer="sgd", start=(0.5, 0.0)):
    """A plain loop of gradient descent or RMSprop: path w, b (steps + 1,) and batch losses (steps,)."""
    point, square, draw = np.array(start), np.zeros(2), np.random.default_rng(3)
    path, losses = [point], []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            rows = draw.choice(len(x), batch, replace=False) if batch else slice(None)
            residual = point[0] * x[rows] + point[1] - Y[rows]
            losses.append(np.mean(residual**2))
            slope = 2 * np.array([np.mean(residual * x[rows]), np.mean(residual)])
            if optimizer == "rmsprop":
                square = 0.9 * square + 0.1 * slope**2
                slope = slope / (np.sqrt(square) + 1e-7)
            point = point - rate * slope
            path.append(point)
    return *np.array(path).T, np.array(losses)


def history(losses, epochs=None):
    steps = {"step": np.arange(len(losses)), "batch_loss": np.asarray(losses, float)}
    table = {"epoch": np.arange(len(epochs)), "loss": np.asarray(epochs, float)} if epochs is not None else None
    return TrainingHistory.from_arrays(steps, table)


def diagnose(x, rate, steps, epochs=10, **more):
    w, b, losses = descend(x, rate, steps, **more)
    settings = {"optimizer": more.get("optimizer", "sgd"), "learning_rate": rate, "epochs": epochs,
                "standardize": x is SCALED}  # fmt: skip
    surface = LinearRegressionSurface(x, Y)
    return {f.name: f for f in diagnosis.diagnose_regression(history(losses), surface, w, b, settings)}


def test_a_loss_that_is_not_finite():
    found = diagnosis.not_finite(history([1.0, 2.0, np.nan, np.nan]))
    assert found.evidence == {"first_step_not_finite": 2, "steps_not_finite": 2}
    assert "NaN at step 2" in found.text
    grown = diagnosis.not_finite(history([1.0, 1e3, 1e200, np.inf]))
    assert (grown.verdict, grown.suggestion) == ("diverges", "a smaller learning rate")
    assert diagnosis.not_finite(history([1.0, 2.0])) is None


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [([3.0, 2.0, 1.0], "still falling"), ([3.0, 1.0, 0.999], "level"), ([1.0, 1.0, 2.0], "level")],
)
def test_trend(losses, verdict):
    assert diagnosis.trend(history([1.0], losses)).verdict == verdict


def test_trend_of_too_little():
    assert diagnosis.trend(history([1.0], [3.0, 2.0])) is None
    assert diagnosis.trend(history([1.0], [3.0, np.nan, 1.0])) is None
    assert diagnosis.trend(history([1.0])) is None


def test_a_small_learning_rate_crawls():
    found = diagnose(SCALED, 0.002, 100)
    assert found["arrival"].verdict == "crawls"
    assert found["overshoot"].verdict == "does not overshoot"
    assert found["distance"].verdict == "off the minimum"


def test_a_good_learning_rate_arrives():
    found = diagnose(SCALED, 0.1, 200)
    assert found["arrival"].verdict == "has arrived"
    assert found["distance"].verdict == "at the minimum"
    w, b, _ = descend(SCALED, 0.1, 200)
    cost = LinearRegressionSurface(SCALED, Y).cost(w, b)
    first = next(i for i, value in enumerate(cost) if abs(value - cost[-1]) <= 0.01 * cost[-1])
    assert found["arrival"].evidence["arrival_step"] == first - 1
    assert found["next_try"].evidence["suggested_epochs"] < 10


def test_a_learning_rate_near_the_largest_stable_overshoots():
    rate = 0.97 * LinearRegressionSurface(SCALED, Y).largest_stable_learning_rate
    found = diagnose(SCALED, rate, 300)
    assert found["overshoot"].verdict == "overshoots"
    assert found["overshoot"].evidence["reversal_share"] == 1.0
    assert found["next_try"].evidence["suggested_learning_rate"] < rate


def test_a_learning_rate_above_it_diverges():
    rate = 1.05 * LinearRegressionSurface(SCALED, Y).largest_stable_learning_rate
    assert diagnose(SCALED, rate, 200)["arrival"].verdict == "diverges"
    broken = diagnose(SCALED, 10.0, 400)
    assert broken["arrival"].verdict == "diverges"
    assert broken["not_finite"].verdict == "diverges"
    assert broken["next_try"].evidence["suggested_learning_rate"] <= 1.0


def test_noise_around_the_minimum_is_no_overshoot():
    found = diagnose(SCALED, 0.05, 2000, batch=10)
    assert found["overshoot"].verdict == "does not overshoot"
    assert found["overshoot"].evidence["reversal_share"] > 0.4


def test_the_raw_feature_is_ill_conditioned_and_the_scaled_is_not():
    raw, scaled = diagnose(RAW, 0.001, 100), diagnose(SCALED, 0.1, 100)
    assert raw["curvature"].verdict == "ill-conditioned"
    assert "standardize" in raw["curvature"].suggestion
    assert raw["next_try"].suggestion == "standardize=true"
    assert scaled["curvature"].verdict == "well-conditioned"
    assert "standardize" not in scaled["next_try"].text


def test_a_valley_that_is_followed_slowly_crawls():
    w, b, _ = descend(RAW, 0.05, 400, batch=10, optimizer="rmsprop")
    assert diagnosis.arrival(LinearRegressionSurface(RAW, Y), w, b).verdict in ("crawls", "stalled")
    assert "arrived" not in diagnosis.arrival(LinearRegressionSurface(RAW, Y), w, b).verdict


@pytest.mark.parametrize(
    ("optimizer", "rate", "batch"),
    [("sgd", 1e-4, None), ("sgd", 1.2, None), ("sgd", 0.97, None), ("rmsprop", 0.01, 10), ("rmsprop", 0.001, 10)],
)
def test_what_is_suggested_helps(optimizer, rate, batch):
    first = diagnose(SCALED, rate, 300, optimizer=optimizer, batch=batch)
    better = first["next_try"].evidence["suggested_learning_rate"]
    second = diagnose(SCALED, better, 300, optimizer=optimizer, batch=batch)
    assert abs(second["distance"].evidence["excess_J"]) < 0.02
    assert first["distance"].evidence["excess_J"] > 0.02 or first["overshoot"].verdict == "overshoots"


def test_nothing_to_try_where_all_is_well():
    found = diagnose(SCALED, 0.1, 30)
    assert found["arrival"].verdict == "has arrived"
    assert found["next_try"].suggestion is None


def test_json_metrics_and_words():
    findings = [
        diagnosis.Finding("a", "odd", "A sentence.", {"x": math.nan, "y": 1, "z": None, "s": "text", "i": math.inf}),
        diagnosis.Finding("b", "even", "Another.", {"u": 2.5}, "less"),
    ]
    told = json.loads(json.dumps(diagnosis.to_json(findings), allow_nan=False))
    assert told["a"]["evidence"] == {"x": "nan", "y": 1, "z": None, "s": "text", "i": "inf"}
    assert told["b"]["suggestion"] == "less"
    assert diagnosis.to_metrics(findings) == {"diagnosis/y": 1.0, "diagnosis/u": 2.5}
    assert diagnosis.to_markdown(findings) == "- **odd**: A sentence.\n- **even**: Another."
