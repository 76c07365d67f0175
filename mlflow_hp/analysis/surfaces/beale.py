"""Beale's function, a classic test of minimisers: a narrow curved valley between steep walls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Minimum(NamedTuple):
    """The lowest point: x, y, and the value there."""

    x: float
    y: float
    cost: float


class BealeSurface:
    """Beale's function (1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2.

    A sum of three squared residuals ``r_k = c_k + x (y^k - 1)`` for k = 1, 2, 3 (Beale 1958, On an Iterative Method for
    Finding a Local Minimum of a Function of More than One Variable; problem 5 of Moré, Garbow and Hillstrom 1981,
    Testing Unconstrained Optimization Software). It is usually looked at for x and y from -4.5 to 4.5.

    All methods take arrays of one shape, or that broadcast, and give no warning on overflow.

    Attributes
    ----------
    minimum : Minimum
        (3, 0.5), where f is 0.

    Examples
    --------
    >>> from mlflow_hp.analysis import BealeSurface
    >>> surface = BealeSurface()
    >>> float(surface.cost(3.0, 0.5))
    0.0
    >>> surface.gradient(3.0, 0.5)
    array([0., 0.])
    """

    minimum = Minimum(3.0, 0.5, 0.0)

    def cost(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Compute f at (x, y).

        Parameters
        ----------
        x : array_like
            First parameter.
        y : array_like
            Second parameter.

        Returns
        -------
        ndarray
            Values of f; infinite where it is beyond float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            residuals, *_ = _terms(x, y)
            return np.sum(residuals**2, axis=0)

    def gradient(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Compute (df/dx, df/dy).

        Parameters
        ----------
        x : array_like
            First parameter.
        y : array_like
            Second parameter.

        Returns
        -------
        ndarray of shape (2, *shape of x)
            Infinite or NaN where it is beyond float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            r, r_x, r_y, *_ = _terms(x, y)
            return 2 * np.stack([np.sum(r * r_x, axis=0), np.sum(r * r_y, axis=0)])

    def hessian(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Compute the second derivatives.

        Parameters
        ----------
        x : array_like
            First parameter.
        y : array_like
            Second parameter.

        Returns
        -------
        ndarray of shape (2, 2, *shape of x)
            Infinite or NaN where they are beyond float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            r, r_x, r_y, r_xy, r_yy = _terms(x, y)
            xx, xy, yy = r_x**2, r_x * r_y + r * r_xy, r_y**2 + r * r_yy
            return 2 * np.sum([[xx, xy], [xy, yy]], axis=2)


def _terms(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, ...]:
    """The three residuals and their derivatives by x, y, xy and yy, each of shape (3, *shape); by xx they are zero."""
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    k = np.array([1.0, 2.0, 3.0]).reshape(3, *[1] * x.ndim)
    c = np.array([1.5, 2.25, 2.625]).reshape(k.shape)
    zero = np.zeros_like(x)
    r_x = np.stack([y, y**2, y**3]) - 1
    r_xy = k * np.stack([zero + 1, y, y**2])
    r_yy = np.stack([zero, 2 * x, 6 * x * y])
    return c + np.where(x == 0, 0.0, x * r_x), r_x, np.where(x == 0, 0.0, x * r_xy), r_xy, r_yy
