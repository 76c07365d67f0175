"""Scores on held-out data: the more the better, 1 is perfect; and losses that do not depend on the training's."""

from __future__ import annotations

from typing import Any

import numpy as np


def classes(model: Any, x: Any, y: Any, *, logits: bool = False, first: int = 0) -> dict[str, float]:
    """Accuracy and cross-entropy of a network with a unit for each class; `first` is the unit of class 0."""
    outputs = np.asarray(model.predict(x, verbose=0), "float64")[:, first:]
    if logits:
        outputs = np.exp(outputs - outputs.max(1, keepdims=True))
    positive = np.clip(np.nan_to_num(outputs), 1e-7, None)
    shares = positive / positive.sum(1, keepdims=True)
    y = np.asarray(y).astype(int).ravel()
    return {
        "score": float((np.nan_to_num(outputs, nan=-np.inf).argmax(1) == y).mean()),
        "loss": float(-np.log(np.clip(shares[np.arange(len(y)), y], 1e-7, 1)).mean()),
    }


def binary(model: Any, x: Any, y: Any, *, logits: bool = False, balanced: bool = False) -> dict[str, float]:
    """Accuracy and cross-entropy of sigmoid units, one or several; `balanced` over the two classes."""
    outputs = np.asarray(model.predict(x, verbose=0), "float64")
    if logits:
        outputs = 1 / (1 + np.exp(-outputs))
    y = np.asarray(y).reshape(outputs.shape)
    is_right = (outputs > 0.5) == (y > 0.5)
    shares = np.clip(np.nan_to_num(outputs), 1e-7, 1 - 1e-7)
    loss = float(-np.where(y > 0.5, np.log(shares), np.log(1 - shares)).mean())
    if balanced:
        return {"score": float((is_right[y > 0.5].mean() + is_right[y <= 0.5].mean()) / 2), "loss": loss}
    return {"score": float(is_right.mean()), "loss": loss}


def regression(model: Any, x: Any, y: Any, *, scale: float = 1.0, offset: float = 0.0) -> dict[str, float]:
    """R2 and mean squared error over the variance of the targets; outputs are scaled back before."""
    outputs = np.asarray(model.predict(x, verbose=0), "float64")
    return errors(outputs * scale + offset, np.asarray(y, "float64").reshape(outputs.shape))


def errors(outputs: Any, y: Any) -> dict[str, float]:
    """R2, -10 at least, and the mean squared error over the variance of the targets."""
    ratio = float(np.mean((outputs - y) ** 2) / np.var(y))
    ratio = ratio if np.isfinite(ratio) else 1e6
    return {"score": max(1 - ratio, -10.0), "loss": ratio}
