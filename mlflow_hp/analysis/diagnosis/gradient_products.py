"""Products of the gradients of consecutive batches, from recorded gradients, or from the weights of plain SGD."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.history.step_record import gradient_columns
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

STEPS_PER_GROUP = 4
"""Steps whose batches form a group, where gradients follow from weights. More steps estimate the gradient better; with
fewer the weights drift less. Recorded gradients form groups of two steps, as products of further ones are unknown."""
MIN_GROUPS = 10
"""Least number of groups."""
MORE_THAN_GRADIENTS = ("momentum", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema")
"""Settings with which an update of SGD is not the gradient alone."""
NORM, COSINE = gradient_columns("", is_clipped=False)


class GradientProducts(NamedTuple):
    """Products of the gradients in groups of consecutive steps, with batches of one size.

    Attributes
    ----------
    step : ndarray of int, shape (n,)
        Index of the last step of each group.
    index_in_epoch : ndarray of int, shape (n,)
        The same, counted from the first step of its epoch. Where data are shuffled alike in each epoch, groups with one
        index have the same batches.
    square : ndarray of shape (n,)
        Mean of |g|^2.
    product : ndarray of shape (n,)
        Mean product of the gradients of two different steps.
    batch : int
        Number of samples in a batch.
    n_samples : float
        Number of samples in an epoch, from which batches are drawn without replacement; infinite if unknown.
    """

    step: np.ndarray
    index_in_epoch: np.ndarray
    square: np.ndarray
    product: np.ndarray
    batch: int
    n_samples: float


def has_gradients(history: TrainingHistory) -> bool:
    """Whether the gradients of an only optimizer were recorded."""
    return {NORM, COSINE} <= set(history.columns)


def reason_unknown(history: TrainingHistory) -> str | None:
    """Reason why the products of gradients are unknown; None if they follow from recorded gradients or weights.

    In plain gradient descent the update is -learning_rate x gradient. With momentum, adaptive rates, weight decay or
    clipping it is not.
    """
    recorded = has_gradients(history)
    reason = None if recorded else _reason_of_weights(history)
    if reason is not None:
        return reason
    if "samples" not in history.steps or (history.n_steps and not history.steps["samples"][0]):
        return "the batch sizes of the steps were not recorded"
    group = 2 if recorded else STEPS_PER_GROUP
    if history.n_steps < group * MIN_GROUPS:
        return f"{group * MIN_GROUPS} steps are needed, and it has {count(history.n_steps, 'step')}"
    if group * history.steps["samples"][0] > samples_of_an_epoch(history):
        return f"an epoch has fewer than {group} batches"
    return None


def gradient_products(history: TrainingHistory) -> GradientProducts:
    """Compute the products of gradients of a history for which ``reason_unknown`` is None, in the order of the steps.

    From the recorded norms and cosines, if there are any: two consecutive steps of an epoch form a group, each step
    with the one before. The cosine of a tensor of over 16,384 elements is that of a sample of them. Else from the
    recorded weights. Groups with batches of another size than the first's are left out, and those that are not finite.
    """
    step, square, product = (_of_gradients if has_gradients(history) else _of_weights)(history)
    first, batch = int(step[0]), int(history.steps["samples"][0])
    group = first + 1
    members = step[:, np.newaxis] - np.arange(group)
    usable = (history.steps["samples"][members] == batch).all(axis=1) & np.isfinite(square) & np.isfinite(product)
    if has_gradients(history) and "epoch" in history.steps:  # across epochs, batches are not without replacement
        usable &= np.ptp(history.steps["epoch"][members], axis=1) == 0
    step = step[usable]
    in_epoch = step - _first_steps(history)[step]
    return GradientProducts(step, in_epoch, square[usable], product[usable], batch, samples_of_an_epoch(history))


def _first_steps(history: TrainingHistory) -> np.ndarray:
    """Index of the first step of each step's epoch; 0 if the steps' epochs were not recorded."""
    if "epoch" not in history.steps:
        return np.zeros(history.n_steps, int)
    _, first, epoch = np.unique(history.steps["epoch"], return_index=True, return_inverse=True)
    return first[epoch]


def _of_gradients(history: TrainingHistory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Last step, mean square and mean product of each two consecutive steps."""
    norm, cosine = history.steps[NORM], history.steps[COSINE]
    with np.errstate(all="ignore"):
        square = (np.square(norm[1:]) + np.square(norm[:-1])) / 2
        return np.arange(1, history.n_steps), square, cosine[1:] * norm[1:] * norm[:-1]


def _of_weights(history: TrainingHistory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Last step, mean square and mean product of each ``STEPS_PER_GROUP`` steps, from updates of plain SGD."""
    steps, k = history.steps, STEPS_PER_GROUP
    groups = history.n_steps // k
    square, product = np.zeros((2, groups))
    rates = steps["learning_rate"][: groups * k].reshape(groups, k)
    for tensor in (tensor for tensor in history.tensors if tensor.trainable):
        path = history.weights(tensor.name).reshape(history.n_steps + 1, -1)
        block = max(1, 2**20 // (k * max(path.shape[1], 1)))  # groups at a time: limits float64 copies to a few MiB
        with np.errstate(all="ignore"):
            for start in range(0, groups, block):
                part = slice(start, min(start + block, groups))
                values = path[part.start * k : part.stop * k + 1].astype(np.float64)
                gradients = -np.diff(values, axis=0).reshape(-1, k, path.shape[1]) / rates[part, :, np.newaxis]
                own_squares = np.square(gradients).sum(axis=(1, 2))
                square[part] += own_squares / k
                product[part] += (np.square(gradients.sum(axis=1)).sum(axis=1) - own_squares) / (k * (k - 1))
    return np.arange(1, groups + 1) * k - 1, square, product


def _reason_of_weights(history: TrainingHistory) -> str | None:
    """Reason why the gradients do not follow from the recorded weights; None if they do."""
    settings = history.meta.get("optimizer", {})
    extra = [name for name in MORE_THAN_GRADIENTS if settings.get(name)]
    if history.recorded != "values":
        return "the gradients were not recorded, nor the weights at every step"
    if str(settings.get("name", "")).lower() != "sgd":
        return (
            "the gradients were not recorded, and only the updates of SGD are gradients, not those of "
            f"{settings.get('name', 'an unknown optimizer')}"
        )
    if extra:
        return (
            f"the gradients were not recorded, and with {' and '.join(extra)}, the updates of SGD are not its gradients"
        )
    return None if "learning_rate" in history.steps else "the learning rates of the steps were not recorded"


def samples_of_an_epoch(history: TrainingHistory) -> float:
    """Number of samples of the first epoch; infinite if the steps' epochs were not recorded."""
    if "epoch" not in history.steps:
        return math.inf
    epoch = history.steps["epoch"]
    return float(history.steps["samples"][epoch == epoch[0]].sum())
