"""The hidden units of a Keras model that can be permuted without changing its function, and the axes they occupy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from mlflow_hp.analysis.surfaces.weight_matching import Axis
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_hp.analysis.surfaces.weight_matching import Axes

_DIMENSIONS = ("1D", "2D", "3D")
_BY_DIMENSION = ("AveragePooling", "Cropping", "GlobalAveragePooling", "GlobalMaxPooling", "MaxPooling",
                 "SpatialDropout", "UpSampling", "ZeroPadding")  # fmt: skip
PASSING = {
    "Activation", "ActivityRegularization", "AlphaDropout", "Dropout", "ELU", "GaussianDropout", "GaussianNoise",
    "Identity", "LeakyReLU", "ReLU", "Softmax", *(f"{kind}{n}" for kind in _BY_DIMENSION for n in _DIMENSIONS),
}  # fmt: skip
"""Kinds of layers without weights that treat all units alike, and keep their order."""
CONVOLUTIONS = {f"Conv{n}" for n in _DIMENSIONS}


class UnknownArchitectureError(Exception):
    """Raised if it is unknown which permutations keep the function of a model; the message says why."""


def permutable_axes(model: Any, names: Mapping[int, str]) -> Axes:
    """Find the axes of a model's tensors that belong to hidden units: a permutation of these keeps its function.

    Known are chains of Dense, Conv1D to Conv3D, Embedding, BatchNormalization, LayerNormalization, PReLU, Flatten, and
    layers without weights that treat all units alike (``PASSING``).

    Parameters
    ----------
    model : keras.Model
        Built.
    names : mapping of int to str
        ``id`` of a trainable variable -> name of its tensor.

    Returns
    -------
    dict of str to tuple of Axis or None
        For `match_units`; groups have the names of the layers whose units they are.

    Raises
    ------
    UnknownArchitectureError
        If the model is not such a chain.
    """
    axes: Axes = {}
    units: _Units | None = None
    for layer in _chain(model):
        variables = [variable for variable in layer.weights if id(variable) in names]
        if not variables and units is None:
            continue  # frozen, or without weights, before the first units that are trained
        if layer.weights and not layer.trainable:
            raise UnknownArchitectureError(f"the layer {layer.name!r} after trained ones is frozen")
        of_variables, units = _axes_of(layer, units)
        if {id(variable) for variable, _ in of_variables} != set(map(id, variables)):
            raise UnknownArchitectureError(f"the layer {layer.name!r} has other weights than usual")
        axes.update({names[id(variable)]: of_variable for variable, of_variable in of_variables})
    outputs = None if units is None else units.group
    return {
        name: tuple(None if axis is None or axis.group == outputs else axis for axis in of_tensor)
        for name, of_tensor in axes.items()
    }


class _Units(NamedTuple):
    """Units along the last axis of a layer's outputs, `positions` times if they were flattened (-1: not yet known)."""

    group: str
    n: int
    positions: int = 1

    def along(self, length: int) -> Axis:
        """Return the axis of this length."""
        positions = self.positions if self.positions > 0 else length // self.n
        if positions * self.n != length:
            raise UnknownArchitectureError(
                f"{length} weights do not belong to {count(self.n, 'unit')} of {self.group!r}"
            )
        return Axis(self.group, positions)


def _chain(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, if each takes the output of the one before it."""
    if not isinstance(model, keras.Sequential):
        _check_connections(model)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise UnknownArchitectureError(f"{layer.name!r} is a model inside it")
        if not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _check_connections(model: Any) -> None:
    """Raise unless each layer takes the output of the one before it."""
    try:
        inputs, outputs = list(model.inputs), list(model.outputs)
    except (AttributeError, TypeError) as error:
        raise UnknownArchitectureError("the connections of its layers are unknown: it is a class of its own") from error
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnknownArchitectureError(f"it has {count(len(inputs), 'input')} and {count(len(outputs), 'output')}")
    tensor = inputs[0]
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            takes, gives = layer.input, layer.output
        except (AttributeError, ValueError) as error:
            raise UnknownArchitectureError(f"the layer {layer.name!r} is called more than once") from error
        if takes is not tensor:
            raise UnknownArchitectureError(f"its layers are no chain: they branch or join before {layer.name!r}")
        tensor = gives
    if tensor is not outputs[0]:
        raise UnknownArchitectureError("its output is not that of its last layer")


def _axes_of(layer: Any, units: _Units | None) -> tuple[list[tuple[Any, tuple[Axis | None, ...]]], _Units | None]:
    """Return the layer's trainable variables with their axes, and the units of its outputs, which are the last axis."""
    kind = type(layer).__name__
    if type(layer).__module__.partition(".")[0] != "keras":
        raise UnknownArchitectureError(f"{kind} ({layer.name!r}) is a class of its own")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise UnknownArchitectureError(f"the layer {layer.name!r} has its channels first")

    def before(variable: Any, axis: int = -1) -> Axis | None:
        return None if units is None else units.along(int(variable.shape[axis]))

    if kind == "Dense" or (kind in CONVOLUTIONS and layer.groups == 1):
        own = _Units(layer.name, int(layer.kernel.shape[-1]))
        kernel = (*(None for _ in layer.kernel.shape[:-2]), before(layer.kernel, -2), own.along(own.n))
        return [(layer.kernel, kernel), *((layer.bias, (own.along(own.n),)) for _ in range(layer.use_bias))], own
    if kind == "Embedding":
        own = _Units(layer.name, int(layer.embeddings.shape[-1]))
        return [(layer.embeddings, (None, own.along(own.n)))], own
    if kind in ("BatchNormalization", "LayerNormalization"):
        normalised = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        last = getattr(layer.input_spec, "ndim", None) or 0
        if list(normalised) not in ([-1], [last - 1]):
            raise UnknownArchitectureError(f"{layer.name!r} normalises along axis {layer.axis}, not the last")
        return [
            (variable, (before(variable),)) for variable in (layer.gamma, layer.beta) if variable is not None
        ], units
    if kind == "PReLU":
        return [(layer.alpha, (*(None for _ in layer.alpha.shape[1:]), before(layer.alpha)))], units
    if kind == "Flatten":
        return [], units and units._replace(positions=-1)
    if kind in PASSING:
        return [], units
    raise UnknownArchitectureError(f"which permutations keep the function of {kind} ({layer.name!r}) is unknown")
