"""The cost surface of a linear regression on one feature, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class LeastSquares(NamedTuple):
    """The least-squares solution: weight, bias, and the cost there."""

    w: float
    b: float
    cost: float


class LinearRegressionSurface:
    """Mean squared error J(w, b) = mean((w x + b - y)^2) of a data set, as a function of weight and bias.

    Parameters
    ----------
    x, y : array_like of shape (n_samples,)
        Feature and target, finite; at least two different values of x.

    Attributes
    ----------
    minimum : LeastSquares
        ``w* = cov(x, y) / var(x)``, ``b* = mean(y) - w* mean(x)``, and ``J*``, the residual variance.
    hessian : ndarray of shape (2, 2)
        Second derivatives in (w, b): ``2 [[mean(x^2), mean(x)], [mean(x), 1]]``, everywhere the same.
    eigenvalues : ndarray of shape (2,)
        Of the Hessian, ascending: the curvature along the valley and across it.
    condition_number : float
        The ratio of the two: how much steeper the valley's walls are than its floor.
    largest_stable_learning_rate : float
        ``2 / largest eigenvalue``, over which plain full-batch gradient descent on a quadratic diverges
        (Goodfellow, Bengio and Courville 2016, Deep Learning, section 8.2.1; Nesterov 2004, section 2.1.5).

    Raises
    ------
    UserError
        If x is constant, so that the weight is undetermined.

    Examples
    --------
    >>> from mlflow_hp.analysis import LinearRegressionSurface
    >>> surface = LinearRegressionSurface([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    >>> surface.minimum.w, surface.minimum.b
    (2.0, 1.0)
    >>> float(surface.cost(2.0, 0.0))
    1.0
    """

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (x, y))
        self._mean_x, self._mean_y = float(x.mean()), float(y.mean())
        dx, dy = x - self._mean_x, y - self._mean_y
        self._var_x = float(dx @ dx) / len(x)
        if x.min() == x.max() or not self._var_x > 0:  # the mean of equal numbers can differ from them
            rows = "the only row" if len(x) == 1 else f"all {len(x)} rows"
            raise UserError(f"the feature has the same value, {x[0]:g}, in {rows}: choose another feature")
        w = float(dx @ dy) / len(x) / self._var_x
        residual = dy - w * dx
        self.minimum = LeastSquares(w, self._mean_y - w * self._mean_x, float(residual @ residual) / len(x))
        mean_square = self._var_x + self._mean_x**2
        self.hessian = 2 * np.array([[mean_square, self._mean_x], [self._mean_x, 1.0]])
        largest = float(np.linalg.eigvalsh(self.hessian)[1])
        self.eigenvalues = np.array([4 * self._var_x / largest, largest])  # det = 4 var(x): no cancellation
        self.condition_number = largest / float(self.eigenvalues[0])
        self.largest_stable_learning_rate = 2 / largest

    def cost(self, w: ArrayLike, b: ArrayLike) -> np.ndarray:
        """Compute J at weights `w` and biases `b` of one shape.

        By ``J = J* + var(x) (w - w*)^2 + (mean(x) (w - w*) + b - b*)^2``, which follows from the moments alone.

        Parameters
        ----------
        w : array_like
            Weights.
        b : array_like
            Biases.

        Returns
        -------
        ndarray
            Values of J; infinite where it is beyond float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            dw = np.asarray(w, dtype=np.float64) - self.minimum.w
            db = np.asarray(b, dtype=np.float64) - self.minimum.b
            return self.minimum.cost + self._var_x * dw**2 + (self._mean_x * dw + db) ** 2

    def gradient(self, w: ArrayLike, b: ArrayLike) -> np.ndarray:
        """Compute (dJ/dw, dJ/db).

        Parameters
        ----------
        w : array_like
            Weights.
        b : array_like
            Biases.

        Returns
        -------
        ndarray of shape (2, *shape of w)
            The derivatives.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            dw = np.asarray(w, dtype=np.float64) - self.minimum.w
            db = np.asarray(b, dtype=np.float64) - self.minimum.b
            mean_error = self._mean_x * dw + db
            return np.stack([2 * (self._var_x * dw + self._mean_x * mean_error), 2 * mean_error])
