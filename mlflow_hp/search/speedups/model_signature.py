"""Signature of the computation of a compiled Keras model, without its state.

Models with equal signatures can share traced functions.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Any

from mlflow_hp._compat.keras import (
    MAKE_FUNCTION,
    compile_arguments,
    has_variable_learning_rate,
    keeps_arguments,
    layers_of,
    strategy_of,
)

FOREIGN_LAYERS = {"Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"}
"""Layers of Keras that run the user's code, which their configuration does not contain."""

DECISIVE = {
    "call", "compute_loss", "compute_metrics", "train_step", "test_step", "predict_step", "make_train_function",
    "make_test_function", "make_predict_function", MAKE_FUNCTION.name, "fit", "evaluate", "predict",
    "apply", "apply_gradients", "update_step",
}  # fmt: skip
"""Methods that determine the computation; an instance that overrides one computes something else."""


class NotShareableError(Exception):
    """Raised for a model that cannot be shown to compute the same as another; the message says why."""


def architecture(model: Any) -> Any:
    """Compute a key that determines the functions that Keras traces for a compiled model.

    It leaves out state: initialisers, the seeds of layers with a generator (its state is a variable), a scalar learning
    rate (a variable, too), and the names that Keras generates.

    Parameters
    ----------
    model : keras.Model
        Compiled and built.

    Returns
    -------
    hashable
        Equal for models that can share their traced functions.

    Raises
    ------
    NotShareableError
        If the configuration does not determine the computation, or state is kept outside of the variables.
    """
    parts = checked_parts(model)
    names = {part.name: f"#{index}" for index, part in enumerate(parts) if _has_name_of_keras(part)}
    seeds_are_state = all(hasattr(part, "seed_generator") for part in parts if hasattr(part, "seed"))
    compiled = compile_arguments(model)
    compiled.pop("optimizer", None)
    return (
        type(model).__name__,
        _frozen(_config(model), names, without_seeds=seeds_are_state),
        _optimizer(model.optimizer),
        compiled_key(compiled),
        (bool(model.jit_compile), model.steps_per_execution, model.unrolled_steps_per_execution),
        tuple(part.trainable for part in parts if hasattr(part, "trainable")),
        # with several outputs or inputs, Keras' logs and dicts use these names
        tuple(model.output_names) if len(model.outputs) > 1 else None,
        tuple(tensor.name for tensor in model.inputs) if len(model.inputs) > 1 else None,
    )


def layer_key(layer: Any) -> Any:
    """Compute a key of a layer's configuration, without state, its name, and the factors of its regularizers.

    Raises
    ------
    NotShareableError
        If the configuration does not determine the computation.
    """
    config = _config(layer)
    return _frozen({key: config[key] for key in config if key not in ("name", "seed") and "regularizer" not in key})


def _config(thing: Any) -> Any:
    try:
        return thing.get_config()
    except (TypeError, ValueError, NotImplementedError) as error:
        raise NotShareableError(f"the {type(thing).__name__} cannot give its configuration") from error


def checked_parts(model: Any) -> list[Any]:
    """Layers and operations of a model, itself first; refuse it unless all are Keras' own.

    Raises
    ------
    NotShareableError
        If one of them is not, or keeps state outside of the variables.
    """
    import keras

    _refuse_custom(model, "the model")
    if not model.built:
        raise NotShareableError("the model is built by its first batch only: give it a keras.Input")
    if model.run_eagerly:
        raise NotShareableError("the model runs eagerly: nothing is traced")
    if strategy_of(model) is not None:
        raise NotShareableError("the model is distributed")
    parts = layers_of(model)
    known = {id(part) for part in parts}
    for part in list(parts):
        parts.extend(each for each in getattr(part, "operations", ()) if id(each) not in known)
    for part in parts:
        kind = type(part).__name__
        _refuse_custom(part, f"the layer {kind}")
        if kind in FOREIGN_LAYERS:
            raise NotShareableError(f"the layer {kind} runs code that its configuration does not contain")
        if getattr(part, "stateful", False):
            raise NotShareableError(f"the layer {kind} is stateful: it keeps its state outside of its variables")
        if hasattr(part, "adapt"):
            raise NotShareableError(f"the layer {kind} keeps what it was adapted to outside of its variables")
        if not isinstance(part, keras.Layer) and not keeps_arguments(part):
            raise NotShareableError(f"the operation {kind} does not give its arguments")
    return parts


def _refuse_custom(part: Any, title: str) -> None:
    """Refuse an object whose class is not Keras', or that overrides a decisive method."""
    if not _is_of_keras(type(part)):
        raise NotShareableError(f"{title} is of a class that is not Keras' own: {type(part).__name__}")
    if overridden := DECISIVE & vars(part).keys():
        raise NotShareableError(f"{title} overrides {min(overridden)}")
    for name, value in vars(part).items():
        if isinstance(value, types.FunctionType) and not _is_of_keras(value):
            raise NotShareableError(f"{name.lstrip('_')} of {title} is not Keras' own: {value.__name__}")


def _is_of_keras(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "keras"


def _has_name_of_keras(part: Any) -> bool:
    """Whether Keras generated the name of a layer; it then depends on the number of layers made before."""
    return re.fullmatch(rf"{type(part).__name__.lower()}\d*", part.name.replace("_", "")) is not None


def _optimizer(optimizer: Any) -> Any:
    _refuse_custom(optimizer, "the optimizer")
    config = _config(optimizer)
    config.pop("name", None)
    if has_variable_learning_rate(optimizer):
        config["learning_rate"] = "a variable"
    return type(optimizer).__name__, _frozen(config)


def compiled_key(value: Any) -> Any:
    """Key of the arguments of ``compile``: nested losses and metrics, as strings, functions or objects of Keras.

    Raises
    ------
    NotShareableError
        If one of them is not Keras' own.
    """
    import keras

    if isinstance(value, Mapping):
        return tuple((key, compiled_key(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(compiled_key(each) for each in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return _frozen(value)
    if not _is_of_keras(value if isinstance(value, types.FunctionType) else type(value)):
        raise NotShareableError(f"{getattr(value, '__name__', type(value).__name__)} in compile is not Keras' own")
    if isinstance(value, types.FunctionType):
        return value.__module__, value.__qualname__
    _refuse_custom(value, type(value).__name__)
    return _frozen(keras.saving.serialize_keras_object(value))


def _frozen(value: Any, names: Mapping[str, str] = types.MappingProxyType({}), *, without_seeds: bool = False) -> Any:
    """Convert a Keras configuration to a hashable value, with replaced `names` and without settings of state."""
    import numpy as np

    if isinstance(value, Mapping):
        if value.get("class_name") in ("function", "__lambda__"):
            raise NotShareableError(f"the function {value.get('config')} is not Keras' own")
        if "registered_name" in value:
            _refuse_foreign(value)
        return tuple(
            (key, _frozen(each, names, without_seeds=without_seeds))
            for key, each in sorted(value.items())
            if not (key.endswith("initializer") or key == "registered_name" or (without_seeds and key == "seed"))
        )
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(each, names, without_seeds=without_seeds) for each in value)
    if isinstance(value, str):
        _refuse_registered(value)
        return names.get(value, value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.shape, value.dtype.str, value.tobytes()
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)  # 1, 1.0 and True are equal, but compute different things
    raise NotShareableError(f"the configuration holds a {type(value).__name__}")


def _refuse_foreign(serialized: Mapping[str, Any]) -> None:
    """Refuse the configuration of an object whose class is not Keras' own."""
    module, registered = serialized.get("module"), serialized["registered_name"]
    if module is not None and module.split(".")[0] not in ("keras", "builtins"):
        raise NotShareableError(f"{serialized.get('class_name')} of {module} is not Keras' own")
    if registered is not None:
        _refuse_registered(registered)


def _refuse_registered(name: str) -> None:
    """Refuse the name of an object that the user has registered with Keras."""
    import keras

    registered = keras.saving.get_custom_objects().get(name)
    if registered is not None and not _is_of_keras(registered):
        raise NotShareableError(f"{name} is a registered object that is not Keras' own")
