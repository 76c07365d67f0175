"""Beale's function against its definition, known values and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from mlflow_hp.analysis.surfaces.beale import BealeSurface

SURFACE = BealeSurface()
POINTS = np.random.default_rng(3).uniform(-4.5, 4.5, (2, 40))


def test_known_values():
    assert SURFACE.cost(4, 4) == 68891.203125
    assert SURFACE.cost(0, 0) == 1.5**2 + 2.25**2 + 2.625**2
    assert SURFACE.minimum == (3, 0.5, 0)
    assert SURFACE.cost(3, 0.5) == 0
    assert SURFACE.gradient(3, 0.5).tolist() == [0, 0]
    assert (np.linalg.eigvalsh(SURFACE.hessian(3, 0.5)) > 0).all()


def test_cost_is_its_definition():
    x, y = POINTS
    defined = (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    np.testing.assert_allclose(SURFACE.cost(x, y), defined, rtol=1e-9)


def test_gradient_and_hessian_against_finite_differences():
    h = 1e-4
    for point in POINTS.T:
        steps = h * np.eye(2)
        slopes = [(SURFACE.cost(*(point + s)) - SURFACE.cost(*(point - s))) / (2 * h) for s in steps]
        np.testing.assert_allclose(SURFACE.gradient(*point), slopes, rtol=1e-5, atol=1e-3)
        bends = [(SURFACE.gradient(*(point + s)) - SURFACE.gradient(*(point - s))) / (2 * h) for s in steps]
        np.testing.assert_allclose(SURFACE.hessian(*point), bends, rtol=1e-5, atol=1e-3)


def test_arrays_are_taken_whole_and_broadcast():
    x, y = POINTS
    np.testing.assert_array_equal(SURFACE.cost(x, y), [SURFACE.cost(*p) for p in POINTS.T])
    np.testing.assert_array_equal(SURFACE.gradient(x, y).T, [SURFACE.gradient(*p) for p in POINTS.T])
    np.testing.assert_array_equal(np.moveaxis(SURFACE.hessian(x, y), -1, 0), [SURFACE.hessian(*p) for p in POINTS.T])
    assert SURFACE.cost(x[None, :], y[:5, None]).shape == (5, 40)
    assert SURFACE.hessian(x[None, :], y[:5, None]).shape == (2, 2, 5, 40)


@pytest.mark.parametrize(
    "point", [(1e200, 2), (-1e200, 0.5), (1e100, -1e100), (-1e308, 1e308), (1, 1e300), (np.inf, 2)]
)
def test_what_is_beyond_float64_is_infinite_without_a_warning(point):
    assert SURFACE.cost(*point) == np.inf
    assert not np.isfinite(SURFACE.gradient(*point)).all()
    SURFACE.hessian(*point)


def test_at_x_0_any_y_costs_the_same():
    assert SURFACE.cost(0, 1e300) == SURFACE.cost(0, 0)


def test_what_f_falls_to_in_the_flat_valley():
    from projects.beale import FLAT_COST

    lowest = minimize(lambda t: ((np.array([1.5, 2.25, 2.625]) + np.array([1, 2, 3]) * t) ** 2).sum(), 0.0)
    assert lowest.fun == pytest.approx(FLAT_COST, abs=5e-4)
    for x in (-1e6, 1e6):
        assert SURFACE.cost(x, 1 + lowest.x[0] / x) == pytest.approx(FLAT_COST, abs=1e-3)
