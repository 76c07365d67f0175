"""Loss and metrics of many members: Keras' own functions, averaged over the rows of each member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.keras import function_of_metric
from mlflow_hp.search.vectorised.members import NotVectorisableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Objectives(NamedTuple):
    """Loss and metrics of a network, each a function of targets and outputs with a value for each row.

    Attributes
    ----------
    loss : callable
    metrics : dict of str to callable
        By Keras' name in its logs.
    """

    loss: Callable[[Any, Any], Any]
    metrics: dict[str, Callable[[Any, Any], Any]]


def read_objectives(compiled: Mapping[str, Any], target_rank: int, output_shape: tuple[int | None, ...]) -> Objectives:
    """Read loss and metrics from the arguments of ``compile``.

    Parameters
    ----------
    compiled : mapping
        Arguments of ``compile``, by name.
    target_rank : int
        Number of axes of the targets.
    output_shape : tuple
        Shape of the outputs, with the axis of the batch.

    Raises
    ------
    NotVectorisableError
        If one of them has no rule.
    """
    import keras

    for name in ("loss_weights", "weighted_metrics"):
        if compiled.get(name):
            raise NotVectorisableError(f"compile has {name}")
    is_sparse = target_rank < len(output_shape) and output_shape[-1] != 1
    loss = compiled.get("loss")
    if isinstance(loss, (Mapping, list, tuple)) or loss is None:
        raise NotVectorisableError(f"the loss is a {type(loss).__name__}, not a single one")
    if str(loss).lower() in ("crossentropy", "ce"):
        raise NotVectorisableError(f"the loss {loss} has no rule; name the kind of cross-entropy")
    loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        if loss.reduction not in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
            raise NotVectorisableError(f"the loss has reduction={loss.reduction!r}")
        loss = loss.call
    metrics = compiled.get("metrics") or []
    if isinstance(metrics, Mapping) or any(isinstance(each, (list, tuple, Mapping)) for each in metrics):
        raise NotVectorisableError("the metrics are nested")
    return Objectives(_by_row(loss), dict(_metric(each, is_sparse, output_shape) for each in metrics))


def _metric(metric: Any, is_sparse: bool, output_shape: Sequence[int | None]) -> tuple[str, Callable[[Any, Any], Any]]:
    """Name of a metric in Keras' logs, and its values by row."""
    import keras

    if isinstance(metric, str) and metric.lower() in ("accuracy", "acc"):
        kind = "binary" if output_shape[-1] == 1 else "sparse_categorical" if is_sparse else "categorical"
        return metric, _by_row(getattr(keras.metrics, f"{kind}_accuracy"))
    built = keras.metrics.get(metric)
    if isinstance(built, keras.metrics.Metric):
        if not isinstance(built, keras.metrics.MeanMetricWrapper):
            raise NotVectorisableError(f"the metric {type(built).__name__} has no rule: it is no average over rows")
        return metric if isinstance(metric, str) else built.name, _by_row(function_of_metric(built))
    return metric if isinstance(metric, str) else built.__name__, _by_row(built)


def _by_row(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Average the values of a function over all axes but those of members and rows."""

    def by_row(targets: Any, outputs: Any) -> Any:
        import tensorflow as tf

        values = tf.cast(function(targets, outputs), tf.float32)
        return tf.reduce_mean(values, list(range(2, len(values.shape)))) if len(values.shape) > 2 else values

    return by_row
