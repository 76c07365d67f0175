"""Traits of a program that are common in good ones, and a possible cause only where a training fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding, two_digits
from mlflow_hp.analysis.diagnosis.program.graph import RECURRENT, hidden_maps, is_linear_model, output_layers
from mlflow_hp.analysis.diagnosis.program.repairs import new_layer
from mlflow_hp.analysis.diagnosis.program.schedules import largest_rate

if TYPE_CHECKING:
    from mlflow_hp.history.program import Program

NARROW = 4
"""Number of units up to which a hidden layer is a bottleneck."""
USUAL = {"Adam": 1e-3, "AdamW": 1e-3, "Adamax": 1e-3, "Nadam": 1e-3, "RMSprop": 1e-3, "Adagrad": 1e-2, "SGD": 1e-2}
"""Optimizer -> learning rate that it is usually begun with: Keras' default, and 0.01 for Adagrad, which
only lowers it (Duchi et al. 2011)."""
FEW_SAMPLES, BATCH = 64, 32
"""Number of samples from which a batch of all of them may be the cause, and size that is proposed."""
SMALL, LARGE = 1 / 6, 20.0
"""Ratios to it below and above which a learning rate may be the cause."""
WIDE = 32
"""Number of units that is proposed."""


def narrow_layer(program: Program) -> Finding | None:
    """Suspect a hidden layer of at most ``NARROW`` units: all that is behind it depends on so few numbers.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.4.1 (capacity by width). Healthy networks
    have such layers where the task is easy.
    """
    last = output_layers(program)
    recurrent = [layer for layer in program.layers if layer.kind in RECURRENT and layer.name not in last]
    for layer in (*hidden_maps(program), *recurrent):
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


def no_hidden_layer(program: Program) -> Finding | None:
    """Suspect a network without a hidden layer: its outputs are weighted sums of its inputs.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.1 (a linear model cannot learn XOR). Where
    the task is linear, or no more can be known, such a model is the best.
    """
    if not is_linear_model(program):
        return None
    return Finding(
        "no_hidden_layer",
        "no hidden layer",
        "The network has no hidden layer: its outputs are weighted sums of its inputs.",
        {},
        f'Dense({WIDE}, activation="relu") in front of {program.outputs[0].layer}',
        "hint",
        "no hidden layer",
        {},
        (Change("layers", 0, 1), Change("units", None, WIDE)),
    )


def frozen_part(program: Program) -> Finding | None:
    """Suspect frozen layers: if they are not pretrained, they are random.

    Source: Keras' guide on transfer learning. Layers whose weights are never trained, such as ``Normalization``, do not
    count.
    """
    layers = [layer for layer in program.layers if layer.n_weights and "kernel_initializer" in layer.config]
    frozen = [layer for layer in layers if not layer.trainable]
    share = sum(layer.n_weights for layer in frozen) / max(sum(layer.n_weights for layer in layers), 1)
    if not frozen:
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


def learning_rate_of_another_size(program: Program) -> Finding | None:
    """Suspect a learning rate that is less than ``SMALL`` or more than ``LARGE`` times the usual one.

    With momentum m that of SGD counts as rate / (1 - m). Source: Bengio 2012, Practical recommendations for
    gradient-based training of deep architectures, section 3.1.1 (the first setting to tune, on a logarithmic scale).
    """
    name, rate = str(program.optimizer.get("name")), largest_rate(program.optimizer)
    usual = USUAL.get(name)
    if usual is None or rate is None or rate <= 0:
        return None
    momentum = float(program.optimizer.get("momentum") or 0) if name == "SGD" else 0.0
    ratio = rate / (1 - min(momentum, 0.999)) / usual
    if SMALL <= ratio <= LARGE:
        return None
    is_small, better = ratio < SMALL, usual * (1 - momentum)
    return Finding(
        "small_learning_rate" if is_small else "large_learning_rate",
        "small learning rate" if is_small else "large learning rate",
        f"The learning rate {rate:g} is {ratio:.2g} times the usual one of {name}"
        f"{f' with momentum {momentum:g}' if momentum else ''}.",
        {"suggested_learning_rate": two_digits(better)},
        f"learning_rate={two_digits(better):g}",
        "hint",
        "the learning rate is too small" if is_small else "the learning rate is too large",
        {},
        (Change("learning_rate", rate, two_digits(better)),),
    )


def one_batch(program: Program) -> Finding | None:
    """Suspect a batch of all samples, from ``FEW_SAMPLES`` on: an epoch is then a single step.

    Source: Bengio 2012, section 3.1.1 (batches of 32 learn with fewer samples). Gradient descent on all samples at once
    is common where there are enough epochs.
    """
    size = program.fit.get("batch_size")
    data = program.training.inputs[0] if program.training and program.training.inputs else None
    if data is None or not isinstance(size, int | float) or data.n_batches > 1 or data.n_samples < FEW_SAMPLES:
        return None
    return Finding(
        "one_batch",
        "one batch",
        f"A batch holds all {data.n_samples} samples: an epoch is one step.",
        {"n_samples": data.n_samples},
        f"batch_size={BATCH}",
        "hint",
        "too large a batch",
        {},
        (Change("batch_size", size, BATCH),),
    )


SUSPICIONS = (one_batch, narrow_layer, no_hidden_layer, unusual_activation, learning_rate_of_another_size, frozen_part)


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
