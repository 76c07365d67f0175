"""The cost surface of a linear regression against independent computations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.errors import UserError
from tests.helpers.needs import needs_file
from tests.helpers.tutorial_data import ADVERTISING

RNG = np.random.default_rng(1)
SCALES = [(0.0, 1.0), (26.0, 4.4), (1e4, 1.0), (0.0, 1e-6)]


def sample(mean, std):
    x = RNG.normal(mean, std, 200)
    return x, 3.0 * x - 2.0 + RNG.normal(size=200)


@pytest.mark.parametrize(("mean", "std"), SCALES)
def test_minimum_is_least_squares(mean, std):
    x, y = sample(mean, std)
    surface = LinearRegressionSurface(x, y)
    design = np.column_stack([x - x.mean(), np.ones_like(x)])
    slope, middle = np.linalg.lstsq(design, y, rcond=None)[0]
    assert surface.minimum.w == pytest.approx(slope, rel=1e-9)
    assert surface.minimum.b == pytest.approx(middle - slope * x.mean(), rel=1e-8)
    residual = y - middle - slope * (x - x.mean())
    assert surface.minimum.cost == pytest.approx(np.mean(residual**2), rel=1e-9)


@pytest.mark.parametrize(("mean", "std"), SCALES)
def test_cost_is_the_mean_squared_error(mean, std):
    x, y = sample(mean, std)
    surface = LinearRegressionSurface(x, y)
    w, b = RNG.normal(scale=100, size=(2, 5, 4))
    direct = np.mean((w[..., None] * x + b[..., None] - y) ** 2, axis=-1)
    np.testing.assert_allclose(surface.cost(w, b), direct, rtol=1e-9)
    assert surface.cost(*surface.minimum[:2]) == pytest.approx(surface.minimum.cost)


def test_cost_beyond_float64_is_infinite():
    assert np.isinf(LinearRegressionSurface(*sample(0, 1)).cost(1e300, 0.0))


def test_gradient_and_hessian_against_finite_differences():
    surface = LinearRegressionSurface(*sample(26.0, 4.4))
    point, h = np.array([1.5, -4.0]), 1e-4
    steps = h * np.eye(2)
    slopes = [(surface.cost(*(point + s)) - surface.cost(*(point - s))) / (2 * h) for s in steps]
    np.testing.assert_allclose(surface.gradient(*point), slopes, rtol=1e-6)
    bends = [(surface.gradient(*(point + s)) - surface.gradient(*(point - s))) / (2 * h) for s in steps]
    np.testing.assert_allclose(surface.hessian, bends, rtol=1e-6)


@pytest.mark.parametrize(("mean", "std"), SCALES[:3])
def test_eigenvalues(mean, std):
    surface = LinearRegressionSurface(*sample(mean, std))
    low, high = np.linalg.eigvalsh(surface.hessian)
    assert surface.eigenvalues[1] == pytest.approx(high)
    assert surface.eigenvalues[0] == pytest.approx(low, rel=1e-6, abs=1e-7 * high)
    assert surface.condition_number == pytest.approx(surface.eigenvalues[1] / surface.eigenvalues[0])


def test_plain_gradient_descent_converges_just_below_the_largest_stable_rate_and_diverges_above():
    surface = LinearRegressionSurface(*sample(2.0, 1.0))

    def end(rate):
        point = np.array(surface.minimum[:2]) + 1.0
        for _ in range(2000):
            point = point - rate * surface.gradient(*point)
        return float(np.linalg.norm(point - surface.minimum[:2]))

    assert end(0.99 * surface.largest_stable_learning_rate) < 1e-6
    assert end(1.01 * surface.largest_stable_learning_rate) > 1e6


def test_standardised_data_are_perfectly_conditioned():
    x, y = sample(26.0, 4.4)
    assert LinearRegressionSurface((x - x.mean()) / x.std(), y).condition_number == pytest.approx(1.0)


@needs_file(ADVERTISING)
def test_the_condition_number_of_raw_tv_budgets():
    table = pd.read_csv(ADVERTISING)
    assert LinearRegressionSurface(table["TV"], table["sales"]).condition_number == pytest.approx(1.1e5, rel=0.05)


@pytest.mark.parametrize("value", [7.0, 0.1])  # the mean of three times 0.1 is not 0.1
def test_a_constant_feature(value):
    with pytest.raises(UserError, match=f"the same value, {value:g}, in all 3 rows"):
        LinearRegressionSurface([value] * 3, [1.0, 2.0, 3.0])
