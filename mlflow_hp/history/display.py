"""Training history in a terminal and in a notebook: a few lines, and a table with the curve of its loss."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.terminal import count, printable

if TYPE_CHECKING:
    from mlflow_hp.history.training_history import TrainingHistory

WIDTH, HEIGHT = 480, 120
"""Size of the curve, in pixels."""
MAX_POINTS = 240
"""Points of the curve."""
LOSS_COLUMNS = ("batch_loss", "running_loss")
"""Step columns that the curve shows, in order of preference."""


def facts(history: TrainingHistory) -> dict[str, str]:
    """Collect what a history is: its length, its optimizer, the values of its last epoch, and what was recorded.

    Parameters
    ----------
    history : TrainingHistory
        The history.

    Returns
    -------
    dict of str to str
        Name -> text on one line, whose names may be anyone's: not escaped for HTML.
    """
    shown = {"length": f"{count(history.n_steps, 'step')}, {count(history.n_epochs, 'epoch')}"}
    if not history.complete:
        shown["length"] += ", cut off or still running"
    optimizer = history.meta.get("optimizer") or {}
    if optimizer.get("name"):
        rate = optimizer.get("learning_rate")
        shown["optimizer"] = f"{optimizer['name']}{'' if rate is None else f', learning rate {rate}'}"
    if history.n_epochs and history.epoch_metrics:
        shown["last epoch"] = ", ".join(f"{name} {history.epochs[name][-1]:.4g}" for name in history.epoch_metrics[:8])
    if history.tensors:
        n_weights = sum(math.prod(tensor.shape) for tensor in history.tensors)
        of = {"values": "all values", "statistics": "statistics", "none": "nothing"}.get(history.recorded, "")
        shown["weights"] = f"{n_weights:,} in {count(len(history.tensors), 'tensor')}; recorded: {of} of them"
    shown["columns"] = ", ".join(history.columns)
    return {name: printable(value) for name, value in shown.items()}


def text_of(history: TrainingHistory) -> str:
    """Write a history in a few lines."""
    return "\n".join(["TrainingHistory", *(f"  {name}: {value}" for name, value in facts(history).items())])


def html_of(history: TrainingHistory) -> str:
    """Write a history as HTML without scripts: a table of its facts, and the curve of its loss by step."""
    rows = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in facts(history).items()
    )
    return f"<table>{rows}</table>{_curve(history)}"


def _curve(history: TrainingHistory) -> str:
    """Draw the loss by step as SVG; empty if there is none. Each stretch of steps shows its lowest and highest."""
    name = next((name for name in LOSS_COLUMNS if name in history.columns), None)
    if name is None or history.n_steps < 2:
        return ""
    loss = np.asarray(history.read_steps([name])[name], np.float64)
    steps = np.flatnonzero(np.isfinite(loss))
    if len(steps) < 2:
        return ""
    chosen = _extremes(steps, loss)
    low, high = float(loss[chosen].min()), float(loss[chosen].max())
    x = WIDTH * chosen / (history.n_steps - 1)
    y = HEIGHT - (HEIGHT - 2) * (loss[chosen] - low) / ((high - low) or 1.0) - 1
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    label = html.escape(f"{name} of {count(history.n_steps, 'step')}, from {low:.4g} to {high:.4g}")
    return (
        f'<svg role="img" aria-label="{label}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<polyline fill="none" stroke="currentColor" points="{points}"/></svg><div>{label}</div>'
    )


def _extremes(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Choose the lowest and the highest of each stretch of `steps`, and the ends."""
    if len(steps) <= MAX_POINTS:
        return steps
    chosen = [steps[:1], steps[-1:]]
    parts = np.array_split(steps, MAX_POINTS // 2 - 1)
    chosen += [part[[int(np.argmin(values[part])), int(np.argmax(values[part]))]] for part in parts]
    return np.unique(np.concatenate(chosen))
