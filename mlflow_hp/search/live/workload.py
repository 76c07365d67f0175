"""Workload of a fit: where it ran and what was trained, so that only comparable times are compared.

Workers import this module: it must stay light.
"""

from __future__ import annotations

import hashlib
import os
import platform
from typing import Any, NamedTuple


class Workload(NamedTuple):
    """Workload of a fit.

    Attributes
    ----------
    process : str
        Process that computed it.
    architecture : str
        Digest of the layers, their shapes and the optimizers of the Keras models trained; empty if none was. The first
        fit of each in a process is slower: libraries are loaded, functions are traced.
    size : str
        Epochs and steps per epoch of each training; empty if none was.
    """

    process: str
    architecture: str = ""
    size: str = ""

    @property
    def cost(self) -> str | None:
        """Text that is equal for fits that cost the same; None if unknown."""
        return f"{self.architecture} {self.size}" if self.size else None


class Trainings:
    """Trainings of Keras models in one fit.

    Examples
    --------
    >>> from mlflow_hp.search.live.workload import Trainings
    >>> Trainings().workload().size
    ''
    """

    def __init__(self) -> None:
        self._architectures: list[str] = []
        self._sizes: list[str] = []

    def add(self, model: Any, n_epochs: int, n_steps: int | None) -> None:
        """Add a training that has ended, of `n_epochs` with `n_steps` each."""
        self._architectures.append(_architecture(model))
        self._sizes.append(f"{n_epochs} x {n_steps}")

    def workload(self) -> Workload:
        """Workload of the trainings so far, in this process."""
        process = f"{platform.node()}:{os.getpid()}"
        return Workload(process, " ".join(self._architectures), ", ".join(self._sizes))


def _architecture(model: Any) -> str:
    layers = [type(layer).__name__ for layer in model.layers]
    shapes = [tuple(variable.shape) for variable in model.variables]
    parts = type(model).__name__, layers, shapes, type(model.optimizer).__name__
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
