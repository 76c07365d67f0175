"""Settings of a training that matter most, in words: optimizer, learning rate, batch size, epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history.step_record import learning_rates
from mlflow_hp.tracking.params_and_tags import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history import TrainingHistory


def settings_in_words(history: TrainingHistory) -> str:
    """Describe the settings of a training, as far as they were recorded.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    str
        Such as ``"SGD, learning rate 0.1 throughout, momentum 0.9, batch size 32, 10 epochs"``.

    Examples
    --------
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.training import settings_in_words
    >>> steps = {"step": [0, 1], "learning_rate": [0.1, 0.05], "samples": [8, 8]}
    >>> settings_in_words(TrainingHistory.from_arrays(steps, meta={"optimizer": {"name": "SGD"}}))
    'SGD, learning rate 0.1 first, 0.05 last, batch size 8'
    """
    optimizers = history.meta.get("optimizers") or {"": history.meta.get("optimizer") or {}}
    rates = learning_rates(history.steps)
    parts = []
    for name, optimizer in optimizers.items():
        rate = rates.get(name, rates.get("learning rate"))
        text = ", ".join(filter(None, (str(optimizer.get("name", "")), _rate(rate, optimizer), _momentum(optimizer))))
        parts += [f"{name}: {text}" if name and text else text]
    if size := _batch_size(history):
        parts.append(f"batch size {size}")
    if history.n_epochs:
        parts.append(f"{history.n_epochs} epoch{'s' * (history.n_epochs > 1)}")
    return plain(", ".join(filter(None, parts)))


def is_constant(values: np.ndarray) -> bool:
    """Whether all values are equal but for the rounding of float32; NaN counts as no value."""
    finite = values[np.isfinite(values)]
    return not finite.size or bool(np.ptp(finite) <= 1e-6 * np.abs(finite).max())


def _rate(rate: np.ndarray | None, optimizer: Mapping[str, Any]) -> str:
    """Learning rate: the recorded one, else what the optimizer was given."""
    finite = np.zeros(0) if rate is None else rate[np.isfinite(rate)]
    if finite.size and is_constant(finite):
        return f"learning rate {finite[0]:.3g} throughout"
    if finite.size:
        return f"learning rate {finite[0]:.3g} first, {finite[-1]:.3g} last"
    initial = optimizer.get("learning_rate")
    return f"learning rate {initial:.3g}" if isinstance(initial, (int, float)) else ""


def _momentum(optimizer: Mapping[str, Any]) -> str:
    momentum = optimizer.get("momentum")
    return f"momentum {momentum:g}" if isinstance(momentum, (int, float)) and momentum else ""


def _batch_size(history: TrainingHistory) -> int:
    """Most frequent number of samples in a step; 0 if unknown."""
    samples = history.steps.get("samples", np.zeros(0))
    samples = samples[np.isfinite(samples) & (samples > 0)]
    if not samples.size:
        return 0
    sizes, counts = np.unique(samples, return_counts=True)
    return int(sizes[np.argmax(counts)])
