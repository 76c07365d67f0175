"""Eigenvalues and traces of matrices whose spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.surfaces.symmetric_operator import (
    SymmetricOperator,
    largest_eigenvalues,
    largest_magnitude,
    trace_of,
)


def operator_of(eigenvalues, progress=None):
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    matrix = basis * eigenvalues @ basis.T
    return SymmetricOperator(lambda vector: matrix @ vector, n, progress)


SPECTRUM = np.concatenate([[30.0, 20.0, 10.0, 9.0], np.geomspace(5, 1e-4, 395), [-5.0]])


def test_eigenvalues_from_both_ends_of_the_spectrum():
    done = []
    operator = operator_of(SPECTRUM, done.append)
    np.testing.assert_allclose(largest_eigenvalues(operator, 4, 0.01, 400, 0), SPECTRUM[:4], rtol=0.001)
    assert largest_magnitude(operator, 0.01, 400, 0) == pytest.approx(30, rel=0.001)
    negated = operator_of(-SPECTRUM)
    assert largest_magnitude(negated, 0.01, 400, 0) == pytest.approx(30, rel=0.001)
    assert operator.n_products == sum(done) < 200


def test_what_does_not_converge_is_nan():
    flat = operator_of(np.linspace(1, 2, 400))
    values = largest_eigenvalues(flat, 4, 1e-6, 60, 0)
    assert np.isnan(values).any()
    assert flat.n_products < 120


@pytest.mark.parametrize("seed", range(3))
def test_the_trace_within_its_error(seed):
    operator = operator_of(np.concatenate([SPECTRUM, np.zeros(600)]))
    trace, error = trace_of(operator, 0.01, 1000, seed)
    assert 0 < 3 * error <= 0.01 * abs(trace)
    assert trace == pytest.approx(SPECTRUM.sum(), abs=4 * error)
    assert operator.n_products < 700


def test_a_trace_that_few_probes_do_not_give_is_computed_exactly():
    operator = operator_of(np.concatenate([np.full(200, 2.0), np.full(200, -1.9)]))
    assert trace_of(operator, 0.01, 1000, 0) == (pytest.approx(20), 0.0)
    assert operator.n_products < 600


def test_a_trace_of_zero_ends_too():
    operator = operator_of(np.concatenate([np.ones(100), -np.ones(100)]))
    trace, error = trace_of(operator, 0.01, 150, 0)
    assert operator.n_products <= 150
    assert abs(trace) < 5 * error
    assert error > 0


def test_a_trace_of_few_rows_is_exact():
    operator = operator_of(np.array([3.0, -1.0, 0.5]))
    assert trace_of(operator, 0.01, 1000, 0) == (pytest.approx(2.5), 0.0)
    np.testing.assert_allclose(np.linalg.eigvalsh(operator.dense()), [-1, 0.5, 3])
