"""Snapshots of the weights that one fit takes, and their file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.history.weight_snapshots import FILE, Thinner, save
from mlflow_hp.training.capture.step_layout import trainable_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_hp.history.weight_snapshots import Snapshots


class FitSnapshots:
    """Takes snapshots of all trainable weights, as many as fit into the memory; none for a memory of 0.

    Parameters
    ----------
    model : keras.Model
        The model that is trained.
    megabytes : float
        Memory for them.
    on_problem : callable
        Called with a message if there are none because of an error.
    """

    def __init__(self, model: Any, megabytes: float, on_problem: Callable[[str], object]) -> None:
        budget = round(megabytes * 2**20)
        self._thinner = Thinner(budget) if budget else None
        self._model, self._on_problem = model, on_problem
        self._last: tuple[int, dict[str, Any]] = 0, {}
        self.saved: Snapshots | None = None

    def take(self, steps_done: int) -> None:
        """Take a snapshot before the next step, if one is due."""
        if self._thinner is None or not self._thinner.due(steps_done) or not self._model.built:
            return
        try:
            self._thinner.add(steps_done, trainable_weights(self._model))
        except Exception as error:  # noqa: BLE001 - the rest of the recording goes on
            self._thinner = None
            self._on_problem(f"there are no snapshots of the weights: {error}")

    def keep_last(self, steps_done: int) -> None:
        """Copy the weights after the last step of an epoch: callbacks may change them before the end of the fit."""
        if self._thinner is not None:
            self._last = steps_done, trainable_weights(self._model)

    def save(self, folder: Path, steps_done: int, names: Mapping[str, str]) -> None:
        """Save the snapshots, the last after the last step, in a folder; `names` renames tensors."""
        if self._thinner is not None:
            n_steps, weights = self._last
            if n_steps != steps_done:
                weights = trainable_weights(self._model)
            taken = self._thinner.snapshots(steps_done, weights)
            tensors = {names.get(name, name): values for name, values in taken.tensors.items()}
            self.saved = taken._replace(tensors=tensors)
            save(self.saved, folder / FILE)
