"""Traits of a program that are common in good ones, and a possible cause only where a training fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding, two_digits
from mlflow_hp.analysis.diagnosis.program.graph import (
    RECURRENT,
    hidden_maps,
    is_linear_model,
    nonlinearity,
    output_layers,
)
from mlflow_hp.analysis.diagnosis.program.repairs import new_layer
from mlflow_hp.analysis.diagnosis.program.schedules import largest_rate
from mlflow_hp.terminal import count

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
DEEP, NARROW_RELU = 6, 10
"""Number of hidden layers from which, and units up to which, ReLU layers may die."""
MUCH_NOISE = 0.5
"""Standard deviation of added noise that may be the cause."""
SQUEEZED = 0.04
"""Share of the range of a feature below which its standard deviation is small; 0.29 if it is uniform."""
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
    starts = ("kernel_initializer", "embeddings_initializer")
    layers = [layer for layer in program.layers if layer.n_weights and any(name in layer.config for name in starts)]
    frozen = [layer for layer in layers if not layer.trainable]
    share = sum(layer.n_weights for layer in frozen) / max(sum(layer.n_weights for layer in layers), 1)
    if not frozen:
        return None
    return Finding(
        "frozen_part",
        "frozen layers",
        f"Frozen: {len(frozen)} of {len(layers)} layers, with {share:.0%} of the weights. What is not pretrained stays "
        "random.",
        {"frozen_layers": len(frozen)},
        f"model.get_layer({frozen[0].name!r}).trainable = True before compile()",
        "hint",
        "layers that are frozen without being pretrained",
        {"layer": frozen[0].name},
        tuple(Change("trainable", False, True, layer.name) for layer in frozen),
    )


def deep_and_narrow(program: Program) -> Finding | None:
    """Suspect many narrow ReLU layers without normalisation: with some probability, one of them is 0 for all samples.

    Source: Lu et al. 2020, Dying ReLU and initialization: theory and numerical examples, section 3 (the probability
    grows with the depth and shrinks with the width).
    """
    if any("Normalization" in layer.kind or layer.kind == "Add" for layer in program.layers):
        return None
    narrow = [
        layer
        for layer in hidden_maps(program)
        if (layer.config.get("units") or WIDE) <= NARROW_RELU and nonlinearity(program, layer) == "relu"
    ]
    if len(narrow) < DEEP:
        return None
    return Finding(
        "deep_and_narrow",
        "deep and narrow",
        f"{len(narrow)} hidden layers have {NARROW_RELU} or fewer ReLU units each: one of them may be 0 for all "
        "samples, and nothing passes.",
        {"narrow_layers": len(narrow)},
        f"fewer layers, of {WIDE} units each",
        "hint",
        "many narrow ReLU layers",
        {"layer": narrow[0].name},
        (Change("layers", len(narrow), 2), *(Change("units", x.config.get("units"), WIDE, x.name) for x in narrow)),
    )


def much_noise(program: Program) -> Finding | None:
    """Suspect noise on the inputs or outputs of layers that is about as large as what it is added to.

    Source: Keras' documentation of ``GaussianNoise``; standardised values and outputs of layers are about 1 in size.
    """
    for layer in program.layers:
        size = layer.config.get("stddev")
        if layer.kind == "GaussianNoise" and isinstance(size, (int, float)) and size >= MUCH_NOISE:
            return Finding(
                "much_noise",
                "much noise",
                f"{layer.name} adds noise with a standard deviation of {size:g}.",
                {"noise": float(size)},
                "GaussianNoise(0.1)",
                "hint",
                "noise as large as the values",
                {"layer": layer.name},
                (Change("rate", size, 0.1, layer.name),),
            )
    return None


def squeezed_inputs(program: Program) -> Finding | None:
    """Suspect features of which a few extreme values have set the scale: all others lie close together.

    Source: scikit-learn's documentation, Compare the effect of different scalers on data with outliers. Threshold: for
    half of the features, a standard deviation below ``SQUEEZED`` of their range, which is at most 2.
    """
    data = program.training.inputs[0] if program.training and program.training.inputs else None
    if data is None or not data.shape or len(data.shape) > 1 or data.is_integer:
        return None
    ranges = [high - low for low, high in zip(data.min, data.max, strict=True)]
    squeezed = [
        index
        for index, (std, width) in enumerate(zip(data.std, ranges, strict=True))
        if 0 < std < SQUEEZED * width <= 2 * SQUEEZED
    ]
    if len(squeezed) < max(len(ranges) / 2, 1):
        return None
    return Finding(
        "squeezed_inputs",
        "squeezed inputs",
        f"{len(squeezed)} of {count(len(ranges), 'feature')} have a standard deviation below {SQUEEZED:.0%} of their "
        "range: a few extreme values have set the scale.",
        {"features_squeezed": len(squeezed)},
        "sklearn.preprocessing.RobustScaler() or QuantileTransformer(), or without the extreme values",
        "hint",
        "a scale that extreme values have set",
        {"feature": squeezed[:8]},
        (Change("standardize", "by range", "by quantiles"), Change("features", None, None)),
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
        f"A batch holds all data ({count(data.n_samples, 'sample')}): an epoch is one step.",
        {"n_samples": data.n_samples},
        f"batch_size={BATCH}",
        "hint",
        "too large a batch",
        {},
        (Change("batch_size", size, BATCH),),
    )


SUSPICIONS = (
    one_batch, narrow_layer, no_hidden_layer, deep_and_narrow, unusual_activation, much_noise, squeezed_inputs,
    frozen_part, learning_rate_of_another_size,
)  # fmt: skip


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
