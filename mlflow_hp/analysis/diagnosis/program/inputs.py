"""Rules on the features: their scale, in training and validation, constants, and values that are not finite.

Features are counted from 0 along the last axis of a sample.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import highest, is_adaptive, lowest
from mlflow_hp.analysis.diagnosis.program.graph import LINEAR_MAPS, PASSING, RECURRENT, applied_activation, first_layers
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_hp.history.program import ArrayStatistics, Layer, Program

LARGE, HUGE = 15.0, 30.0
"""Root mean square of a feature from which it is reported: as a hint, as a problem. 1 is recommended."""
TINY, VANISHING = 0.1, 0.02
"""Standard deviation of all values of a sample together below which inputs are a hint, and a problem; five times as
much without an optimizer that scales gradients."""
SHIFT, STRETCH = 4.0, 3.0
"""Difference of the means in standard deviations, and ratio of the standard deviations, from which half of the features
count as scaled differently."""
MIN_SAMPLES = 10
"""With fewer samples, the statistics of a feature say nothing."""
SENSITIVE = LINEAR_MAPS | RECURRENT | {"TimeDistributed", "MultiHeadAttention"}
"""Layers whose sums grow with the scale of their inputs."""
LISTED = 5
"""So many features are named; the others are counted."""


def not_finite_inputs(program: Program) -> Finding | None:
    """Detect features that are NaN or infinite: one such value makes every weight NaN in a single step.

    Behind ReLU it may stay unseen: the maximum of 0 and NaN is 0 on some devices. Source: IEEE 754. Threshold: one
    value.
    """
    for place, data in _inputs(program):
        bad = [index for index, share in enumerate(data.not_finite) if share > 0]
        if not bad:
            continue
        share = max(data.not_finite)
        return Finding(
            "not_finite_inputs",
            "NaN in the data",
            f"NaN or infinite: {_listed(data, bad)}, up to {share:.2%} of the values{_of(place)}.",
            {"features_not_finite": len(bad), "largest_share_not_finite": share},
            "rows without them: x[np.isfinite(x).all(axis=1)], or the column's mean in their place",
            "problem",
            "inputs that are not finite",
            {"feature": bad[:LISTED], **_where(data, place)},
            (Change("features", "not finite", "finite"),),
        )
    return None


def embedded_numbers(program: Program) -> Finding | None:
    """Detect inputs of an embedding that are no indices of its rows.

    Source: Keras' documentation of ``Embedding`` (positive integers below ``input_dim``). Numbers are cut to whole
    ones, so that scaled ones become 0; on a GPU, indices beyond the rows give zeros without an error. Threshold: one
    value of the only input, which an embedding takes first.
    """
    first = next((layer for layer in program.layers if layer.kind != "InputLayer"), None)
    data = program.training.inputs if program.training else ()
    if first is None or first.kind != "Embedding" or len(data) != 1 or not data[0].min:
        return None
    rows, low, high = first.config.get("input_dim"), min(data[0].min), max(data[0].max)
    if not data[0].is_integer:
        text = f"{first.name} takes whole numbers, and the inputs are fractions from {low:.3g} to {high:.3g}."
        suggestion, change = "the indices as they are, without scaling them", Change("standardize", True, False)
    elif isinstance(rows, int) and (low < 0 or high >= rows):
        text = f"{first.name} has {count(rows, 'row')}, from 0 on, and the inputs are from {low:.0f} to {high:.0f}."
        suggestion, change = (
            f"Embedding({max(int(high) + 1, rows)}, ...)",
            Change("units", rows, int(high) + 1, first.name),
        )
    else:
        return None
    return Finding(
        "embedded_numbers",
        "no indices",
        text,
        {"smallest_index": low, "largest_index": high},
        suggestion,
        "problem",
        "inputs of an embedding that are no indices",
        {"layer": first.name},
        (change, Change("features", None, None)),
    )


def pixels(program: Program) -> Finding | None:
    """Detect pixels from 0 to 255 that reach weights without being scaled.

    Source: LeCun et al. 1998, Efficient backprop, section 4.3 (inputs of variance 1). Threshold: values from 0 to
    between 200 and 255 with a root mean square over `LARGE`, in samples of at least two axes or 100 features. A network
    that normalises first is left alone.
    """
    for data in _training_inputs(program):
        low, high = lowest(data), highest(data)
        is_image = len(data.shape) >= 2 or (data.shape and (data.shape[-1] or 0) >= 100)
        if not is_image or not (low >= 0 and 200 <= high <= 255) or not _reaches_weights(program):
            continue
        if max(_root_mean_squares(data), default=0.0) < LARGE:
            continue
        return Finding(
            "pixels",
            "pixels 0..255",
            f"The inputs are pixels from {low:g} to {high:g}; weights are initialised for inputs of about 1.",
            {"input_max": high},
            "keras.layers.Rescaling(1 / 255) as the first layer, or x / 255",
            "hint" if program.is_own_step else "problem",
            "inputs that are not scaled",
            _where(data, "training"),
            (Change("standardize", False, True),),
        )
    return None


def unscaled_inputs(program: Program) -> Finding | None:
    """Detect features that are far from the scale for which weights are initialised.

    Source: LeCun et al. 1998, Efficient backprop, section 4.3: inputs of mean 0 and variance 1. Measured, right of the
    held-out after 15 epochs with Adam(0.001): scikit-learn's wine 100 % standardised, 43 % as it is; digits 96 %, all
    features ten times as large 90 %, 30 times 82 %, a hundredth 84 % (16 % with SGD). Threshold: a feature whose root
    mean square is over 15 (a hint) or 30 (a problem), or samples whose values differ by less than `TINY` in all (a
    hint) or `VANISHING` (a problem). Networks that begin with a layer that scales, embeds or is unknown are left alone;
    a step of the user's own may scale (a hint).
    """
    for data in _training_inputs(program):
        if data.n_samples < MIN_SAMPLES or not _reaches_weights(program):
            continue
        sizes = _root_mean_squares(data)
        spread, few = _spread_of_a_sample(data), 1 if is_adaptive(program) else 5
        large = sorted((index for index, size in enumerate(sizes) if size > LARGE), key=lambda index: -sizes[index])
        if large:
            low, high = min(data.min[i] for i in large), max(data.max[i] for i in large)
            text = f"Not scaled: {_listed(data, large)}, with values from {low:.3g} to {high:.3g}."
            severity = "problem" if sizes[large[0]] > HUGE else "hint"
        elif 0 < spread < few * TINY:
            text = (
                f"The values of a sample have a standard deviation of {spread:.2g} together: the inputs hardly differ."
            )
            severity = "problem" if spread < few * VANISHING else "hint"
        else:
            continue
        return Finding(
            "unscaled_inputs",
            "unscaled inputs",
            text,
            {"largest_feature_size": max(sizes), "features_unscaled": len(large)},
            "x = sklearn.preprocessing.StandardScaler().fit_transform(x), or a keras.layers.Normalization() adapted to "
            "the training data as the first layer",
            "problem" if severity == "problem" and not program.is_own_step else "hint",
            "inputs that are not scaled",
            {"feature": large[:LISTED], **_where(data, "training")},
            (Change("standardize", False, True),),
        )
    return None


def validation_scaled_differently(program: Program) -> Finding | None:
    """Detect validation data that was scaled in another way than the training data.

    Threshold: for half of the features that vary, means that differ by more than 4 standard deviations, or standard
    deviations whose ratio is over 3; of 10 samples or more in each. Samples of the same data differ by about a standard
    deviation over the root of their number (the standard error of a mean); parts of a time series by one or two.
    """
    if not program.training or not program.validation:
        return None
    for data, other in zip(program.training.inputs, program.validation.inputs, strict=False):
        if min(data.n_samples, other.n_samples) < MIN_SAMPLES or len(data.mean) != len(other.mean):
            continue
        varying = [
            index for index, std in enumerate(data.std) if math.isfinite(std) and std > 1e-6 * abs(data.mean[index])
        ]
        different = [index for index in varying if _differs(data, other, index)]
        if not different or len(different) < len(varying) / 2:
            continue
        most = max(different, key=lambda index: _ratio(data.std[index], other.std[index]))
        return Finding(
            "validation_scaled_differently",
            "another scale",
            f"Validation is scaled differently: {_listed(data, different)}; feature {most} has mean "
            f"{data.mean[most]:.3g} and standard deviation {data.std[most]:.2g} in training, {other.mean[most]:.3g} "
            f"and {other.std[most]:.2g} in validation.",
            {"features_scaled_differently": len(different)},
            "scaler.transform(x_val) with the scaler that was fitted to the training data",
            "problem",
            "validation is scaled differently",
            {"feature": different[:LISTED], **_where(data, "validation")},
            (Change("standardize", "training only", "training and validation alike"),),
        )
    return None


def constant_inputs(program: Program) -> Finding | None:
    """Detect features that have the same value in every sample.

    Threshold: all features of the only input (a problem), or some that are not 0 in every sample (a hint). Features
    that are always 0, as the pixels at the border of MNIST's digits, cost nothing: they do not enter the sums.
    """
    for data in _training_inputs(program):
        if data.n_samples < MIN_SAMPLES:
            continue
        constant = [index for index, (low, high) in enumerate(zip(data.min, data.max, strict=True)) if low == high]
        is_all = len(constant) == len(data.min) and len(constant) > 0
        useless = constant if is_all else [index for index in constant if data.min[index] != 0]
        if not useless or _is_one_of_padding(data):
            continue
        return Finding(
            "constant_inputs",
            "constant features",
            f"The same in every sample: {_listed(data, useless)}.",
            {"features_constant": len(useless)},
            f"np.delete(x, {useless[:LISTED]}, axis=-1)" if not is_all else "features that differ between samples",
            "problem" if is_all and len(_training_inputs(program)) == 1 else "hint",
            "features that say nothing",
            {"feature": useless[:LISTED], **_where(data, "training")},
            (Change("features", "constant", None),),
        )
    return None


def _inputs(program: Program) -> Iterator[tuple[str, ArrayStatistics]]:
    for place, data in (("training", program.training), ("validation", program.validation)):
        yield from ((place, each) for each in (data.inputs if data else ()))


def _training_inputs(program: Program) -> Sequence[ArrayStatistics]:
    return program.training.inputs if program.training else ()


def _root_mean_squares(data: ArrayStatistics) -> list[float]:
    """Root mean square of each feature; 0 for one without a finite value."""
    sizes = [math.hypot(mean, std) for mean, std in zip(data.mean, data.std, strict=True)]
    return [size if math.isfinite(size) else 0.0 for size in sizes]


def _spread_of_a_sample(data: ArrayStatistics) -> float:
    """Root of the sum of the variances of all values of a sample; 0 if unknown."""
    n_values = math.prod(size or 1 for size in data.shape)
    return math.sqrt(sum(std * std for std in data.std if math.isfinite(std)) * n_values / max(len(data.std), 1))


def _reaches_weights(program: Program) -> bool:
    """Whether the inputs of all paths reach weights whose sums grow with them, and no normalisation follows."""
    paths = first_layers(program)
    return bool(paths) and all(_is_sensitive(path) for path in paths)


def _is_sensitive(path: Sequence[Layer]) -> bool:
    """Whether a path from an input begins with weights, past layers that keep the scale, without BatchNormalization.

    An activation between the weights and the normalisation would be saturated by then.
    """
    rest = [layer for layer in path if layer.kind not in PASSING and layer.config.get("is_adapted") is not False]
    if not rest or rest[0].kind not in SENSITIVE:
        return False
    is_linear = rest[0].kind in LINEAR_MAPS and applied_activation(rest[0]) in ("", "linear")
    return not (is_linear and len(rest) > 1 and "Normalization" in rest[1].kind)


def _differs(data: ArrayStatistics, other: ArrayStatistics, index: int) -> bool:
    std = data.std[index]
    shift = abs(other.mean[index] - data.mean[index]) / std
    return shift > SHIFT or _ratio(std, other.std[index]) > STRETCH


def _ratio(first: float, second: float) -> float:
    """Ratio of the larger to the smaller of two standard deviations; 1 if one is 0 or not finite."""
    is_known = first > 0 and second > 0 and math.isfinite(first) and math.isfinite(second)
    return max(first / second, second / first) if is_known else 1.0


def _is_one_of_padding(data: ArrayStatistics) -> bool:
    """Whether the features are places in a sequence of whole numbers, which begin with the same token or padding."""
    return data.is_integer and len(data.shape) == 1 and highest(data) > 255


def _listed(data: ArrayStatistics, indices: Sequence[int]) -> str:
    """Features by number, at most five of them; "all features" if there is one number for all."""
    if len(data.mean) == 1 and len(data.shape) > 0 and data.shape[-1] != 1:
        return "all features"
    if len(indices) == len(data.mean) and len(indices) > 1:
        return f"all {len(indices)} features"
    listed = ", ".join(map(str, indices[:LISTED]))
    more = f" and {len(indices) - LISTED} more" if len(indices) > LISTED else ""
    return f"feature{'s' if len(indices) > 1 else ''} {listed}{more} (0-based)"


def _where(data: ArrayStatistics, place: str) -> dict[str, str]:
    return ({"input": data.name} if data.name else {}) | ({"data": place} if place != "training" else {})


def _of(place: str) -> str:
    return "" if place == "training" else f" of {place}"
