"""Traits of a program that are common in good ones, and a possible cause only where a training fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.graph import hidden_maps
from mlflow_hp.analysis.diagnosis.program.repairs import new_layer

if TYPE_CHECKING:
    from mlflow_hp.history.program import Program

NARROW = 4
"""Number of units up to which a hidden layer is a bottleneck."""
FROZEN = 0.5
"""Share of the weights from which frozen layers matter."""
WIDE = 32
"""Number of units that is proposed."""


def narrow_layer(program: Program) -> Finding | None:
    """Suspect a hidden layer of at most ``NARROW`` units: all that is behind it depends on so few numbers.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.4.1 (capacity by width). Healthy networks
    have such layers where the task is easy.
    """
    for layer in hidden_maps(program):
        units = layer.config.get("units", layer.config.get("filters"))
        if isinstance(units, int) and units <= NARROW:
            return Finding(
                "narrow_layer",
                "too few units",
                f"{layer.name} has {units} unit{'s' if units > 1 else ''}, through which everything has to pass.",
                {"hidden_units": units},
                new_layer(program, layer.name, WIDE, layer.activation or "relu"),
                "hint",
                "a hidden layer with too few units",
                {"layer": layer.name},
                (Change("units", units, WIDE, layer.name),),
            )
    return None


def frozen_part(program: Program) -> Finding | None:
    """Suspect frozen layers with over ``FROZEN`` of the weights: if they are not pretrained, they are random.

    Source: Keras' guide on transfer learning. Layers whose weights are never trained, such as ``Normalization``, do not
    count.
    """
    layers = [layer for layer in program.layers if layer.n_weights and "kernel_initializer" in layer.config]
    frozen = [layer for layer in layers if not layer.trainable]
    share = sum(layer.n_weights for layer in frozen) / max(sum(layer.n_weights for layer in layers), 1)
    if not frozen or share < FROZEN:
        return None
    return Finding(
        "frozen_part",
        "frozen layers",
        f"{len(frozen)} of {len(layers)} layers, with {share:.0%} of the weights, are frozen: if these are not "
        "pretrained, they stay random.",
        {"frozen_layers": len(frozen)},
        f"model.get_layer({frozen[0].name!r}).trainable = True before compile()",
        "hint",
        "layers that are frozen without being pretrained",
        {"layer": frozen[0].name},
        tuple(Change("trainable", False, True, layer.name) for layer in frozen),
    )


def unusual_activation(program: Program) -> Finding | None:
    """Suspect exponential hidden units, whose outputs grow from layer to layer.

    Source: Keras' documentation of activations has ``exponential`` for outputs such as rates.
    """
    for layer in hidden_maps(program):
        if layer.activation == "exponential":
            return Finding(
                "unusual_activation",
                "exponential units",
                f"{layer.name} has the activation exponential, which is meant for outputs.",
                {},
                new_layer(program, layer.name, layer.config.get("units"), "relu"),
                "hint",
                "a hidden activation that grows exponentially",
                {"layer": layer.name},
                (Change("activation", layer.activation, "relu", layer.name),),
            )
    return None


SUSPICIONS = (narrow_layer, frozen_part, unusual_activation)


def suspicions(program: Program) -> list[Finding]:
    """Return the traits of a program that may be the cause of a failure.

    Parameters
    ----------
    program : Program
        Description of a program.

    Returns
    -------
    list of Finding
        Hints, for trainings that fail.
    """
    return [finding for rule in SUSPICIONS if (finding := rule(program)) is not None]
