"""File formats for a training's history, each written in chunks and read by column."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history import HistoryWriter, Tensor, TrainingHistory

if TYPE_CHECKING:
    from pathlib import Path

Rows = dict[str, np.ndarray]  # column or tensor -> (rows, *shape)
ROWS = 256  # in a chunk


class _ArrowStream:
    name, library = "Arrow IPC stream", "pyarrow"
    codec: str | None = None

    def __init__(self, folder: Path, like: Rows) -> None:
        import pyarrow as pa

        self.schema = pa.schema([(name, _arrow(a).type) for name, a in like.items()])
        self.sink = pa.OSFile(str(folder / "history.arrows"), "wb")
        options = pa.ipc.IpcWriteOptions(compression=self.codec)
        self.stream = pa.ipc.new_stream(self.sink, self.schema, options=options)

    def append(self, rows: Rows) -> None:
        import pyarrow as pa

        self.stream.write_batch(pa.record_batch([_arrow(a) for a in rows.values()], schema=self.schema))

    def close(self) -> None:
        self.stream.close()
        self.sink.close()

    @staticmethod
    def read(folder: Path, name: str) -> np.ndarray:
        import pyarrow as pa

        parts = []
        with pa.memory_map(str(folder / "history.arrows")) as source:
            index = pa.ipc.open_stream(source).schema.get_field_index(name)
            source.seek(0)
            options = pa.ipc.IpcReadOptions(included_fields=[index])
            try:
                parts += [_numpy(batch.column(0)) for batch in pa.ipc.open_stream(source, options=options)]
            except (OSError, pa.ArrowInvalid):  # cut off: below, batch by batch
                source.seek(0)
                stream = pa.ipc.open_stream(source, options=options)
                while (batch := _next(stream)) is not None:
                    parts.append(_numpy(batch.column(0)))
            return np.concatenate(parts)


class _ArrowStreamLz4(_ArrowStream):
    name, codec = "Arrow IPC stream, lz4", "lz4"


class _ArrowStreamZstd(_ArrowStream):
    name, codec = "Arrow IPC stream, zstd", "zstd"


class _Ours:
    name, library = "mlflow_hp.history (Arrow IPC stream)", "pyarrow"

    def __init__(self, folder: Path, like: Rows) -> None:
        self.columns = [name for name in like if "/" not in name]
        tensors = [Tensor(n, a.shape[1:], a.dtype.name, True) for n, a in like.items() if "/" in n]
        self.writer = HistoryWriter(
            folder,
            columns={name: like[name].dtype.name for name in self.columns},
            tensors=tensors,
            weights="values",
            initial={tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in tensors},
            meta={},
        )

    def append(self, rows: Rows) -> None:
        weights = {name: a for name, a in rows.items() if name not in self.columns}
        self.writer.append({name: rows[name] for name in self.columns}, weights)

    def close(self) -> None:
        self.writer.close()

    @staticmethod
    def read(folder: Path, name: str) -> np.ndarray:
        return TrainingHistory.open(folder).weights(name)[1:]


class _ParquetRowGroups:
    name, library = "Parquet, a row group per chunk", "pyarrow"

    def __init__(self, folder: Path, like: Rows) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, _arrow(a).type) for name, a in like.items()])
        self.file = pq.ParquetWriter(folder / "history.parquet", schema)

    def append(self, rows: Rows) -> None:
        import pyarrow as pa

        self.file.write_table(pa.table({name: _arrow(a) for name, a in rows.items()}))

    def close(self) -> None:
        self.file.close()

    @staticmethod
    def read(folder: Path, name: str) -> np.ndarray:
        import pyarrow.parquet as pq

        return _numpy(pq.read_table(folder / "history.parquet", columns=[name]).column(0).combine_chunks())


class _ParquetFiles:
    name, library = "Parquet, a file per chunk", "pyarrow"

    def __init__(self, folder: Path, like: Rows) -> None:
        self.folder, self.numbers = folder, count()

    def append(self, rows: Rows) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({name: _arrow(a) for name, a in rows.items()})
        pq.write_table(table, self.folder / f"{next(self.numbers):06}.parquet")

    def close(self) -> None:
        pass

    @staticmethod
    def read(folder: Path, name: str) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = []
        for path in sorted(folder.iterdir()):
            try:
                parts.append(_numpy(pq.read_table(path, columns=[name]).column(0).combine_chunks()))
            except pa.ArrowInvalid:
                break
        return np.concatenate(parts)


class _NpyFiles:
    name, library = ".npy, a file per chunk and column", "numpy"

    def __init__(self, folder: Path, like: Rows) -> None:
        self.folder, self.numbers = folder, count()

    def append(self, rows: Rows) -> None:
        number = next(self.numbers)
        for name, array in rows.items():
            np.save(self.folder / f"{name.replace('/', '.')}.{number:06}.npy", array, allow_pickle=False)

    def close(self) -> None:
        pass

    @staticmethod
    def read(folder: Path, name: str) -> np.ndarray:
        parts = []
        for path in sorted(folder.glob(f"{name.replace('/', '.')}.*.npy")):
            try:
                parts.append(np.load(path, allow_pickle=False))
            except (ValueError, EOFError):
                break
        return np.concatenate(parts)


class _Hdf5:
    name, library, swmr = "HDF5", "h5py", False

    def __init__(self, folder: Path, like: Rows) -> None:
        import h5py  # type: ignore[import-untyped]

        self.file = h5py.File(folder / "history.h5", "w", libver="latest" if self.swmr else None)
        for name, a in like.items():
            shape = a.shape[1:]
            self.file.create_dataset(name, (0, *shape), a.dtype, chunks=(ROWS, *shape), maxshape=(None, *shape))
        if self.swmr:
            self.file.swmr_mode = True

    def append(self, rows: Rows) -> None:
        for name, a in rows.items():
            data = self.file[name]
            data.resize(len(data) + len(a), axis=0)
            data[-len(a) :] = a
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    @classmethod
    def read(cls, folder: Path, name: str) -> np.ndarray:
        import h5py

        with h5py.File(folder / "history.h5", "r", swmr=cls.swmr) as file:
            return np.asarray(file[name])


class _Hdf5Swmr(_Hdf5):
    name, swmr = "HDF5, SWMR", True


class _Zarr:
    name, library = "Zarr", "zarr"

    def __init__(self, folder: Path, like: Rows) -> None:
        import zarr

        root = zarr.create_group(folder / "history.zarr")
        self.arrays = {
            name: root.create_array(
                name.replace("/", "."), shape=(0, *a.shape[1:]), chunks=(ROWS, *a.shape[1:]), dtype=a.dtype
            )
            for name, a in like.items()
        }

    def append(self, rows: Rows) -> None:
        for name, a in rows.items():
            self.arrays[name].append(a)

    def close(self) -> None:
        pass

    @staticmethod
    def read(folder: Path, name: str) -> np.ndarray:
        import zarr

        group: Any = zarr.open_group(folder / "history.zarr", mode="r")
        return np.asarray(group[name.replace("/", ".")][:])


def _arrow(array: np.ndarray) -> Any:
    import pyarrow as pa

    flat = pa.array(array.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array[0].size) if array.ndim > 1 else flat


def _numpy(column: Any) -> np.ndarray:
    if not hasattr(column, "flatten") or not hasattr(column.type, "list_size"):
        return column.to_numpy()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _next(stream: Any) -> Any:
    import pyarrow as pa

    try:
        return stream.read_next_batch()
    except (StopIteration, OSError, pa.ArrowInvalid):
        return None


FORMATS: list[Any] = [
    *(_Ours, _ArrowStream, _ArrowStreamLz4, _ArrowStreamZstd, _ParquetFiles, _ParquetRowGroups, _NpyFiles),
    *(_Hdf5, _Hdf5Swmr, _Zarr),
]
