"""Rules for layers: the computation of many members at once, with their weights stacked along a first axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.keras import reshape_with_logits
from mlflow_hp.search.vectorised.members import NotVectorisableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class StepContext(NamedTuple):
    """Context of a step, on which layers may depend besides their input.

    Attributes
    ----------
    settings : mapping of str to Tensor
        Settings by name, one value for each member; only those that are not 0 for all.
    step : Tensor of int64, shape (n_members,), or None
        Steps that each member has taken; None outside of training.
    is_row : Tensor of bool, shape (n_members, batch_size), or None
        Whether a row belongs to the batch, or only fills it up; None if all do.
    """

    settings: Mapping[str, Any]
    step: Any = None
    is_row: Any = None


class LayerRule(NamedTuple):
    """Computation of a layer for many members.

    Attributes
    ----------
    key : tuple
        What it depends on besides weights and settings.
    apply : callable
        ``apply(x, weights, batch)``, with `x` of shape (n_members, batch_size, ...) and the layer's stacked weights,
        returns the output, and new values of those weights that the layer itself changes, by their index.
    settings : dict of str to float or tuple of int
        The layer's own settings; names without its number.
    """

    key: tuple[Any, ...]
    apply: Callable[[Any, Sequence[Any], StepContext], tuple[Any, dict[int, Any]]]
    settings: dict[str, Any]


SAMPLE_WISE = {
    "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Flatten", "Reshape", "Permute", "RepeatVector", "Rescaling",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
    "Cropping1D", "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D", "UnitNormalization",
}  # fmt: skip
"""Layers without weights that compute each sample apart: members are computed as one long batch."""


def rule_of(layer: Any, key: Any) -> LayerRule:
    """Return the rule for a layer of Keras.

    Parameters
    ----------
    layer : keras.Layer
    key : hashable
        Its configuration without names, seeds and initializers.

    Raises
    ------
    NotVectorisableError
        If there is none.
    """
    name = type(layer).__name__
    if layer.compute_dtype != "float32":
        raise NotVectorisableError(f"the layer {name} computes in {layer.compute_dtype}, not in float32")
    if getattr(layer, "activity_regularizer", None) is not None:
        raise NotVectorisableError(f"the layer {name} has an activity_regularizer")
    constraint = next((each.constraint for each in layer.trainable_variables if each.constraint is not None), None)
    if constraint is not None:
        raise NotVectorisableError(f"the layer {name} has the constraint {type(constraint).__name__}")
    if name == "Dense":
        return _dense(layer, key)
    if name == "Dropout":
        return _dropout(layer)
    if name == "BatchNormalization":
        return _batch_normalization(layer, key)
    if name in SAMPLE_WISE and not layer.weights:
        return LayerRule((name, key), lambda x, _, __: (_as_one_batch(layer, x), {}), {})
    if name in ("Conv1D", "Conv2D"):
        return _convolution(layer, key)
    if name == "LayerNormalization":
        return LayerRule((name, key), lambda x, weights, _: (_mapped(layer, x, weights), {}), {})
    raise NotVectorisableError(f"the layer {name} has no rule")


def _dense(layer: Any, key: Any) -> LayerRule:
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise NotVectorisableError("the layer Dense is quantized, or has LoRA weights")

    def apply(x: Any, weights: Sequence[Any], _: StepContext) -> tuple[Any, dict[int, Any]]:
        import tensorflow as tf

        kernel, *bias = weights
        n_members, inner = tf.shape(x)[0], x.shape[2:-1]
        y = tf.matmul(tf.reshape(x, (n_members, -1, x.shape[-1])), kernel)
        y = y + bias[0][:, None, :] if bias else y
        y = tf.reshape(y, (n_members, -1, *inner, y.shape[-1])) if inner else y
        return layer.activation(y), {}

    return LayerRule(("Dense", key), apply, {})


def _convolution(layer: Any, key: Any) -> LayerRule:
    """Rule for convolutions, which `tf.vectorized_map` turns into one of all members; the bias it would add wrongly."""
    if layer.data_format != "channels_last" or getattr(layer, "lora_enabled", False):
        raise NotVectorisableError(f"the layer {type(layer).__name__} has its channels first, or LoRA weights")

    def apply(x: Any, weights: Sequence[Any], _: StepContext) -> tuple[Any, dict[int, Any]]:
        import tensorflow as tf

        kernel, *bias = weights
        y = tf.vectorized_map(lambda each: layer.convolution_op(*each), (x, kernel))
        return layer.activation(y + _spread(bias[0], y) if bias else y), {}

    return LayerRule((type(layer).__name__, key), apply, {})


def _dropout(layer: Any) -> LayerRule:
    """Rule for dropout, with Keras' own masks: ``stateless_dropout`` with the generator's state as seed."""
    if layer.noise_shape is not None:
        raise NotVectorisableError("the layer Dropout has a noise_shape")
    generator = getattr(layer, "seed_generator", None)
    seed = (0, 0) if generator is None else tuple(int(each) for each in generator.state.numpy())

    def apply(x: Any, _: Sequence[Any], batch: StepContext) -> tuple[Any, dict[int, Any]]:
        import tensorflow as tf

        if batch.step is None or "rate" not in batch.settings:
            return x, {}
        seeds = batch.settings["seed"] + tf.stack([tf.zeros_like(batch.step), batch.step], 1)
        seeds = tf.math.floormod(seeds, tf.int32.max - 1)
        # members of one seed have one mask: it is drawn once
        different, index = tf.unique(seeds[:, 0] * 2**32 + seeds[:, 1])
        noise = tf.map_fn(
            lambda each: tf.random.stateless_uniform(tf.shape(x)[1:], tf.cast([each // 2**32, each % 2**32], tf.int32)),
            different,
            fn_output_signature=tf.TensorSpec(x.shape[1:], tf.float32),
        )
        noise = tf.gather(noise, index)
        rate, scale = (tf.reshape(batch.settings[name], (-1, *[1] * (len(x.shape) - 1))) for name in ("rate", "scale"))
        return tf.where(noise >= rate, x * scale, tf.zeros_like(x)), {}

    return LayerRule(("Dropout",), apply, {"rate": float(layer.rate), "seed": seed})


def _batch_normalization(layer: Any, key: Any) -> LayerRule:
    if layer.axis not in (-1, len(layer.input.shape) - 1) or getattr(layer, "renorm", False):
        raise NotVectorisableError("the layer BatchNormalization has another axis than the last, or renorm")
    n_affine = int(layer.scale) + int(layer.center)

    def apply(x: Any, weights: Sequence[Any], batch: StepContext) -> tuple[Any, dict[int, Any]]:
        import tensorflow as tf

        affine, (moving_mean, moving_variance) = list(weights[:n_affine]), weights[n_affine:]
        new = {}
        mean, variance = (_spread(each, x) for each in (moving_mean, moving_variance))
        if batch.step is not None and layer.trainable:
            mean, variance = _moments(x, batch.is_row)
            for index, (moving, value) in enumerate(((moving_mean, mean), (moving_variance, variance))):
                share = tf.stop_gradient(tf.reshape(value, tf.shape(moving))) * (1 - layer.momentum)
                new[n_affine + index] = moving * layer.momentum + share
        gamma = _spread(affine.pop(0), x) if layer.scale else None
        beta = _spread(affine.pop(0), x) if layer.center else None
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, layer.epsilon), new

    return LayerRule(("BatchNormalization", key, layer.trainable), apply, {})


def _moments(x: Any, is_row: Any) -> tuple[Any, Any]:
    """Mean and variance of each member's rows, by channel, with the axes kept."""
    import tensorflow as tf

    axes = list(range(1, len(x.shape) - 1))
    if is_row is None:
        return tf.nn.moments(x, axes, keepdims=True)
    mask = tf.reshape(tf.cast(is_row, x.dtype), (*tf.unstack(tf.shape(is_row)), *[1] * (len(x.shape) - 2)))
    n = tf.reduce_sum(mask, axes, keepdims=True) * math.prod(x.shape[2:-1])
    mean = tf.reduce_sum(x * mask, axes, keepdims=True) / n
    return mean, tf.reduce_sum(tf.square(x - tf.stop_gradient(mean)) * mask, axes, keepdims=True) / n


def _spread(values: Any, x: Any) -> Any:
    """Give values of shape (n_members, n_channels) the rank of `x`."""
    import tensorflow as tf

    return tf.reshape(values, (tf.shape(values)[0], *[1] * (len(x.shape) - 2), values.shape[-1]))


def _as_one_batch(layer: Any, x: Any) -> Any:
    """Apply a layer without weights to all members' samples, as one batch."""
    import tensorflow as tf

    y = layer(tf.reshape(x, (-1, *x.shape[2:])))
    return reshape_with_logits(y, (tf.shape(x)[0], tf.shape(x)[1], *y.shape[1:]))


def _mapped(layer: Any, x: Any, weights: Sequence[Any]) -> Any:
    """Apply a layer to each member with its weights."""
    import tensorflow as tf

    return tf.vectorized_map(lambda each: layer.stateless_call(list(each[1:]), [], each[0])[0], (x, *weights))
