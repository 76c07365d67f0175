"""Eigenvalues and trace of a symmetric matrix that is known by its products with vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SKETCH = 40
"""Vectors of the sketch that Hutch++ splits the trace by, if there are products enough."""
SKETCH_BYTES = 2**28
"""Memory for the sketch."""
LEAST_PROBES = 10
"""Random vectors that a standard error is computed from, at least."""
STANDARD_ERRORS = 3
"""So many standard errors of the trace are to be within the tolerance: 0.3 % of the estimates are worse."""
TINY = 1e-300
"""Stands for a trace of 0."""
NOISE = 1e-6
"""Size, relative to the largest eigenvalue, of rounding errors in single precision: no residual gets below."""


class SymmetricOperator:
    """A symmetric matrix, given by its products.

    Parameters
    ----------
    product : callable
        Vector (n,) -> matrix times vector (n,), float64.
    n : int
        Number of rows.
    progress : callable, optional
        Called with the number of products just computed. Defaults to nothing.

    Attributes
    ----------
    n_products : int
        Number of products computed up to now.
    """

    def __init__(
        self, product: Callable[[np.ndarray], np.ndarray], n: int, progress: Callable[[int], Any] | None = None
    ) -> None:
        self._product, self.n, self.n_products = product, n, 0
        self._progress = progress or (lambda _: None)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Multiply with a vector (n,)."""
        self.n_products += 1
        self._progress(1)
        return self._product(np.asarray(vector, np.float64).reshape(-1))

    def times_each(self, columns: np.ndarray) -> np.ndarray:
        """Multiply with each column of an array (n, k)."""
        return np.stack([self.times(column) for column in columns.T], axis=1)

    def dense(self) -> np.ndarray:
        """Return the matrix (n, n), made symmetric."""
        matrix = self.times_each(np.eye(self.n))
        return (matrix + matrix.T) / 2


def largest_eigenvalues(
    operator: SymmetricOperator, k: int, tolerance: float, max_products: int, seed: int
) -> np.ndarray:
    """Return the `k` largest eigenvalues, descending, by Lanczos' method as in ARPACK; nan for those not converged.

    Each is within `tolerance` of an eigenvalue, relatively: that is the bound of its residual.
    """
    return _lanczos(operator, k, "LA", tolerance, max_products, seed)


def largest_magnitude(operator: SymmetricOperator, tolerance: float, max_products: int, seed: int) -> float:
    """Return the largest absolute eigenvalue, or nan if it did not converge."""
    return float(abs(_lanczos(operator, 1, "LM", tolerance, max_products, seed)[0]))


def trace_of(operator: SymmetricOperator, tolerance: float, max_products: int, seed: int) -> tuple[float, float]:
    """Estimate the trace, and its standard error, by Hutch++.

    The trace is split by the range of a random sketch, which holds the large eigenvalues: that part is exact, the rest
    is estimated by random signs (Hutchinson) until three standard errors are at most `tolerance` of the trace (Meyer,
    Musco, Musco and Woodruff 2021, "Hutch++: Optimal stochastic trace estimation", algorithm 1, with probes added one
    by one). If that would take more products than the whole diagonal, and there are enough, the trace is exact.
    """
    start = operator.n_products
    n, rng = operator.n, np.random.default_rng(seed)
    size = min(SKETCH, n, max(1, max_products // 3), max(1, SKETCH_BYTES // (8 * n)))
    basis, _ = np.linalg.qr(operator.times_each(rng.choice([-1.0, 1.0], (n, size))))
    exact = float(np.sum(basis * operator.times_each(basis)))
    if size == n:
        return exact, 0.0
    estimates: list[float] = []
    while len(estimates) < max(2, max_products - 2 * size):
        probe = rng.choice([-1.0, 1.0], n)
        probe -= basis @ (basis.T @ probe)
        estimates.append(float(probe @ operator.times(probe)))
        trace, error = exact + float(np.mean(estimates)), _standard_error(estimates)
        if len(estimates) >= LEAST_PROBES and STANDARD_ERRORS * error <= tolerance * abs(trace):
            break
        if len(estimates) == LEAST_PROBES:
            needed = LEAST_PROBES * (STANDARD_ERRORS * error / tolerance / max(abs(trace), TINY)) ** 2
            if needed > n <= max_products - (operator.n_products - start):
                return float(np.trace(operator.dense())), 0.0
    return trace, error


def _standard_error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def _lanczos(
    operator: SymmetricOperator, k: int, which: str, tolerance: float, max_products: int, seed: int
) -> np.ndarray:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n = operator.n
    n_vectors = min(n, max(2 * k + 1, 20))
    restarts = max(1, (max_products - n_vectors) // max(1, n_vectors - k))
    matrix = LinearOperator((n, n), matvec=operator.times, dtype=np.float64)
    start = np.random.default_rng(seed).normal(size=n)
    how = {"v0": start, "ncv": n_vectors, "tol": max(tolerance / 10, NOISE), "maxiter": restarts}
    try:
        values = eigsh(matrix, k, which=which, return_eigenvectors=False, **how)
    except ArpackNoConvergence as error:
        values = error.eigenvalues
    result = np.full(k, np.nan)
    result[: len(values)] = np.sort(values)[::-1][:k]
    return result
