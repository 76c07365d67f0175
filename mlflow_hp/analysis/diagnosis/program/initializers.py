"""Rules on initial weights and on their regularisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import CROSS_ENTROPIES, answers
from mlflow_hp.analysis.diagnosis.program.graph import (
    fan_in,
    hidden_maps,
    initializer,
    nonlinearity,
    successors,
)
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.history.program import Layer, Program

CONSTANT = {"Zeros", "Ones", "Constant", "zeros", "ones", "constant"}
"""Initialisers that give all units of a layer the same weights."""
RANDOM = {"RandomNormal", "RandomUniform", "TruncatedNormal"}
"""Initialisers whose size does not follow the number of inputs."""
WIDE = 0.3
"""Standard deviation below which initial weights are no problem: Keras' default is 0.05."""
TOO_LARGE, FAR_TOO_LARGE, TOO_SMALL = 4.0, 7.0, 1e-2
"""Standard deviation of a unit's sum for inputs of size 1: from which it is reported, as a problem, below which."""


def constant_weights(program: Program) -> Finding | None:
    """Detect hidden layers that begin with the same weights in each unit: all get the same gradient, and stay the same.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 8.4 (initial parameters break symmetry).
    Threshold: a trainable hidden layer of two or more units. Not for a layer whose output is added to another (Zhang et
    al. 2019, Fixup initialization: zeros are right there), nor for the output's layer.
    """
    following_layers = successors(program)
    symmetric = [
        layer
        for layer in hidden_maps(program)
        if initializer(layer)[0] in CONSTANT
        and layer.trainable
        and layer.n_weights
        and (layer.config.get("units", layer.config.get("filters")) or 2) > 1
        and _reaches_weights_alone(following_layers, program, layer)
    ]
    if not symmetric:
        return None
    right = _right(program, symmetric[0])
    names = [layer.name for layer in symmetric]
    name = initializer(symmetric[0])[0]
    return Finding(
        "constant_weights",
        "identical units",
        f"{', '.join(names[:5])} begin{'s' if len(names) == 1 else ''} with the same weights in every unit "
        f"({name}): all units of a layer learn the same.",
        {"layers_of_identical_units": len(names)},
        f'kernel_initializer="{right}"',
        "problem",
        "constant initial weights",
        {"layer": names[0]},
        tuple(Change("kernel_initializer", name, _right(program, layer), layer.name) for layer in symmetric),
    )


def size_of_weights(program: Program) -> Finding | None:
    """Detect initial weights of a fixed size that is far from that for the number of inputs.

    A unit's sum has std * sqrt(number of inputs) as its standard deviation for inputs of size 1. Source: Glorot and
    Bengio 2010 and He et al. 2015 (it is about 1, or sqrt(2), with their initialisers). Threshold: over 4 (a hint) or
    7 (a problem), or below 0.01 (a hint), of dense hidden layers.
    """
    for layer in hidden_maps(program):
        name, settings = initializer(layer)
        inputs = fan_in(layer)
        spread = _spread(name, settings)
        if spread is None or not inputs or not layer.trainable:
            continue
        size = spread * math.sqrt(inputs)
        if TOO_SMALL <= size <= TOO_LARGE:
            continue
        right = _right(program, layer)
        return Finding(
            "size_of_weights",
            "large weights" if size > TOO_LARGE else "tiny weights",
            f"The initial weights of {layer.name} have a standard deviation of {spread:.2g}: with "
            f"{count(inputs, 'input')} its sums are of size {size:.2g}, where about 1 is usual.",
            {"initial_size_of_sums": size},
            f'kernel_initializer="{right}"',
            "problem" if size > FAR_TOO_LARGE and spread > WIDE else "hint",
            "initial weights of the wrong size",
            {"layer": layer.name},
            (Change("kernel_initializer", name, right, layer.name),),
        )
    return None


PENALTIES = {"kernel_regularizer": "weights", "activity_regularizer": "outputs"}
"""Settings of a layer -> what they keep small."""


def strong_regularizer(program: Program) -> Finding | None:
    """Detect a penalty on the weights or outputs of a layer that outweighs the loss.

    Source: Krogh and Hertz 1992, A simple weight decay can improve generalization; Keras' default is 0.01. Measured on
    digits, right of the held-out after 20 epochs: L2 of 0.001 97 %, 0.1 78 %, 1 10 %; L1 of 0.001 96 %, 0.01 91 %.
    Threshold: L2 of 0.05 or L1 of 0.01 (a hint); with a cross-entropy, L2 of 0.1 or L1 of 0.05, else ten times that (a
    problem): the loss of a regression has any size.
    """
    is_bounded = any(answer.loss in CROSS_ENTROPIES for answer in answers(program))
    for layer in program.layers:
        name = next((name for name in PENALTIES if isinstance(layer.config.get(name), dict)), None)
        if name is None:
            continue
        config, of = layer.config[name], PENALTIES[name]
        for key, some, much in (("l2", 0.05, 0.1), ("l1", 0.01, 0.05)):
            factor = config.get(key)
            if not isinstance(factor, (int, float)) or factor < some:
                continue
            return Finding(
                "strong_regularizer",
                "strong penalty",
                f"{layer.name} has a penalty on its {of} of {key} = {factor:g}, where 1e-5 to 0.01 is usual: it can "
                "pull all of them to 0.",
                {"penalty": float(factor)},
                f"{name}=keras.regularizers.{key.upper()}(1e-4)",
                "problem" if factor >= (much if is_bounded else 10 * much) else "hint",
                f"too strong a penalty on the {of}",
                {"layer": layer.name},
                (Change("regularizer", factor, 1e-4, layer.name),),
            )
    return None


def _right(program: Program, layer: Layer) -> str:
    return (
        "he_normal"
        if nonlinearity(program, layer) in ("relu", "leaky_relu", "elu", "gelu", "silu")
        else "glorot_uniform"
    )


def _spread(name: str, settings: dict[str, Any]) -> float | None:
    """Standard deviation of a random initialiser of fixed size; None for others."""
    if name not in RANDOM:
        return None
    if name == "RandomUniform":
        low, high = settings.get("minval", -0.05), settings.get("maxval", 0.05)
        return (
            (high - low) / math.sqrt(12) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else None
        )
    spread = settings.get("stddev", 0.05)
    return float(spread) if isinstance(spread, (int, float)) else None


def _reaches_weights_alone(following_layers: dict[str, list[Layer]], program: Program, layer: Layer) -> bool:
    """Whether a layer's output reaches further weights without being added to anything; True if that is unknown."""
    if len(program.layers) > 1 and not any(each.inputs for each in program.layers):
        return True
    current = layer
    while len(following_layers[current.name]) == 1:
        after = following_layers[current.name][0]
        if len(after.inputs) > 1:
            return False
        if after.n_weights and after.kind != "BatchNormalization":
            return True
        current = after
    return False
