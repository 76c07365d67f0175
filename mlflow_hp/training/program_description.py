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
        self._model = model
        self._producers: dict[int, Any] = {}
        self._places: dict[int, tuple[Any, int]] = {}
        for each in layers:
            if isinstance(each, keras.Sequential):
                self._places |= {id(layer): (each, index) for index, layer in enumerate(each.layers)}
            elif isinstance(each, keras.Model):
                self._note_producers(each)
        leaves = [each for each in layers if not isinstance(each, keras.Model)]
        names = distinct_names(each.name for each in leaves)
        self.names: dict[Any, str] = dict(zip(leaves, names, strict=True))

    def _note_producers(self, model: Any) -> None:
        with contextlib.suppress(Exception):  # a model of its own class, or not yet called
            for operation in model.operations:
                with contextlib.suppress(Exception):  # a shared layer has several outputs
                    for tensor in keras.tree.flatten(operation.output):
                        self._producers[id(tensor)] = operation

    def producer(self, tensor: Any) -> Any:
        """Layer or operation that a tensor comes from; None if unknown, and for inputs."""
        return self._last_of(self._producers.get(id(tensor)))

    def _last_of(self, operation: Any) -> Any:
        """Layer whose output is that of an operation: of a model, its last one; None for inputs."""
        if isinstance(operation, keras.Sequential):
            return self._last_of(operation.layers[-1]) if operation.layers else None
        if isinstance(operation, keras.Model):
            outputs = keras.tree.flatten(operation.outputs)
            return self.producer(outputs[0]) if len(outputs) == 1 else None
        return None if isinstance(operation, keras.layers.InputLayer) else operation

    def before(self, operation: Any) -> list[Any]:
        """Layers and operations that the inputs of a layer come from; empty if unknown, and for inputs of the model."""
        with contextlib.suppress(Exception):
            if id(operation) in self._places:  # each `add` makes other tensors
                sequence, index = self._places[id(operation)]
                before = [self._last_of(sequence.layers[index - 1])] if index else self.before(sequence)
            else:
                before = [self.producer(tensor) for tensor in keras.tree.flatten(operation.input)]
            return [each for each in before if each is not None]
        return []

    def outputs(self) -> list[tuple[str, tuple[int | None, ...], Any]]:
        """Names and shapes of the model's outputs, and the layers they come from; empty for a class of its own."""
        with contextlib.suppress(Exception):
            tensors = keras.tree.flatten(self._model.outputs)
            shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
            if isinstance(self._model, keras.Sequential):
                return [(self._model.layers[-1].name, shapes[0], self._last_of(self._model))]
            if hasattr(self._model, "operations"):
                producers = map(self.producer, tensors)
                return list(zip(self._model.output_names, shapes, producers, strict=True))
        return []


def _layer(layer: Any, graph: _Graph) -> Layer:
    shape = None
    with contextlib.suppress(Exception):
        shape = tuple(layer.output.shape[1:])
    config: dict[str, Any] = {}
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of functions that cannot be serialised
        config = _plain_values(layer.get_config())
    if type(layer).__name__ == "Normalization":
        with contextlib.suppress(Exception):
            config["is_adapted"] = bool(np.any(layer.mean.numpy()) or np.any(layer.variance.numpy() != 1))
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
    if kind == "TimeDistributed":
        return _activation(operation.layer)
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind]
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", None)
    return str(name or type(activation).__name__) if activation is not None else ""


def _outputs(model: Any, graph: _Graph, inputs: Any) -> Iterator[Output]:
    of_graph = graph.outputs()
    described: list[tuple[str, str, str, tuple[int | None, ...] | None]]
    described = [(name, *_origin(operation, graph), shape) for name, shape, operation in of_graph]
    if not described:
        last = None
        with contextlib.suppress(Exception):  # a model that cannot be traced once more
            last = last_layer(model, inputs) if inputs is not None else None
        layer, activation, shape = last or (None, "", None)
        described = [("output", graph.names.get(layer, ""), activation, shape)]
    names = [name for name, *_ in described]
    losses = _by_output(getattr(model, "loss", None), names)
    metrics = _metrics(model, names)
    for name, layer, activation, shape in described:
        loss, config = _loss(losses.get(name))
        yield Output(name, layer, activation, shape, loss, config, tuple(metrics.get(name, ())))


def _origin(operation: Any, graph: _Graph) -> tuple[str, str]:
    """Name of the layer whose weights an output comes from, and the output's activation."""
    activation = ""
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
