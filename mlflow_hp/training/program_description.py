"""Description of the program that is trained, read from the compiled Keras model and its callbacks."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp._compat.keras import layers_of
from mlflow_hp.history.program import Callback, Layer, Output, Program
from mlflow_hp.history.step_record import distinct_names
from mlflow_hp.training.layer_outputs import last_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TRANSPARENT = ("Flatten", "Reshape", "Dropout", "Identity", "Permute", "Cast", "Squeeze", "ActivityRegularization")
"""Kinds of layers and operations that leave the activation of their input as it is."""
ACTIVATIONS = {
    "ReLU": "relu", "LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu", "Softmax": "softmax", "Relu": "relu",
    "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exponential", "Softplus": "softplus", "Gelu": "gelu", "Silu": "silu",
}  # fmt: skip
"""Kinds of layers and operations that are an activation -> its name."""


def describe_program(
    model: Any,
    optimizer: Mapping[str, Any],
    fit: Mapping[str, Any],
    callbacks: Iterable[Any] = (),
    *,
    is_own_step: bool = False,
    inputs: Any = None,
) -> Program:
    """Describe a compiled and built model, without the data; what cannot be read is left out.

    Parameters
    ----------
    model : keras.Model
        Compiled and built.
    optimizer : mapping
        As `optimizer_settings` returns.
    fit : mapping of str to object
        Settings of the fit.
    callbacks : iterable of keras.callbacks.Callback
        Callbacks of the fit; Keras' own and ours are left out. Defaults to none.
    is_own_step : bool
        Whether the model has a ``train_step`` of its own. Defaults to False.
    inputs : nested structure of tf.TensorSpec, optional
        What the model is called with, to find the output of one whose layers are called in code. Defaults to None.

    Returns
    -------
    Program
        The description.
    """
    graph = _Graph(model)
    return Program(
        layers=tuple(_layer(layer, graph) for layer in graph.names if not isinstance(layer, keras.layers.InputLayer)),
        outputs=tuple(_outputs(model, graph, None if is_own_step else inputs)),
        optimizer=dict(optimizer),
        fit={name: value for name, value in fit.items() if value is not None},
        callbacks=tuple(Callback(type(each).__name__, _plain_values(vars(each))) for each in _of_user(callbacks)),
        is_own_step=is_own_step,
    )


class _Graph:
    """Layers of a model by their distinct names, and the layers before each, where Keras tells.

    Attributes
    ----------
    names : dict of Layer to str
        All layers without the models that hold them.
    """

    def __init__(self, model: Any) -> None:
        layers = layers_of(model)
        self._producers: dict[int, Any] = {}
        self._model = model
        for each in layers:
            if isinstance(each, keras.Model):
                self._note_producers(each)
        leaves = [each for each in layers if not isinstance(each, keras.Model)]
        names = distinct_names(each.name for each in leaves)
        self.names: dict[Any, str] = dict(zip(leaves, names, strict=True))

    def _note_producers(self, model: Any) -> None:
        with contextlib.suppress(Exception):  # a model of its own class, or not yet called
            for operation in _operations(model):
                with contextlib.suppress(Exception):  # a shared layer has several outputs
                    for tensor in keras.tree.flatten(operation.output):
                        self._producers[id(tensor)] = operation

    def producer(self, tensor: Any) -> Any:
        """Layer or operation that a tensor comes from; None if unknown, and for inputs."""
        operation = self._producers.get(id(tensor))
        if isinstance(operation, keras.Model):
            outputs = keras.tree.flatten(operation.outputs)
            return self.producer(outputs[0]) if len(outputs) == 1 else None
        return None if isinstance(operation, keras.layers.InputLayer) else operation

    def before(self, operation: Any) -> list[Any]:
        """Layers and operations that the inputs of a layer come from; empty if unknown, and for inputs of the model."""
        with contextlib.suppress(Exception):
            producers = [self.producer(tensor) for tensor in keras.tree.flatten(operation.input)]
            return [each for each in producers if each is not None]
        return []

    def outputs(self) -> list[tuple[str, Any]]:
        """Names of the model's outputs, and their tensors; empty if the model is of a class of its own."""
        with contextlib.suppress(Exception):
            tensors = keras.tree.flatten(self._model.outputs)
            names = getattr(self._model, "output_names", [self._model.layers[-1].name])
            if isinstance(self._model, keras.Sequential) or hasattr(self._model, "operations"):
                return list(zip(names, tensors, strict=True))
        return []


def _operations(model: Any) -> list[Any]:
    """Layers and operations that a functional or sequential model calls itself."""
    return list(model.layers if isinstance(model, keras.Sequential) else model.operations)


def _layer(layer: Any, graph: _Graph) -> Layer:
    shape = None
    with contextlib.suppress(Exception):
        shape = tuple(layer.output.shape[1:])
    config: dict[str, Any] = {}
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of functions that cannot be serialised
        config = _plain_values(layer.get_config())
    inner = {id(weight) for each in layers_of(layer)[1:] for weight in each.weights} if layer.weights else set()
    return Layer(
        name=graph.names[layer],
        kind=type(layer).__name__,
        inputs=tuple(graph.names.get(each, each.name) for each in graph.before(layer)),
        activation=_activation(layer),
        config=config,
        output_shape=shape,
        n_weights=sum(int(np.prod(weight.shape)) for weight in layer.weights if id(weight) not in inner),
        trainable=bool(layer.trainable) and (not layer.weights or bool(layer.trainable_weights)),
    )


def _activation(operation: Any) -> str:
    """Name of the activation of a layer's or operation's output; empty if it has none."""
    kind = type(operation).__name__
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind]
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", None)
    return str(name or type(activation).__name__) if activation is not None else ""


def _outputs(model: Any, graph: _Graph, inputs: Any) -> Iterator[Output]:
    tensors = graph.outputs()
    names = [name for name, _ in tensors]
    last = None
    if not tensors and inputs is not None:
        with contextlib.suppress(Exception):  # a model that cannot be traced once more
            last = last_layer(model, inputs)
    if not tensors:
        names, tensors = ["output"], [("output", None)]
    losses = _by_output(getattr(model, "loss", None), names)
    metrics = _metrics(model, names)
    for name, tensor in tensors:
        layer, activation = _origin(tensor, graph)
        loss, config = _loss(losses.get(name))
        shape = None if tensor is None else tuple(tensor.shape[1:])
        if last is not None:
            layer, activation, shape = graph.names.get(last[0], ""), last[1], last[2]
        yield Output(name, layer, activation, shape, loss, config, tuple(metrics.get(name, ())))


def _origin(tensor: Any, graph: _Graph) -> tuple[str, str]:
    """Name of the layer whose weights an output comes from, and the output's activation."""
    activation, operation = "", graph.producer(tensor)
    while operation is not None:
        own, kind = _activation(operation), type(operation).__name__
        has_weights = bool(getattr(operation, "weights", ()))
        is_activation = kind in ACTIVATIONS or kind == "Activation"
        if not is_activation and kind not in TRANSPARENT:
            return graph.names.get(operation, ""), activation or own if has_weights else activation
        activation = activation or (own if is_activation and own != "linear" else "")
        before = graph.before(operation)
        operation = before[0] if len(before) == 1 else None
    return "", activation


def _by_output(values: Any, names: list[str]) -> dict[str, Any]:
    """Values of an argument of ``compile`` by the names of outputs."""
    if isinstance(values, dict):
        return dict(values)
    if isinstance(values, list | tuple):
        return dict(zip(names, values, strict=False))
    return dict.fromkeys(names, values)


def _metrics(model: Any, names: list[str]) -> dict[str, list[str]]:
    """Names of the metrics of each output: as the program names them, or of their classes."""
    from mlflow_hp._compat.keras import compile_arguments

    arguments = {}
    with contextlib.suppress(Exception):
        arguments = compile_arguments(model)
    metrics: dict[str, list[str]] = {name: [] for name in names}
    for argument in ("metrics", "weighted_metrics"):
        values = arguments.get(argument)
        if isinstance(values, list | tuple) and (
            len(names) == 1 or not any(isinstance(each, list | tuple) for each in values)
        ):
            values = dict.fromkeys(names, values) if len(names) == 1 else dict(zip(names, values, strict=False))
        for name, each in _by_output(values, names).items():
            flat = keras.tree.flatten(each) if isinstance(each, list | tuple) else [each]
            metrics.setdefault(name, []).extend(_name_of(metric) for metric in flat if metric is not None)
    return metrics


def _name_of(thing: Any) -> str:
    """Name of a metric as the program gives it: a string, a class's or a function's."""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, dict):
        return str(thing.get("class_name", ""))
    return str(getattr(thing, "__name__", type(thing).__name__))


def _loss(loss: Any) -> tuple[str, dict[str, Any]]:
    """Name of a loss's class, or of a function that is none of Keras', and its settings."""
    if loss is None:
        return "", {}
    if isinstance(loss, str):
        with contextlib.suppress(Exception):
            loss = keras.losses.get(loss)
    if isinstance(loss, str) or inspect.isfunction(loss):
        name = loss if isinstance(loss, str) else loss.__name__
        classes = {key.lower(): key for key, value in vars(keras.losses).items() if inspect.isclass(value)}
        name = classes.get(name.replace("_", "").lower(), name) if _is_of_keras(loss) else name
        return name, {"from_logits": False} if "Crossentropy" in name else {}
    config: dict[str, Any] = {}
    with contextlib.suppress(Exception):
        config = _plain_values(loss.get_config())
    return type(loss).__name__, config


def _is_of_keras(loss: Any) -> bool:
    return isinstance(loss, str) or getattr(loss, "__module__", "").startswith("keras.")


def _of_user(callbacks: Iterable[Any]) -> Iterator[Any]:
    own = ("History", "ProgbarLogger", "CallbackList", "TrainingRecorder")
    return (each for each in callbacks if type(each).__name__ not in own)


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a configuration; initialisers and the like as ``{"name": class, ...}``."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict) and "class_name" in value:
            inner = value.get("config")
            plain[name] = {"name": str(value["class_name"]), **_plain_values(inner if isinstance(inner, dict) else {})}
        elif isinstance(value, np.generic):
            plain[name] = value.item()
        elif value is None or isinstance(value, str | bool | int | float):
            plain[name] = value
        elif isinstance(value, list | tuple) and all(isinstance(each, str | bool | int | float) for each in value):
            plain[name] = list(value)
    return plain
