"""The minimisers of SciPy and the optimizers of Keras behind one call: from a start, along its path, to an end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    import keras

GRADIENT_ENOUGH = 1e-6
"""Keras' optimizers stop where the norm of the gradient is less."""
MOMENTUM = 0.9
"""Of the methods momentum and Nesterov."""


class Surface(Protocol):
    """A function of two numbers with its exact derivatives."""

    def cost(self, x: Any, y: Any, /) -> np.ndarray:
        """The value at (x, y)."""

    def gradient(self, x: Any, y: Any, /) -> np.ndarray:
        """Its first derivatives, shape (2,)."""

    def hessian(self, x: Any, y: Any, /) -> np.ndarray:
        """Its second derivatives, shape (2, 2)."""


class ByScipy(NamedTuple):
    """A method of ``scipy.optimize.minimize``: its name there, the exact derivatives it uses, if it is bounded."""

    name: str
    gradient: bool = False
    hessian: bool = False
    bounded: bool = False


class ByKeras(NamedTuple):
    """An optimizer of Keras: its class, its learning rate by default, and its other settings.

    The learning rate is, of 1 and 3 times the powers of ten, the one that ends nearest to the minimum of Beale's
    function in 2000 iterations from (4, 4). The gradient there is 107,000 long: gradient descent that follows it at
    a rate usual for networks is out of float64 within ten iterations.
    """

    name: str
    learning_rate: float
    settings: dict[str, Any]


METHODS: dict[str, ByScipy | ByKeras] = {
    "L-BFGS-B-bounded": ByScipy("L-BFGS-B", gradient=True, bounded=True),
    "L-BFGS-B": ByScipy("L-BFGS-B", gradient=True),
    "BFGS": ByScipy("BFGS", gradient=True),
    "CG": ByScipy("CG", gradient=True),
    "TNC": ByScipy("TNC", gradient=True),
    "SLSQP": ByScipy("SLSQP", gradient=True),
    "Newton-CG": ByScipy("Newton-CG", gradient=True, hessian=True),
    "trust-ncg": ByScipy("trust-ncg", gradient=True, hessian=True),
    "trust-krylov": ByScipy("trust-krylov", gradient=True, hessian=True),
    "trust-exact": ByScipy("trust-exact", gradient=True, hessian=True),
    "trust-constr": ByScipy("trust-constr", gradient=True, hessian=True),
    "Nelder-Mead": ByScipy("Nelder-Mead"),
    "Powell": ByScipy("Powell"),
    "COBYLA": ByScipy("COBYLA"),
    "COBYQA": ByScipy("COBYQA"),
    "SGD": ByKeras("SGD", 3e-5, {}),
    "momentum": ByKeras("SGD", 1e-6, {"momentum": MOMENTUM}),
    "Nesterov": ByKeras("SGD", 1e-6, {"momentum": MOMENTUM, "nesterov": True}),
    "RMSprop": ByKeras("RMSprop", 3e-3, {}),
    "Adam": ByKeras("Adam", 3.0, {}),
}
"""By name. SciPy's dogleg is not among them: it needs a Hessian that is positive definite all the way."""


class Ending(NamedTuple):
    """How a minimisation ended.

    Attributes
    ----------
    success : bool
        Whether the method holds that it reached a minimum. It can be wrong.
    message : str
        What it says of it.
    nfev, njev, nhev : int
        How often the function, its gradient and its Hessian were evaluated.
    """

    success: bool
    message: str
    nfev: int
    njev: int
    nhev: int

    @property
    def evaluations(self) -> int:
        """Of all three together."""
        return self.nfev + self.njev + self.nhev


class _Counted:
    """The function and its derivatives at a point (2,), counted."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self.nfev = self.njev = self.nhev = 0

    def cost(self, point: np.ndarray) -> float:
        self.nfev += 1
        return float(self._surface.cost(*point))

    def gradient(self, point: np.ndarray) -> np.ndarray:
        self.njev += 1
        return self._surface.gradient(*point)

    def hessian(self, point: np.ndarray) -> np.ndarray:
        self.nhev += 1
        return self._surface.hessian(*point)


def minimise(
    method: str,
    surface: Surface,
    points: list[np.ndarray],
    *,
    bound: float,
    iterations: int,
    learning_rate: float | None = None,
) -> Ending:
    """Minimise a function by one of ``METHODS``.

    Parameters
    ----------
    method : str
        A key of ``METHODS``.
    surface : Surface
        The function.
    points : list of ndarray of shape (2,)
        Holds the start, and gets the point after each iteration as it is reached: an interrupt leaves those up to it.
    bound : float
        A bounded method keeps x and y from -bound to bound.
    iterations : int
        The most that an optimizer of Keras may take; SciPy's methods have limits of their own.
    learning_rate : float, optional
        Of an optimizer of Keras; by default the one in ``METHODS``.

    Raises
    ------
    UserError
        For a start outside the bounds of a bounded method.
    """
    how, counted = METHODS[method], _Counted(surface)
    if isinstance(how, ByScipy):
        success, message = _by_scipy(how, counted, points, bound)
    else:
        rate = how.learning_rate if learning_rate is None else learning_rate
        success, message = _by_keras(how, counted, points, iterations, rate)
    return Ending(success, message, counted.nfev, counted.njev, counted.nhev)


def _by_scipy(how: ByScipy, counted: _Counted, points: list[np.ndarray], bound: float) -> tuple[bool, str]:
    from scipy.optimize import minimize

    start = points[0]
    if how.bounded and np.abs(start).max() > bound:
        raise UserError(f"x={start[0]:g} and y={start[1]:g} have to lie from -bound to bound, and bound is {bound:g}")
    with np.errstate(all="ignore"):
        result = minimize(
            counted.cost,
            start,
            method=how.name,
            jac=counted.gradient if how.gradient else None,
            hess=counted.hessian if how.hessian else None,
            bounds=[(-bound, bound)] * 2 if how.bounded else None,
            callback=lambda point, *_: points.append(np.array(point)),
        )
    if not np.array_equal(result.x, points[-1]):
        points.append(np.array(result.x))
    return bool(result.success), str(result.message)


def _by_keras(
    how: ByKeras, counted: _Counted, points: list[np.ndarray], iterations: int, rate: float
) -> tuple[bool, str]:
    import keras

    optimizer: keras.optimizers.Optimizer = getattr(keras.optimizers, how.name)(learning_rate=rate, **how.settings)
    variable = keras.Variable(points[0], dtype="float64")
    for iteration in range(iterations + 1):
        gradient = counted.gradient(points[-1])
        if not np.isfinite(gradient).all():
            return False, f"diverged: not finite after iteration {iteration}, at learning rate {rate:g}"
        if (norm := math.hypot(*gradient)) < GRADIENT_ENOUGH:
            return True, f"the gradient's norm is {norm:.2g}, less than {GRADIENT_ENOUGH:g}"
        if iteration < iterations:
            optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
            points.append(np.array(keras.ops.convert_to_numpy(variable.value)))
    return False, f"the {iterations} iterations are used up; the gradient's norm is {norm:.2g}"
