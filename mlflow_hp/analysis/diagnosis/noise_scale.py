"""Whether the batch size is worth its time: the gradient noise scale, from the recorded weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import learning_rate
from mlflow_hp.analysis.diagnosis.finding import Finding, two_digits

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

TOGETHER = 4
"""Steps whose batches make one large batch: more tell the gradient better, fewer let the weights drift less."""
STRETCHES = 10
"""The scale grows as training goes on: it is estimated on so many stretches, and their median is told."""
FEWEST_GROUPS = 10
"""Large batches in a stretch, under which it tells nothing."""
FAR = 4.0
"""Factor between batch size and noise scale from which another batch size is suggested: at it, training takes
1 + 4 = 5 times as many steps, or samples, as the least there are."""


MORE_THAN_GRADIENTS = ("momentum", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema")
"""Settings with which an update of SGD is more than the gradient."""


class GradientNoise(NamedTuple):
    """Estimates over a stretch of steps.

    Attributes
    ----------
    square : float
        |G|^2 of the gradient over all data, over 0.
    variance : float
        tr(Sigma), the summed variance of the gradient of one sample.
    """

    square: float
    variance: float

    @property
    def scale(self) -> float:
        """B_simple = tr(Sigma) / |G|^2, in samples."""
        return self.variance / self.square


def unknown_because(history: TrainingHistory) -> str | None:
    """Why the recorded weights don't tell the batches' gradients; None where they do.

    Under plain gradient descent the update is -learning_rate x gradient. Momentum, adaptive rates, weight decay and
    clipping put more into it.
    """
    settings = history.meta.get("optimizer", {})
    more = [name for name in MORE_THAN_GRADIENTS if settings.get(name)]
    if history.recorded != "values":
        return "the weights were not recorded at every step"
    if str(settings.get("name", "")).lower() != "sgd":
        return f"only the updates of SGD are gradients, not those of {settings.get('name', 'an unknown optimizer')}"
    if more:
        return f"with {' and '.join(more)}, the updates of SGD are not its gradients"
    if not {"samples", "learning_rate"} <= set(history.steps):
        return "the batch sizes or learning rates of the steps were not recorded"
    if history.n_steps < TOGETHER * FEWEST_GROUPS:
        return f"{history.n_steps} steps are too few; it takes {TOGETHER * FEWEST_GROUPS}"
    if TOGETHER * history.steps["samples"][0] > _samples_of_an_epoch(history):
        return f"an epoch has fewer than {TOGETHER} batches"
    return None


def gradient_noise(history: TrainingHistory) -> list[GradientNoise | None]:
    """|G|^2 and tr(Sigma) on up to ``STRETCHES`` stretches of equal length; None for one that tells neither.

    From the squared norms of the gradients of batches of B and of k B samples, the latter being the mean over
    k = ``TOGETHER`` steps (McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training,
    appendix A.1)::

        |G|^2 = (k B |g_kB|^2 - B |g_B|^2) / (k B - B)        tr(Sigma) = (|g_B|^2 - |g_kB|^2) / (1/B - 1/(k B))

    Batches drawn without replacement from N samples are a little too different, by -tr(Sigma) / N in the mean
    product of two, which is added to |G|^2. Steps of other batch sizes than the first's are left out.

    Valid for histories for which ``unknown_because`` is None, while k steps change the gradient little: a step against
    a batch's gradient g makes the next ones smaller along g, by learning_rate x curvature. Where that, or noise, turns
    the mean product of gradients within the k steps negative, the stretch is None. On the way there |G|^2 comes out too
    small: on a network with learning rate 0.01, by a half in the last stretch before.
    """
    steps, k = history.steps, TOGETHER
    groups = history.n_steps // k
    square, product = np.zeros((2, groups))  # by group: mean |g|^2, mean product of two different gradients
    rates = steps["learning_rate"][: groups * k].reshape(groups, k)
    for tensor in (tensor for tensor in history.tensors if tensor.trainable):
        path = history.weights(tensor.name).reshape(history.n_steps + 1, -1)
        block = max(1, 2**20 // (k * max(path.shape[1], 1)))  # groups at a time: the float64 copies stay at some MiB
        with np.errstate(all="ignore"):
            for start in range(0, groups, block):
                part = slice(start, min(start + block, groups))
                values = path[part.start * k : part.stop * k + 1].astype(np.float64)
                gradients = -np.diff(values, axis=0).reshape(-1, k, path.shape[1]) / rates[part, :, np.newaxis]
                own = np.square(gradients).sum(axis=(1, 2))
                square[part] += own / k
                product[part] += (np.square(gradients.sum(axis=1)).sum(axis=1) - own) / (k * (k - 1))
    batch = int(steps["samples"][0])
    whole = (steps["samples"][: groups * k].reshape(groups, k) == batch).all(axis=1)
    whole &= np.isfinite(square) & np.isfinite(product)
    parts = np.array_split(np.flatnonzero(whole), max(1, min(STRETCHES, int(whole.sum()) // FEWEST_GROUPS)))
    n_samples = _samples_of_an_epoch(history)
    found: list[GradientNoise | None] = []
    for chosen in (chosen for chosen in parts if len(chosen)):
        mean_product = float(np.mean(product[chosen]))
        variance = max(batch * (float(np.mean(square[chosen])) - mean_product), 0.0)
        noise = GradientNoise(mean_product + variance / n_samples, variance)
        found.append(noise if mean_product > 0 else None)
    return found


def noise_scale(history: TrainingHistory) -> Finding:
    """Whether another batch size would train in less time, or with fewer samples.

    At batch size B, training takes 1 + B_simple / B times the fewest steps that it can take, and 1 + B / B_simple
    times the fewest samples (McCandlish et al. 2018, section 2.3). A B within ``FAR`` of B_simple is balanced.
    """
    why = unknown_because(history)
    stretches = [] if why else gradient_noise(history)
    found = [noise for noise in stretches if noise is not None]
    if not found:
        why = why or "consecutive gradients point against each other, as noise or a large learning rate make them"
        return Finding("noise_scale", "noise scale unknown", f"The gradient noise scale is unknown: {why}.", {})
    batch, n_samples = int(history.steps["samples"][0]), _samples_of_an_epoch(history)
    scale = float(np.median([noise.scale for noise in found]))
    evidence = {"noise_scale": scale, "batch_size": batch}
    parts = f"{len(found)} of {len(stretches)} parts of the training"
    where = f" in {parts}, the others not telling it" if len(found) < len(stretches) else ""
    more_steps, more_samples = 1 + scale / batch, 1 + batch / max(scale, 1e-300)
    text = (
        f"The gradient noise scale is about {scale:.2g} samples{where}: batches of {batch} take {more_steps:.3g} times "
        f"the fewest possible steps, and {more_samples:.3g} times the fewest possible samples."
    )
    better = 2 ** round(math.log2(min(max(scale, 1), n_samples)))
    if better >= FAR * batch:
        factor = (1 + scale / batch) / (1 + scale / better)  # their section 2.2: the best rate goes as this
        rate = learning_rate(history)
        told = f"batch_size={better} with a learning rate of up to {two_digits((rate or 1) * factor):g}"
        told = told if rate else f"batch_size={better}"
        told += ", where larger batches take no longer"
        return Finding("noise_scale", "a larger batch pays", text, {**evidence, "suggested_batch_size": better}, told)
    if better * FAR <= batch:
        told = f"batch_size={better}, which learns as much from each sample"
        return Finding("noise_scale", "a smaller batch does", text, {**evidence, "suggested_batch_size": better}, told)
    return Finding("noise_scale", "batch size is balanced", text, evidence)


def _samples_of_an_epoch(history: TrainingHistory) -> float:
    """How many samples the first epoch had; infinite where the steps don't say which epoch they belong to."""
    if "epoch" not in history.steps:
        return math.inf
    epoch = history.steps["epoch"]
    return float(history.steps["samples"][epoch == epoch[0]].sum())
