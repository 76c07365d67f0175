"""Facts about a program that several rules share: losses by one name, outputs with their targets, the task."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from mlflow_hp.history.program import ArrayStatistics, Output, Program

Task = Literal["classification", "binary", "multi-label", "regression", "unknown"]

SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"
SQUARED = "mean_squared_error"
SAME_LOSSES = {
    "mse": SQUARED,
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": BINARY,
    "binary_focal_crossentropy": BINARY,
    "categorical_focal_crossentropy": CATEGORICAL,
    "cce": CATEGORICAL,
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "huber_loss": "huber",
    "logcosh": "log_cosh",
}
"""Other names, and focal variants, of Keras' losses -> the name that the rules use."""
CROSS_ENTROPIES = {SPARSE, CATEGORICAL, BINARY}
REGRESSION_LOSSES = {
    SQUARED, "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "huber",
    "log_cosh",
}  # fmt: skip
"""Losses that measure a distance between numbers."""
ADAPTIVE = {"Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Lion", "Adafactor", "Lamb", "LAMB", "Muon", "Adadelta"}
"""Optimizers that divide each gradient by its own size (or take its sign)."""
MOST_CLASSES = 100
"""Whole numbers with more values than this are counted as numbers, not as labels."""
FEW_CLASSES = 20
"""So many values of a squared error's whole targets may be labels, if the accuracy is among the metrics."""


class Answer(NamedTuple):
    """Output of the model with the statistics of its targets.

    Attributes
    ----------
    output : Output
        Output of the model.
    loss : str
        Its loss by one name for the same loss, such as ``"mean_squared_error"``; empty if it has none.
    target : ArrayStatistics or None
        Statistics of its targets in training; None before the first epoch has ended.
    where : dict of str to object
        Its layer, and its name if there are several outputs.
    """

    output: Output
    loss: str
    target: ArrayStatistics | None
    where: dict[str, str]

    @property
    def activation(self) -> str:
        """Activation of the output; empty if unknown."""
        return {"swish": "silu", "hard_swish": "hard_silu"}.get(self.output.activation, self.output.activation)

    @property
    def from_logits(self) -> bool:
        """Whether the loss takes logits."""
        return bool(self.output.loss_config.get("from_logits", False))

    @property
    def is_flat(self) -> bool:
        """Whether a sample's output is one row of numbers, no sequence or image."""
        return self.output.shape is not None and len(self.output.shape) == 1


def answers(program: Program) -> list[Answer]:
    """Outputs that have a loss, with their targets; none if the loss is computed by the model's own step."""
    if program.is_own_step:
        return []
    targets = program.training.targets if program.training else ()
    paired = targets if len(targets) == len(program.outputs) else (None,) * len(program.outputs)
    several = len(program.outputs) > 1
    return [
        Answer(
            output,
            loss_name(output.loss),
            target,
            ({"layer": output.layer} if output.layer else {}) | ({"output": output.name} if several else {}),
        )
        for output, target in zip(program.outputs, paired, strict=True)
        if output.loss
    ]


def loss_name(loss: str) -> str:
    """Name of a loss as its function in Keras is called, from that of its class, its function or an alias."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", loss).lower()
    name = {"klde_divergence": "kl_divergence", "kldivergence": "kl_divergence"}.get(name, name)
    return SAME_LOSSES.get(name, name)


def task_of(program: Program) -> Task:
    """Task that a program trains its model for, judged by its loss, targets and output.

    Parameters
    ----------
    program : Program
        Description of a program.

    Returns
    -------
    {"classification", "binary", "multi-label", "regression", "unknown"}
        ``"classification"`` is that of exclusive classes; unknown for several outputs and for losses of the user's own.
    """
    single = answers(program)
    return task(single[0]) if len(program.outputs) == 1 and single else "unknown"


def n_classes(program: Program) -> int | None:
    """Count the exclusive classes of a classifier.

    Parameters
    ----------
    program : Program
        Description of a program.

    Returns
    -------
    int or None
        Those among the training's labels, before the first epoch has ended those of the output; 2 for a binary
        classifier; None for other tasks.
    """
    kind = task_of(program)
    if kind == "binary":
        return 2
    return classes_of(answers(program)[0]) if kind == "classification" else None


def task(answer: Answer) -> Task:
    """Task of one output."""
    target, units = answer.target, answer.output.units
    if answer.loss == BINARY:
        return _task_of_binary_loss(answer)
    if answer.loss in (SPARSE, CATEGORICAL, "categorical_hinge"):
        if target is None or are_exclusive(target):
            return "classification"
        if target.is_binary and not is_column(target):
            return "multi-label"
        in_range = lowest(target) >= 0 and highest(target) <= 1
        return "classification" if target.is_integer or (in_range and not is_column(target)) else "regression"
    if answer.loss in ("hinge", "squared_hinge"):
        return "binary" if units == 1 else "unknown"
    if answer.loss == "poisson":
        return "regression"
    if answer.loss in REGRESSION_LOSSES:
        return _task_of_regression_loss(answer)
    is_classifier = answer.activation == "softmax" and (units or 0) > 1 and target is not None
    return "classification" if is_classifier and target is not None and are_exclusive(target) else "unknown"


def _task_of_binary_loss(answer: Answer) -> Task:
    target, units = answer.target, answer.output.units
    if target is None:
        return "binary" if units == 1 else "unknown"
    if is_column(target):
        if target.counts and len(target.counts) == 2:
            return "binary"
        if are_labels(target):
            return "classification"
        return "unknown" if lowest(target) >= 0 and highest(target) <= 1 else "regression"
    if target.is_one_hot:
        return "classification"
    if target.is_binary:
        return "multi-label"
    return "unknown" if lowest(target) >= 0 and highest(target) <= 1 else "regression"


def _task_of_regression_loss(answer: Answer) -> Task:
    target, units = answer.target, answer.output.units or 0
    if target is None:
        return "classification" if answer.activation == "softmax" and units > 1 else "unknown"
    if not is_column(target):
        return "classification" if target.is_one_hot else "regression"
    if target.counts and len(target.counts) == 2:
        return "binary"
    if are_labels(target) and (
        (answer.activation == "softmax" and units > 1)
        or (len(target.counts or ()) <= FEW_CLASSES and has_accuracy(answer.output))
    ):
        return "classification"
    return "regression"


def classes_of(answer: Answer) -> int | None:
    """Number of classes among the targets; if they are unknown, the number of units; None if neither is known."""
    target = answer.target
    if target is not None and target.counts and are_exclusive(target):
        return max(len(target.counts), 2)
    if target is not None and target.is_one_hot:
        return columns(target)
    return answer.output.units if (answer.output.units or 0) > 1 else None


def is_column(target: ArrayStatistics) -> bool:
    """Whether a sample has one number."""
    return tuple(target.shape) in ((), (1,))


def columns(target: ArrayStatistics) -> int | None:
    """Numbers along the last axis of a sample's targets."""
    return target.shape[-1] if target.shape else 1


def are_labels(target: ArrayStatistics) -> bool:
    """Whether targets look like labels of classes: whole numbers from 0 or 1 on without large gaps, each several times.

    Ages, prices or the target of scikit-learn's diabetes data (25 to 346) are none.
    """
    counts = target.counts
    if not counts or not is_column(target) or not 2 <= len(counts) <= MOST_CLASSES:
        return False
    span = max(counts) - min(counts) + 1
    return min(counts) in (0, 1) and len(counts) >= 0.9 * span and sum(counts.values()) >= 3 * len(counts)


def are_exclusive(target: ArrayStatistics) -> bool:
    """Whether each sample is of one class: one-hot rows, or a whole number each."""
    return target.is_one_hot or (target.counts is not None and is_column(target) and len(target.counts) <= MOST_CLASSES)


def lowest(statistics: ArrayStatistics) -> float:
    """Smallest finite value; nan if there is none."""
    return min((value for value in statistics.min if math.isfinite(value)), default=math.nan)


def highest(statistics: ArrayStatistics) -> float:
    """Largest finite value; nan if there is none."""
    return max((value for value in statistics.max if math.isfinite(value)), default=math.nan)


def labels_per_sample(target: ArrayStatistics) -> float:
    """Mean number of ones in a row of 0/1 targets; 1 for a column."""
    if is_column(target) or len(target.mean) != columns(target):
        return 1.0
    return sum(mean for mean in target.mean if math.isfinite(mean))


def accuracies(output: Output) -> list[str]:
    """Metrics of an output that are accuracies."""
    return [name for name in output.metrics if re.search(r"accuracy$|^acc$", name, re.IGNORECASE)]


def has_accuracy(output: Output) -> bool:
    """Whether an accuracy is among the metrics of an output."""
    return bool(accuracies(output))


def is_adaptive(program: Program) -> bool:
    """Whether the optimizer scales each weight's gradient, so that small gradients move weights as large ones do."""
    return str(program.optimizer.get("name", "")) in ADAPTIVE


def n_steps(program: Program) -> float | None:
    """Steps of the whole fit; None if unknown."""
    steps, epochs = program.fit.get("steps"), program.fit.get("epochs")
    return steps * epochs if isinstance(steps, (int, float)) and isinstance(epochs, (int, float)) else None
