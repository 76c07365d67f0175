"""The history of one training: columns per step and per epoch, and the weights of each tensor over all steps.

A history is a folder of two files: ``history.arrows``, an Arrow IPC stream to which chunks of steps are
appended while training runs, and ``epochs.csv``. What is in them, and why: docs/history_format.md.
"""

from __future__ import annotations

import csv
import json
import math
import mmap
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

STEPS_FILE, EPOCHS_FILE, VERSION = "history.arrows", "epochs.csv", 1
STATISTICS = ("norm", "mean", "std", "update_ratio")
_KEY = b"mlflow_hp"  # of our entry in the metadata of the stream's schema
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow's mark at the end of a stream
_WIDE = 1024  # bytes; in narrower rows the columns lie so near that reading all is faster than skipping
_FEW = 32  # so many recorded weights or fewer get a column each in a table


class Tensor(NamedTuple):
    """A variable of the model: name (``"dense/kernel"``), shape, numpy dtype by name, whether it trains."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool


class Chunk(NamedTuple):
    """What one ``append`` wrote: ``columns`` (k,) each, ``weights`` (k, *shape) or (k, 4) each."""

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


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
        }
        self._steps, self._recorded = _fields(head)
        self._tensors, self._weights = [tensor.name for tensor in tensors], weights
        schema = pa.schema([(field.name, field.arrow_type()) for field in (*self._steps, *self._recorded)])
        self._schema = schema.with_metadata({_KEY: json.dumps(head)})
        first = {} if weights == "none" else {name: np.asarray(a)[None] for name, a in (initial or {}).items()}
        row_before = [pa.nulls(1, field.arrow_type()) for field in self._steps] + self._to_arrow(first, 1)
        self.rows, self._offsets, self._epoch_names = 0, list[int](), list[str]()
        self._folder, self._path = Path(folder), Path(folder) / STEPS_FILE
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path.open("x").close()  # never over another history
        self._sink = pa.OSFile(str(self._path), "wb")  # it has no buffer: what is written has left us
        self._stream = pa.ipc.new_stream(self._sink, self._schema)
        self._write(row_before)  # with it Arrow writes the head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        _same_names("columns", columns, [field.name for field in self._steps])
        k = len(columns[self._steps[0].name])
        arrays = [field.to_arrow(columns[field.name], k) for field in self._steps]
        arrays += self._to_arrow(weights, k)
        offset = self._sink.tell()
        self._write(arrays)
        self.rows += k
        self._offsets.append(offset)
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
        with pa.memory_map(str(self._path)) as source:
            source.seek(self._offsets[index])
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(source), self._schema)
        fields = enumerate([*self._steps, *self._recorded])
        found = {field.name: field.from_arrow(batch.column(i)) for i, field in fields}
        columns = {field.name: found.pop(field.name) for field in self._steps}
        if self._weights == "statistics":
            found = {t: np.stack([found[f"{t}/{s}"] for s in STATISTICS], axis=1) for t in self._tensors}
        return Chunk(columns, found)

    def append_epoch(self, row: Mapping[str, float]) -> None:
        """Write one epoch: "epoch" (0-based) and numbers by name, also such as earlier epochs had not."""
        if "epoch" not in row:
            raise ValueError(f"a row of epochs needs 'epoch'; it has {sorted(row)}")
        path = self._folder / EPOCHS_FILE
        if new := [name for name in row if name not in self._epoch_names]:
            lines = _csv_lines(path)[1:]
            self._epoch_names += new
            draft = path.with_suffix(".csv.part")  # a wider head: the whole file anew, swapped in at once
            with draft.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(self._epoch_names)
                table.writerows([*line, *[""] * len(new)] for line in lines)
            draft.replace(path)
        texts = {name: str(int(v)) if name == "epoch" else repr(float(v)) for name, v in row.items()}
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(texts.get(name, "") for name in self._epoch_names)

    def close(self) -> None:
        """Put the mark that tells readers that the history is complete; a second time, do nothing."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with self._sink:
                stream.close()

    def _write(self, arrays: list[Any]) -> None:
        import pyarrow as pa

        batch = pa.record_batch(arrays, schema=self._schema)
        try:
            self._stream.write_batch(batch)
        except Exception:  # half a chunk may be in the file: nothing may follow it, not even the end mark
            self._stream = None
            self._sink.close()
            raise

    def _to_arrow(self, weights: Mapping[str, np.ndarray], k: int) -> list[Any]:
        _same_names("weights", weights, self._tensors if self._weights != "none" else [])
        if self._weights != "statistics":
            return [field.to_arrow(weights[field.name], k) for field in self._recorded]
        four = {name: np.asarray(weights[name]) for name in self._tensors}
        for name, array in four.items():
            if array.shape != (k, len(STATISTICS)):
                raise ValueError(f"statistics of {name!r} have shape {array.shape}, not {(k, len(STATISTICS))}")
        columns = [array[:, i] for array in four.values() for i in range(len(STATISTICS))]
        return [field.to_arrow(column, k) for field, column in zip(self._recorded, columns, strict=True)]


class TrainingHistory:
    """What a training recorded. ``open`` and ``from_arrays`` make it; arrays are read when asked for.

    Attributes
    ----------
    meta : dict
        What was noted beside the numbers.
    tensors : tuple of Tensor
        The model's variables.
    recorded : {"values", "statistics", "none"}
        What was recorded of them.
    n_steps, n_epochs : int
    steps : mapping of str to ndarray of shape (n_steps,)
        Row i is the i-th step recorded, from 0.
    epochs : mapping of str to ndarray of shape (n_epochs,)
        float64, nan where an epoch has no such number; "epoch" (0-based) is int64.
    complete : bool
        False where the file was cut off, or is still being written: all before the cut is here.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        n_steps: int,
        read: Callable[[Sequence[str]], dict[str, np.ndarray]],
        epochs: Mapping[str, np.ndarray],
        *,
        complete: bool,
    ) -> None:
        self.meta: dict[str, Any] = head["meta"]
        self.tensors = tuple(Tensor(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in head["tensors"])
        self.recorded: str = head["weights"]
        self.n_steps, self.complete, self._read = n_steps, complete, read
        self.epochs, self.n_epochs = epochs, len(next(iter(epochs.values()), ()))
        self._step_names = list(head["columns"])

    @classmethod
    def open(cls, folder: Path | str) -> TrainingHistory:
        """Open a recorded history, finished, cut off or still growing: every whole chunk there is now.

        Raises
        ------
        FileNotFoundError
            Where the folder has no ``history.arrows``.
        ValueError
            Where that file is empty, of another kind, cut off before the first chunk, or of a newer version.
        """
        import pyarrow as pa

        path = Path(folder) / STEPS_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no training history at {path}: name the folder that holds {STEPS_FILE}")
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty: if it is a copy, copy it again; else nothing was recorded")
        try:
            with pa.OSFile(str(path)) as file:
                head = json.loads(pa.ipc.read_schema(file).metadata[_KEY])
            version = head["version"]
        except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
            why = f"{path} is no training history, or less than the head of one; name another folder"
            raise ValueError(why) from error
        if version > VERSION:
            raise ValueError(f"{path} has format version {version}, above {VERSION}: upgrade mlflow_hp")
        steps, recorded = _fields(head)
        fields = [*steps, *recorded]
        wide = sum(field.dtype.itemsize * math.prod(field.shape) for field in fields) > _WIDE
        chunks: list[int] = []  # rows in each
        source = pa.BufferReader(_mapped(path, wide=wide))
        try:
            for batch in _batches(source, [0]):
                chunks.append(batch.num_rows)  # noqa: PERF401 - keeps those before an error
            end = source.tell()
            complete = end == source.size() and source.read_at(len(_END), end - len(_END)) == _END
        except (pa.ArrowException, OSError):
            complete = False
        if not chunks:
            raise ValueError(f"{path} is cut off before the first step; there is nothing to read")

        def read(names: Sequence[str]) -> dict[str, np.ndarray]:
            chosen = {i: field for i, field in enumerate(fields) if field.name in names}
            found = {f.name: np.empty((sum(chunks), *f.shape), f.dtype) for f in chosen.values()}
            buffer, end = _mapped(path, wide=wide), 0
            with path.open("rb") as file:
                for rows, batch in zip(chunks, _batches(pa.BufferReader(buffer), list(chosen)), strict=False):
                    for field, column in zip(chosen.values(), batch.columns, strict=True):
                        part = found[field.name][end : end + rows]
                        field.read_arrow(column, file, buffer.address, part)
                    end += rows
            # row 0 is before the first step: it has weights, but nothing in the step columns
            return {name: array[1:] if name in head["columns"] else array for name, array in found.items()}

        epochs = _read_epochs(path.with_name(EPOCHS_FILE))
        return cls(head, sum(chunks) - 1, read, epochs, complete=complete)

    @classmethod
    def from_arrays(
        cls,
        steps: Mapping[str, Any],
        epochs: Mapping[str, Any] | None = None,
        *,
        tensors: Sequence[Tensor] = (),
        weights: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Mapping[str, Any]] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> TrainingHistory:
        """Make a history in memory.

        Parameters
        ----------
        steps, epochs : mapping of str to array_like of shape (n_steps,), (n_epochs,)
        tensors : sequence of Tensor
            By default what ``weights`` or ``statistics`` tell, all trainable.
        weights : mapping of str to array_like of shape (n_steps + 1, *shape), optional
            Row 0 is before the first step.
        statistics : mapping of str to mapping of str to array_like of shape (n_steps + 1,), optional
            Tensor -> statistic -> values. Instead of ``weights``.
        meta : mapping, optional

        Raises
        ------
        ValueError
            Where shapes or names don't agree, or both weights and statistics came.
        """
        if weights and statistics:
            raise ValueError("give weights= or statistics=, not both: the weights' statistics are computed")
        arrays = {name: np.asarray(values) for name, values in steps.items()}
        columns = {name: array.dtype.name for name, array in arrays.items()}
        n_steps = len(next(iter(arrays.values()), ()))
        arrays |= {name: np.asarray(values) for name, values in (weights or {}).items()}
        for name, four in (statistics or {}).items():
            arrays |= {f"{name}/{key}": np.asarray(four[key], np.float64) for key in STATISTICS}
        tensors = tensors or [Tensor(n, arrays[n].shape[1:], arrays[n].dtype.name, True) for n in weights or ()]
        tensors = tensors or [Tensor(name, (), "float32", True) for name in statistics or ()]
        head = {
            "columns": columns,
            "tensors": [tensor._asdict() for tensor in tensors],
            "weights": "values" if weights else "statistics" if statistics else "none",
            "meta": dict(meta or {}),
        }
        fields = [field for part in _fields(head) for field in part]
        _same_names("arrays", arrays, [field.name for field in fields])
        for field in fields:
            shape = (n_steps if field.name in columns else n_steps + 1, *field.shape)
            if arrays[field.name].shape != shape:
                raise ValueError(f"{field.name!r} has shape {arrays[field.name].shape}, not {shape}")
            arrays[field.name] = arrays[field.name].astype(field.dtype, copy=False)
        by_epoch = {name: _epoch_column(name, values) for name, values in (epochs or {}).items()}
        return cls(head, n_steps, lambda names: {n: arrays[n] for n in names}, by_epoch, complete=True)

    @cached_property
    def steps(self) -> Mapping[str, np.ndarray]:
        """The step columns, (n_steps,) each; read when first asked for."""
        found = self._read(self._step_names)
        return {name: found[name] for name in self._step_names}

    def weights(self, tensor: str) -> np.ndarray:
        """Read one tensor over all steps and nothing else of the file: (n_steps + 1, *shape).

        Row 0 is before the first step, row i + 1 after step i.

        Raises
        ------
        ValueError
            For an unknown tensor, or where the weights themselves were not recorded.
        """
        self._check(tensor, "values")
        return self._read([tensor])[tensor]

    def statistics(self, tensor: str) -> dict[str, np.ndarray]:
        """Give each of ``STATISTICS`` of one tensor, (n_steps + 1,) and float64, in rows as of ``weights``.

        As recorded, or else as `statistics_of` computes them from the recorded weights.

        Raises
        ------
        ValueError
            For an unknown tensor, or where neither weights nor statistics were recorded.
        """
        self._check(tensor, "values", "statistics")
        if self.recorded == "values":
            return dict(zip(STATISTICS, statistics_of(self.weights(tensor)).T, strict=True))
        found = self._read([f"{tensor}/{key}" for key in STATISTICS])
        return {key: found[f"{tensor}/{key}"] for key in STATISTICS}

    def to_pandas(self) -> pd.DataFrame:
        """Make a table of the steps: their columns, and the weights or statistics after each; index "step".

        Where at most 32 weights in all were recorded, there is a column for each (``"dense/kernel/0"``, in
        C order; ``"dense/bias"`` for a tensor of one), else for each statistic (``"dense/kernel/norm"``).
        The row before the first step is left out.
        """
        import pandas as pd

        table = dict(self.steps)
        few = self.recorded == "values" and sum(math.prod(t.shape) for t in self.tensors) <= _FEW
        for name, shape, *_ in self.tensors if self.recorded != "none" else ():
            if few:
                flat = self.weights(name)[1:].reshape(self.n_steps, math.prod(shape))
                if flat.dtype.itemsize < 4 and flat.dtype.kind in "fV":
                    flat = flat.astype(np.float32)  # pandas can't count with bfloat16, nor print float16
                names = [name] if flat.shape[1] == 1 else [f"{name}/{i}" for i in range(flat.shape[1])]
                table |= dict(zip(names, flat.T, strict=True))
            else:
                table |= {f"{name}/{key}": values[1:] for key, values in self.statistics(name).items()}
        index = pd.Index(table.pop("step", np.arange(self.n_steps)), name="step")
        return pd.DataFrame(table, index=index)

    def epochs_to_pandas(self) -> pd.DataFrame:
        """Make a table of the epochs; index "epoch"."""
        import pandas as pd

        table = dict(self.epochs)
        return pd.DataFrame(table, index=pd.Index(table.pop("epoch", np.arange(self.n_epochs)), name="epoch"))

    def _check(self, tensor: str, *enough: str) -> None:
        if self.recorded not in enough:
            only = ", only their statistics" if self.recorded == "statistics" else ""
            raise ValueError(f'weights were not recorded{only}; train with TrainingRecorder(weights="all")')
        if tensor not in (names := [t.name for t in self.tensors]):
            raise ValueError(f"no tensor {tensor!r}; there are {', '.join(names)}")


def statistics_of(weights: np.ndarray) -> np.ndarray:
    """Compute the ``STATISTICS`` of a tensor in each row.

    Parameters
    ----------
    weights : ndarray of shape (rows, *shape)

    Returns
    -------
    ndarray of shape (rows, 4)
        float64: Euclidean norm, mean, standard deviation of the population, and |w - w before| / |w before|
        from row to row (nan in row 0; where the tensor leaves zero: inf). Without elements: 0, nan, nan, nan.
    """
    size = math.prod(weights.shape[1:])
    flat = weights.reshape(len(weights), size)
    result = np.full((len(weights), len(STATISTICS)), np.nan)
    block = max(1, 2**20 // max(size, 1))  # the float64 copies stay at some MiB
    with np.errstate(all="ignore"):
        for start in range(0, len(weights), block):
            before = max(start - 1, 0)
            values = flat[before : start + block].astype(np.float64)
            rows = slice(before, before + len(values))
            result[rows, 0] = np.sqrt(np.square(values).sum(axis=1))
            if size:
                result[rows, 1], result[rows, 2] = values.mean(axis=1), values.std(axis=1)
            moved = np.sqrt(np.square(np.diff(values, axis=0)).sum(axis=1))
            result[before + 1 : rows.stop, 3] = moved / result[before : rows.stop - 1, 0]
    return result


class _Field(NamedTuple):
    """A column of the steps file: a number (shape ``()``) or a tensor in each row."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def stored(self) -> np.dtype:
        """The dtype on disk: Arrow's, where it has it; else (bfloat16, float8, bool) the bits, unsigned."""
        if self.dtype.itemsize <= 8 and self.dtype.isbuiltin == 1 and self.dtype.kind in "iuf":
            return self.dtype
        if self.dtype.itemsize <= 8 and (self.dtype.isbuiltin == 2 or self.dtype.kind == "b"):
            return np.dtype(f"u{self.dtype.itemsize}")
        raise ValueError(f"{self.name!r} has dtype {self.dtype}; a history takes numbers of up to 8 bytes")

    def arrow_type(self) -> Any:
        import pyarrow as pa

        number = pa.from_numpy_dtype(self.stored)
        return pa.list_(number, math.prod(self.shape)) if self.shape else number

    def to_arrow(self, values: Any, rows: int) -> Any:
        """Wrap (rows, *shape) as an Arrow array; without a copy where dtype and memory layout are right."""
        import pyarrow as pa

        array = np.asarray(values)
        if array.shape != (rows, *self.shape):
            raise ValueError(f"{self.name!r} has shape {array.shape}, not {(rows, *self.shape)}")
        if not np.can_cast(array.dtype, self.dtype, "safe"):
            raise ValueError(f"{self.name!r} is {array.dtype}, which {self.dtype} does not hold without loss")
        flat = np.ascontiguousarray(array, self.dtype).reshape(-1).view(self.stored)
        number = pa.from_numpy_dtype(self.stored)
        numbers = pa.Array.from_buffers(number, flat.size, [None, pa.py_buffer(flat)])
        if not self.shape:
            return numbers
        return pa.Array.from_buffers(self.arrow_type(), rows, [None], children=[numbers])

    def from_arrow(self, array: Any) -> np.ndarray:
        """View an Arrow array as (rows, *shape), read-only."""
        numbers = array.values if self.shape else array  # noqa: PD011 - of Arrow, not of pandas
        flat: np.ndarray = numbers.to_numpy(zero_copy_only=True).view(self.dtype)
        return flat.reshape(len(array), *self.shape)

    def read_arrow(self, array: Any, file: Any, mapped_at: int, to: np.ndarray) -> None:
        """Read an Arrow array of a mapped file, but from the file: a map would fetch its neighbours too."""
        if to.size:
            numbers = array.values if self.shape else array  # noqa: PD011 - of Arrow, not of pandas
            file.seek(numbers.buffers()[1].address - mapped_at)
            if file.readinto(to.reshape(-1).view(np.uint8)) != to.nbytes:
                raise OSError(f"{file.name} became shorter while it was read")


def _fields(head: Mapping[str, Any]) -> tuple[list[_Field], list[_Field]]:
    """Give the columns of the steps file from its head: those of the steps, those of the weights."""
    steps = [_Field(name, (), _dtype(dtype)) for name, dtype in head["columns"].items()]
    recorded = [_Field(t["name"], tuple(t["shape"]), _dtype(t["dtype"])) for t in head["tensors"]]
    if head["weights"] not in ("values", "statistics", "none"):
        raise ValueError(f"weights={head['weights']!r} is none of 'values', 'statistics', 'none'")
    if head["weights"] == "statistics":
        float64 = np.dtype(np.float64)
        recorded = [_Field(f"{tensor.name}/{key}", (), float64) for tensor in recorded for key in STATISTICS]
    elif head["weights"] == "none":
        recorded = []
    names = [field.name for field in (*steps, *recorded)]
    if not steps or len(set(names)) < len(names):
        raise ValueError(f"columns of the history need names of their own, and at least one: {names}")
    return steps, recorded


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # TensorFlow brings it: bfloat16, float8_e5m2 and the like

        return np.dtype(getattr(ml_dtypes, name))


def _same_names(what: str, came: Mapping[str, Any], wanted: Sequence[str]) -> None:
    if set(came) != set(wanted):
        raise ValueError(f"{what} came for {sorted(came)}, not for {sorted(wanted)}")


def _mapped(path: Path, *, wide: bool) -> Any:
    """Map a file as an Arrow buffer; with wide rows so that only what is touched is fetched from the disk."""
    import pyarrow as pa

    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if wide and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(mapped)


def _batches(source: Any, columns: Sequence[int]) -> Any:
    """Go through a stream from its start; of each batch, read some columns only."""
    import pyarrow as pa

    source.seek(0)
    options = pa.ipc.IpcReadOptions(included_fields=list(columns), use_threads=False)
    return pa.ipc.open_stream(source, options=options)


def _csv_lines(path: Path) -> list[list[str]]:
    """Read the whole lines of a CSV file; a last one without its end was cut off. No file: no lines."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))


def _read_epochs(path: Path) -> dict[str, np.ndarray]:
    head, *lines = _csv_lines(path) or [[]]
    try:
        rows = [dict(zip(head, map(float, (text or "nan" for text in line)), strict=True)) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} has a line that is not a number under each name: {error}") from error
    return {name: _epoch_column(name, [row[name] for row in rows]) for name in head}


def _epoch_column(name: str, values: Any) -> np.ndarray:
    return np.asarray(values, np.float64).astype(np.int64 if name == "epoch" else np.float64)
