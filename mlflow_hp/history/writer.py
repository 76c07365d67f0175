"""HistoryWriter: chunks of steps on their way to disk while training runs."""

from __future__ import annotations

import json
import os
import shutil
import weakref
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mlflow_hp.history.arrow_reader import Chunk, chunk_of
from mlflow_hp.history.epoch_table import EpochsWriter
from mlflow_hp.history.schema import (
    CHECK,
    EPOCHS_FILE,
    KEY,
    STATISTICS,
    STEPS_FILE,
    VERSION,
    Tensor,
    check_of,
    fields_of,
    same_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class HistoryWriter:
    """Appends chunks of steps, and epochs, while training runs: one writer, any readers beside it.

    Parameters
    ----------
    folder : path
        Made where missing. It holds one history; a second is refused.
    columns : mapping of str to str
        The numbers recorded at each step, at least one: name -> numpy dtype.
    tensors : sequence of Tensor
        The model's variables.
    weights : {"values", "statistics", "none"}
        What is recorded of each tensor after each step: itself, the four ``STATISTICS``, or nothing.
    initial : mapping of str to ndarray, or None
        The same before the first step: of the tensor's shape or (4,). None will do for "none".
    meta : mapping
        What else belongs to the training and can be written as JSON.

    Attributes
    ----------
    rows, n_chunks : int
        How many steps and chunks have been written.

    Raises
    ------
    FileExistsError
        Where the folder holds a history already.
    ValueError
        For two columns of one name, an unknown ``weights``, a dtype that can't be stored, or an
        ``initial`` that does not fit the tensors.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        columns: Mapping[str, str],
        tensors: Sequence[Tensor],
        weights: str,
        initial: Mapping[str, np.ndarray] | None,
        meta: Mapping[str, Any],
    ) -> None:
        import pyarrow as pa

        head = {
            "version": VERSION,
            "columns": dict(columns),
            "tensors": [tensor._asdict() for tensor in tensors],
            "weights": weights,
            "meta": dict(meta),
            "checked": True,
        }
        self._head = head
        self._steps, self._recorded = fields_of(head)
        self._tensors, self._weights = [tensor.name for tensor in tensors], weights
        schema = pa.schema([(field.name, field.arrow_type()) for field in (*self._steps, *self._recorded)])
        text = json.dumps(head).encode()
        self._schema = schema.with_metadata({KEY: text, CHECK: str(zlib.crc32(text))})
        first = {} if weights == "none" else {name: np.asarray(a)[None] for name, a in (initial or {}).items()}
        row_before = [pa.nulls(1, field.arrow_type()) for field in self._steps] + self._to_arrow(first, 1)
        self.rows, self._offsets, self._ends = 0, list[int](), list[int]()
        self._path = Path(folder) / STEPS_FILE
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._epochs = EpochsWriter(self._path.with_name(EPOCHS_FILE))
        self._path.open("x").close()  # never over another history
        self._sink = pa.OSFile(str(self._path), "wb")  # it has no buffer: what is written has left us
        # Chunks are read back by a descriptor: that works also when somebody has removed the folder.
        self._reading = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._reading).atexit = False  # a fit may be ended later at exit
        self._stream = pa.ipc.new_stream(self._sink, self._schema)
        self._write(row_before)  # with it Arrow writes the head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> int:
        """Where the next chunk will begin, in bytes."""
        return int(self._sink.tell())

    @property
    def n_chunks(self) -> int:
        """How many chunks have been written."""
        return len(self._offsets)

    def append(self, columns: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> int:
        """Write the next k steps; the operating system has them when this returns.

        Parameters
        ----------
        columns : mapping of str to ndarray of shape (k,)
            Every column named at the start.
        weights : mapping of str to ndarray of shape (k, *shape) or (k, 4)
            Every tensor after each of these steps; empty for "none".

        Returns
        -------
        int
            The chunk's index, from 0, for ``chunk``.

        Raises
        ------
        ValueError
            For names, shapes or dtypes other than announced, or a closed writer. Nothing is written then.
        OSError
            Where the file can't be written. What was written before stays readable; the writer is closed.
        """
        if self._stream is None:
            raise ValueError(f"{self._path} is closed: open a HistoryWriter on another folder")
        same_names("columns", columns, [field.name for field in self._steps])
        k = len(columns[self._steps[0].name])
        arrays = [field.to_arrow(columns[field.name], k) for field in self._steps]
        arrays += self._to_arrow(weights, k)
        offset = self._sink.tell()
        self._write(arrays)
        self.rows += k
        self._ends.append(self._sink.tell())
        self._offsets.append(offset)  # last: it counts the chunks that other threads may read
        return len(self._offsets) - 1

    def chunk(self, index: int) -> Chunk:
        """Read back, from any thread, what ``append`` wrote as ``index``; the arrays are read-only.

        Raises
        ------
        IndexError
            For an index that no ``append`` has returned.
        """
        import pyarrow as pa

        if not 0 <= index < self.n_chunks:
            raise IndexError(f"no chunk {index}: there are {self.n_chunks}, counted from 0")
        start, end = self._offsets[index], self._ends[index]
        content = os.pread(self._reading, end - start, start)
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(content)), self._schema)
        fields = (*self._steps, *self._recorded)
        return chunk_of({field.name: field.from_arrow(batch.column(i)) for i, field in enumerate(fields)}, self._head)

    def append_epoch(self, row: Mapping[str, float]) -> None:
        """Write one epoch: "epoch" (0-based) and numbers by name, also such as earlier epochs had not."""
        self._epochs.append(row)

    def close(self) -> None:
        """Put the mark that tells readers that the history is complete; a second time, do nothing."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with self._sink:
                stream.close()

    def restore(self) -> None:
        """Put the file back where somebody has removed it; for a closed writer.

        Raises
        ------
        OSError
            Where that can't be done.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.dup(self._reading), "rb") as source, self._path.open("xb") as target:  # noqa: PTH123
            source.seek(0)
            shutil.copyfileobj(source, target)

    def _write(self, arrays: list[Any]) -> None:
        import pyarrow as pa

        batch = pa.record_batch(arrays, schema=self._schema)
        fields = zip((*self._steps, *self._recorded), arrays, strict=True)
        check = check_of(len(batch), [field.checksum(array) for field, array in fields])
        try:
            self._stream.write_batch(batch, custom_metadata={CHECK: check})
        except Exception:  # half a chunk may be in the file: nothing may follow it, not even the end mark
            self._stream = None
            self._sink.close()
            raise

    def _to_arrow(self, weights: Mapping[str, np.ndarray], k: int) -> list[Any]:
        same_names("weights", weights, self._tensors if self._weights != "none" else [])
        if self._weights != "statistics":
            return [field.to_arrow(weights[field.name], k) for field in self._recorded]
        four = {name: np.asarray(weights[name]) for name in self._tensors}
        for name, array in four.items():
            if array.shape != (k, len(STATISTICS)):
                raise ValueError(f"statistics of {name!r} have shape {array.shape}, not {(k, len(STATISTICS))}")
        columns = [array[:, i] for array in four.values() for i in range(len(STATISTICS))]
        return [field.to_arrow(column, k) for field, column in zip(self._recorded, columns, strict=True)]
