"""Where a fit stands in its run: its number, and those of its first step and epoch, so that no two fits collide."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.journal import JournalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FITS, STEPS, EPOCHS = "mlflow_hp.fits", "mlflow_hp.steps", "mlflow_hp.epochs"
"""Tags of a run: how many fits, steps and epochs of it have been recorded."""
CLAIM = "mlflow_hp.claim"
"""Tag with the folder of the recording that has counted itself last, and of those that it knows to stand before it."""


class FitNumbers(NamedTuple):
    """Numbers of a fit, of its first step, and of its first epoch, in its run; each 0-based."""

    fit: int = 0
    step: int = 0
    epoch: int = 0

    def plus(self, other: FitNumbers) -> FitNumbers:
        """Give the sums of both."""
        return FitNumbers(*(one + two for one, two in zip(self, other, strict=True)))


_known: dict[str, FitNumbers] = {}
"""What comes next in runs that this process has recorded into."""
_lock = threading.Lock()


def from_tags(tags: Mapping[str, str]) -> FitNumbers:
    """What comes next by the tags of a run."""
    return FitNumbers(*(_number(tags.get(name)) for name in (FITS, STEPS, EPOCHS)))


def next_numbers(run_id: str, tags: Mapping[str, str], folder: Path) -> tuple[FitNumbers, list[str]]:
    """Take the numbers of the next fit of a run; gives also the recordings on this machine that come before it.

    Parameters
    ----------
    run_id : str
    tags : mapping
        The run's; empty where MLflow does not answer.
    folder : Path
        Where recordings of this run may have been left behind.
    """
    with _lock:
        left = _left(folder)
        behind = map(_behind, left.values())
        numbers = _highest([from_tags(tags), _known.get(run_id, FitNumbers()), *behind])
        _known[run_id] = numbers._replace(fit=numbers.fit + 1)
    return numbers, list(left)


def end_at(run_id: str, numbers: FitNumbers) -> None:
    """Note what comes next in a run, when a fit has ended."""
    with _lock:
        _known[run_id] = _highest([numbers, _known.get(run_id, FitNumbers())])


def shift(ours: FitNumbers, tags: Mapping[str, str], claim: str) -> FitNumbers:
    """How far the numbers of a recording have to be moved, where others have counted before it was known of.

    Parameters
    ----------
    ours : FitNumbers
        What the recording has begun with.
    tags : mapping
        The run's tags now.
    claim : str
        Name of the recording's folder: where the run knows of it, nothing is moved.
    """
    theirs = from_tags(tags)
    if claim in tags.get(CLAIM, "").split() or theirs.fit <= ours.fit:
        return FitNumbers()
    return FitNumbers(*(max(0, there - here) for there, here in zip(theirs, ours, strict=True)))


def _left(folder: Path) -> dict[str, journal.Entries]:
    """The journals of the trainings of a run that are on this machine, by the names of their folders."""
    entries = {}
    for path in folder.glob(f"*/{journal.FILE}"):
        try:
            entries[path.parent.name] = journal.of_a_training(journal.read(path.parent))
        except (JournalError, OSError):
            continue
    return entries


def _behind(entries: journal.Entries) -> FitNumbers:
    """What comes behind a recorded training."""
    head = entries.head
    moved = next((FitNumbers(*r["shift"]) for r in entries.records if "shift" in r), FitNumbers())
    steps = sum(record["chunk"]["rows"] for record in entries.records if "chunk" in record)
    epochs = [int(record["epoch"]["epoch"]) + 1 for record in entries.records if "epoch" in record]
    return FitNumbers(
        head["fit"] + moved.fit + 1,
        head.get("first_step", 0) + moved.step + steps,
        max(epochs, default=0) + moved.epoch,
    )


def _highest(numbers: list[FitNumbers]) -> FitNumbers:
    return FitNumbers(*map(max, zip(*numbers, strict=True)))


def _number(text: str | None) -> int:
    """A count as a tag holds it; 0 for what is none."""
    return int(text) if text is not None and text.isdecimal() else 0
