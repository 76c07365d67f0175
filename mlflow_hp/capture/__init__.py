"""How one training step is read: inside the compiled graph, or from the host."""

from __future__ import annotations

from typing import Any


def why_host(model: Any) -> str | None:
    """Why the training step of a compiled `model` has to be read from the host; None where the graph will do."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}"
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    for name in ("train_step", "make_train_function", "_make_function"):
        if name in vars(model) or getattr(type(model), name, None) is not getattr(TensorFlowTrainer, name, None):
            return f"{type(model).__name__} has a {name} of its own"
    if model._distribute_strategy is not None:
        return f"the model is distributed by {type(model._distribute_strategy).__name__}"
    if not isinstance(model.optimizer, keras.optimizers.Optimizer):
        return "the model has no Keras optimizer"
    return None
