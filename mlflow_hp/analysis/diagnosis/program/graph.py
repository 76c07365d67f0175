"""Walks over the layers of a program: order, neighbours, and kinds of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.history.program import Layer, Program

CONVOLUTIONS = {
    "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "SeparableConv1D",
    "SeparableConv2D",
}  # fmt: skip
DENSE = {"Dense", "EinsumDense"}
LINEAR_MAPS = DENSE | CONVOLUTIONS | {"DepthwiseConv1D", "DepthwiseConv2D"}
"""Layers that are linear but for their activation."""
RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}
DROPOUTS = {"Dropout", "AlphaDropout", "GaussianDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
SHAPES = {
    "Flatten", "Reshape", "Permute", "RepeatVector", "Identity", "ActivityRegularization", "Masking",
    "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D", "Cropping2D", "Cropping3D",
    "UpSampling1D", "UpSampling2D", "UpSampling3D",
}  # fmt: skip
"""Layers that move values without changing them."""
AVERAGES = {f"{name}{n}D" for name in ("AveragePooling", "GlobalAveragePooling") for n in (1, 2, 3)}
NOISE = DROPOUTS | {"GaussianNoise"}
AUGMENTATIONS = {
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop", "CenterCrop", "Resizing",
    "RandomShear", "RandomPerspective", "RandomErasing", "Pipeline",
}  # fmt: skip
PASSING = SHAPES | AVERAGES | NOISE | AUGMENTATIONS
"""Layers that keep the scale of what passes, and are linear or random."""
ACTIVATION_LAYERS = {
    "ReLU": "relu", "LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu", "Softmax": "softmax",
}  # fmt: skip
"""Layers that are activations -> the name of the activation."""


def applied_activation(layer: Layer) -> str:
    """Activation that a layer applies; ``"linear"`` and the empty name are none."""
    if layer.kind in ACTIVATION_LAYERS:
        return ACTIVATION_LAYERS[layer.kind]
    return layer.activation or _name(layer.config.get("activation"))


def successors(program: Program) -> dict[str, list[Layer]]:
    """Layer -> the layers that take its output; empty if the connections are unknown."""
    following: dict[str, list[Layer]] = {layer.name: [] for layer in program.layers}
    for layer in program.layers:
        for name in layer.inputs:
            if name in following:
                following[name].append(layer)
    return following


def following(program: Program, layer: Layer) -> Iterator[Layer]:
    """Layers after one along the only path from it; ends where the path branches or joins another."""
    after = successors(program)
    seen = {layer.name}
    while len(after.get(layer.name, ())) == 1:
        layer = after[layer.name][0]
        if layer.name in seen or len(layer.inputs) > 1:
            return
        seen.add(layer.name)
        yield layer


def first_layers(program: Program) -> list[list[Layer]]:
    """Each path of layers from an input of the model on; empty if the connections are unknown.

    The layers of a model without known connections have no inputs either: then the paths are unknown.
    """
    starts = [layer for layer in program.layers if not layer.inputs]
    if len(starts) > max(len(program.training.inputs) if program.training else 1, 1):
        return []
    return [[start, *following(program, start)] for start in starts]


def has_operations(program: Program) -> bool:
    """Whether operations that are no layers, and so unknown, take part: ``x / 255``, ``keras.ops.relu(x)``."""
    names = {layer.name for layer in program.layers}
    return any(name not in names for layer in program.layers for name in layer.inputs)


def by_name(program: Program, name: str) -> Layer | None:
    """Layer of a name; None if there is none."""
    return next((layer for layer in program.layers if layer.name == name), None)


def output_layers(program: Program) -> set[str]:
    """Names of the layers whose weights the outputs come from."""
    return {output.layer for output in program.outputs}


def hidden_maps(program: Program) -> list[Layer]:
    """Dense and convolutional layers with weights that are not those of the outputs."""
    last = output_layers(program)
    return [layer for layer in program.layers if layer.kind in LINEAR_MAPS and layer.name not in last]


def is_linear_model(program: Program) -> bool:
    """Whether only the layers of the outputs have weights to train, but for normalisation."""
    last = output_layers(program)
    weighted = [layer for layer in program.layers if layer.n_weights and "Normalization" not in layer.kind]
    return bool(weighted) and all(layer.name in last and layer.kind in LINEAR_MAPS for layer in weighted)


def nonlinearity(program: Program, layer: Layer) -> str:
    """Activation that follows a layer, its own or that of a layer after it past normalisation; empty if none."""
    own = applied_activation(layer)
    if own and own != "linear":
        return own
    for after in following(program, layer):
        if after.kind in LINEAR_MAPS or after.kind in RECURRENT:
            return ""
        activation = applied_activation(after)
        if activation and activation != "linear":
            return activation
    return ""


def initializer(layer: Layer) -> tuple[str, dict[str, Any]]:
    """Name and settings of the initialiser of a layer's kernel; an empty name if unknown."""
    for key in ("kernel_initializer", "depthwise_initializer"):
        config = layer.config.get(key)
        if isinstance(config, dict):
            settings = config.get("config") if isinstance(config.get("config"), dict) else config
            return str(config.get("class_name") or config.get("name") or ""), dict(settings or {})
        if isinstance(config, str):
            return "".join(part.capitalize() for part in config.split("_")), {}
    return "", {}


def fan_in(layer: Layer) -> int | None:
    """Inputs of each unit of a dense layer, from its numbers of weights and units; None for others."""
    units = layer.config.get("units")
    if layer.kind != "Dense" or not isinstance(units, int) or units < 1 or layer.n_weights < units:
        return None
    return layer.n_weights // units - (1 if layer.config.get("use_bias", True) else 0)


def new_layer(program: Program, name: str, units: int | None, activation: str) -> str:
    """Code of a layer with other units or another activation, as the user writes it."""
    layer = by_name(program, name)
    size = "..." if units is None else str(units)
    last = f', activation="{activation}"' if activation != "linear" else ""
    if layer is None or layer.kind not in LINEAR_MAPS or layer.kind == "Dense":
        return f"Dense({size}{last})"
    kernel = layer.config.get("kernel_size", "...")
    return f"{layer.kind}({size}, {_short(kernel)}{last})"


def _short(kernel: Any) -> Any:
    sizes = set(kernel) if isinstance(kernel, (list, tuple)) else {kernel}
    return sizes.pop() if len(sizes) == 1 else tuple(kernel)


def _name(activation: Any) -> str:
    if isinstance(activation, dict):
        return str(activation.get("name") or activation.get("class_name") or "").lower()
    return activation if isinstance(activation, str) else ""
