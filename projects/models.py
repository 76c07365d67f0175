"""Keras models that the experiments share, and their optimizers and losses."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError
from projects.arguments import text_of

if TYPE_CHECKING:
    import keras
    import numpy as np

    from projects.datasets.samples import Samples


def optimizer_names() -> list[str]:
    """Names of the optimizers of Keras."""
    import keras

    base = keras.optimizers.Optimizer
    classes = {c for c in vars(keras.optimizers).values() if inspect.isclass(c) and issubclass(c, base)} - {base}
    with_rate = [c for c in classes if "learning_rate" in inspect.signature(c).parameters]  # others wrap one of these
    return sorted({c.__name__ for c in with_rate}, key=str.lower)


def initializer_names() -> list[str]:
    """Names, as ``Dense`` takes them, of the initializers of Keras that need no argument."""
    return [
        "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "normal", "ones",
        "orthogonal", "truncated_normal", "uniform", "zero",
    ]  # fmt: skip


def activation_names() -> list[str]:
    """Names of the activations of Keras for hidden layers."""
    return ["elu", "gelu", "leaky_relu", "linear", "mish", "relu", "selu", "sigmoid", "silu", "softplus", "tanh"]


def loss_names() -> list[str]:
    """Names of the losses of Keras for classes, one-hot or by number, and for numbers to predict; and auto."""
    return [
        "auto", "categorical_crossentropy", "sparse_categorical_crossentropy", "categorical_focal_crossentropy",
        "binary_crossentropy", "kl_divergence", "categorical_hinge", "mean_squared_error", "mean_absolute_error",
        "huber", "log_cosh",
    ]  # fmt: skip


def optimizer(name: str, learning_rate: Any, **settings: float | bool | None) -> keras.optimizers.Optimizer:
    """Make a Keras optimizer by name.

    Parameters
    ----------
    name : str
        One of `optimizer_names`.
    learning_rate : float or LearningRateSchedule
        Its learning rate.
    **settings : float, bool or None
        Others, such as momentum. None leaves a setting to Keras; 0 and False are ignored by an optimizer without it.

    Raises
    ------
    UserError
        If the optimizer does not have a setting.
    """
    import keras

    arguments: dict[str, float | bool] = {}
    for key, value in settings.items():
        if takes(name, key) and value is not None:
            arguments[key] = value if isinstance(value, bool) else float(value)
        elif value:
            alternatives = [optimizer for optimizer in optimizer_names() if takes(optimizer, key)]
            raise UserError(f"{key}={text_of(value)}: {name} takes none; those that do are {', '.join(alternatives)}")
    return getattr(keras.optimizers, name)(learning_rate=learning_rate, **arguments)


def takes(optimizer: str, setting: str) -> bool:
    """Whether an optimizer of Keras has a setting."""
    import keras

    return setting in inspect.signature(getattr(keras.optimizers, optimizer)).parameters


def linear_unit(weight: float | None, bias: float | None) -> keras.Model:
    """Make one Dense unit on one input, ``y = w x + b``; initial values that are None are drawn by Keras."""
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


def perceptron(
    samples: Samples,
    hidden: tuple[int, ...] = (64, 64),
    *,
    activation: str = "relu",
    initializer: str = "glorot_uniform",
    dropout: float = 0.0,
) -> keras.Model:
    """Make a `network` for `samples`."""
    n_features, n_classes = samples.x_train.shape[1], len(samples.classes) or None
    return network(n_features, n_classes, hidden, activation=activation, initializer=initializer, dropout=dropout)


def network(
    n_features: int,
    n_classes: int | None,
    hidden: tuple[int, ...],
    *,
    activation: str,
    initializer: str,
    dropout: float,
) -> keras.Model:
    """Make a multilayer perceptron: Dense layers of `hidden` units, then softmax, or one linear unit.

    Parameters
    ----------
    n_features : int
        Numbers in a sample.
    n_classes : int or None
        Number of classes; None if a number is predicted.
    hidden : tuple of int
        Units of each hidden layer.
    activation, initializer : str
        Of the hidden layers; the initializer is the output's too.
    dropout : float
        Share of the units that is dropped at each training step, after each hidden layer.
    """
    import keras

    layers: list[Any] = [keras.Input((n_features,), name="x")]
    for index, units in enumerate(hidden):
        layers.append(keras.layers.Dense(units, activation, kernel_initializer=initializer, name=f"hidden_{index + 1}"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout_{index + 1}"))
    ending = {"units": n_classes, "activation": "softmax"} if n_classes else {"units": 1}
    layers.append(keras.layers.Dense(**ending, kernel_initializer=initializer, name="out"))
    return keras.Sequential(layers, name="perceptron")


def loss_for(samples: Samples, loss: str) -> str:
    """Choose `loss`, or for ``auto`` the usual one: categorical cross-entropy, or mean squared error for numbers.

    Raises
    ------
    UserError
        If the loss is for classes, but numbers are predicted.
    """
    if loss == "auto":
        return "categorical_crossentropy" if samples.classes else "mean_squared_error"
    if not samples.classes and loss not in ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh"):
        raise UserError(f"loss={loss} needs classes, but the target is numbers: use mean_squared_error, for example")
    return loss


def labels_for(samples: Samples, y: np.ndarray, loss: str) -> np.ndarray:
    """Convert labels for `loss`: class numbers for a sparse one, else one-hot rows; numbers as they are."""
    import keras

    if not samples.classes:
        return y[:, None]
    return y if loss.startswith("sparse_") else keras.utils.to_categorical(y, len(samples.classes))


def metrics_for(samples: Samples) -> list[str]:
    """Metrics that Keras shows next to the loss."""
    return ["accuracy"] if samples.classes else ["mean_absolute_error"]
