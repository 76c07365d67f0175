"""Private names of Keras, and other undocumented behaviour that this package relies on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, call, unsupported, warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NEW_MODEL = "a new model is trained and traced"

MAKE_FUNCTION = PrivateName(
    "keras", "Model", "_make_function", takes=call(None, None), fallback="one record is read of each execution"
)
"""Method that builds a train function around a step. Fallback: the host reader, with one record per execution."""

SYMBOLIC_BUILD = PrivateName(
    "keras", "Model", "_symbolic_build", takes=call(data_batch=None), fallback="the model is built by its first batch"
)
"""Method that builds a model without data. Fallback: for a training, weights are known from the first step on; for a
loss, see `build_loss`."""

FLATTEN_LAYERS = PrivateName(
    "keras", "Model", "_flatten_layers", takes=call(), fallback="the model counts as not built, and is not reused"
)
"""Method that returns all layers of a model, itself first. Fallback: the model counts as not built, and is not
reused."""

COMPILE_LOSS = PrivateName(
    "keras", "Model", "_compile_loss", fallback="the loss is computed once on a batch, which its metrics count"
)
"""Loss that ``compile`` made of its argument ``loss``. Fallback: see `build_loss`."""

COMPILE_CONFIG = PrivateName("keras", "Model", "_compile_config", fallback=NEW_MODEL)
"""Arguments of ``compile``. Fallback: the model is not reused."""

AUTO_CONFIG = PrivateName("keras", "Operation", "_auto_config", fallback=NEW_MODEL)
"""Arguments of an operation's constructor. Fallback: the model is not reused."""

LEARNING_RATE = PrivateName("keras", "Optimizer", "_learning_rate", fallback=NEW_MODEL)
"""Learning rate: a variable, a schedule or a function. Fallback: the model is not reused."""

INITIAL_EPOCH = PrivateName("keras", "Model", "_initial_epoch", fallback=NEW_MODEL)
"""Epoch at which a training continues. Fallback: the model is not reused."""

APPLIED_VARIABLES = PrivateName(
    "keras", "Optimizer", "_trainable_variables", fallback="gradients that are applied without variables are not read"
)
"""Variables that a built optimizer updates. Fallback: gradients of ``optimizer.apply(gradients)`` are not recorded."""

METRIC_FUNCTION = PrivateName("keras", "MeanMetricWrapper", "_fn", fallback="the models are trained one by one")
"""Function of a metric that averages it. Fallback: no vectorised training."""

METRIC_ARGUMENTS = PrivateName("keras", "MeanMetricWrapper", "_fn_kwargs", kind=dict, fallback=METRIC_FUNCTION.fallback)
"""Further arguments of that function. Fallback: as above."""

LOGITS = "_keras_logits"
"""Attribute of the outputs of a softmax or sigmoid, from which losses compute. Fallback: they compute from the outputs,
with less precision for large losses."""


def original_method(name: str) -> Any:
    """Return a method of ``keras.Model`` as Keras defines it, even if other code has replaced it in that class."""
    import keras

    for cls in keras.Model.__mro__[1:]:
        if name in vars(cls):
            return vars(cls)[name]
    return getattr(keras.Model, name, None)


def overridden_method(model: Any, names: Sequence[str]) -> str | None:
    """Return the first of the methods `names` that a model or its class overrides; None if there is none."""
    for name in names:
        if name in vars(model) or getattr(type(model), name, None) is not original_method(name):
            return name
    return None


def overridden_builder(model: Any) -> str | None:
    """Return the method for building the train function that a model or its class overrides; None if there is none.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras builds it in another way.
    """
    _make_function()
    return overridden_method(model, ("make_train_function", MAKE_FUNCTION.name))


def is_own_train_function(train_function: Any) -> bool:
    """Return whether Keras made a train function, and no other code has wrapped it.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras builds it in another way.
    """
    _make_function()
    code = getattr(train_function, "__code__", None)
    return code is not None and code in original_method(MAKE_FUNCTION.name).__code__.co_consts


def train_function_around(model: Any, step: Callable[[Any], Any]) -> Callable[..., Any]:
    """Build Keras' train function for a `model`, around `step` instead of its ``train_step``."""
    train_function: Callable[..., Any] = _make_function()(model, step)
    return train_function


def _make_function() -> Callable[..., Any]:
    import keras

    make_function: Callable[..., Any] = MAKE_FUNCTION.of(keras.Model)
    return make_function


def strategy_of(model: Any) -> Any:
    """Return the distribution strategy of a model under TensorFlow; None if it is not distributed."""
    import tensorflow as tf

    strategy = model.distribute_strategy
    if strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy():
        return None
    return strategy


def loss_tracker(model: Any) -> Any:
    """Return the metric that tracks the loss of a compiled model; None if it has none.

    Without it, the loss of a single batch is unknown.
    """
    import keras

    metrics = keras.Model.metrics.fget(model)  # a class may have ``metrics`` of its own
    first = metrics[0] if metrics else None
    if isinstance(first, keras.metrics.Mean) and first.name == "loss":
        return first
    if model.compiled:
        problem, fallback = "Model.metrics does not begin with the loss", "the loss of a single batch is not recorded"
        warn_once(unsupported("keras", problem, fallback))
    return None


def is_built(model: Any) -> bool:
    """Return whether all layers of a model are built; False if that is unknown."""
    try:
        return all(layer.built for layer in layers_of(model))
    except UnsupportedVersionError as error:
        warn_once(error)
        return False


def build_without_data(model: Any, batch: Any) -> None:
    """Create the variables of a model, its loss and its metrics, as its first batch would, but without data.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras cannot do that.
    """
    SYMBOLIC_BUILD.of(model)(data_batch=batch)


def build_loss(model: Any, x: Any, y: Any) -> None:
    """Create the variables of a compiled model's loss, as the first batch of ``model.evaluate`` would, without data.

    If this version of Keras cannot do that, the loss is computed once: in a model with several outputs, the metrics of
    their losses then count that batch until they are reset.
    """
    try:
        loss = COMPILE_LOSS.of(model)
        if loss is not None and not getattr(loss, "built", False):
            build_without_data(model, (x, y))
    except UnsupportedVersionError as error:
        warn_once(error)
        compute_loss(model, x, y, model(x, training=False))


def compute_loss(model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, *, training: bool = False) -> Any:
    """Compute a compiled model's loss of one batch, also if its class overrides ``compute_loss``."""
    named = {"training": training} if "training" in inspect.signature(model.compute_loss).parameters else {}
    return model.compute_loss(x, y, y_pred, sample_weight, **named)


def layers_of(model: Any) -> list[Any]:
    """Return all layers of a model, itself first, with the layers in layers.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras does not tell.
    """
    layers = FLATTEN_LAYERS.call(model)
    if not isinstance(layers, list):
        raise FLATTEN_LAYERS.unsupported(f"returned a {type(layers).__name__}")
    return layers


def compile_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments of ``compile``, by name.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras does not tell.
    """
    arguments = getattr(COMPILE_CONFIG.of(model), "config", None)
    if not isinstance(arguments, Mapping):
        raise COMPILE_CONFIG.unsupported("has no mapping `config`")
    return dict(arguments)


def keeps_arguments(operation: Any) -> bool:
    """Return whether an operation keeps the arguments of its constructor.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras does not tell.
    """
    return AUTO_CONFIG.of(operation) is not None


def applied_variables(optimizer: Any) -> list[Any]:
    """Return the variables that an optimizer updates where ``apply`` is called without any; empty if unknown."""
    try:
        return list(APPLIED_VARIABLES.of(optimizer))
    except UnsupportedVersionError as error:
        warn_once(error)
        return []


def has_variable_learning_rate(optimizer: Any) -> bool:
    """Return whether an optimizer's learning rate is a variable, not a schedule or a function.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras does not tell.
    """
    import keras

    return isinstance(LEARNING_RATE.of(optimizer), keras.Variable)


def start_at_first_epoch(model: Any) -> None:
    """Start the next training of a model at its first epoch, even if an earlier one was to be continued.

    Raises
    ------
    UnsupportedVersionError
        If this version of Keras keeps that epoch elsewhere.
    """
    INITIAL_EPOCH.of(model)
    setattr(model, INITIAL_EPOCH.name, None)


def function_of_metric(metric: Any) -> Callable[[Any, Any], Any]:
    """Return the function that a metric averages over the rows.

    Raises
    ------
    UnsupportedVersionError
        If the metric is no average, or this version of Keras does not tell.
    """
    function, arguments = METRIC_FUNCTION.of(metric), METRIC_ARGUMENTS.of(metric)
    return lambda targets, outputs: function(targets, outputs, **arguments)


def reshape_with_logits(outputs: Any, shape: Any) -> Any:
    """Reshape the outputs of an activation, and the logits that it keeps with them."""
    import tensorflow as tf

    reshaped = tf.reshape(outputs, shape)
    logits = getattr(outputs, LOGITS, None)
    if logits is not None:
        setattr(reshaped, LOGITS, tf.reshape(logits, shape))
    return reshaped
