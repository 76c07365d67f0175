"""How one training step is read: inside the compiled graph, or from the host.

Keras' private names that decide it are looked up here; where one is missing, the plain way is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BUILDERS = ("make_train_function", "_make_function")
"""What builds Keras' train function around a model's ``train_step``."""


def why_host(model: Any) -> str | None:
    """Why the training step of a compiled `model` has to be read from the host; None where the graph will do."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}"
    own = _overridden(model, ("train_step", *_BUILDERS))
    if own is not None:
        return f"{type(model).__name__} has a {own} of its own"
    if model._distribute_strategy is not None:
        return f"the model is distributed by {type(model._distribute_strategy).__name__}"
    if not isinstance(model.optimizer, keras.optimizers.Optimizer):
        return "the model has no Keras optimizer"
    return None


def is_keras_own(train_function: Any) -> bool:
    """Whether a train function is Keras' own: not the user's, nor wrapped by somebody."""
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    code = getattr(train_function, "__code__", None)
    return code is not None and code in TensorFlowTrainer._make_function.__code__.co_consts


def steps_pass_python(model: Any, train_function: Any) -> bool:
    """Whether Python sees each step of a model's train function, also where it makes several at once."""
    import tensorflow as tf

    return (
        (model.run_eagerly or tf.config.functions_run_eagerly())
        and is_keras_own(train_function)
        and _overridden(model, _BUILDERS) is None
        and model._distribute_strategy is None
    )


def with_step(model: Any, step: Callable[[Any], Any]) -> Callable[..., Any]:
    """Keras' own train function, around `step` in place of the model's ``train_step``."""
    made: Callable[..., Any] = model._make_function(step)
    return made


def _overridden(model: Any, names: Sequence[str]) -> str | None:
    """The first of Keras' methods `names` that the model or its class replaces."""
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    for name in names:
        if name in vars(model) or getattr(type(model), name, None) is not getattr(TensorFlowTrainer, name, None):
            return name
    return None


def train_step_is_own(model: Any) -> bool:
    """Whether the model's ``train_step`` is not Keras' own."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return type(model).train_step is not keras.Model.train_step
    return _overridden(model, ("train_step",)) is not None
