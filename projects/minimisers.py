"""Minimisers of SciPy and optimizers of Keras with a common interface: from a start along a path to an ending."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    import keras

GRADIENT_ENOUGH = 1e-6
"""Norm of the gradient below which Keras' optimizers stop."""
MOMENTUM = 0.9
"""Momentum of the methods momentum and Nesterov."""


class Surface(Protocol):
    """Function of two numbers with its exact derivatives."""

    def cost(self, x: Any, y: Any, /) -> np.ndarray:
        """Value at (x, y)."""

    def gradient(self, x: Any, y: Any, /) -> np.ndarray:
        """First derivatives, shape (2,)."""

    def hessian(self, x: Any, y: Any, /) -> np.ndarray:
        """Second derivatives, shape (2, 2)."""


class ScipyMethod(NamedTuple):
    """Method of ``scipy.optimize.minimize``: its name, the exact derivatives it uses, and whether it is bounded."""

    name: str
    gradient: bool = False
    hessian: bool = False
    bounded: bool = False


class KerasMethod(NamedTuple):
    """Optimizer of Keras: its class, its default learning rate, and its other settings.

    The learning rate is, of 1 and 3 times the powers of ten, the one that ends nearest to the minimum of Beale's
    function in 2000 iterations from (4, 4). The gradient there is 107,000 long: gradient descent that follows it at
    a rate usual for networks is out of float64 within ten iterations.
    """

    name: str
    learning_rate: float
    settings: dict[str, Any]


METHODS: dict[str, ScipyMethod | KerasMethod] = {
    "L-BFGS-B-bounded": ScipyMethod("L-BFGS-B", gradient=True, bounded=True),
    "L-BFGS-B": ScipyMethod("L-BFGS-B", gradient=True),
    "BFGS": ScipyMethod("BFGS", gradient=True),
    "CG": ScipyMethod("CG", gradient=True),
    "TNC": ScipyMethod("TNC", gradient=True),
    "SLSQP": ScipyMethod("SLSQP", gradient=True),
    "Newton-CG": ScipyMethod("Newton-CG", gradient=True, hessian=True),
    "trust-ncg": ScipyMethod("trust-ncg", gradient=True, hessian=True),
    "trust-krylov": ScipyMethod("trust-krylov", gradient=True, hessian=True),
    "trust-exact": ScipyMethod("trust-exact", gradient=True, hessian=True),
    "trust-constr": ScipyMethod("trust-constr", gradient=True, hessian=True),
    "Nelder-Mead": ScipyMethod("Nelder-Mead"),
    "Powell": ScipyMethod("Powell"),
    "COBYLA": ScipyMethod("COBYLA"),
    "COBYQA": ScipyMethod("COBYQA"),
    "SGD": KerasMethod("SGD", 3e-5, {}),
    "momentum": KerasMethod("SGD", 1e-6, {"momentum": MOMENTUM}),
    "Nesterov": KerasMethod("SGD", 1e-6, {"momentum": MOMENTUM, "nesterov": True}),
    "RMSprop": KerasMethod("RMSprop", 3e-3, {}),
    "Adam": KerasMethod("Adam", 3.0, {}),
}
"""Name -> method. SciPy's dogleg is left out: it needs a Hessian that is positive definite along the whole path."""


def family(method: str) -> str:
    """Name the family of a method of ``METHODS`` by what it knows of the function."""
    spec = METHODS[method]
    if isinstance(spec, KerasMethod):
        return "Keras' optimizers: gradient, fixed rate"
    if spec.hessian:
        return "SciPy: gradient and Hessian"
    return "SciPy: gradient, line search" if spec.gradient else "SciPy: values of f only"


class Ending(NamedTuple):
    """Result of a minimisation.

    Attributes
    ----------
    success : bool
        Whether the method claims to have reached a minimum. It can be wrong.
    message : str
        Its message.
    nfev, njev, nhev : int
        Number of evaluations of the function, its gradient and its Hessian.
    """

    success: bool
    message: str
    nfev: int
    njev: int
    nhev: int

    @property
    def evaluations(self) -> int:
        """Sum of all three."""
        return self.nfev + self.njev + self.nhev


class _Counted:
    """Function and derivatives at a point (2,), with counters of the calls."""

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
        Holds the start, and receives the point after each iteration, also before an interrupt.
    bound : float
        A bounded method keeps x and y from -bound to bound.
    iterations : int
        Limit for an optimizer of Keras; SciPy's methods have limits of their own.
    learning_rate : float, optional
        Learning rate of an optimizer of Keras. Defaults to the one in ``METHODS``.

    Raises
    ------
    UserError
        If the start is outside the bounds of a bounded method.
    """
    spec, counted = METHODS[method], _Counted(surface)
    if isinstance(spec, ScipyMethod):
        success, message = _minimise_by_scipy(spec, counted, points, bound)
    else:
        rate = spec.learning_rate if learning_rate is None else learning_rate
        success, message = _minimise_by_keras(spec, counted, points, iterations, rate)
    return Ending(success, message, counted.nfev, counted.njev, counted.nhev)


def _minimise_by_scipy(
    spec: ScipyMethod, counted: _Counted, points: list[np.ndarray], bound: float
) -> tuple[bool, str]:
    from scipy.optimize import minimize

    start = points[0]
    if spec.bounded and np.abs(start).max() > bound:
        raise UserError(f"x={start[0]:g} and y={start[1]:g} have to lie from -bound to bound, and bound is {bound:g}")
    with np.errstate(all="ignore"):
        result = minimize(
            counted.cost,
            start,
            method=spec.name,
            jac=counted.gradient if spec.gradient else None,
            hess=counted.hessian if spec.hessian else None,
            bounds=[(-bound, bound)] * 2 if spec.bounded else None,
            callback=lambda point, *_: points.append(np.array(point)),
        )
    if not np.array_equal(result.x, points[-1]):
        points.append(np.array(result.x))
    return bool(result.success), str(result.message)


def _minimise_by_keras(
    spec: KerasMethod, counted: _Counted, points: list[np.ndarray], iterations: int, rate: float
) -> tuple[bool, str]:
    import keras

    optimizer: keras.optimizers.Optimizer = getattr(keras.optimizers, spec.name)(learning_rate=rate, **spec.settings)
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
    most = f"{count(iterations, 'iteration')}, the most that it may take"
    return False, f"it stopped after {most}; the gradient's norm is {norm:.2g}"
