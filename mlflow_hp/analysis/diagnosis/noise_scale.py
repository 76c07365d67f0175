"""The gradient noise scale, from the recorded weights: whether another batch size would train faster."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import learning_rate
from mlflow_hp.analysis.diagnosis.finding import Finding, two_digits

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

STEPS_PER_GROUP = 4
"""Steps whose batches form one large batch. More steps estimate the gradient better; with fewer the weights drift
less."""
SEGMENTS = 10
"""Number of segments of the training: the scale grows during training, and the median over the segments is reported."""
MIN_GROUPS = 10
"""Least number of large batches in a segment."""
FAR = 4.0
"""Ratio of batch size and noise scale from which another batch size is suggested: training then takes 1 + 4 = 5 times
the fewest possible steps, or samples."""


MORE_THAN_GRADIENTS = ("momentum", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema")
"""Settings with which an update of SGD is not the gradient alone."""


class GradientNoise(NamedTuple):
    """Estimates over a segment of the training.

    Attributes
    ----------
    square : float
        |G|^2, the squared norm of the gradient over all data; positive.
    variance : float
        tr(Sigma), the summed variance of the gradient of one sample.
    """

    square: float
    variance: float

    @property
    def scale(self) -> float:
        """B_simple = tr(Sigma) / |G|^2, in samples."""
        return self.variance / self.square


def reason_unknown(history: TrainingHistory) -> str | None:
    """Reason why the batches' gradients do not follow from the recorded weights; None if they do.

    In plain gradient descent the update is -learning_rate x gradient. With momentum, adaptive rates, weight decay or
    clipping it is not.
    """
    settings = history.meta.get("optimizer", {})
    extra = [name for name in MORE_THAN_GRADIENTS if settings.get(name)]
    if history.recorded != "values":
        return "the weights were not recorded at every step"
    if str(settings.get("name", "")).lower() != "sgd":
        return f"only the updates of SGD are gradients, not those of {settings.get('name', 'an unknown optimizer')}"
    if extra:
        return f"with {' and '.join(extra)}, the updates of SGD are not its gradients"
    if not {"samples", "learning_rate"} <= set(history.steps):
        return "the batch sizes or learning rates of the steps were not recorded"
    if history.n_steps < STEPS_PER_GROUP * MIN_GROUPS:
        return f"{history.n_steps} steps are too few; {STEPS_PER_GROUP * MIN_GROUPS} are needed"
    if STEPS_PER_GROUP * history.steps["samples"][0] > _samples_of_an_epoch(history):
        return f"an epoch has fewer than {STEPS_PER_GROUP} batches"
    return None


def gradient_noise(history: TrainingHistory) -> list[GradientNoise | None]:
    """Estimate |G|^2 and tr(Sigma) on up to ``SEGMENTS`` segments of equal length; None for one without an estimate.

    From the squared norms of the gradients of batches of B and of k B samples, the latter being the mean over
    k = ``STEPS_PER_GROUP`` steps (McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training,
    appendix A.1)::

        |G|^2 = (k B |g_kB|^2 - B |g_B|^2) / (k B - B)        tr(Sigma) = (|g_B|^2 - |g_kB|^2) / (1/B - 1/(k B))

    Batches drawn without replacement from N samples differ slightly too much: the mean product of two of their
    gradients is biased by -tr(Sigma) / N, which is added back to |G|^2. Steps with a batch size other than the
    first's are left out.

    Valid for histories for which ``reason_unknown`` is None, as long as k steps change the gradient little: a step
    against a batch's gradient g reduces the following ones along g, by learning_rate x curvature. Where that, or
    noise, makes the mean product of gradients within the k steps negative, the segment has no estimate. Close to that
    point |G|^2 is underestimated: on a network with learning rate 0.01, by half in the last segment before.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    list of GradientNoise or None
        One for each stretch; None for one that tells neither.
    """
    steps, k = history.steps, STEPS_PER_GROUP
    groups = history.n_steps // k
    square, product = np.zeros((2, groups))  # by group: mean |g|^2, mean product of two different gradients
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
    batch = int(steps["samples"][0])
    complete = (steps["samples"][: groups * k].reshape(groups, k) == batch).all(axis=1)
    complete &= np.isfinite(square) & np.isfinite(product)
    segments = np.array_split(np.flatnonzero(complete), max(1, min(SEGMENTS, int(complete.sum()) // MIN_GROUPS)))
    n_samples = _samples_of_an_epoch(history)
    estimates: list[GradientNoise | None] = []
    for groups_used in (groups_used for groups_used in segments if len(groups_used)):
        mean_product = float(np.mean(product[groups_used]))
        variance = max(batch * (float(np.mean(square[groups_used])) - mean_product), 0.0)
        noise = GradientNoise(mean_product + variance / n_samples, variance)
        estimates.append(noise if mean_product > 0 else None)
    return estimates


def noise_scale(history: TrainingHistory) -> Finding:
    """Decide whether another batch size would train in less time, or with fewer samples.

    At batch size B, training takes 1 + B_simple / B times the fewest possible steps, and 1 + B / B_simple times the
    fewest possible samples (McCandlish et al. 2018, section 2.3). A B within ``FAR`` of B_simple is balanced.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding
        The finding.
    """
    reason = reason_unknown(history)
    segments = [] if reason else gradient_noise(history)
    estimates = [noise for noise in segments if noise is not None]
    if not estimates:
        reason = reason or "consecutive gradients point against each other, as noise or a large learning rate make them"
        return Finding("noise_scale", "noise scale unknown", f"The gradient noise scale is unknown: {reason}.", {})
    batch, n_samples = int(history.steps["samples"][0]), _samples_of_an_epoch(history)
    scale = float(np.median([noise.scale for noise in estimates]))
    evidence = {"noise_scale": scale, "batch_size": batch}
    parts = f"{len(estimates)} of {len(segments)} parts of the training"
    where = f" in {parts}, unknown in the others" if len(estimates) < len(segments) else ""
    more_steps, more_samples = 1 + scale / batch, 1 + batch / max(scale, 1e-300)
    text = (
        f"The gradient noise scale is about {scale:.2g} samples{where}: batches of {batch} take {more_steps:.3g} times "
        f"the fewest possible steps, and {more_samples:.3g} times the fewest possible samples."
    )
    better = 2 ** round(math.log2(min(max(scale, 1), n_samples)))
    if better >= FAR * batch:
        factor = (1 + scale / batch) / (1 + scale / better)  # section 2.2: the best learning rate scales so
        rate = learning_rate(history)
        suggestion = f"batch_size={better} with a learning rate of up to {two_digits((rate or 1) * factor):g}"
        suggestion = suggestion if rate else f"batch_size={better}"
        suggestion += ", where larger batches take no longer"
        return Finding(
            "noise_scale", "a larger batch pays", text, {**evidence, "suggested_batch_size": better}, suggestion
        )
    if better * FAR <= batch:
        suggestion = f"batch_size={better}, which learns as much from each sample"
        return Finding(
            "noise_scale", "a smaller batch does", text, {**evidence, "suggested_batch_size": better}, suggestion
        )
    return Finding("noise_scale", "batch size is balanced", text, evidence)


def _samples_of_an_epoch(history: TrainingHistory) -> float:
    """Number of samples of the first epoch; infinite if the steps' epochs were not recorded."""
    if "epoch" not in history.steps:
        return math.inf
    epoch = history.steps["epoch"]
    return float(history.steps["samples"][epoch == epoch[0]].sum())
