"""Which of two trainings is better, and whether by more than noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlflow_hp import TrainingHistory
from mlflow_hp.improvement.scores import Scores, compare, scores_of


def history(**columns):
    n = len(next(iter(columns.values())))
    return TrainingHistory.from_arrays({"batch_loss": np.zeros(n)}, {"epoch": np.arange(n), **columns})


def test_the_values_of_the_epoch_that_was_kept_count():
    recorded = history(loss=[3.0, 2.0, 1.0], val_loss=[3.0, 2.0, math.nan])
    assert scores_of(recorded, 1).values == {"loss": 2.0, "val_loss": 2.0}
    assert math.isnan(scores_of(recorded).values["val_loss"])
    assert scores_of(TrainingHistory.from_arrays({"batch_loss": [3.0]}, {})).values == {}


@pytest.mark.parametrize(("gap", "is_real"), [(0.005, False), (0.02, False), (0.5, True)])
def test_a_difference_within_the_noise_is_not_real(gap, is_real):
    noise = np.tile([0.1, -0.1, 0.05, -0.05], 5)
    old = scores_of(history(val_loss=1 + noise))
    new = scores_of(history(val_loss=1 - gap + noise[::-1]))
    assert compare(new, old, set()).is_real is is_real


def test_a_last_epoch_that_is_lucky_is_not_better():
    values = np.full(20, 1.0) + np.tile([0.01, -0.01], 10)
    lucky = values.copy()
    lucky[-1] = 0.5
    assert not compare(scores_of(history(val_loss=lucky)), scores_of(history(val_loss=values)), set()).is_real


def test_scores_decide_where_the_loss_makes_no_difference():
    old, new = Scores({"val_loss": 0.5, "val_accuracy": 0.5}), Scores({"val_loss": 0.5, "val_accuracy": 0.9})
    difference = compare(new, old, set())
    assert (difference.metric, difference.is_real) == ("val_accuracy", True)
    assert difference.gain == pytest.approx(0.4)
    assert not compare(new, old, set(), metric="val_loss").is_real


def test_errors_of_scaled_targets_are_compared_in_units_of_their_spread():
    old = Scores({"val_loss": 90_000.0, "val_mae": 250.0, "val_bias": 1.0}, loss="mse", target_std=300.0)
    worse = Scores({"val_loss": 2.0, "val_mae": 1.2}, loss="mse", target_std=1.0)
    better = Scores({"val_loss": 0.5, "val_mae": 0.5}, loss="mse", target_std=1.0)
    assert compare(worse, old, {"scale_targets"}) == ("val_loss", -1.0, True)
    assert compare(better, old, {"scale_targets"}) == ("val_loss", 0.5, True)
    of_huber = [scores._replace(loss="huber") for scores in (better, old)]
    assert compare(*of_huber, {"scale_targets"}).metric == "val_mae"


def test_a_training_that_is_not_finite_is_worse_than_any():
    finite, broken = Scores({"loss": 2.0, "val_loss": 3.0}), Scores({"loss": math.nan})
    assert compare(broken, finite, set()) == ("val_loss", -math.inf, True)
    assert compare(finite, broken, set()) == ("val_loss", math.inf, True)
    assert not compare(broken, broken, set()).is_real
