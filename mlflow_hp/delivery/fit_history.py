"""History of one fit, written step by step and epoch by epoch."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from mlflow_hp.history import EPOCHS_FILE, STEPS_FILE, HistoryWriter, TrainingHistory, write_epochs
from mlflow_hp.history.program import write_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from mlflow_hp.history.program import Program
    from mlflow_hp.history.step_record import Layout, Rows

HISTORY = "history"
"""Name of the history's folder, next to the journal."""


class FitHistory:
    """Writes the history of one fit.

    Parameters
    ----------
    folder : Path
        Folder of the history, which becomes an artifact.
    layout : Layout
        Layout of the rows.
    meta : mapping
        Metadata for the header of the history.

    Raises
    ------
    OSError
        If it cannot be written.
    """

    def __init__(self, folder: Path, layout: Layout, meta: Mapping[str, Any]) -> None:
        self._folder = folder
        self._epochs: list[dict[str, float]] = []
        self._program: Program | None = None
        self._writer = HistoryWriter(
            folder,
            columns=layout.columns,
            tensors=layout.tensors,
            weights=layout.store,
            initial=layout.initial,
            meta=meta,
        )

    @property
    def n_bytes(self) -> int:
        """Size of the steps file up to the end of the last chunk."""
        return self._writer.end

    def append(self, rows: Rows) -> int:
        """Append a chunk of rows; return its number."""
        return self._writer.append(rows.columns, rows.weights)

    def chunk(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Read a chunk back from the disk."""
        return self._writer.chunk(number)

    def append_epoch(self, row: dict[str, float], on_removed: Callable[[OSError], object]) -> None:
        """Append an epoch; call `on_removed` if the folder was removed, which `finish` restores."""
        self._epochs.append(row)
        try:
            self._writer.append_epoch(row)
        except FileNotFoundError as error:
            on_removed(error)

    def write_program(self, program: Program) -> None:
        """Write the description of the program, in place of an earlier one."""
        self._program = program
        with contextlib.suppress(FileNotFoundError):  # the folder was removed; `finish` restores it
            write_program(self._folder, program)

    def sync(self) -> None:
        """Sync the steps to the disk."""
        with contextlib.suppress(OSError), (self._folder / STEPS_FILE).open("rb", buffering=0) as steps:
            os.fsync(steps.fileno())  # unsupported by some file systems

    def finish(self) -> TrainingHistory:
        """Write the end of the history, and open it for reading."""
        self._writer.close()
        if not (self._folder / STEPS_FILE).exists():
            self._writer.restore()
            write_epochs(self._folder / EPOCHS_FILE, self._epochs)
            if self._program is not None:
                write_program(self._folder, self._program)
        self.sync()
        return TrainingHistory.open(self._folder)
