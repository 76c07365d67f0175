"""The Keras models that the experiments share, and their optimizers."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    import keras


def optimizer_names() -> list[str]:
    """The optimizers that Keras has, by name."""
    import keras

    base = keras.optimizers.Optimizer
    found = [c for c in vars(keras.optimizers).values() if inspect.isclass(c) and issubclass(c, base) and c is not base]
    own = [c for c in found if "learning_rate" in inspect.signature(c).parameters]  # others wrap one of these
    return sorted({c.__name__ for c in own}, key=str.lower)


def optimizer(name: str, learning_rate: float, momentum: float) -> keras.optimizers.Optimizer:
    """A Keras optimizer by name.

    Raises
    ------
    UserError
        For a momentum where the optimizer has none.
    """
    import keras

    kind = getattr(keras.optimizers, name)
    settings: dict[str, Any] = {"learning_rate": learning_rate}
    if momentum:
        if "momentum" not in inspect.signature(kind).parameters:
            able = [
                n for n in optimizer_names() if "momentum" in inspect.signature(getattr(keras.optimizers, n)).parameters
            ]
            raise UserError(f"momentum={momentum:g}: {name} takes none; those that do are {', '.join(able)}")
        settings["momentum"] = momentum
    return kind(**settings)


def linear_unit(weight: float | None, bias: float | None) -> keras.Model:
    """One Dense unit on one input, ``y = w x + b``; initial values as given, else as Keras draws them."""
    import keras

    def initial(value: float | None, default: str) -> Any:
        return default if value is None else keras.initializers.Constant(value)

    unit = keras.layers.Dense(
        1,
        kernel_initializer=initial(weight, "glorot_uniform"),
        bias_initializer=initial(bias, "zeros"),
        name="linear",
    )
    return keras.Sequential([keras.Input((1,), name="x"), unit])
