"""The chunks of a history, one at a time: however long the history is, no more than one of them is in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.history.fields import KEY, STATISTICS, STEPS_FILE, fields_of
from mlflow_hp.history.stream import StepsFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Chunk(NamedTuple):
    """Consecutive steps: ``columns`` (k,) each, ``weights`` (k, *shape) or, for statistics, (k, 4) each."""

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def chunk_of(batch: Any, head: Mapping[str, Any]) -> Chunk:
    """The arrays of one of Arrow's record batches, read-only, given the head of its history."""
    steps, recorded = fields_of(head)
    found = {f.name: f.from_arrow(batch.column(i)) for i, f in enumerate([*steps, *recorded])}
    columns = {field.name: found.pop(field.name) for field in steps}
    if head["weights"] == "statistics":
        names = [tensor["name"] for tensor in head["tensors"]]
        found = {name: np.stack([found[f"{name}/{s}"] for s in STATISTICS], axis=1) for name in names}
    return Chunk(columns, found)


def read_initial(folder: Path | str) -> dict[str, np.ndarray]:
    """What is recorded of each tensor before the first step: of its shape, or its four statistics; ``{}`` for none."""
    import pyarrow as pa

    with pa.OSFile(str(Path(folder) / STEPS_FILE)) as source, pa.ipc.open_stream(source) as stream:
        head = json.loads(stream.schema.metadata[KEY])
        _, recorded = fields_of(head)
        batch = stream.read_next_batch()
        n_columns = len(head["columns"])
        found = {f.name: f.from_arrow(batch.column(n_columns + i))[0].copy() for i, f in enumerate(recorded)}
    if head["weights"] != "statistics":
        return found
    return {t["name"]: np.array([found[f"{t['name']}/{s}"] for s in STATISTICS]) for t in head["tensors"]}


def read_chunks(folder: Path | str) -> Iterator[Chunk]:
    """The chunks behind the first row of a history, in their order, as long as they are whole.

    Raises
    ------
    OSError, pyarrow.ArrowInvalid
        Where the file is not there, or is cut off within a chunk.
    """
    import pyarrow as pa

    with pa.memory_map(str(Path(folder) / STEPS_FILE)) as source, pa.ipc.open_stream(source) as stream:
        head = json.loads(stream.schema.metadata[KEY])
        next(stream, None)
        for batch in stream:
            yield chunk_of(batch, head)


def sound_chunks(folder: Path | str) -> int:
    """How many chunks, from the first, `read_chunks` gives of a history as they were written; 0 for a broken one."""
    try:
        file = StepsFile(Path(folder) / STEPS_FILE)
        file.keep_sound()
    except (ValueError, OSError):
        return 0
    return len(file.chunks) - 1  # the first is the row before the first step
