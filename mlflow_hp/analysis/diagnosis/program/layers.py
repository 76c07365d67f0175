"""Rules on the network: activations, units, dropout, normalisation, and layers that are not trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import n_classes, task_of
from mlflow_hp.analysis.diagnosis.program.graph import (
    DENSE,
    DROPOUTS,
    LINEAR_MAPS,
    NOISE,
    PASSING,
    RECURRENT,
    applied_activation,
    by_name,
    following,
    has_operations,
    hidden_maps,
    new_layer,
    nonlinearity,
    output_layers,
)

if TYPE_CHECKING:
    from mlflow_hp.history.program import Layer, Program

DEEP_SIGMOID, DEEP_TANH = 4, 10
"""Hidden layers from which sigmoid and tanh are reported."""
NARROW = 10
"""Units that are enough in front of any number of classes, such as the words of a language."""
MUCH_DROPOUT, MOST_DROPOUT = 0.6, 0.8
"""Rate of a dropout above which it is a hint, and a problem."""
IDEMPOTENT = {"relu", "relu6", "linear"}
"""Activations that change nothing the second time."""
LINEAR_KINDS = (
    LINEAR_MAPS | PASSING | {"BatchNormalization", "Rescaling", "Normalization", "Add", "Concatenate", "Average"}
)
"""Layers that are linear, or would be without their activation."""


def no_nonlinearity(program: Program) -> Finding | None:
    """Detect a network whose hidden layers have no activation: it is one linear map, whatever its depth.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.1. Measured on digits: 97 % right, as a
    model without hidden layers. Threshold: a dense or convolutional hidden layer, and no activation or other nonlinear
    layer in front of the output. Models whose connections or layers are unknown, and linear autoencoders, which narrow
    and give back their inputs, are left alone.
    """
    last = output_layers(program)
    hidden = [layer for layer in hidden_maps(program) if layer.n_weights > 0]
    if not hidden or any(by_name(program, name) is None for name in last) or len(program.outputs) != 1:
        return None
    if has_operations(program):
        return None
    if any(layer.kind not in LINEAR_KINDS for layer in _before_outputs(program)):
        return None
    if any(applied_activation(layer) not in ("", "linear") for layer in _before_outputs(program)):
        return None
    if any(layer.kind in LINEAR_MAPS and not layer.activation for layer in hidden) or _narrows_to_itself(
        program, hidden
    ):
        return None
    names = [layer.name for layer in hidden]
    first = hidden[0]
    return Finding(
        "no_nonlinearity",
        "no activation",
        f"{_list(names)} {'has' if len(names) == 1 else 'have'} no activation: together with the output they are one "
        "linear map, as a model without hidden layers.",
        {"linear_hidden_layers": len(names)},
        new_layer(program, first.name, first.config.get("units") or first.config.get("filters"), "relu"),
        "problem",
        "hidden layers without activation",
        {"layer": names[0]},
        tuple(Change("activation", "linear", "relu", name) for name in names),
    )


def linear_pair(program: Program) -> Finding | None:
    """Suggest an activation between two layers that are one linear map, in a network that has others.

    Source: as `no_nonlinearity`. Threshold: a dense layer without activation right in front of another, or of a
    convolution of a convolution; not if it is narrower than both neighbours, as the code of an autoencoder is.
    """
    if no_nonlinearity(program) is not None or has_operations(program):
        return None
    maps = [layer for layer in program.layers if layer.kind in LINEAR_MAPS]
    for position, layer in enumerate(maps):
        if layer.kind not in DENSE | {"Conv1D", "Conv2D", "Conv3D"} or layer.activation != "linear":
            continue
        after = next((each for each in following(program, layer) if each.kind not in PASSING), None)
        if after is None or after.kind != layer.kind or layer.name in output_layers(program):
            continue
        width, next_width = _width(layer), _width(after)
        widths = [_width(each) for each in maps[:position]] or [next_width]
        if width is None or next_width is None or (width < next_width and all(width < (w or 0) for w in widths)):
            continue
        return Finding(
            "linear_pair",
            "no activation",
            f"{layer.name} has no activation in front of {after.name}: the two are one linear map.",
            {},
            new_layer(program, layer.name, width, "relu"),
            "hint",
            "a hidden layer without activation",
            {"layer": layer.name},
            (Change("activation", "linear", "relu", layer.name),),
        )
    return None


def activation_twice(program: Program) -> Finding | None:
    """Detect a layer with an activation that is followed by another activation.

    Measured on digits: of a softmax on a softmax, the loss ends at 1.48 instead of 0.05, and with SGD(0.01) 17 % are
    right instead of 90 %: a problem, as is sigmoid twice at the output (its values lie from 0.5 to 0.73). Source: the
    values of the activations. Threshold: any activation but ReLU on ReLU, which changes nothing.
    """
    for layer in program.layers:
        first = layer.activation
        if layer.kind not in LINEAR_MAPS or first in ("", "linear"):
            continue
        after = next((each for each in following(program, layer) if each.kind not in NOISE), None)
        if after is None or after.kind in LINEAR_MAPS or after.kind in ("LSTM", "GRU", "SimpleRNN", "Bidirectional"):
            continue
        second = applied_activation(after)
        if second in ("", "linear") or (first == second and first in IDEMPOTENT):
            continue
        is_output = layer.name in output_layers(program)
        is_problem = is_output and (first == second or second in ("softmax", "sigmoid"))
        return Finding(
            "activation_twice",
            "activation twice",
            f"{layer.name} applies {first}, and {after.name} {second} to that.",
            {},
            f"{new_layer(program, layer.name, _width(layer), 'linear')} in front of {after.name}, or without "
            f"{after.name}",
            "problem" if is_problem else "hint",
            "two activations in a row",
            {"layer": layer.name},
            (Change("last_activation" if is_output else "activation", first, "linear", layer.name),),
        )
    return None


def hidden_softmax(program: Program) -> Finding | None:
    """Detect a softmax on a hidden layer: its units compete, and add up to 1.

    Source: Goodfellow, Bengio and Courville 2016, section 6.2.2.3 (softmax is for outputs; inside a model to choose
    among values). Measured on digits: 75 % right with one such layer, 62 % with two, instead of 97 %. Threshold: a
    dense or convolutional layer with softmax right in front of another.
    """
    for layer in hidden_maps(program):
        after = next((each for each in following(program, layer) if each.kind not in PASSING), None)
        if applied_activation(layer) != "softmax" or after is None or after.kind not in LINEAR_MAPS:
            continue
        return Finding(
            "hidden_softmax",
            "softmax inside",
            f"{layer.name} is a hidden layer with softmax: its values add up to 1, and little of the "
            "input and of the gradient passes.",
            {},
            new_layer(program, layer.name, _width(layer), "relu"),
            "problem",
            "softmax on a hidden layer",
            {"layer": layer.name},
            (Change("activation", "softmax", "relu", layer.name),),
        )
    return None


def saturating_stack(program: Program) -> Finding | None:
    """Detect many hidden layers in a row with sigmoid or tanh and without normalisation: gradients vanish.

    The slope of a sigmoid is at most 1/4, that of tanh at most 1. Source: Glorot and Bengio 2010, Understanding the
    difficulty of training deep feedforward neural networks (sigmoid networks of four hidden layers stay on a plateau).
    Threshold: 4 layers with sigmoid (3: a hint), 10 with tanh (a hint).
    """
    if any("Normalization" in layer.kind or layer.kind == "Add" for layer in program.layers):
        return None
    activations = {layer.name: nonlinearity(program, layer) for layer in hidden_maps(program)}
    for activation, many, some in (("sigmoid", DEEP_SIGMOID, DEEP_SIGMOID - 1), ("tanh", 10**6, DEEP_TANH)):
        names = [name for name, each in activations.items() if each in (activation, f"hard_{activation}")]
        if len(names) < some:
            continue
        layer = by_name(program, names[0])
        width = _width(layer) if layer is not None else None
        return Finding(
            "saturating_stack",
            "saturating layers",
            f"{len(names)} hidden layers have the activation {activation}, whose slope is small: over so many layers "
            "hardly any gradient is left for the first ones.",
            {"saturating_layers": len(names)},
            new_layer(program, names[0], width, "relu") + " in all of them",
            "problem" if len(names) >= many else "hint",
            f"{activation} in a deep network",
            {"layer": names[0]},
            tuple(Change("activation", activation, "relu", name) for name in names),
        )
    return None


def few_units(program: Program) -> Finding | None:
    """Detect a hidden layer that is too narrow for the classes behind it.

    Threshold: in front of the output, fewer units than log2 of the classes (a problem: so many on/off units cannot tell
    them apart), or than a third of them and ten (a hint). Source: counting; measured on digits.
    """
    classes = n_classes(program)
    if task_of(program) != "classification" or not classes or classes < 4:
        return None
    for layer in hidden_maps(program):
        after = next(
            (each for each in following(program, layer) if each.kind not in PASSING | {"Activation", "ReLU"}), None
        )
        units = layer.config.get("units")
        if layer.kind != "Dense" or after is None or after.name not in output_layers(program):
            continue
        if not isinstance(units, int) or units >= min(classes / 3, NARROW):
            continue
        return Finding(
            "few_units",
            "too few units",
            f"{layer.name} has {units} unit{'s' if units > 1 else ''} in front of {classes} classes.",
            {"hidden_units": units, "n_classes": classes},
            new_layer(program, layer.name, max(32, 2 * classes), applied_activation(layer) or "relu"),
            "problem" if 2**units < classes and applied_activation(layer) != "linear" else "hint",
            "too few units in front of the output",
            {"layer": layer.name},
            (Change("units", units, max(32, 2 * classes), layer.name),),
        )
    return None


def dropout_at_output(program: Program) -> Finding | None:
    """Detect a dropout behind the last weights: it sets predictions to 0, which nothing learns to make up for.

    Measured on digits, behind a softmax: the loss ends at 0.95 (rate 0.2) or 2.0 (rate 0.5) instead of 0.05. Source:
    Srivastava et al. 2014, Dropout, section 4 (dropped are inputs and hidden units). Threshold: any rate.
    """
    for output in program.outputs:
        layer = by_name(program, output.layer)
        for after in following(program, layer) if layer is not None else ():
            if after.kind not in DROPOUTS or not after.config.get("rate", 1):
                continue
            return Finding(
                "dropout_at_output",
                "dropout at the output",
                f"{after.name} drops values of the output itself: no layer with weights follows.",
                {"output_dropout": float(after.config.get("rate", 0))},
                f"without {after.name}, or with it in front of {output.layer}",
                "problem",
                "dropout behind the last weights",
                {"layer": after.name},
                (Change("layers", after.kind, None, after.name),),
            )
    return None


def much_dropout(program: Program) -> Finding | None:
    """Detect a dropout that drops most of what passes.

    Source: Srivastava et al. 2014, Dropout, figure 9 and section 7.3 (best from 0.4 to 0.8 kept, 0.5 for hidden units).
    Threshold: a rate over 0.6 (a hint), from 0.8 on (a problem).
    """
    rates = {
        layer.name: float(layer.config["rate"])
        for layer in program.layers
        if layer.kind in DROPOUTS and isinstance(layer.config.get("rate"), (int, float))
    } | {
        layer.name: max(float(layer.config.get(name) or 0) for name in ("dropout", "recurrent_dropout"))
        for layer in program.layers
        if layer.kind in RECURRENT
    }
    rates = {name: rate for name, rate in rates.items() if rate > 0}
    if not rates or max(rates.values()) <= MUCH_DROPOUT:
        return None
    name, rate = max(rates.items(), key=lambda each: each[1])
    high = [each for each, value in rates.items() if value > MUCH_DROPOUT]
    layer = by_name(program, name)
    return Finding(
        "much_dropout",
        "much dropout",
        f"{_list(high)} drop{'s' if len(high) == 1 else ''} {rate:.0%} of the values in training.",
        {"largest_dropout": rate},
        f"{layer.kind}(..., dropout=0.3)" if layer is not None and layer.kind in RECURRENT else "Dropout(0.3)",
        "problem" if rate >= MOST_DROPOUT else "hint",
        "too high a dropout",
        {"layer": name},
        tuple(Change("rate", rates[each], 0.3, each) for each in high),
    )


def normalization_of_one(program: Program) -> Finding | None:
    """Detect BatchNormalization in batches of one sample: each value minus its own mean is 0.

    Source: Ioffe and Szegedy 2015, Batch normalization, section 3.1; Wu and He 2018, Group normalization, figure 1 (the
    error grows for batches under 8). Threshold: batches of 1 sample: a problem behind dense layers, a hint behind
    convolutions, whose places count as samples.
    """
    size = program.fit.get("batch_size")
    data = program.training.inputs[0] if program.training and program.training.inputs else None
    if size is None and data is not None and data.n_batches:
        size = data.n_samples / data.n_batches
    layers = [layer for layer in program.layers if layer.kind == "BatchNormalization" and layer.trainable]
    if not layers or not isinstance(size, (int, float)) or size >= 2:
        return None
    is_dense = any(layer.output_shape is not None and len(layer.output_shape) == 1 for layer in layers)
    return Finding(
        "normalization_of_one",
        "batches of one",
        f"{layers[0].name} normalises over batches of one sample, whose mean is the sample itself.",
        {"samples_per_batch": float(size)},
        "batch_size=32, or LayerNormalization()",
        "problem" if is_dense else "hint",
        "BatchNormalization of single samples",
        {"layer": layers[0].name},
        (Change("batch_size", size, 32),),
    )


def normalization_over_one(program: Program) -> Finding | None:
    """Detect a normalisation within each sample over a single value: minus its own mean it is 0.

    Source: Ba, Kiros and Hinton 2016, Layer normalization, section 3. Threshold: an axis of size 1.
    """
    for layer in program.layers:
        axes, shape = layer.config.get("axis", -1), layer.output_shape
        if layer.kind not in ("LayerNormalization", "UnitNormalization") or not shape:
            continue
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        places = [axis if axis < 0 else axis - 1 for axis in axes if isinstance(axis, int)]  # the batch is no axis here
        if places and all(-len(shape) <= place < len(shape) and shape[place] == 1 for place in places):
            return Finding(
                "normalization_over_one",
                "normalised to nothing",
                f"{layer.name} normalises over a single value, minus its own mean: its output is the same for "
                "all samples.",
                {},
                f"{layer.kind}(axis=...) over an axis of several values, or without {layer.name}",
                "problem",
                "a normalisation over one value",
                {"layer": layer.name},
                (Change("axis", layer.config.get("axis"), None, layer.name), Change("layers", layer.kind, None)),
            )
    return None


def everything_frozen(program: Program) -> Finding | None:
    """Detect a model none of whose weights is trained.

    Source: Keras' guide on transfer learning (``trainable = False`` moves all weights to the non-trainable ones).
    Threshold: no trainable layer among those with weights.
    """
    layers = [layer for layer in program.layers if layer.n_weights > 0]
    if not layers or any(layer.trainable for layer in layers) or program.is_own_step:
        return None
    return Finding(
        "everything_frozen",
        "nothing is trained",
        "The only layer with weights is not trainable."
        if len(layers) == 1
        else f"None of the {len(layers)} layers with weights is trainable.",
        {"frozen_layers": len(layers)},
        f"model.get_layer({layers[-1].name!r}).trainable = True before compile()",
        "problem",
        "all layers are frozen",
        {"layer": layers[-1].name},
        (Change("trainable", False, True, layers[-1].name),),
    )


def _before_outputs(program: Program) -> list[Layer]:
    """Layers but those of the outputs, and what follows these."""
    last = output_layers(program)
    after = {each.name for name in last for each in following(program, by_name(program, name) or program.layers[-1])}
    return [layer for layer in program.layers if layer.name not in last | after]


def _narrows_to_itself(program: Program, hidden: list[Layer]) -> bool:
    """Whether the output has as many values as the input, and a hidden layer fewer."""
    inputs = program.training.inputs if program.training else ()
    shape = program.outputs[0].shape
    widths = [width for width in map(_width, hidden) if width is not None]
    is_same = len(inputs) == 1 and shape is not None and tuple(inputs[0].shape) == tuple(shape)
    return is_same and bool(widths) and min(widths) < (shape[-1] if shape and shape[-1] else 0)


def _width(layer: Layer) -> int | None:
    width = layer.config.get("units", layer.config.get("filters"))
    return width if isinstance(width, int) else None


def _list(names: list[str]) -> str:
    listed = ", ".join(names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed
