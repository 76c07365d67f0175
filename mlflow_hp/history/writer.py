"""HistoryWriter: writes chunks of steps to disk during training."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlflow_hp.history.checksums import chunk_checksums, header_checksum
from mlflow_hp.history.chunks import Chunk, chunk_from_arrays
from mlflow_hp.history.epoch_table import EpochsWriter
from mlflow_hp.history.missing import array_of
from mlflow_hp.history.schema import (
    CHECK,
    EPOCHS_FILE,
    KEY,
    STATISTICS,
    STEPS_FILE,
    VERSION,
    Tensor,
    check_names,
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np


class HistoryWriter:
    """Writer of one history during training: chunks of steps, and epochs; it may be read meanwhile.

    Parameters
    ----------
    folder : path
        Folder of the history, created if missing; it can hold only one.
    columns : mapping of str to str
        Numbers recorded at each step, at least one: name -> NumPy dtype.
    tensors : sequence of Tensor
        The model's variables.
    weights : {"values", "statistics", "none"}
        Form in which each tensor is recorded after each step: its values, the four ``STATISTICS``, or not at all.
    initial : mapping of str to ndarray, or None
        The same before the first step: of the tensor's shape or (4,). May be None for "none".
    meta : mapping
        Metadata of the training, which must be serialisable as JSON.

    Attributes
    ----------
    rows, n_chunks : int
        Number of steps and chunks written so far.

    Raises
    ------
    FileExistsError
        If the folder holds a history already.
    ValueError
        For two columns of one name, an unknown ``weights``, a dtype that cannot be stored, or an ``initial`` that does
        not match the tensors.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import HistoryWriter, TrainingHistory
    >>> columns = {"batch_loss": "float32"}
    >>> writer = HistoryWriter("run", columns=columns, tensors=[], weights="none", initial=None, meta={})
    >>> _ = writer.append({"batch_loss": np.array([0.5, 0.25], np.float32)}, {})
    >>> writer.close()
    >>> TrainingHistory.open("run").steps["batch_loss"]
    array([0.5 , 0.25], dtype=float32)
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

        header = {
            "version": VERSION,
            "columns": dict(columns),
            "tensors": [tensor._asdict() for tensor in tensors],
            "weights": weights,
            "meta": dict(meta),
            "checked": True,
        }
        self._header = header
        self._steps, self._recorded = fields_of(header)
        self._tensors, self._weights = [tensor.name for tensor in tensors], weights
        schema = pa.schema([(field.name, field.arrow_type()) for field in (*self._steps, *self._recorded)])
        text = json.dumps(header).encode()
        self._schema = schema.with_metadata({KEY: text, CHECK: header_checksum(text, VERSION)})
        first = {} if weights == "none" else {name: array_of(a)[None] for name, a in (initial or {}).items()}
        row_before = [pa.nulls(1, field.arrow_type()) for field in self._steps] + self._to_arrow(first, 1)
        self.rows, self._offsets, self._ends = 0, list[int](), list[int]()
        self._path = Path(folder) / STEPS_FILE
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._epochs = EpochsWriter(self._path.with_name(EPOCHS_FILE))
        self._path.open("x").close()  # never overwrite another history
        self._sink = pa.OSFile(str(self._path), "wb")  # unbuffered: the operating system has all that was written
        # Chunks are read back through a descriptor, which also works after the folder was removed.
        self._descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor).atexit = False  # a fit may end later in the exit
        self._stream = pa.ipc.new_stream(self._sink, self._schema)
        self._write(row_before)  # Arrow writes the header with it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> int:
        """Offset of the next chunk, in bytes."""
        return int(self._sink.tell())

    @property
    def n_chunks(self) -> int:
        """Number of chunks written so far."""
        return len(self._offsets)

    def append(self, columns: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> int:
        """Write the next k steps; the operating system has them on return.

        Parameters
        ----------
        columns : mapping of str to ndarray of shape (k,)
            All columns. Those of floating-point numbers may be masked where a step has no value.
        weights : mapping of str to ndarray of shape (k, *shape) or (k, 4)
            All tensors after each of these steps; empty for "none". Statistics may be masked in the rows of steps at
            which they were not taken.

        Returns
        -------
        int
            Index of the chunk (0-based), for ``chunk``.

        Raises
        ------
        ValueError
            For other names, shapes or dtypes, or a closed writer. Nothing is written then.
        OSError
            If the file cannot be written. Earlier chunks stay readable; the writer is closed.
        """
        if self._stream is None:
            raise ValueError(f"{self._path} is closed: open a HistoryWriter on another folder")
        check_names("columns", columns, [field.name for field in self._steps])
        n_rows = len(columns[self._steps[0].name])
        arrays = [field.to_arrow(columns[field.name], n_rows) for field in self._steps]
        arrays += self._to_arrow(weights, n_rows)
        offset = self._sink.tell()
        self._write(arrays)
        self.rows += n_rows
        self._ends.append(self._sink.tell())
        self._offsets.append(offset)  # last: its length is the number of chunks that other threads may read
        return len(self._offsets) - 1

    def chunk(self, index: int) -> Chunk:
        """Read a chunk back, from any thread; its arrays are read-only.

        Parameters
        ----------
        index : int
            Index that ``append`` returned.

        Returns
        -------
        Chunk
            The steps.

        Raises
        ------
        IndexError
            For an unknown index.
        """
        import pyarrow as pa

        if not 0 <= index < self.n_chunks:
            raise IndexError(f"no chunk {index}: there are {self.n_chunks} (0-based)")
        start, end = self._offsets[index], self._ends[index]
        content = os.pread(self._descriptor, end - start, start)
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(content)), self._schema)
        fields = (*self._steps, *self._recorded)
        arrays = {field.name: field.from_arrow(batch.column(i)) for i, field in enumerate(fields)}
        return chunk_from_arrays(arrays, self._header)

    def append_epoch(self, row: Mapping[str, float]) -> None:
        """Write one epoch: "epoch" (0-based) and numbers by name; names may be new.

        Parameters
        ----------
        row : mapping of str to float
            Numbers by name.
        """
        self._epochs.append(row)

    def close(self) -> None:
        """Write the mark of a complete history, and close the file; idempotent."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with self._sink:
                stream.close()

    def restore(self) -> None:
        """Write the file again after it was removed; for a closed writer.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.dup(self._descriptor), "rb") as source, self._path.open("xb") as target:  # noqa: PTH123
            source.seek(0)
            shutil.copyfileobj(source, target)

    def _write(self, arrays: list[Any]) -> None:
        import pyarrow as pa

        batch = pa.record_batch(arrays, schema=self._schema)
        fields = zip((*self._steps, *self._recorded), arrays, strict=True)
        checksums = chunk_checksums(len(batch), [field.checksum(array) for field, array in fields], VERSION)
        try:
            self._stream.write_batch(batch, custom_metadata={CHECK: checksums})
        except Exception:  # the file may end in half a chunk: nothing may follow it, not even the end mark
            self._stream = None
            self._sink.close()
            raise

    def _to_arrow(self, weights: Mapping[str, np.ndarray], n_rows: int) -> list[Any]:
        check_names("weights", weights, self._tensors if self._weights != "none" else [])
        if self._weights != "statistics":
            return [field.to_arrow(weights[field.name], n_rows) for field in self._recorded]
        statistics = {name: array_of(weights[name]) for name in self._tensors}
        for name, array in statistics.items():
            if array.shape != (n_rows, len(STATISTICS)):
                raise ValueError(f"statistics of {name!r} have shape {array.shape}, not {(n_rows, len(STATISTICS))}")
        columns = [array[:, i] for array in statistics.values() for i in range(len(STATISTICS))]
        return [field.to_arrow(column, n_rows) for field, column in zip(self._recorded, columns, strict=True)]
