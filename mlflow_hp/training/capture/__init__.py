"""Reading of training steps: inside the compiled graph, or from the host."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlflow_hp._compat.keras import is_own_train_function, overridden_builder, overridden_method, strategy_of
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp._notice import warn


class CaptureSettings(NamedTuple):
    """Settings of the reading of steps, as in `TrainingRecorder`."""

    weights: str = "auto"
    gradients: str | bool = "auto"
    overhead: float = 0.05
    sharpness_every: int | None = None


def why_host(model: Any) -> str | None:
    """Reason why the training step of a compiled `model` must be read from the host; None if the graph can be used."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}"
    try:
        method = overridden_builder(model)
    except UnsupportedVersionError as error:
        return error.problem
    if method is not None:
        return f"{type(model).__name__} has a {method} of its own"
    strategy = strategy_of(model)
    if strategy is not None and not _is_of_one_process(strategy):
        return f"the model is distributed by {type(strategy).__name__}"
    if _is_in_a_scope():
        return "fit is called inside the scope of a distribution strategy; the model alone has to be made in it"
    if not isinstance(model.optimizer, keras.optimizers.Optimizer) and not train_step_is_own(model):
        return "the model has no Keras optimizer"
    return None


def _is_in_a_scope() -> bool:
    """Whether this thread is in the scope of a distribution strategy, where variables have a copy in each replica."""
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def _is_of_one_process(strategy: Any) -> bool:
    """Whether all replicas of a distribution strategy are in the graph of this process."""
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MirroredStrategy | tf.distribute.OneDeviceStrategy)


def steps_pass_python(model: Any, train_function: Any) -> bool:
    """Whether Python sees each step of a model's train function, even with several steps per execution."""
    import tensorflow as tf

    try:
        return (
            (model.run_eagerly or tf.config.functions_run_eagerly())
            and is_own_train_function(train_function)
            and overridden_builder(model) is None
            and strategy_of(model) is None
        )
    except UnsupportedVersionError:
        return False


def train_step_is_own(model: Any) -> bool:
    """Whether the model's ``train_step`` is not Keras' own."""
    return overridden_method(model, ("train_step",)) is not None


def warn_of_no_sharpness(reason: str) -> None:
    """Warn that the sharpness that was asked for is not recorded, and say why."""
    warn(f"the sharpness is not recorded: {reason}. With sharpness_every=None it is not asked for")
