"""Curves of the loss by epoch: made ones, and those of real trainings, sound and broken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Loss by epoch of one training.

    Attributes
    ----------
    name : str
        How it was made.
    values : ndarray of shape (n_epochs,)
        Its validation loss, or training loss if it has none, of all planned epochs.
    start : float
        Loss before the first step.
    is_sound : bool
        Whether its settings are ones that work; those of a broken training keep it from learning anything.
    changes_rate : bool
        Whether its learning rate changes by a schedule.
    """

    name: str
    values: np.ndarray
    start: float
    is_sound: bool
    changes_rate: bool = False


def is_doomed(curve: Curve) -> bool:
    """Whether a broken training ends no better than it began."""
    end = float(np.median(curve.values[-5:]))
    return not curve.is_sound and not end < curve.start - 0.03 * abs(curve.start)


def is_healthy(curve: Curve) -> bool:
    """Whether a sound training got clearly below the loss that it began with, and stayed there."""
    end = float(np.median(curve.values[-5:]))
    return bool(curve.is_sound and np.isfinite(curve.values).all() and end < curve.start - 0.1 * abs(curve.start))
