"""Rules on the settings of the optimizer and of the fit: learning rate, momentum, clipping, batches, epochs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.analysis.diagnosis.finding import Change, Finding, two_digits
from mlflow_hp.analysis.diagnosis.program.facts import is_adaptive, n_steps
from mlflow_hp.analysis.diagnosis.program.graph import is_linear_model
from mlflow_hp.analysis.diagnosis.program.schedules import is_schedule, largest_rate, rate_at
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.history.program import Callback, Program


class UsualRate(NamedTuple):
    """Learning rates of an optimizer: those that work rarely, seldom, and the one to try.

    Attributes
    ----------
    far_too_low, low : float
        Below these a rate is a problem, or a hint.
    usual : float
        Rate to try.
    high, far_too_high : float
        Above these a rate is a hint, or a problem.
    """

    far_too_low: float
    low: float
    usual: float
    high: float
    far_too_high: float


_ADAM = UsualRate(4e-6, 1e-5, 1e-3, 0.02, 0.08)
USUAL_RATES = {
    "SGD": UsualRate(1.5e-4, 3e-4, 0.01, 0.6, 0.9),
    "Adam": _ADAM, "AdamW": _ADAM, "Nadam": _ADAM, "Adamax": _ADAM, "RMSprop": _ADAM,
    "Lion": UsualRate(3e-7, 3e-6, 1e-4, 5e-3, 0.03),
    "Ftrl": UsualRate(0.01, 0.05, 0.3, 0.6, 0.9),
    "Adagrad": UsualRate(3e-4, 2e-3, 0.05, 0.6, 0.9),
    "Adadelta": UsualRate(5e-3, 0.05, 1.0, 5.0, 20.0),
}  # fmt: skip
"""Optimizer -> its usual learning rates: Keras' documentation of each (defaults; Adadelta: "to match the exact form in
the original paper, use 1.0"), Bengio 2012, Practical recommendations for gradient-based training, section 3.1.1 (SGD:
1e-6 to 1, often 0.01), Chen et al. 2023 (Lion: a tenth of Adam's); bounds as measured on digits."""
NEAR_ONE, LONG_MEMORY = 0.98, 3.0
"""Momentum from which the rate has to be smaller, and effective rate, rate / (1 - momentum), from which it is not."""
REACH = 0.1
"""Way that clipped steps can go in the whole training, below which a network cannot be trained."""
NEGLIGIBLE_RATE = 1e-3
"""Share of the largest rate of a schedule below which it is at zero."""
FEW_STEPS = 100
"""Updates below which a training has hardly begun."""
ENOUGH_STEPS = 300
"""Steps at the usual rate whose way makes up for a small rate."""
LARGE_MODEL = 1_000_000
"""Number of weights from which a model is seldom trained from the start."""
LINEAR = 10
"""So many times larger rates are usual for models without hidden layers."""
OWN_SCHEDULE = re.compile(r"learningrate|schedule|lr|cycl|warm|finder", re.IGNORECASE)
"""Names of callbacks that set the learning rate themselves."""


def no_learning_rate(program: Program) -> Finding | None:
    """Detect a learning rate of 0: nothing is trained.

    Source: the update of each optimizer is a multiple of the rate. Threshold: a number, and no callback that may set
    another.
    """
    rate = program.optimizer.get("learning_rate")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate != 0 or _setters(program):
        return None
    usual = USUAL_RATES.get(str(program.optimizer.get("name")))
    better = 0.001 if usual is None else usual.usual
    return Finding(
        "no_learning_rate",
        "learning rate 0",
        "The learning rate is 0: no weight is changed.",
        {"learning_rate": 0.0, "suggested_learning_rate": better},
        f"learning_rate={better:g}",
        "problem",
        "a learning rate of 0",
        {},
        (Change("learning_rate", 0.0, better),),
    )


def unusual_learning_rate(program: Program) -> Finding | None:
    """Detect a learning rate far from those that the optimizer usually needs.

    Source and thresholds: `USUAL_RATES`. With momentum the rate of SGD counts as rate / (1 - momentum) (Sutskever et
    al. 2013, On the importance of initialization and momentum). Many steps make up for a small rate; of few steps it
    has to be three times as large. Measured on digits, right of the held-out after 600 steps: SGD(0.0001) 11 %,
    SGD(0.01) 84 %, SGD(0.3) 96 %, SGD(1) 10 %; Adam(1e-5) 13 %, Adam(1e-4) 83 %, Adam(0.01) 96 %, Adam(0.1) 70 %. Hints
    only: large rates of SGD with normalisation or without hidden layers, small ones of partly frozen or large models,
    which may have been trained before. Fits with a callback that sets the rate are left alone.
    """
    usual, rate = USUAL_RATES.get(str(program.optimizer.get("name"))), largest_rate(program.optimizer)
    if usual is None or rate is None or rate <= 0 or any(OWN_SCHEDULE.search(each.kind) for each in _setters(program)):
        return None
    momentum = program.optimizer.get("momentum") if program.optimizer.get("name") == "SGD" else 0
    effective = rate / (1 - min(float(momentum or 0), 0.999))
    is_linear, may_be_trained, steps = is_linear_model(program), _may_be_trained(program), n_steps(program)
    is_short = steps is not None and steps * effective < FEW_STEPS / 5 * usual.usual and not may_be_trained
    more = 3 if is_short else 1
    is_low = effective < more * usual.low
    if not is_low and rate <= usual.high * (LINEAR if is_linear else 1):
        return None
    if is_low:
        if (steps or 0) * effective > ENOUGH_STEPS * usual.usual:
            return None
        is_far = effective < more * usual.far_too_low and not may_be_trained
    else:
        is_normalised = any("Normalization" in layer.kind for layer in program.layers)
        is_far = rate > usual.far_too_high and not is_linear and not (is_normalised and rate <= 3 * usual.far_too_high)
    name = program.optimizer["name"]
    return Finding(
        "unusual_learning_rate",
        "tiny learning rate" if is_low else "huge learning rate",
        f"The learning rate {rate:g} is {'below' if is_low else 'above'} what {name} usually needs, {usual.low:g} to "
        f"{usual.high:g}.",
        {"learning_rate": rate, "suggested_learning_rate": usual.usual},
        f"{name}(learning_rate={usual.usual:g})",
        "problem" if is_far else "hint",
        "too small a learning rate" if is_low else "too large a learning rate",
        {},
        (Change("learning_rate", rate, usual.usual),),
    )


def schedule_ends_early(program: Program) -> Finding | None:
    """Detect a schedule of the learning rate that is at zero long before the training ends.

    Source: Keras' documentation of learning rate schedules (``decay_steps`` counts steps, not epochs). Threshold: below
    a thousandth of its largest rate when the first of several epochs ends (a problem), or when half of the training is
    over (a hint).
    """
    steps, epochs = program.fit.get("steps"), program.fit.get("epochs")
    largest = largest_rate(program.optimizer)
    if not is_schedule(program.optimizer) or not largest or not isinstance(steps, (int, float)) or not epochs:
        return None
    total = steps * epochs
    after_first, at_half = rate_at(program.optimizer, steps), rate_at(program.optimizer, total / 2)
    if after_first is None or at_half is None or at_half >= NEGLIGIBLE_RATE * largest or epochs < 2:
        return None
    is_first = after_first < NEGLIGIBLE_RATE * largest
    old = program.optimizer.get("learning_rate.decay_steps")
    kind = program.optimizer["learning_rate"]
    return Finding(
        "schedule_ends_early",
        "schedule at zero",
        f"{kind} is at {(after_first if is_first else at_half):.2g} after "
        f"{f'the first of {epochs} epochs' if is_first else 'half of the training'}: its decay_steps count steps, of "
        f"which the training has {total:g}.",
        {"rate_after_first_epoch": after_first, "training_steps": total},
        f"{kind}(..., decay_steps={total:g})",
        "problem" if is_first else "hint",
        "a schedule that ends too early",
        {},
        (Change("schedule", old, total),),
    )


def momentum_near_one(program: Program) -> Finding | None:
    """Detect a momentum near 1 with the learning rate of a smaller one.

    A step is repeated 1 / (1 - momentum) times in effect. Source: Goh 2017, Why momentum really works; Sutskever et al.
    2013, table 1 (0.99 and more with small rates). Threshold: a momentum of 0.98 or more whose effective rate is over 3
    times the usual 0.1 / (1 - 0.9) of SGD, or of 1 or more.
    """
    momentum, rate = program.optimizer.get("momentum"), largest_rate(program.optimizer)
    if not isinstance(momentum, (int, float)) or rate is None or program.optimizer.get("name") != "SGD":
        return None
    if momentum < NEAR_ONE or (momentum < 1 and rate / (1 - momentum) <= LONG_MEMORY / 3):
        return None
    effective = rate / (1 - momentum) if momentum < 1 else float("inf")
    smaller = two_digits(rate * (1 - momentum) / 0.1) if momentum < 1 else rate
    text = f"momentum={momentum:g} with learning_rate={rate:g} acts as a rate of {effective:.3g} that looks back over "
    text += f"{1 / (1 - momentum):.0f} steps." if momentum < 1 else "all steps."
    return Finding(
        "momentum_near_one",
        "long memory",
        text,
        {"momentum": momentum},
        f"momentum=0.9, or learning_rate={smaller:g}" if momentum < 1 else "momentum=0.9",
        "problem" if effective > LONG_MEMORY or momentum >= 1 else "hint",
        "momentum near 1 without a smaller rate",
        {},
        (Change("momentum", momentum, 0.9),),
    )


def strong_weight_decay(program: Program) -> Finding | None:
    """Detect a weight decay that takes the weights away as fast as they learn.

    Each step multiplies them by 1 - rate * decay, so that they forget what is 1 / (rate * decay) steps old. Source:
    Loshchilov and Hutter 2019, Decoupled weight decay regularization (decays of 0.001 to 0.1 at a rate of 0.001).
    Threshold: a product of 1 / 300 (a hint), of 1 / 100 (a problem).
    """
    decay, rate = program.optimizer.get("weight_decay"), largest_rate(program.optimizer)
    if not isinstance(decay, (int, float)) or rate is None or rate * decay < 1 / 300:
        return None
    return Finding(
        "strong_weight_decay",
        "strong decay",
        f"weight_decay={decay:g} with learning_rate={rate:g} takes {rate * decay:.1%} of each weight in a step: "
        f"nothing that is learned lasts longer than some {1 / (rate * decay):.0f} steps.",
        {"decay_of_a_step": rate * decay},
        "weight_decay=0.004",
        "problem" if rate * decay >= 1 / 100 else "hint",
        "too strong a weight decay",
        {},
        (Change("weight_decay", decay, 0.004),),
    )


def clipped_every_step(program: Program, gradient_norm: float | None = None) -> Finding | None:
    """Detect a bound on gradients that clips every step.

    Without an adaptive optimizer, clipped steps go at most rate / (1 - momentum) * bound each: a problem if all steps
    of the training together go less than 0.1. Source: Pascanu, Mikolov and Bengio 2013, On the difficulty of training
    recurrent neural networks, section 3.2 (a bound of half to ten times the average norm). Threshold: a recorded
    median norm over twice the bound (a hint).

    Parameters
    ----------
    program : Program
        Description of a program.
    gradient_norm : float, optional
        Median of the norms of the gradients before they are clipped. Defaults to unknown.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    name = next((each for each in ("clipnorm", "global_clipnorm", "clipvalue") if program.optimizer.get(each)), None)
    bound = program.optimizer.get(name or "")
    rate, steps = largest_rate(program.optimizer), n_steps(program)
    if name is None or not isinstance(bound, (int, float)) or rate is None:
        return None
    momentum = min(float(program.optimizer.get("momentum") or 0), 0.999)
    reach = None if steps is None or is_adaptive(program) else rate / (1 - momentum) * bound * steps
    is_short = reach is not None and reach < (REACH if name != "clipvalue" else REACH / 10)
    is_clipped = gradient_norm is not None and name != "clipvalue" and gradient_norm > 2 * bound
    if not is_short and not is_clipped:
        return None
    better = 1.0 if name != "clipvalue" else 0.5
    if gradient_norm is not None:
        better = two_digits(max(gradient_norm, 1.0))
    text = f"{name}={bound:g}: "
    if is_clipped:
        text += f"the median gradient has norm {gradient_norm:.3g}, so that steps are clipped."
    else:
        text += f"all steps of the training together move the weights by at most {reach:.2g}."
    return Finding(
        "clipped_every_step",
        "clips every step",
        text,
        {name: float(bound)},
        f"{name}={better:g}",
        "problem" if is_short else "hint",
        "gradients are clipped too far",
        {},
        (Change(name if name != "global_clipnorm" else "clipnorm", bound, better),),
    )


def batch_larger_than_data(program: Program) -> Finding | None:
    """Suggest smaller batches where one holds more than all samples. Threshold: more than the samples; a hint.

    Source: Keras' documentation of ``fit`` (``batch_size``); Bengio 2012, section 3.1.1 (32 is a good default).
    """
    size, steps = program.fit.get("batch_size"), program.fit.get("steps")
    data = program.training.inputs[0] if program.training and program.training.inputs else None
    if data is None or not isinstance(size, (int, float)) or size <= data.n_samples or data.n_samples < 2:
        return None
    if isinstance(steps, (int, float)) and steps > 1:
        return None
    smaller = max(min(32, data.n_samples // 8), 1)
    return Finding(
        "batch_larger_than_data",
        "one batch",
        f"batch_size={size:g} is more than the data have, {count(data.n_samples, 'sample')}: an epoch is one step.",
        {"batch_size": float(size), "n_samples": data.n_samples},
        f"batch_size={smaller}",
        "hint",
        "batches larger than the data",
        {},
        (Change("batch_size", size, smaller),),
    )


def few_steps(program: Program) -> Finding | None:
    """Suggest more epochs where there is one, or where all of them are few steps.

    Threshold: a single epoch, or under 100 updates; a hint, as a fit may be one of several. Source: with Adam a weight
    moves by at most about the learning rate in a step (Kingma and Ba 2015, section 2.1).
    """
    epochs, total = program.fit.get("epochs"), n_steps(program)
    if not isinstance(epochs, int) or epochs < 1 or (total is not None and total >= 10 * FEW_STEPS):
        return None
    if epochs > 1 and (total is None or total >= FEW_STEPS):
        return None
    better = 20 if total is None else max(-(-10 * FEW_STEPS * epochs // max(int(total), 1)), 2 * epochs)
    better = int(two_digits(min(better, 500)))
    steps = "" if total is None else f", {count(round(total), 'step')} in all"
    return Finding(
        "few_steps",
        "few steps",
        f"The training has {count(epochs, 'epoch')}{steps}.",
        {"epochs": epochs} | ({} if total is None else {"training_steps": total}),
        f"epochs={better}",
        "hint",
        "too few epochs",
        {},
        (Change("epochs", epochs, better),),
    )


def _may_be_trained(program: Program) -> bool:
    """Whether a model may have been trained before: part of it is frozen, or it is large."""
    is_frozen = any(layer.n_weights and not layer.trainable for layer in program.layers)
    return is_frozen or sum(layer.n_weights for layer in program.layers) > LARGE_MODEL


def _setters(program: Program) -> list[Callback]:
    """Callbacks that may set the learning rate before it matters; ReduceLROnPlateau only lowers it later."""
    return [each for each in program.callbacks if each.kind != "ReduceLROnPlateau"]
