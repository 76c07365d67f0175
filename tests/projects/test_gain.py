"""The gain of one model over another: its value is the difference of scores, its interval that of paired samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import check_scoring

from projects.gain import paired_gain

RNG = np.random.default_rng(0)


class Told:
    """Predicts the label of row i, or another class where it is told to be wrong."""

    classes_ = np.array([0, 1])

    def __init__(self, labels):
        self.labels = labels

    def predict(self, x):
        return self.labels

    def predict_proba(self, x):
        return np.eye(2)[self.labels]


def accuracy(model, rows, y):
    return float(np.mean(model.predict(rows) == y))


def test_the_interval_is_that_of_paired_proportions():
    n, only_tuned, only_baseline = 400, 60, 20
    y = RNG.integers(0, 2, n)
    tuned, baseline = y.copy(), y.copy()
    baseline[:only_tuned] = 1 - y[:only_tuned]
    tuned[only_tuned : only_tuned + only_baseline] = 1 - y[only_tuned : only_tuned + only_baseline]
    found = paired_gain(accuracy, Told(tuned), Told(baseline), np.zeros((n, 1)), y)
    difference = (only_tuned - only_baseline) / n
    deviation = np.sqrt(only_tuned + only_baseline - (only_tuned - only_baseline) ** 2 / n) / n  # Wald, paired
    assert found.value == pytest.approx(difference)
    assert found.low == pytest.approx(difference - 1.96 * deviation, abs=0.005)
    assert found.high == pytest.approx(difference + 1.96 * deviation, abs=0.005)
    assert "more than the choice of test samples explains" in found.sentence


def test_the_same_model_gains_nothing():
    y = RNG.integers(0, 2, 50)
    model = Told(1 - y)
    found = paired_gain(accuracy, model, model, np.zeros((50, 1)), y)
    assert found[:3] == (0, 0, 0)
    assert "cannot tell" in found.sentence


@pytest.mark.sampled(5)
@pytest.mark.parametrize("scoring", [None, "accuracy", "f1_macro", "neg_log_loss", "roc_auc"])
def test_any_scorer_of_classes(scoring):
    x = RNG.normal(size=(80, 2))
    y = (x[:, 0] + RNG.normal(size=80) > 0).astype(int)
    one, other = LogisticRegression().fit(x, y), DummyClassifier(strategy="stratified", random_state=0).fit(x, y)
    scorer = check_scoring(one, scoring)
    found = paired_gain(scorer, one, other, x, y)
    assert found.value == pytest.approx(scorer(one, x, y) - scorer(other, x, y))
    assert found.low < found.value < found.high


def test_numbers_that_are_predicted():
    x = RNG.normal(size=(80, 2))
    y = x[:, 0] + 0.1 * RNG.normal(size=80)
    one, other = LinearRegression().fit(x, y), DummyRegressor().fit(x, y)
    found = paired_gain(check_scoring(one, None), one, other, x, y)
    assert found.value == pytest.approx(one.score(x, y) - other.score(x, y))
    assert 0.9 < found.low < found.value < found.high < 1.1


def test_a_resample_without_a_class_gives_no_interval():
    y = np.array([0, 0, 0, 1])

    def scorer(model, rows, y):
        if len(set(y)) < 2:
            raise ValueError("one class alone")
        return 1.0

    found = paired_gain(scorer, Told(y), Told(y), np.zeros((4, 1)), y)
    assert np.isnan(found.low)
    assert "no interval" in found.sentence
