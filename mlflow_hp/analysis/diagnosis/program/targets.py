"""Rules on the targets as data: not finite, of huge scale, unequal classes, sorted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import (
    CROSS_ENTROPIES,
    REGRESSION_LOSSES,
    SQUARED,
    accuracies,
    answers,
    are_exclusive,
    is_adaptive,
    is_column,
    n_steps,
    task,
    task_of,
)
from mlflow_hp.analysis.diagnosis.program.graph import is_linear_model
from mlflow_hp.analysis.diagnosis.program.schedules import largest_rate

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis.program.facts import Answer
    from mlflow_hp.history.program import Program

LEAST_LARGE, LARGE_TARGET, HUGE_TARGET = 10.0, 30.0, 1000.0
"""Root mean square of the targets of a regression: never a problem below, a hint from, a problem of 1,000 steps at a
rate of 0.001."""
MAJORITY, ALMOST_ALL = 0.8, 0.95
"""Share of the most frequent class from which the accuracy means little, and nothing."""
SORTED, BY_CHANCE = 0.5, 0.1
"""Share of batches with one class from which labels are sorted, and share by chance up to which that is certain."""
FAVOURED = 1.5
"""Ratio of the weight of the most frequent class to that of the rarest from which weights are reversed."""
ANOTHER_MIXTURE, FEWEST_VALIDATED = 0.5, 20
"""Distance of the shares of classes, and number of validation samples, from which these are of other classes."""


OF_KERAS = (
    CROSS_ENTROPIES | REGRESSION_LOSSES | {"poisson", "hinge", "squared_hinge", "categorical_hinge", "kl_divergence"}
)
"""Losses that do not leave out targets."""


def not_finite_targets(program: Program) -> Finding | None:
    """Detect targets that are NaN or infinite, of which the loss becomes NaN.

    Source: IEEE 754. Threshold: one value, under a loss of Keras' own; the user's own may leave them out (hint).
    """
    for data in program.training.targets if program.training else ():
        share = max(data.not_finite, default=0.0)
        if share <= 0:
            continue
        is_known = bool(answers(program)) and all(answer.loss in OF_KERAS for answer in answers(program))
        return Finding(
            "not_finite_targets",
            "NaN in the targets",
            f"Up to {share:.2%} of the targets are NaN or infinite.",
            {"largest_share_of_targets_not_finite": share},
            "rows without them: np.isfinite(y)",
            "problem" if is_known else "hint",
            "targets that are not finite",
            {"target": data.name},
            (Change("targets", "not finite", "finite"),),
        )
    return None


def huge_targets(program: Program) -> Finding | None:
    """Detect targets of a regression that are far from the scale of the first predictions, about 1.

    Source: LeCun et al. 1998, Efficient backprop, section 4.5 (targets within reach). Measured on scikit-learn's
    diabetes data, explained share of the held-out variance after 500 steps: with SGD(0.01) 0.39 for standardised
    targets, 0.14 or less for ten times larger ones, NaN for a hundred times; with Adam(0.001) 0.3 for a mean of 200,
    0.03 for 600. Threshold: a root mean square over 30 (a hint); a problem if it is over 0.1 / rate for a squared error
    without an adaptive optimizer, whose gradients grow with it; else over 1,000 * rate * steps, as a weight moves by at
    most about the rate in a step (Kingma and Ba 2015, section 2.1). Linear models are scale-free with SGD: left alone.
    """
    for answer in answers(program):
        target = answer.target
        if answer.loss not in REGRESSION_LOSSES - {"mean_absolute_percentage_error", "mean_squared_logarithmic_error"}:
            continue
        if target is None or answer.activation not in ("linear", "relu", "leaky_relu", "softplus"):
            continue
        sizes = [(math.hypot(mean, std), mean, std) for mean, std in zip(target.mean, target.std, strict=True)]
        size, mean, std = max((each for each in sizes if math.isfinite(each[0])), default=(0.0, 0.0, 0.0))
        limit = _largest_target(program, answer)
        if size <= min(LARGE_TARGET, limit) or limit == math.inf or task(answer) != "regression":
            continue
        return Finding(
            "huge_targets",
            "large targets",
            f"The targets have mean {mean:.3g} and standard deviation {std:.3g}; the first predictions are about 1.",
            {"target_size": size},
            f"y = (y - {mean:.4g}) / {std:.4g}, and predictions * {std:.4g} + {mean:.4g}",
            "problem" if size > limit else "hint",
            "targets that are not scaled",
            answer.where,
            (Change("scale_targets", False, True),),
        )
    return None


def _largest_target(program: Program, answer: Answer) -> float:
    """Root mean square of the targets above which they are out of reach for the optimizer."""
    rate, steps = largest_rate(program.optimizer), n_steps(program)
    if not is_adaptive(program) and answer.loss == SQUARED:
        momentum = min(float(program.optimizer.get("momentum") or 0), 0.999)
        return math.inf if is_linear_model(program) else max(0.1 * (1 - momentum) / rate if rate else 0, LEAST_LARGE)
    if not rate or not steps:
        return HUGE_TARGET
    return max(HUGE_TARGET * rate * steps, HUGE_TARGET / 10)


def unequal_classes(program: Program) -> Finding | None:
    """Detect classes so unequal that the accuracy means little, or a single class.

    Source: He and Garcia 2009, Learning from imbalanced data, section 4. Threshold: a class with over 80 % of the
    samples (hint); with over 95 %, where the accuracy is the only metric, or with all (problem).
    """
    for answer in answers(program):
        target = answer.target
        if target is None or not target.counts or not are_exclusive(target) or program.fit.get("class_weight"):
            continue
        if task(answer) not in ("classification", "binary") and len(target.counts) > 1:
            continue
        n_samples = sum(target.counts.values())
        most, count = max(target.counts.items(), key=lambda each: each[1])
        share = count / max(n_samples, 1)
        names = accuracies(answer.output)
        only_accuracy = bool(names) and len(names) == len(answer.output.metrics)
        if share <= MAJORITY or n_samples < 10 or (answer.output.metrics and not only_accuracy and share < 1):
            continue
        if share == 1 and answer.loss in REGRESSION_LOSSES | {"poisson"}:
            continue
        is_single = len(target.counts) == 1
        text = (
            f"All targets are of class {most}: there is nothing to tell apart."
            if is_single
            else f"{share:.1%} of the samples are of class {most}: a model that always says {most} is right as often."
        )
        weights = {label: round(n_samples / (len(target.counts) * n), 2) for label, n in sorted(target.counts.items())}
        shown = str(weights) if len(weights) <= 5 else "a weight for each class"
        return Finding(
            "unequal_classes",
            "one class" if is_single else "unequal classes",
            text,
            {"majority_share": share},
            "targets of every class"
            if is_single
            else f"model.fit(..., class_weight={shown}), metrics=[keras.metrics.AUC()]",
            "problem" if is_single or (share > ALMOST_ALL and only_accuracy) else "hint",
            "classes of unequal frequency",
            {**answer.where, "class": most},
            (Change("targets", "one class", None),) if is_single else (Change("class_weight", None, weights),),
        )
    return None


def sorted_labels(program: Program) -> Finding | None:
    """Detect batches that hold one class, as sorted labels make them.

    Source: Bottou 2012, Stochastic gradient descent tricks, section 4.1 (shuffle the examples). Threshold: over half of
    the batches of at least 8 samples, of which at most a tenth would be by chance: the sum of p^n over the classes, for
    shares p and batches of n samples.
    """
    for answer in answers(program):
        target = answer.target
        if target is None or target.one_class_batches is None or not target.counts or len(target.counts) < 2:
            continue
        if target.n_batches < 2 or not (is_column(target) or target.is_one_hot):
            continue
        n_samples = sum(target.counts.values())
        size = n_samples / target.n_batches
        by_chance = sum((count / n_samples) ** size for count in target.counts.values())
        if target.one_class_batches <= SORTED or by_chance > BY_CHANCE:
            continue
        return Finding(
            "sorted_labels",
            "sorted labels",
            f"{target.one_class_batches:.0%} of the batches hold samples of one class only: the data is sorted, and "
            "each batch teaches the model to say that class.",
            {"one_class_batches": target.one_class_batches},
            "model.fit(..., shuffle=True); of a tf.data.Dataset: dataset.shuffle(number of samples) before batch()",
            "problem",
            "data in the order of its labels",
            answer.where,
            (Change("shuffle", program.fit.get("shuffle"), True),),
        )
    return None


def classes_of_validation(program: Program) -> Finding | None:
    """Detect validation data whose classes are others than those of the training data.

    Keras' ``validation_split`` takes the last samples, without shuffling: of sorted data, those of the last classes.
    Source: Keras' documentation of ``fit`` (``validation_split``). Threshold: over half of the validation samples would
    have to change their class for equal shares (total variation distance), of at least 20 samples.
    """
    if program.training is None or program.validation is None:
        return None
    for trained, validated in zip(program.training.targets, program.validation.targets, strict=False):
        if not trained.counts or not validated.counts or sum(validated.counts.values()) < FEWEST_VALIDATED:
            continue
        shares = [
            {label: n / sum(each.values()) for label, n in each.items()} for each in (trained.counts, validated.counts)
        ]
        labels = shares[0].keys() | shares[1].keys()
        distance = sum(abs(shares[0].get(label, 0.0) - shares[1].get(label, 0.0)) for label in labels) / 2
        if distance <= ANOTHER_MIXTURE or task_of(program) == "regression":
            continue
        new = sorted(label for label in shares[1] if label not in shares[0])
        what = (
            f"classes {', '.join(map(str, new[:5]))} are only in the validation data" if new else "their shares differ"
        )
        return Finding(
            "classes_of_validation",
            "other classes",
            f"Training and validation data have other classes: {what}. Keras' validation_split takes the last samples.",
            {"class_distance": distance},
            "shuffle the samples before fit, or train_test_split(x, y, stratify=y)",
            "problem",
            "sorted data, split without shuffling",
            {"target": trained.name or "y"},
            (Change("shuffle", None, True), Change("targets", None, None)),
        )
    return None


def class_weights_the_other_way(program: Program) -> Finding | None:
    """Detect class weights that are largest for the most frequent class: the rare ones count even less.

    Source: He and Garcia 2009, Learning from imbalanced data, section 3.2 (costs are higher for the rare class).
    Threshold: the most frequent class has at least ``FAVOURED`` times the weight of the rarest, and is twice as
    frequent.
    """
    weights = program.fit.get("class_weight")
    targets = program.training.targets if program.training else ()
    if not isinstance(weights, dict) or len(targets) != 1 or not targets[0].counts or len(targets[0].counts) < 2:
        return None
    counts = targets[0].counts
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    of_most, of_least = (float(weights.get(str(label), 1.0)) for label in (most, least))
    if counts[most] < 2 * counts[least] or of_most < FAVOURED * of_least:
        return None
    n_samples = sum(counts.values())
    balanced = {label: round(n_samples / (len(counts) * n), 2) for label, n in sorted(counts.items())}
    return Finding(
        "class_weights_the_other_way",
        "weights reversed",
        f"Class {most} has {counts[most]} samples and weight {of_most:g}, class {least} has {counts[least]} and weight "
        f"{of_least:g}: the rare class counts even less.",
        {"weight_ratio": of_most / max(of_least, 1e-300)},
        f"model.fit(..., class_weight={balanced})"
        if len(balanced) <= 5
        else "weights of n_samples / (n_classes * count)",
        "problem",
        "class weights in favour of the frequent class",
        {"class": most},
        (Change("class_weight", None, balanced),),
    )
