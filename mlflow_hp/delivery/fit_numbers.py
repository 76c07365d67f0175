"""Position of a fit in its run: its number, and those of its first step and epoch, so that no two fits collide."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.delivery import journal, training_journal
from mlflow_hp.delivery.journal import JournalError
from mlflow_hp.tracking.tags import CLAIM_TAG, EPOCHS_TAG, FITS_TAG, STEPS_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class FitNumbers(NamedTuple):
    """Number of a fit in its run, of its first step, and of its first epoch; each 0-based."""

    fit: int = 0
    step: int = 0
    epoch: int = 0

    def plus(self, other: FitNumbers) -> FitNumbers:
        """Return the element-wise sum."""
        return FitNumbers(*(a + b for a, b in zip(self, other, strict=True)))


_next_of_runs: dict[str, FitNumbers] = {}
"""Run id -> numbers of the next fit, for runs that this process has recorded into."""
_lock = threading.Lock()


def from_tags(tags: Mapping[str, str]) -> FitNumbers:
    """Read the numbers of the next fit from the tags of a run."""
    return FitNumbers(*(_count(tags.get(name)) for name in (FITS_TAG, STEPS_TAG, EPOCHS_TAG)))


def next_numbers(run_id: str, tags: Mapping[str, str], folder: Path) -> tuple[FitNumbers, list[str]]:
    """Take the numbers of the next fit of a run; also return the folder names of earlier recordings on this machine.

    Parameters
    ----------
    run_id : str
        Id of the run.
    tags : mapping of str to str
        Tags of the run; empty if MLflow does not answer.
    folder : Path
        Folder of the run's recordings on this machine.
    """
    with _lock:
        journals = _training_journals(folder)
        after_journals = map(_numbers_after, journals.values())
        numbers = _maximum([from_tags(tags), _next_of_runs.get(run_id, FitNumbers()), *after_journals])
        _next_of_runs[run_id] = numbers._replace(fit=numbers.fit + 1)
    return numbers, list(journals)


def end_at(run_id: str, numbers: FitNumbers) -> None:
    """Note the numbers of the next fit of a run at the end of a fit."""
    with _lock:
        _next_of_runs[run_id] = _maximum([numbers, _next_of_runs.get(run_id, FitNumbers())])


def shift(numbers: FitNumbers, tags: Mapping[str, str], claim: str) -> FitNumbers:
    """Offset of a recording's numbers if other fits have taken them before the run knew of this one.

    Parameters
    ----------
    numbers : FitNumbers
        Numbers with which the recording began.
    tags : mapping of str to str
        Current tags of the run.
    claim : str
        Name of the recording's folder; if the run has it in a tag, the offset is 0.
    """
    next_in_run = from_tags(tags)
    if claim in tags.get(CLAIM_TAG, "").split() or next_in_run.fit <= numbers.fit:
        return FitNumbers()
    return FitNumbers(*(max(0, taken - own) for taken, own in zip(next_in_run, numbers, strict=True)))


def _training_journals(folder: Path) -> dict[str, journal.Entries]:
    """Read the journals of a run's trainings on this machine: folder name -> entries."""
    entries = {}
    for path in folder.glob(f"*/{journal.FILE}"):
        try:
            entries[path.parent.name] = training_journal.validated(journal.read(path.parent))
        except (JournalError, OSError):
            continue
    return entries


def _numbers_after(entries: journal.Entries) -> FitNumbers:
    """Numbers of the fit after a recorded one."""
    header = entries.header
    offset = next((FitNumbers(*record["shift"]) for record in entries.records if "shift" in record), FitNumbers())
    n_steps = sum(record["chunk"]["rows"] for record in entries.records if "chunk" in record)
    next_epochs = [int(record["epoch"]["epoch"]) + 1 for record in entries.records if "epoch" in record]
    return FitNumbers(
        header["fit"] + offset.fit + 1,
        header.get("first_step", 0) + offset.step + n_steps,
        max(next_epochs, default=0) + offset.epoch,
    )


def _maximum(numbers: list[FitNumbers]) -> FitNumbers:
    """Element-wise maximum."""
    return FitNumbers(*map(max, zip(*numbers, strict=True)))


def _count(text: str | None) -> int:
    """Parse the count of a tag; 0 if it is none."""
    return int(text) if text is not None and text.isdecimal() else 0
