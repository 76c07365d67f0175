"""Each rule on a descent made to show it, and on one that must not trigger it."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.history import TrainingHistory
from tests.helpers.needs import needs_file
from tests.helpers.tutorial_data import ADVERTISING

RNG = np.random.default_rng(0)
RAW = RNG.normal(26.0, 4.4, 200)
Y = 10.0 * RAW - 110 + RNG.normal(scale=20, size=200)
SCALED = (RAW - RAW.mean()) / RAW.std()


def descend(x, rate, steps, batch=None, optimizer="sgd", start=(0.5, 0.0), y=Y):
    """A plain loop of gradient descent or RMSprop: path w, b (steps + 1,) and batch losses (steps,)."""
    point, square, draw = np.array(start), np.zeros(2), np.random.default_rng(3)
    path, losses = [point], []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            rows = draw.choice(len(x), batch, replace=False) if batch else slice(None)
            residual = point[0] * x[rows] + point[1] - y[rows]
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
                "standardize": abs(x.mean()) < 1e-9}  # fmt: skip
    surface = LinearRegressionSurface(x, more.get("y", Y))
    return {f.name: f for f in diagnosis.diagnose_regression(history(losses), surface, w, b, settings)}


def test_a_loss_that_is_not_finite():
    found = diagnosis.not_finite(history([1.0, 2.0, np.nan, np.nan]))
    assert found.evidence == {"first_step_not_finite": 2, "steps_not_finite": 2}
    assert "NaN at step 2" in found.text
    grown = diagnosis.not_finite(history([1.0, 1e3, 1e200, np.inf]))
    assert (grown.verdict, grown.suggestion) == ("diverges", "a learning rate smaller by 9")
    assert diagnosis.not_finite(history([1.0, 2.0])) is None


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([3.0, 2.0, 1.0], "still falling"),
        ([3.0, 1.0, 0.999], "level"),
        ([3.0, 1.0, 1.001], "level"),
        ([1.0, 1.0, 2.0], "rising"),
    ],
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
    first = next(i for i, value in enumerate(cost) if value <= 1.01 * cost[-20:].mean())
    assert found["arrival"].evidence["arrival_step"] == first - 1
    assert found["next_try"].evidence["suggested_epochs"] == math.ceil(1.5 * first * 10 / 200)


def test_a_start_at_the_minimum_has_arrived_before_the_first_step():
    best = LinearRegressionSurface(SCALED, Y).minimum
    found = diagnose(SCALED, 0.01, 100, start=best[:2], batch=20)
    assert (found["arrival"].verdict, found["arrival"].evidence["arrival_step"]) == ("has arrived", -1)
    hovering = diagnose(SCALED, 0.3, 100, start=best[:2], batch=20)  # its cost rises, but it does not diverge
    assert hovering["arrival"].verdict == "hovers"


def test_data_on_a_line_can_be_arrived_at():
    found = diagnose(SCALED, 0.1, 200, y=10.0 * SCALED + 3)
    assert found["arrival"].verdict == "has arrived"
    assert found["distance"].verdict == "at the minimum"
    assert diagnose(SCALED, 0.01, 50, y=10.0 * SCALED + 3)["arrival"].verdict == "crawls"
    assert "inf" not in found["arrival"].text + found["distance"].text


def test_a_learning_rate_near_the_largest_stable_overshoots():
    rate = 0.97 * LinearRegressionSurface(SCALED, Y).largest_stable_learning_rate
    found = diagnose(SCALED, rate, 300)
    assert found["overshoot"].verdict == "overshoots"
    assert found["overshoot"].evidence["reversal_share"] == 1.0
    assert found["next_try"].evidence["suggested_learning_rate"] < rate


def test_an_overshoot_that_hardly_falls_is_not_sent_to_a_larger_learning_rate():
    found = diagnose(SCALED, 0.999, 50)
    assert (found["arrival"].verdict, found["overshoot"].verdict) == ("hovers", "overshoots")
    assert found["next_try"].evidence["suggested_learning_rate"] < 0.5


def test_a_learning_rate_above_it_diverges():
    rate = 1.02 * LinearRegressionSurface(SCALED, Y).largest_stable_learning_rate
    assert diagnose(SCALED, rate, 50)["arrival"].verdict == "diverges"
    broken = diagnose(SCALED, 10.0, 400)
    assert broken["arrival"].verdict == "diverges"
    assert broken["not_finite"].verdict == "diverges"
    assert broken["overshoot"].evidence["reversal_share"] == 1.0  # also where its updates are beyond 1e200
    assert broken["next_try"].evidence["suggested_learning_rate"] <= 0.5


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_noise_around_the_minimum_is_no_overshoot(rate):
    found = diagnose(SCALED, rate, 2000, batch=10)
    assert found["arrival"].verdict == "has arrived"
    assert found["overshoot"].verdict == "does not overshoot"
    assert found["overshoot"].evidence["reversal_share"] > 0.4


def test_steps_to_and_fro_after_the_arrival_are_no_overshoot():
    found = diagnose(SCALED, 2.0, 2000, optimizer="rmsprop")  # without batches: it ends by jumping over the minimum
    assert found["overshoot"].evidence["reversal_share"] > diagnosis.REVERSALS
    assert found["overshoot"].evidence["reversal_share_on_the_way"] < 0.1
    assert found["overshoot"].verdict == "does not overshoot"


def test_stationary_noise_reverses_three_quarters_of_the_updates_at_one_over_the_curvature():
    best = LinearRegressionSurface(SCALED, Y).minimum
    noise = np.random.default_rng(0).normal(size=(20_000, 2)) + best[:2]  # at that rate a step forgets where it was
    reversed_ = diagnosis.overshoot(*noise.T, diagnosis.Finding("arrival", "hovers", "", {"arrival_step": 0}))
    assert reversed_.evidence["reversal_share"] == pytest.approx(diagnosis.REVERSALS, abs=0.01)


def test_a_large_learning_rate_with_small_batches_hovers():
    found = diagnose(SCALED, 0.4, 1000, batch=10)
    assert found["arrival"].verdict == "hovers"
    assert found["arrival"].evidence["share_still_to_go"] < 0.1
    assert found["next_try"].evidence["suggested_learning_rate"] < 0.4


def test_the_raw_feature_is_ill_conditioned_and_the_scaled_is_not():
    raw, scaled = diagnose(RAW, 0.001, 100), diagnose(SCALED, 0.1, 100)
    assert raw["curvature"].verdict == "ill-conditioned"
    assert "the bias hardly moves" in raw["curvature"].text
    assert "standardize" in raw["curvature"].suggestion
    assert raw["next_try"].suggestion.startswith("standardize=true with learning_rate=")
    assert scaled["curvature"].verdict == "well-conditioned"
    assert "standardize" not in scaled["next_try"].text
    tiny = diagnosis.curvature(LinearRegressionSurface(1e-3 * SCALED, Y))
    assert "the weight hardly moves" in tiny.text


def test_a_zig_zag_along_a_valley_is_not_sent_to_a_smaller_learning_rate():
    rate = 0.99 * LinearRegressionSurface(RAW, Y).largest_stable_learning_rate
    found = diagnose(RAW, rate, 400)
    assert found["overshoot"].verdict == "zig-zags"
    assert found["overshoot"].suggestion is None
    assert found["arrival"].verdict == "crawls"


@needs_file(ADVERTISING)
def test_rmsprop_in_the_valley_of_raw_tv_budgets_crawls():
    table = pd.read_csv(ADVERTISING)
    x, y = table["TV"].to_numpy(float), table["sales"].to_numpy(float)
    found = diagnose(x, 0.01, 200, batch=10, optimizer="rmsprop", y=y)
    assert found["arrival"].verdict == "crawls"
    assert found["overshoot"].verdict == "does not overshoot"
    better = found["next_try"].evidence["suggested_learning_rate"]
    again = diagnose((x - x.mean()) / x.std(), better, 200, batch=10, optimizer="rmsprop", y=y)
    assert again["distance"].evidence["excess_J"] < 0.05 < found["distance"].evidence["excess_J"]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("optimizer", "rate", "batch"),
    [("sgd", 1e-4, None), ("sgd", 1e-3, 10), ("sgd", 0.4, 10), ("sgd", 1.2, None), ("sgd", 0.97, None),
     ("rmsprop", 0.01, 10), ("rmsprop", 0.001, 10), ("rmsprop", 30.0, 10)],
)  # fmt: skip
def test_what_is_suggested_helps(optimizer, rate, batch, raw):
    first = diagnose(RAW if raw else SCALED, rate, 300, optimizer=optimizer, batch=batch)
    tried = first["next_try"]
    assert tried.suggestion.startswith("standardize=true" if raw else "learning_rate=")
    better = tried.evidence["suggested_learning_rate"]
    second = diagnose(SCALED, better, 300, optimizer=optimizer, batch=batch)
    ends = [np.nan_to_num(found["distance"].evidence["excess_J"], nan=np.inf) for found in (first, second)]
    assert ends[1] < 0.03
    assert ends[0] > ends[1] or first["overshoot"].verdict == "overshoots"


def test_nothing_to_try_where_all_is_well():
    found = diagnose(SCALED, 0.1, 30)
    assert found["arrival"].verdict == "has arrived"
    assert found["next_try"].suggestion is None


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_very_short_paths(steps):
    for rate in (0.001, 1e300):
        for found in diagnose(SCALED, rate, steps).values():
            assert found.text


def test_findings_of_a_diverged_training_are_strict_json():
    found = list(diagnose(SCALED, 10.0, 400).values())
    json.dumps(diagnosis.to_json(found), allow_nan=False)
    metrics = diagnosis.to_metrics(found)
    assert np.isfinite(list(metrics.values())).all()
    assert "diagnosis/final_J" not in metrics


def test_what_any_training_tells():
    found = diagnosis.diagnose(history([1.0, np.inf], [3.0, 2.0, 1.0]))
    assert [f.name for f in found] == ["not_finite", "trend", "next_try"]
    assert [f.verdict for f in diagnosis.diagnose(history([1.0]))] == ["nothing"]


def test_json_metrics_and_words():
    findings = [
        diagnosis.Finding("a", "odd", "A sentence.", {"x": math.nan, "y": 1, "z": None, "s": "text", "i": math.inf}),
        diagnosis.Finding("b", "even", "Another.", {"u": 2.5}, "less"),
    ]
    told = json.loads(json.dumps(diagnosis.to_json(findings), allow_nan=False))
    assert told["a"]["evidence"] == {"x": "nan", "y": 1, "z": None, "s": "text", "i": "inf"}
    assert told["b"]["suggestion"] == "less"
    assert diagnosis.to_metrics(findings) == {"diagnosis/y": 1.0, "diagnosis/u": 2.5}


def test_a_history_without_numbers_of_its_steps_is_judged():
    history = TrainingHistory.from_arrays({"batch_loss": [1.0, 2.0, math.nan, math.nan]})
    found = {finding.name: finding for finding in diagnosis.diagnose(history)}
    assert found["not_finite"].where == {"step": 2}
    weights = {"dense/kernel": np.array([1.0, 2.0, math.nan, math.nan])[:, None]}
    history = TrainingHistory.from_arrays({"batch_loss": [1.0, 2.0, 3.0]}, weights=weights)
    found = {finding.name: finding for finding in diagnosis.diagnose(history)}
    assert found["not_finite"].where == {"step": 1}
