"""Rules on layers: dead and saturated units, vanishing and exploding updates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import SMALLER, change_rate, first_losses
from mlflow_hp.analysis.diagnosis.finding import Change, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.history import TrainingHistory

DEAD = 0.4
"""Share of dead units above which a layer is reported: the effect of too high a learning rate according to Karpathy's
CS231n notes (Neural networks 1: commonly used activation functions)."""
SATURATED = 0.5
"""Share of saturated outputs above which a layer is reported; a rough heuristic. At such an output the slope of the
activation is below 4 % of its largest (Glorot and Bengio 2010, "Understanding the difficulty of training deep
feedforward neural networks")."""
HEALTHY = 1e-3
"""Healthy update of a tensor in a step, relative to the tensor; a rough heuristic (the same notes, Neural networks 3:
ratio of weights:updates)."""
VANISHING = (1e-2, 1e-5)
"""A layer's updates vanish below this share of the largest ratio (not of the median, which vanishes where most layers
do) and below this ratio, a hundredth of ``HEALTHY``."""
FEWEST_STEPS = 20
"""Number of steps from which the updates of the last quarter are not those of the beginning."""
JUMP = 3.0
"""Ratio of a batch's loss to that of the first ones from which a learning rate is the cause of what stands still."""
EXPLODING = 0.1
"""Ratio above which a layer's updates explode: a hundred times ``HEALTHY``; ten steps replace the weights."""


def dead_units(shares: Mapping[str, float]) -> Finding | None:
    """Detect layers in which over ``DEAD`` of the units output 0 for every sample.

    Parameters
    ----------
    shares : mapping of str to float
        Layer -> share of such units, 0 to 1, in the order of the layers.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    dead = {layer: float(share) for layer, share in shares.items() if share > DEAD}
    if not dead:
        return None
    listed = ", ".join(f"{share:.0%} of {layer}" for layer, share in dead.items())
    text = f"Units that output 0 for every sample, and so cannot learn: {listed}."
    evidence = {"largest_dead_share": max(dead.values()), "layers_dying": len(dead)}
    return Finding(
        "dead_units",
        "dead units",
        text,
        evidence,
        "He initialisation, or activation=leaky_relu",
        severity="problem",
        cause="the learning rate was too large, or the initialisation is unsuitable",
        where={"layer": max(dead, key=dead.__getitem__)},
        change=tuple(Change("kernel_initializer", None, "he_normal", layer) for layer in dead),
    )


def saturated_units(shares: Mapping[str, float]) -> Finding | None:
    """Detect sigmoid and tanh layers with over ``SATURATED`` of their outputs at the ends of the range.

    Parameters
    ----------
    shares : mapping of str to float
        Layer -> share of such outputs, 0 to 1, in the order of the layers; without layers whose outputs are those of
        the model, where an output at an end is a confident prediction.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    saturated = {layer: float(share) for layer, share in shares.items() if share > SATURATED}
    if not saturated:
        return None
    listed = ", ".join(f"{share:.0%} of {layer}" for layer, share in saturated.items())
    text = f"Outputs at the ends of the range of sigmoid or tanh, where hardly any gradient passes: {listed}."
    evidence = {"largest_saturated_share": max(saturated.values()), "layers_saturated": len(saturated)}
    suggestion = "normalised inputs and Glorot initialisation, or batch normalisation"
    return Finding(
        "saturated_units",
        "saturated units",
        text,
        evidence,
        suggestion,
        severity="problem",
        cause="inputs or weights are too large for the activation",
        where={"layer": max(saturated, key=saturated.__getitem__)},
        change=(Change("standardize", False, True),),
    )


def update_ratios(history: TrainingHistory) -> dict[str, float]:
    """Median of |update| / |tensor| over the last quarter of the steps, by trainable tensor of two or more dimensions.

    Of a large tensor, whose statistics are not taken at every step: over those steps of the last quarter at which they
    were, or the last one before. Biases are left out: they begin at 0, where the ratio is infinite. nan for a tensor
    that stays 0. Empty if neither weights nor statistics were recorded. Each tensor is read once.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    dict of str to float
        Tensor -> ratio.
    """
    kernels = [t for t in history.tensors if t.trainable and len(t.shape) >= 2 and history.recorded != "none"]
    ratios = {}
    for tensor in kernels if history.n_steps else ():
        statistics, taken = history.statistics(tensor.name), np.flatnonzero(history.has_statistics(tensor.name))
        late = taken[taken > history.n_steps - max(history.n_steps // 4, 1)]
        ratio = statistics["update_ratio"][late if len(late) else taken[-1:]]
        if np.isfinite(ratio).any():
            ratios[tensor.name] = float(np.median(ratio[np.isfinite(ratio)]))
        elif not statistics["norm"][taken].any():
            ratios[tensor.name] = math.nan
    return ratios


def layers(history: TrainingHistory) -> Finding | None:
    """Detect layers whose weights hardly move while others do, do not move at all, or are replaced in a few steps.

    By ``update_ratios``: below ``VANISHING``, 0, or over ``EXPLODING``. If all layers move little, training has
    converged or the learning rate is small, which the rules on the curves cover.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    ratios = update_ratios(history) if history.n_steps >= FEWEST_STEPS else {}
    if not ratios:
        return None
    largest = max((ratio for ratio in ratios.values() if ratio > 0), default=0.0)
    zero = [name for name, ratio in ratios.items() if math.isnan(ratio)]
    still = [name for name, ratio in ratios.items() if ratio == 0]
    vanishing = [name for name, ratio in ratios.items() if ratio < min(VANISHING[0] * largest, VANISHING[1])]
    exploding = [name for name, ratio in ratios.items() if ratio > EXPLODING]
    smallest = min(0.0 if math.isnan(ratio) else ratio for ratio in ratios.values())
    evidence: dict[str, Any] = {"smallest_update_ratio": smallest, "largest_update_ratio": largest}
    listed = ", ".join(f"{name} {ratio:.1e}" for name, ratio in ratios.items())
    if exploding:
        smaller = change_rate(history, SMALLER)
        text = f"A step changes {', '.join(exploding)} by over {EXPLODING:.0%} ({HEALTHY:.1%} is healthy): {listed}."
        return Finding(
            "layers",
            "exploding updates",
            text,
            evidence | smaller.evidence,
            f"{smaller.text}, or clipnorm=1",
            severity="problem",
            cause="the learning rate is too large",
            where=_first_layer(exploding),
            change=smaller.change,
        )
    if zero:
        text = f"{', '.join(zero)} stayed 0: with a zero initialisation no gradient reaches it."
        return Finding(
            "layers",
            "layers stay 0",
            text,
            evidence,
            "a random initialisation (He for ReLU, Glorot else)",
            severity="problem",
            cause="zero initialisation",
            where=_first_layer(zero),
            change=tuple(Change("kernel_initializer", "zeros", "glorot_uniform", _layer_of(name)) for name in zero),
        )
    if still:
        if not _has_jumped(history):
            return _never_moved(still, evidence)
        smaller = change_rate(history, SMALLER**2)
        text = f"{', '.join(still)} did not move over the last quarter of the steps: no gradient reaches it any more."
        return Finding(
            "layers",
            "layers stand still",
            text,
            evidence | smaller.evidence,
            smaller.text,
            severity="problem",
            where=_first_layer(still),
            change=smaller.change,
        )
    if vanishing:
        text = f"{', '.join(vanishing)} hardly learns compared with the other layers; median update ratios: {listed}."
        suggestion = "He initialisation with ReLU, or batch normalisation"
        return Finding(
            "layers",
            "vanishing updates",
            text,
            evidence,
            suggestion,
            severity="problem",
            cause="gradients vanish on their way to these layers",
            where=_first_layer(vanishing),
            change=tuple(Change("activation", None, "relu", _layer_of(name)) for name in vanishing),
        )
    return None


def _has_jumped(history: TrainingHistory) -> bool:
    """Whether the loss of a batch was far above that of the first ones, as where a learning rate is too large."""
    first, loss = first_losses(history), history.steps.get("batch_loss", np.zeros(0))
    return not len(loss) or (len(first) > 0 and bool((loss > JUMP * float(np.median(first[:3]))).any()))


def _never_moved(still: Sequence[str], evidence: dict[str, Any]) -> Finding:
    text = (
        f"{', '.join(still)} did not move over the last quarter of the steps, and the loss never jumped: no gradient "
    )
    text += "reaches it, and did not at the start."
    return Finding(
        "layers",
        "layers stand still",
        text,
        evidence,
        "He initialisation and biases of 0, or activation=leaky_relu",
        severity="problem",
        cause="an initialisation or activation that lets no gradient through",
        where=_first_layer(still),
        change=tuple(Change("kernel_initializer", None, "he_normal", _layer_of(name)) for name in still),
    )


def _layer_of(tensor: str) -> str:
    """Name of the layer of a tensor."""
    return tensor.rsplit("/", 1)[0]


def _first_layer(tensors: Sequence[str]) -> dict[str, Any]:
    return {"layer": _layer_of(tensors[0])}
