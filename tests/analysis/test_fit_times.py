"""Fit times are compared with a test, and only where they need not be equal."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from mlflow_hp.analysis.fit_times import FitTimes, fastest


def times(*rows, costs=None):
    mean, std = [np.mean(row) for row in rows], [np.std(row) for row in rows]
    return FitTimes(np.array(mean), np.array(std), np.array([len(row) for row in rows]), costs or [None] * len(rows))


def chosen(given, level=0.05):
    return fastest(given, np.ones(len(given.mean), bool), 0, level)


SLOW, FAST = [3.0, 3.1, 2.9, 3.05, 2.95], [2.0, 2.1, 1.9, 2.05, 1.95]


def test_a_clear_difference_is_one():
    assert chosen(times(SLOW, FAST)) == 1


def test_one_slow_first_fold_is_none():
    assert chosen(times([9.0, 2.0, 2.1, 1.9, 2.05], [2.0, 2.1, 1.9, 2.05, 1.95])) == 0


def test_the_decision_is_that_of_welchs_test():
    rng = np.random.default_rng(0)
    for _ in range(50):
        slow, fast = rng.gamma(4, 0.5, 4), rng.gamma(4, 0.3, 6)
        p_value = ttest_ind(fast, slow, equal_var=False, alternative="less").pvalue
        expected = p_value < 0.05 and fast.mean() * 1.05 < slow.mean()
        assert chosen(times(slow, fast)) == int(expected)


def test_equal_work_is_not_compared():
    assert chosen(times(SLOW, FAST, costs=["64-64 10 x 5", "64-64 10 x 5"])) == 0
    assert chosen(times(SLOW, FAST, costs=["64-64 10 x 5", "64-64 5 x 5"])) == 1


@pytest.mark.parametrize("fast", [[2.0], []])
def test_a_single_fold_shows_nothing(fast):
    assert (
        chosen(FitTimes(np.array([3.0, np.mean(fast or [np.nan])]), np.zeros(2), np.array([5, len(fast)]), [None] * 2))
        == 0
    )


def test_false_alarms_among_many_equal_ones_are_rare():
    rng = np.random.default_rng(1)
    wrong = [chosen(times(*rng.gamma(20, 0.05, (12, 5)))) != 0 for _ in range(400)]
    assert np.mean(wrong) < 0.07
