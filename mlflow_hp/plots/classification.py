"""Plots of classification: sample data, and the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import add_note, figure_of, finish, new_axes
from mlflow_hp.plots.wording import short
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

PER_ROW = 5
"""Images in a row."""
HEIGHT_RANGE = (0.3, 3.0)
"""Lowest and highest ratio of height to width at which an image keeps square pixels."""
MAX_COUNTED = 20
"""Up to this many classes, the counts are written into the confusion matrix."""
MAX_NAMED = 40
"""Up to this many features, their names are written below the table."""
MAX_NAME_LENGTH = 30
"""Letters of a name; a longer one loses its middle."""
LETTER_INCHES = 0.075
"""Width of a letter of size 9."""


class SamplesInfo(NamedTuple):
    """Samples and their labels: values (n, height, width[, channels]) for images, (n, n_features) for a table.

    Attributes
    ----------
    values : ndarray of shape (n, height, width[, channels]) or (n, n_features)
        Pictures, or rows of a table.
    labels : list of str
        Label of each sample.
    features : list of str
        Names of the columns of a table.
    """

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
    """Choose `n` samples, the first of each label before others, sorted by label.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features)
        Samples.
    labels : sequence of str
        Label of each sample.
    image_shape : tuple of int, optional
        Height, width (and channels) if a row is an image. Defaults to a table.
    features : sequence of str
        Names of the columns of a table. Defaults to none.
    n : int
        Number of samples. Defaults to 10.

    Returns
    -------
    SamplesInfo
        Numbers for `draw_samples`.
    """
    label_array = np.asarray(labels)
    first = np.sort(np.unique(label_array, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(label_array)), first)
    chosen = np.concatenate([first, others])[:n]
    chosen = chosen[np.argsort(_sortable(label_array[chosen]), kind="stable")]
    values = x[chosen] if image_shape is None else x[chosen].reshape(len(chosen), *image_shape)
    return SamplesInfo(values, [str(label_array[i]) for i in chosen], list(features))


def draw_samples(info: SamplesInfo, axes: Axes | None = None) -> Axes:
    """Draw images under their labels, or the rows of a table as colours.

    Images whose channels are not RGB or RGBA are drawn grey, as the mean of their channels.

    Parameters
    ----------
    info : SamplesInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    if info.values.ndim == 2:
        return _draw_rows(info, axes)
    n, height, width = info.values.shape[:3]
    rows = -(-n // PER_ROW)
    gap, tall = 0.25, float(np.clip(height / width, *HEIGHT_RANGE))  # in widths of an image
    axes = new_axes(1.5 * PER_ROW, 1.17 * rows * (tall + 2 * gap)) if axes is None else axes
    grey = info.values.ndim != 4 or info.values.shape[3] not in (3, 4)
    images = info.values.reshape(n, height, width, -1).mean(axis=3) if grey else info.values
    for index, (image, label) in enumerate(zip(images, info.labels, strict=True)):
        left, top = (index % PER_ROW) * (1 + gap), -(index // PER_ROW) * (tall + 2 * gap)
        extent = (left, left + 1, top - tall, top)
        axes.imshow(image, cmap="gray_r" if grey else None, extent=extent, interpolation="nearest",
                    vmin=float(images.min()), vmax=float(images.max()))  # fmt: skip
        axes.text(left + 0.5, top + 0.06, label, ha="center", va="bottom", fontsize=11)
    columns = min(n, PER_ROW)
    axes.set_xlim(-gap / 2, columns * (1 + gap) - gap / 2)
    axes.set_ylim(-(rows - 1) * (tall + 2 * gap) - tall - gap / 4, 1.6 * gap)
    axes.set_aspect("equal")
    axes.set_axis_off()
    finish(axes, "samples with their labels")
    return axes


class ConfusionInfo(NamedTuple):
    """Confusion matrix.

    Attributes
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        Row by true class, column by the predicted one.
    classes : list of str
        Names of the classes.
    """

    counts: np.ndarray
    classes: list[str]


def confusion_info(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> ConfusionInfo:
    """Count the predictions of each class for each true class, both numbered from 0.

    Parameters
    ----------
    true : ndarray
        True classes, numbered from 0.
    predicted : ndarray
        Predicted classes, numbered from 0.
    classes : sequence of str
        Names of the classes.

    Returns
    -------
    ConfusionInfo
        Numbers for `draw_confusion`.
    """
    n = len(classes)
    counts = np.bincount(np.asarray(true) * n + np.asarray(predicted), minlength=n * n).reshape(n, n)
    return ConfusionInfo(counts, list(classes))


def draw_confusion(info: ConfusionInfo, axes: Axes | None = None) -> Axes:
    """Draw the matrix, coloured by the share of each true class, with the counts where they fit.

    Parameters
    ----------
    info : ConfusionInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    n = len(info.classes)
    names = [short(name, MAX_NAME_LENGTH) for name in info.classes]
    longest = max(map(len, names))
    size = float(np.clip(2.5 + 0.42 * n, 5.0, 14.0)) + LETTER_INCHES * longest
    axes = new_axes(size + 0.8, size) if axes is None else axes
    shares = info.counts / np.maximum(info.counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= MAX_COUNTED:
        for row, column in np.argwhere(info.counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(info.counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    figure_of(axes).colorbar(image, ax=axes, label="share of the true class", pad=0.02, shrink=0.85)
    axes.set_xticks(range(n), names, rotation=90 if longest > 3 else 0, fontsize=9 if n <= 30 else 6)
    axes.set_yticks(range(n), names, fontsize=9 if n <= 30 else 6)
    accuracy = float(np.trace(info.counts)) / max(int(info.counts.sum()), 1)
    axes.set(xlabel="predicted class", ylabel="true class")
    add_note(axes, f"{accuracy:.1%} of {count(int(info.counts.sum()), 'sample')} right")
    axes.spines[:].set_visible(False)
    finish(axes, "confusion matrix")
    return axes


def _draw_rows(info: SamplesInfo, axes: Axes | None) -> Axes:
    n, width = info.values.shape
    labels, features = ([short(name, MAX_NAME_LENGTH) for name in names] for names in (info.labels, info.features))
    letters_below = max(map(len, features), default=0) if width <= MAX_NAMED else 0
    letters_left = max(map(len, labels), default=0)
    inches_wide = float(np.clip(3 + 0.45 * width, 6, 16)) + LETTER_INCHES * letters_left
    axes = new_axes(inches_wide, 0.4 * n + 1.2 + LETTER_INCHES * letters_below) if axes is None else axes
    limit = float(np.abs(info.values).max()) or 1.0
    image = axes.imshow(info.values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    figure_of(axes).colorbar(image, ax=axes, label="standardised value", pad=0.02)
    axes.set_yticks(range(n), labels, fontsize=9)
    axes.set(ylabel="target")
    if width <= MAX_NAMED:
        axes.set_xticks(range(width), features, rotation=90, fontsize=9)
    else:
        axes.set(xlabel="feature")
    finish(axes, "samples, feature by feature")
    return axes


def _sortable(labels: np.ndarray) -> np.ndarray:
    """Convert labels to numbers if all of them are, so that 10 comes after 9."""
    try:
        return labels.astype(np.float64)
    except ValueError:
        return labels
