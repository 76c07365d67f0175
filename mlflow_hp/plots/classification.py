"""Classified data: some samples, and which classes a model takes for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, entitle, figure_of, new_axes, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

PER_ROW = 5
"""Pictures in a row."""
TALL = (0.3, 3.0)
"""Heights of a picture, in its widths; of one that is flatter or taller, the pixels are no squares."""
MOST_NUMBERED = 20
"""Classes up to which a confusion matrix has its counts written in."""
MOST_NAMED = 40
"""Features up to which a table has their names below it."""
LONGEST = 30
"""Letters of a name; of a longer one, the middle is left out."""
LETTER_INCHES = 0.075
"""Room for a letter of size 9."""


class SamplesInfo(NamedTuple):
    """Some samples: values (n, height, width[, channels]) of pictures or (n, n_features) of a table; their labels."""

    values: np.ndarray
    labels: list[str]
    features: list[str]


def samples_info(
    x: np.ndarray,
    labels: Sequence[str],
    image_shape: tuple[int, ...] | None = None,
    features: Sequence[str] = (),
    n: int = 10,
) -> SamplesInfo:
    """`n` samples, the first of each label and then the first of all, in the order of their labels.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features)
        Samples.
    labels : sequence of str
        What each is.
    image_shape : tuple of int, optional
        Height and width (and channels) of the picture that a row is.
    features : sequence of str
        Names of the columns of a table.
    n : int
        How many.
    """
    named = np.asarray(labels)
    first = np.sort(np.unique(named, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(named)), first)
    chosen = np.concatenate([first, others])[:n]
    chosen = chosen[np.argsort(_comparable(named[chosen]), kind="stable")]
    values = x[chosen] if image_shape is None else x[chosen].reshape(len(chosen), *image_shape)
    return SamplesInfo(values, [str(named[i]) for i in chosen], list(features))


def draw_samples(info: SamplesInfo, axes: Axes | None = None) -> Axes:
    """Pictures side by side under their labels; or the rows of a table as colours, a row for each sample.

    Pictures are grey where their channels are no colours (three, or four with opacity): the channels' mean.
    """
    if info.values.ndim == 2:
        return _draw_rows(info, axes)
    n, height, width = info.values.shape[:3]
    rows = -(-n // PER_ROW)
    gap, tall = 0.25, float(np.clip(height / width, *TALL))  # in widths of a picture
    axes = new_axes(1.5 * PER_ROW, 1.17 * rows * (tall + 2 * gap)) if axes is None else axes
    grey = info.values.ndim != 4 or info.values.shape[3] not in (3, 4)
    pictures = info.values.reshape(n, height, width, -1).mean(axis=3) if grey else info.values
    for index, (picture, label) in enumerate(zip(pictures, info.labels, strict=True)):
        left, top = (index % PER_ROW) * (1 + gap), -(index // PER_ROW) * (tall + 2 * gap)
        extent = (left, left + 1, top - tall, top)
        axes.imshow(picture, cmap="gray_r" if grey else None, extent=extent, interpolation="nearest",
                    vmin=float(pictures.min()), vmax=float(pictures.max()))  # fmt: skip
        axes.text(left + 0.5, top + 0.06, label, ha="center", va="bottom", fontsize=11)
    columns = min(n, PER_ROW)
    axes.set_xlim(-gap / 2, columns * (1 + gap) - gap / 2)
    axes.set_ylim(-(rows - 1) * (tall + 2 * gap) - tall - gap / 4, 1.6 * gap)
    axes.set_aspect("equal")
    axes.set_axis_off()
    entitle(axes, "samples with their labels")
    return axes


class ConfusionInfo(NamedTuple):
    """Counts (n_classes, n_classes), row by true class, column by the predicted one; names of the classes."""

    counts: np.ndarray
    classes: list[str]


def confusion_info(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> ConfusionInfo:
    """How often each class (numbers from 0) was taken for each."""
    n = len(classes)
    counts = np.bincount(np.asarray(true) * n + np.asarray(predicted), minlength=n * n).reshape(n, n)
    return ConfusionInfo(counts, list(classes))


def draw_confusion(info: ConfusionInfo, axes: Axes | None = None) -> Axes:
    """The matrix, coloured by the share of each true class; the counts in it where they fit."""
    n = len(info.classes)
    names = [short(name, LONGEST) for name in info.classes]
    longest = max(map(len, names))
    size = float(np.clip(2.5 + 0.42 * n, 5.0, 14.0)) + LETTER_INCHES * longest
    axes = new_axes(size + 0.8, size) if axes is None else axes
    shares = info.counts / np.maximum(info.counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= MOST_NUMBERED:
        for row, column in np.argwhere(info.counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(info.counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    figure_of(axes).colorbar(image, ax=axes, label="share of the true class", pad=0.02, shrink=0.85)
    axes.set_xticks(range(n), names, rotation=90 if longest > 3 else 0, fontsize=9 if n <= 30 else 6)
    axes.set_yticks(range(n), names, fontsize=9 if n <= 30 else 6)
    right = float(np.trace(info.counts)) / max(int(info.counts.sum()), 1)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{right:.1%} of {int(info.counts.sum())} samples right", fontsize=10, color=COLOURS[7])
    axes.spines[:].set_visible(False)
    entitle(axes, "confusion matrix")
    return axes


def _draw_rows(info: SamplesInfo, axes: Axes | None) -> Axes:
    n, width = info.values.shape
    labels, features = ([short(name, LONGEST) for name in names] for names in (info.labels, info.features))
    below = max(map(len, features), default=0) if width <= MOST_NAMED else 0
    beside = max(map(len, labels), default=0)
    size = float(np.clip(3 + 0.45 * width, 6, 16)) + LETTER_INCHES * beside, 0.4 * n + 1.2 + LETTER_INCHES * below
    axes = new_axes(*size) if axes is None else axes
    limit = float(np.abs(info.values).max()) or 1.0
    image = axes.imshow(info.values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    figure_of(axes).colorbar(image, ax=axes, label="standardised value", pad=0.02)
    axes.set_yticks(range(n), labels, fontsize=9)
    axes.set(ylabel="target")
    if width <= MOST_NAMED:
        axes.set_xticks(range(width), features, rotation=90, fontsize=9)
    else:
        axes.set(xlabel="feature")
    entitle(axes, "samples, feature by feature")
    return axes


def _comparable(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers where all of them are, so that 10 is behind 9."""
    try:
        return labels.astype(np.float64)
    except ValueError:
        return labels
