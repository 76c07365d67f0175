"""The gradient noise scale: whether another batch size would train faster."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import learning_rate
from mlflow_hp.analysis.diagnosis.finding import Change, Finding, two_digits
from mlflow_hp.analysis.diagnosis.gradient_products import (
    MIN_GROUPS,
    gradient_products,
    reason_unknown,
    samples_of_an_epoch,
)
from mlflow_hp.history.step_record import learning_rates

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis.gradient_products import GradientProducts
    from mlflow_hp.history import TrainingHistory

SEGMENTS = 10
"""Largest number of segments of the training: the scale grows during training, and the median over the segments is
reported."""
CLEAR = 2.0
"""Standard errors by which the mean product of gradients in a segment should differ from 0. Where noise is larger,
there are fewer segments, which are longer."""
MIN_WINDOW = 100
"""Least number of products of gradients in a window of the noise scale by step, if it is chosen automatically."""
MAX_WINDOWS = 1000
"""Largest number of windows, which are evenly spaced."""
KNOWN = 0.5
"""Least share of the segments with an estimate, for a verdict on the batch size: where more of them have none, drift or
noise hide the gradient, and those that have one have it by chance."""
SURE = 3.0
"""Standard errors by which the mean product of gradients over the training has to exceed 0 for a verdict: |G|^2 is
then known to a third."""
MIN_PAIRS = 5
"""Least number of different groups of batches from which that standard error is known."""
GROWS = 1.5
"""Ratio of the last learning rate to its median above which a training is a learning-rate range test, whose gradients
change too fast: 2 where it grows linearly, 3 or more exponentially; 1 at most with a warm-up or a decay."""
FAR_ABOVE = 4.0
"""Ratio of batch size to noise scale from which a smaller batch is suggested: training then takes 1 + 4 = 5 times the
fewest possible samples."""
FAR_BELOW = 10.0
"""Ratio of noise scale to batch size from which a larger batch is suggested. It is larger because drift, where a step
reduces the next gradient, makes the estimate too large: up to 4 times in trainings of small networks. Then, too,
training takes more than 1 + 2 = 3 times the fewest possible steps."""
UNKNOWN, UNCERTAIN = "noise scale unknown", "noise scale uncertain"
"""Verdicts without and with an estimate, where it allows none on the batch size."""


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


class NoiseScaleSeries(NamedTuple):
    """The gradient noise scale by step.

    Attributes
    ----------
    step : ndarray of int, shape (n,)
        Last step of each window, 0-based.
    scale : ndarray of shape (n,)
        Noise scale in the window, in samples; nan where noise or drift leave the gradient unknown.
    batch : int
        Number of samples in a batch.
    """

    step: np.ndarray
    scale: np.ndarray
    batch: int


def gradient_noise(history: TrainingHistory) -> list[GradientNoise | None]:
    """Estimate |G|^2 and tr(Sigma) on up to ``SEGMENTS`` segments of equal length; None for one without an estimate.

    The mean product of the gradients of two batches is |G|^2, and the mean square of one of B samples is
    |G|^2 + tr(Sigma) / B. That is the estimate from the norms |g_B| and |g_kB| of batches of B and of k B samples
    (McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training, appendix A.1)::

        |G|^2 = (k B |g_kB|^2 - B |g_B|^2) / (k B - B)        tr(Sigma) = (|g_B|^2 - |g_kB|^2) / (1/B - 1/(k B))

    with the mean of k consecutive gradients as that of the k B samples: k = 2 for recorded gradients, else 4.

    Batches drawn without replacement from N samples differ slightly too much: the mean product of two of their
    gradients is biased by -tr(Sigma) / N, which is added back to |G|^2.

    Valid for histories for which ``reason_unknown`` is None, as long as k steps change the gradient little: a step
    against a batch's gradient g reduces the following ones along g, by learning_rate x curvature. Where that, or
    noise, makes the mean product of gradients negative or less than its standard error, the segment has no estimate.
    Close to that point |G|^2 is underestimated: from weights, on a network with learning rate 0.01, by half in the
    last segment before. Keras shuffles arrays alike in each epoch, so that further epochs add no other batches.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    list of GradientNoise or None
        One for each segment; None for one that tells neither.
    """
    products = gradient_products(history)
    n = len(products.step)
    parts = _segments(n, SEGMENTS)
    clear = np.median([abs(_errors_from_zero(products.product[part])) for part in parts]) if parts else 0.0
    if clear < CLEAR:  # a segment that is m times as long differs by sqrt(m) times as many standard errors
        parts = _segments(n, max(1, int(len(parts) * (clear / CLEAR) ** 2)))
    return [_noise(products, part) for part in parts]


def noise_scale_by_step(history: TrainingHistory, window: int | None = None) -> NoiseScaleSeries:
    """Compute the gradient noise scale over a moving window, at up to ``MAX_WINDOWS`` steps.

    Parameters
    ----------
    history : TrainingHistory
        A training for which ``reason_unknown`` is None.
    window : int, optional
        Number of products of gradients in a window, at most all; recorded gradients have one for each two consecutive
        steps. Defaults to a tenth of all, but at least 100.

    Returns
    -------
    NoiseScaleSeries
        A value for each window.
    """
    products = gradient_products(history)
    n = len(products.step)
    length = min(window or max(n // SEGMENTS, MIN_WINDOW), n)
    ends = np.unique(np.linspace(length, n, MAX_WINDOWS if length else 0).astype(int))
    noises = [_noise(products, slice(end - length, end)) for end in ends]
    scale = np.array([math.nan if noise is None else noise.scale for noise in noises])
    return NoiseScaleSeries(products.step[ends - 1], scale, products.batch)


def noise_scale(history: TrainingHistory) -> Finding:
    """Decide whether another batch size would train in fewer steps, or with fewer samples.

    At batch size B, training takes 1 + B_simple / B times the fewest possible steps, and 1 + B / B_simple times the
    fewest possible samples (McCandlish et al. 2018, section 2.3). It is fine unless B_simple is ``FAR_BELOW`` times
    B or more, or B is ``FAR_ABOVE`` times B_simple or more.

    The estimate takes the gradient of a batch for the mean of the gradients of independent samples. With batch
    normalisation, or a loss that compares samples of a batch, it is not; nor if data come in an order of their own.
    Dropout counts as noise of the samples.

    There is no verdict if fewer than ``KNOWN`` of the segments have an estimate, if the mean product of gradients is
    not ``SURE`` standard errors above 0, or in a learning-rate range test, by ``GROWS``. Gradients of the same batches
    in several epochs count once for the standard error.

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
        reason = (
            reason or "consecutive gradients point against or across each other, for noise or a large learning rate"
        )
        return Finding("noise_scale", UNKNOWN, f"The gradient noise scale is unknown: {reason}.", {})
    batch, n_samples = int(history.steps["samples"][0]), samples_of_an_epoch(history)
    scale = float(np.median([noise.scale for noise in estimates]))
    evidence = {"noise_scale": scale, "batch_size": batch}
    parts = f"{len(estimates)} of {len(segments)} parts of the training"
    where = f" in {parts}, unknown in the others" if len(estimates) < len(segments) else ""
    text = f"The gradient noise scale is about {two_digits(scale):g} samples{where}"
    doubt = _doubt(history, len(estimates) / len(segments))
    if doubt:
        return Finding("noise_scale", UNCERTAIN, f"{text}, but that is uncertain: {doubt}.", evidence)
    more_steps, more_samples = 1 + scale / batch, 1 + batch / max(scale, 1e-300)
    text += (
        f": batches of {batch} take {more_steps:.3g} times the fewest possible steps, and {more_samples:.3g} times the "
        "fewest possible samples."
    )
    better = 2 ** round(math.log2(min(max(scale, 1), n_samples)))
    if FAR_BELOW * batch > better > batch / FAR_ABOVE:
        verdict = "batch size is fine"
        if better > FAR_ABOVE * batch:
            verdict = "a larger batch may pay"
            text += " That may be up to four times too much, so no other batch size is clearly better."
        return Finding("noise_scale", verdict, text, evidence)
    evidence["suggested_batch_size"] = better
    if better < batch:
        text += " Batches this large are mostly redundant."
        suggestion = f"batch_size={better}, which learns as much from each sample"
        change = (Change("batch_size", batch, better),)
        return Finding(
            "noise_scale", "a smaller batch does", text, evidence, suggestion, severity="hint", change=change
        )
    text += " Noise dominates the gradients of batches this small."
    factor = (1 + scale / batch) / (1 + scale / better)  # section 2.2: the best learning rate scales so
    rate = learning_rate(history)
    with_rate = f" with a learning rate of up to {two_digits(rate * factor):g}" if rate else ""
    suggestion = f"batch_size={better}{with_rate}, where larger batches take no longer"
    with_it = (Change("learning_rate", rate, two_digits(rate * factor)),) if rate else ()
    change = (Change("batch_size", batch, better), *with_it)
    return Finding("noise_scale", "a larger batch pays", text, evidence, suggestion, severity="hint", change=change)


def certain_noise_scale(history: TrainingHistory) -> Finding | None:
    """Return the finding of `noise_scale`; None if it has no verdict."""
    finding = noise_scale(history)
    return None if finding.verdict in (UNKNOWN, UNCERTAIN) else finding


def _doubt(history: TrainingHistory, known: float) -> str | None:
    """Reason why the estimate in a share `known` of the segments allows no verdict; None if it does."""
    products = gradient_products(history)
    _, pair, counts = np.unique(products.index_in_epoch, return_inverse=True, return_counts=True)
    if known < KNOWN:
        return "it is unknown in most of the training"
    if len(counts) < MIN_PAIRS:
        return f"an epoch has fewer than {MIN_PAIRS} pairs of batches of one size"
    if _errors_from_zero(np.bincount(pair, products.product) / counts) < SURE:
        return "the gradients of different batches have little in common"
    rates = learning_rates(history.steps).get("learning rate")
    if rates is not None and rates[-1] > GROWS * np.median(rates):
        return "the learning rate grows to the end, as in a learning-rate range test"
    return None


def _segments(n: int, count: int) -> list[slice]:
    """Divide n groups of steps into up to `count` parts, none of which is too short."""
    ends = np.linspace(0, n, max(1, min(count, n // MIN_GROUPS)) + 1).astype(int)
    return [slice(start, end) for start, end in itertools.pairwise(ends) if end > start]


def _noise(products: GradientProducts, part: slice) -> GradientNoise | None:
    if _errors_from_zero(products.product[part]) <= 1:
        return None
    product = float(np.mean(products.product[part]))
    variance = max(products.batch * (float(np.mean(products.square[part])) - product), 0.0)
    return GradientNoise(product + variance / products.n_samples, variance)


def _errors_from_zero(values: np.ndarray) -> float:
    """Mean in standard errors; infinite for one of equal values."""
    mean, error = float(np.mean(values)), float(np.std(values)) / math.sqrt(max(len(values) - 1, 1))
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
