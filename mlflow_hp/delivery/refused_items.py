"""Items of a fit that MLflow refuses for their content: a file next to the journal, later an artifact of the run."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import mlflow

from mlflow_hp.delivery.batches import kind_of
from mlflow_hp.terminal import count
from mlflow_hp.tracking.artifact_paths import training_path

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_hp.delivery.batches import Item

FILE = "refused.jsonl"
"""Name of the file: a line of JSON for each metric, param or tag, with the reason."""


class RefusedItems:
    """Refused items of one fit, including those of earlier processes.

    Parameters
    ----------
    folder : Path or None
        Folder of the journal; if None, they are only kept in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._lines: list[str] = []
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, item: Item, reason: str) -> None:
        """Add an item.

        Raises
        ------
        OSError
            If it cannot be written; then it is only kept in memory.
        """
        line = json.dumps({kind_of(item): dict(item), "reason": reason}) + "\n"
        self._lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)

    def upload(self, run_id: str, fit: int) -> None:
        """Write the artifact, unless it is empty."""
        if self._lines:
            mlflow.MlflowClient().log_text(run_id, "".join(self._lines), artifact_path(fit))

    def message(self, fit: int, error: Exception | None = None) -> str:
        """Return the message for the user."""
        values = f"{count(len(self), 'value')} (metrics, params or tags)"
        text = f"MLflow refuses {values}: see the artifact {artifact_path(fit)}"
        return text if error is None else f"{text}: {error}"


def artifact_path(fit: int) -> str:
    """Return the path of the artifact for fit number `fit` (0-based) of a run."""
    return f"{training_path(fit)}/{FILE}"
