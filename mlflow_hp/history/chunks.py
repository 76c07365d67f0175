"""The chunks of a history, one at a time: however long the history is, no more than one of them is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.history.fields import STATISTICS, STEPS_FILE
from mlflow_hp.history.stream import StepsFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Chunk(NamedTuple):
    """Consecutive steps: ``columns`` (k,) each, ``weights`` (k, *shape) or, for statistics, (k, 4) each."""

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def chunk_of(arrays: Mapping[str, np.ndarray], head: Mapping[str, Any]) -> Chunk:
    """A chunk of the arrays of all its columns, given the head of its history."""
    columns = {name: arrays[name] for name in head["columns"]}
    names = [tensor["name"] for tensor in head["tensors"]]
    if head["weights"] == "statistics":
        return Chunk(columns, {name: np.stack([arrays[f"{name}/{s}"] for s in STATISTICS], axis=1) for name in names})
    return Chunk(columns, {name: arrays[name] for name in names} if head["weights"] == "values" else {})


def read_initial(folder: Path | str) -> dict[str, np.ndarray]:
    """What is recorded of each tensor before the first step: of its shape, or its four statistics; ``{}`` for none."""
    file = StepsFile(Path(folder) / STEPS_FILE)
    return {name: values[0] for name, values in chunk_of(file.arrays(0), file.head).weights.items()}


def read_chunks(folder: Path | str) -> Iterator[Chunk]:
    """The whole chunks behind the first row of a history, in their order.

    Raises
    ------
    OSError
        Where the file is not there.
    UserError
        Where it is no history, or a chunk is not what was written.
    """
    file = StepsFile(Path(folder) / STEPS_FILE)
    for number in range(1, len(file.chunks)):
        yield chunk_of(file.arrays(number), file.head)


def sound_chunks(folder: Path | str) -> int:
    """How many chunks, from the first, `read_chunks` gives of a history as they were written; 0 for a broken one."""
    try:
        file = StepsFile(Path(folder) / STEPS_FILE)
        file.keep_sound()
    except (ValueError, OSError):
        return 0
    return len(file.chunks) - 1  # the first is the row before the first step
