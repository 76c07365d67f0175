"""Draw docs/pictures/diagnosis.png: made curves, each with the verdict of its diagnosis.

python docs/diagnosis_picture.py         # into docs/pictures
python docs/diagnosis_picture.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np

from mlflow_hp import TrainingHistory
from mlflow_hp.analysis import diagnosis
from mlflow_hp.history.program import ArrayStatistics, DataStatistics, Output, Program

mpl.use("Agg")
import matplotlib.pyplot as plt

PICTURE = Path(__file__).parent / "pictures" / "diagnosis.png"
N_CLASSES, N_EPOCHS = 10, 40
BLUE, ORANGE, GREY = "#1f5fa8", "#d9731a", "#8a8a8a"


class Made(NamedTuple):
    """Made training of a classifier of ten classes.

    Attributes
    ----------
    loss, val_loss, accuracy, val_accuracy : ndarray of shape (n_epochs,)
        By epoch; no accuracy: that of the loss.
    """

    loss: np.ndarray
    val_loss: np.ndarray | None = None
    accuracy: np.ndarray | None = None
    val_accuracy: np.ndarray | None = None


def trainings() -> list[Made]:
    """Make a training for each panel."""
    rng, epoch = np.random.default_rng(0), np.arange(N_EPOCHS)
    noise = rng.normal(size=(4, N_EPOCHS))
    guessing = np.log(N_CLASSES)
    healthy = 0.4 + 2.2 * np.exp(-epoch / 6)
    memorised = 0.1 + 2.2 * np.exp(-epoch / 9)
    early = 0.25 + 2 * np.exp(-epoch / 3)
    overfitting = 0.45 + 1.8 * np.exp(-epoch / 4) + 0.015 * np.maximum(epoch - 12, 0)
    return [
        Made(2.3 * np.exp(0.12 * epoch) + 0.1 * noise[0]),
        Made(0.9 + 0.6 * np.abs(noise[1]) + np.exp(-epoch / 3)),
        Made(2.3 * np.exp(-epoch / 70) + 0.003 * noise[2]),
        Made(early + 0.004 * noise[0], early + 0.1 + 0.012 * noise[3]),
        Made(0.02 + 2.2 * np.exp(-epoch / 6), overfitting + 0.01 * noise[3], val_accuracy=0.8 - 0.004 * epoch),
        Made(guessing + 0.03 * noise[0], accuracy=0.1 + 0.005 * noise[1]),
        Made(memorised, guessing + 0.05 * epoch + 0.05 * noise[3], val_accuracy=0.1 + 0.01 * noise[2]),
        Made(healthy, healthy + 0.06 + 0.001 * noise[3]),
    ]


def history(made: Made) -> TrainingHistory:
    """Convert curves to a history, with the program of a classifier."""
    epochs = {"epoch": np.arange(len(made.loss)), "loss": made.loss}
    accuracy = np.exp(-made.loss) if made.accuracy is None else made.accuracy
    epochs["accuracy"] = np.clip(accuracy, 0, 1)
    if made.val_loss is not None:
        epochs["val_loss"] = made.val_loss
        epochs["val_accuracy"] = np.exp(-made.val_loss) if made.val_accuracy is None else made.val_accuracy
    counts = dict.fromkeys(range(N_CLASSES), 100)
    labels = ArrayStatistics(
        "", (), "int64", 1000, 32, (4.5,), (2.9,), (0.0,), (9.0,), (0.0,), is_integer=True, counts=counts
    )
    output = Output(
        "output", activation="softmax", shape=(N_CLASSES,), loss="SparseCategoricalCrossentropy", metrics=("accuracy",)
    )
    data = DataStatistics(targets=(labels,))
    program = Program(outputs=(output,), training=data, validation=data)
    batches = np.linspace(made.loss[0], made.loss[0], 10)
    return TrainingHistory.from_arrays({"step": np.arange(10), "batch_loss": batches}, epochs, program=program)


def draw(picture: Path) -> None:
    """Draw the picture into a file."""
    figure, grid = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained")
    for axes, made in zip(grid.flat, trainings(), strict=True):
        findings = [each for each in diagnosis.diagnose(history(made)) if each.severity != "fine"]
        axes.set_title(findings[0].verdict if findings else "healthy: no finding", fontsize=13, fontweight="bold")
        number = np.arange(1, len(made.loss) + 1)
        axes.plot(number, made.loss, color=BLUE, label="training")
        if made.val_loss is not None:
            axes.plot(number, made.val_loss, color=ORANGE, label="validation")
        where = findings[0].where.get("epoch") if findings else None
        if where is not None:
            axes.axvline(where + 1, color=GREY, linestyle=":", label=f"epoch {where + 1}")
        if findings and findings[0].name == "chance":
            axes.axhline(np.log(N_CLASSES), color=GREY, linestyle="--", label="guessing: ln 10")
            axes.set_ylim(0, 3)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        axes.legend(fontsize=9, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else PICTURE)
