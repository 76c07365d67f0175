"""Which file format for a training's history? Times, sizes, and what a kill leaves: docs/history_format.md.

Run ``python benchmarks/history_formats.py``; it takes two to three minutes and prints markdown tables.
Formats whose library is missing (h5py, zarr) are left out, with a note. Bytes read are known on Linux only,
and only where the temporary folder (``TMPDIR``) is on a disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_hp.history import HistoryWriter, Tensor, TrainingHistory

HEAD = ["format", "append a chunk, ms", "size, MB", "files", "read one tensor, ms", "from a cold disk, MB"]
Rows = dict[str, np.ndarray]  # column or tensor -> (rows, *shape)
ROWS = 256  # in a chunk
KILLS = 5


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


FORMATS: list[Any] = [
    *(_Ours, _ArrowStream, _ArrowStreamLz4, _ArrowStreamZstd, _ParquetFiles, _ParquetRowGroups, _NpyFiles),
    *(_Hdf5, _Hdf5Swmr, _Zarr),
]


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


def regression(steps: int) -> Rows:
    """(A) Linear regression with two weights: gradient descent on noisy batches of 10."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps, 10))
    y = 3 * x + 2 + rng.normal(size=x.shape)
    weights, losses, errors, wb = np.empty((steps, 2)), np.empty(steps), np.empty(steps), np.zeros(2)
    for i in range(steps):
        error = wb[0] * x[i] + wb[1] - y[i]
        losses[i], errors[i] = np.mean(error**2), np.mean(np.abs(error))
        wb = wb - 0.01 * 2 * np.array([np.mean(error * x[i]), np.mean(error)])
        weights[i] = wb
    f32 = weights.astype(np.float32)
    return {**_columns(losses, errors, 16), "dense/kernel": f32[:, :1, None], "dense/bias": f32[:, 1:]}


def perceptron(steps: int) -> Rows:
    """(B2) A perceptron 784-64-64-10, SGD with batches of 32 made-up images whose margins are dark."""
    rng = np.random.default_rng(0)
    lit = np.zeros((28, 28), bool)
    lit[4:24, 4:24] = True
    patterns = np.maximum(rng.normal(size=(10, 784)), 0) * lit.reshape(-1)
    sizes, losses, errors, layers = (784, 64, 64, 10), np.empty(steps), np.empty(steps), []
    for n, m in pairwise(sizes):
        layers += [rng.uniform(-1, 1, (n, m)) * np.sqrt(6 / (n + m)), np.zeros(m)]
    layers = [a.astype(np.float32) for a in layers]
    names = [f"dense_{i // 2}/{'bias' if i % 2 else 'kernel'}" for i in range(6)]
    rows = {name: np.empty((steps, *a.shape), np.float32) for name, a in zip(names, layers, strict=True)}
    for step in range(steps):
        label = rng.integers(10, size=32)
        x = (patterns[label] * (rng.random((32, 784)) < 0.5)).astype(np.float32)
        h1 = np.maximum(x @ layers[0] + layers[1], 0)
        h2 = np.maximum(h1 @ layers[2] + layers[3], 0)
        z = h2 @ layers[4] + layers[5]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        losses[step] = -np.log(p[np.arange(32), label] + 1e-12).mean()
        errors[step] = (p.argmax(axis=1) != label).mean()
        d3 = (p - np.eye(10, dtype=np.float32)[label]) / 32
        d2 = (d3 @ layers[4].T) * (h2 > 0)
        d1 = (d2 @ layers[2].T) * (h1 > 0)
        gradients = (x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d3, d3.sum(0))
        for name, a, gradient in zip(names, layers, gradients, strict=True):
            np.subtract(a, np.float32(0.05) * gradient, out=a)
            rows[name][step] = a
    return {**_columns(losses, errors, 625), **rows}


def _columns(losses: np.ndarray, errors: np.ndarray, batches: int) -> Rows:
    step = np.arange(len(losses))
    epoch, batch = np.divmod(step, batches)
    mean = np.array([a.sum() for a in (losses, errors)])[:, None] / len(step)
    return {
        "step": step,
        "epoch": epoch,
        "batch": batch,
        "samples": np.full(len(step), 32),
        "batch_loss": losses,
        "running_loss": losses * 0.5 + mean[0] * 0.5,
        "running_mae": errors * 0.5 + mean[1] * 0.5,
        "learning_rate": np.full(len(step), 0.01),
    }


def measure(form: Any, rows: Rows, tensor: str) -> tuple[float, ...]:
    """Write all rows in chunks and read one tensor back; see ``HEAD`` for what it gives."""
    n, times, reading = len(rows["step"]), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = form(folder, rows)
        for start in range(0, n, ROWS):
            chunk = {key: a[start : start + ROWS] for key, a in rows.items()}
            began = time.perf_counter()
            writer.append(chunk)
            times.append(time.perf_counter() - began)
        writer.close()
        files = [path for path in folder.rglob("*") if path.is_file()]
        form.read(folder, tensor)  # imports what it needs
        for path in files:  # out of the cache of the operating system
            with path.open("rb") as file:
                os.fsync(file.fileno())
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = _bytes_read()
        found = form.read(folder, tensor)
        touched = None if before is None else (_bytes_read() or 0) - before
        assert np.array_equal(found.reshape(rows[tensor].shape), rows[tensor])
        for _ in range(5):
            began = time.perf_counter()
            form.read(folder, tensor)
            reading.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in files)
    return (
        1e3 * float(np.median(times)),
        size / 1e6,
        len(files),
        1e3 * min(reading),
        np.nan if not touched else touched / 1e6,
    )


def _bytes_read() -> int | None:
    """Bytes that this process had read from a disk so far."""
    path = Path("/proc/self/io")
    if not path.exists():
        return None
    return int(next(line.split()[1] for line in path.read_text().splitlines() if line.startswith("read_bytes")))


def killed(form: Any, case: str, kills: int) -> tuple[str, str]:
    """Kill a writer amid appending; tell how often all finished chunks were read then, and before."""
    rng, good, lost, beside = random.Random(0), 0, [], 0  # noqa: S311 - no secret
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as name:
            me = [sys.executable, __file__]
            child = subprocess.Popen(
                [*me, "--write", form.__name__, name, case],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdout is not None
            assert child.stdin is not None
            child.stdout.readline()
            reading = [*me, "--read", form.__name__, name]
            reader = subprocess.run(reading, capture_output=True, text=True, check=False)
            beside += reader.stdout.strip() == "1"
            child.stdin.write("on\n")
            child.stdin.flush()
            child.stdout.readline()
            time.sleep(rng.random() * 0.1)
            child.kill()
            done = 2 + len(child.stdout.read().split())
            child.wait()
            reader = subprocess.run(reading, capture_output=True, text=True, check=False)
            read = int(reader.stdout) if reader.returncode == 0 else 0
            good += read >= done
            lost += [f"{read} of {done}"] * (read < done)
            child.stdout.close()
    return f"{good} of {kills}" + (f" ({', '.join(lost)} chunks)" if lost else ""), f"{beside} of {kills}"


def write_until_killed(form: Any, folder: Path, case: str) -> None:
    """Append chunks full of their own number, print it when one is written; wait after the first."""
    size = {"large": 12_800, "small": 1}[case]
    shapes: dict[str, tuple[int, ...]] = {f"c{i}": (ROWS,) for i in range(8)}
    shapes |= {"a/kernel": (ROWS, size), "a/bias": (ROWS, 1)}
    example = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    writer = form(folder, example)
    for number in range(10_000 if case == "small" else 200):
        writer.append({name: np.full_like(a, number) for name, a in example.items()})
        print(number, flush=True)
        if number == 0:
            sys.stdin.readline()
    time.sleep(60)


def read_whole_chunks(form: Any, folder: Path) -> int:
    """Count the chunks, from the first, whose two tensors hold what was written."""
    found = [form.read(folder, name) for name in ("a/kernel", "a/bias")]
    chunks = min(len(a) for a in found) // ROWS
    whole = [all((a[i * ROWS : (i + 1) * ROWS] == i).all() for a in found) for i in range(chunks)]
    return [*whole, False].index(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--write", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    by_name = {form.__name__: form for form in FORMATS}
    if options.write:
        write_until_killed(by_name[options.write[0]], Path(options.write[1]), options.write[2])
        return
    if options.read:
        print(read_whole_chunks(by_name[options.read[0]], Path(options.read[1])))
        return
    forms = [form for form in FORMATS if importlib.util.find_spec(form.library)]
    for form in FORMATS:
        if form not in forms:
            print(f"left out, for want of {form.library}: {form.name}")
    cases = [
        ("A: 100,000 steps, 2 weights, 8 columns", regression(100_000), "dense/bias", 1),
        ("B2: 1,000 steps, 55,050 weights, 8 columns", perceptron(1_000), "dense_2/bias", 5),
    ]
    for title, rows, tensor, rounds in cases:
        raw = sum(a.nbytes for a in rows.values()) / 1e6
        print(f"\n{title}; {raw:.1f} MB in memory; one tensor is {rows[tensor].nbytes / 1e6:.2f} MB\n")
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
        found: dict[str, list[tuple[float, ...]]] = {form.name: [] for form in forms}
        for seed in range(rounds):  # in an order of its own each: what ran before has its effect
            for form in random.Random(seed).sample(forms, len(forms)):  # noqa: S311 - no secret
                found[form.name].append(measure(form, rows, tensor))
        for name, measured in found.items():
            cells = [
                f"{value:,.{digits}f}" for value, digits in zip(np.median(measured, 0), (2, 1, 0, 1, 2), strict=True)
            ]
            print("| " + " | ".join([name, *cells]) + " |", flush=True)
    print("\nkill -9 amid appending: how often every finished chunk was read after it, and beside the writer\n")
    print("| format | after, 13 MB chunks | after, 10 kB chunks | beside the writer | library |")
    print("|" + " --- |" * 5)
    for form in forms:
        (large, beside), (small, _) = (killed(form, case, options.kills) for case in ("large", "small"))
        print(f"| {form.name} | {large} | {small} | {beside} | {form.library} |", flush=True)


if __name__ == "__main__":
    main()
