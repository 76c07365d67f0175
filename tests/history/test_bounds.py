"""Files with false claims about their size: refused with a message, within a small multiple of their size in memory."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile

import flatbuffers
import numpy as np
import pyarrow as pa
import pytest

from mlflow_hp.history import EPOCHS_FILE, STEPS_FILE, HistoryWriter, Tensor, TrainingHistory, weight_snapshots

ROWS = 2_000_000
"""Rows of a chunk of zeros that is compressed to a few kilobytes: 32 MB and 480 MB uncompressed."""
COLUMNS = {"step": "int64", "loss": "float64"}
WEIGHTS = Tensor("dense/kernel", (60,), "float32", True)
HUGE = WEIGHTS._replace(shape=(2**40,) * 9)
HEADER = {"version": 1, "columns": COLUMNS, "tensors": [WEIGHTS._asdict()], "weights": "values", "meta": {}}
SCHEMA = pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("dense/kernel", pa.list_(pa.float32(), 60))])


def schema(header=HEADER, fields=SCHEMA):
    return fields.with_metadata({"mlflow_hp": json.dumps(header)})


def zeros(rows, of):
    numbers = [pa.array(np.zeros(rows, column.type.to_pandas_dtype())) for column in list(of)[:2]]
    return pa.record_batch(
        [*numbers, pa.FixedSizeListArray.from_arrays(np.zeros(60 * rows, np.float32), 60)], schema=of
    )


def streamed(batches, of, **options):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, of, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return sink.getvalue()


def compressed(codec, first):
    """Make a history with a compressed chunk of zeros: the first one, or the second after an uncompressed first one."""
    one, many = zeros(1, schema()), zeros(ROWS, schema())
    if first:
        return streamed([many], schema(), compression=codec)
    plain, packed = streamed([one], schema()), streamed([many], schema(), compression=codec)
    return plain[:-8] + packed[len(streamed([], schema())) - 8 :]


def compressed_steps():
    """Make a history of step numbers alone, 80 MB of them in some kilobytes."""
    own = pa.schema([("step", pa.int64())])
    of = schema(HEADER | {"columns": {"step": "int64"}, "tensors": []}, own)
    return streamed([pa.record_batch([pa.array(np.zeros(10_000_000, np.int64))], schema=of)], of, compression="zstd")


def patched(old, new, rows=1000):
    """Make a history of two chunks, with numbers of eight bytes replaced in the second."""
    one, content = (
        streamed([zeros(1, schema())], schema()),
        streamed([zeros(1, schema()), zeros(rows, schema())], schema()),
    )
    before, rest = content[: len(one) - 8], content[len(one) - 8 :]
    old, new = (b"".join(number.to_bytes(8, "little", signed=True) for number in numbers) for numbers in (old, new))
    assert old in rest[:1000]
    return before + rest[:1000].replace(old, new) + rest[1000:]


def with_dictionary():
    own = pa.schema([("step", pa.dictionary(pa.int8(), pa.int64()))])
    batch = pa.record_batch([pa.DictionaryArray.from_arrays(pa.array([0] * 10, pa.int8()), [5])], schema=own)
    header = HEADER | {"columns": {"step": "int64"}, "tensors": []}
    return streamed([batch], schema(header, own))


def nested():
    kind = pa.float32()
    for _ in range(60):
        kind = pa.list_(kind, 1)
    return streamed(
        [], schema(fields=pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("dense/kernel", kind)]))
    )


def of_a_type(kind):
    return streamed([], schema(fields=pa.schema([("step", pa.int64()), ("loss", kind), SCHEMA.field(2)])))


def shared_fields(depth, width):
    """Make a schema in which the children of each field are one other field, many times."""
    made = flatbuffers.Builder(0)
    name, children = made.CreateString("x"), None
    for _ in range(depth):
        made.StartObject(2)  # an Int of 64 bits
        made.PrependInt32Slot(0, 64, 0)
        kind = made.EndObject()
        made.StartObject(7)
        made.PrependUOffsetTRelativeSlot(0, name, 0)
        made.PrependUint8Slot(2, 2, 0)
        made.PrependUOffsetTRelativeSlot(3, kind, 0)
        if children is not None:
            made.PrependUOffsetTRelativeSlot(5, children, 0)
        field = made.EndObject()
        made.StartVector(4, width, 4)
        for _ in range(width):
            made.PrependUOffsetTRelative(field)
        children = made.EndVector()
    key, value = made.CreateString("mlflow_hp"), made.CreateString(json.dumps(HEADER))
    made.StartObject(2)
    made.PrependUOffsetTRelativeSlot(0, key, 0)
    made.PrependUOffsetTRelativeSlot(1, value, 0)
    entry = made.EndObject()
    made.StartVector(4, 1, 4)
    made.PrependUOffsetTRelative(entry)
    metadata = made.EndVector()
    made.StartObject(4)
    made.PrependUOffsetTRelativeSlot(1, children, 0)
    made.PrependUOffsetTRelativeSlot(2, metadata, 0)
    own = made.EndObject()
    made.StartObject(5)
    made.PrependInt16Slot(0, 4, 0)
    made.PrependUint8Slot(1, 1, 0)
    made.PrependUOffsetTRelativeSlot(2, own, 0)
    made.Finish(made.EndObject())
    message = bytes(made.Output())
    message += bytes(-len(message) % 8)
    return b"\xff" * 4 + len(message).to_bytes(4, "little") + message


def with_header(text):
    return streamed([], SCHEMA.with_metadata({"mlflow_hp": text}))


def many_columns():
    columns = {f"{i:x}": "int8" for i in range(20_000)}
    return with_header(json.dumps(HEADER | {"columns": columns, "tensors": []}))


def claiming(length):
    return b"\xff" * 4 + length.to_bytes(4, "little", signed=True) + bytes(1000)


HISTORIES = {
    **{f"{codec}, {'first' if first else 'second'} chunk": (lambda c=codec, f=first: compressed(c, f))
       for codec in ("lz4", "zstd") for first in (True, False)},
    "zstd, steps alone": compressed_steps,
    "a dictionary": with_dictionary,
    "nested lists": nested,
    "a text": lambda: of_a_type(pa.string()),
    "a view": lambda: of_a_type(pa.string_view()),
    "a map": lambda: of_a_type(pa.map_(pa.int8(), pa.int8())),
    "run ends": lambda: of_a_type(pa.run_end_encoded(pa.int32(), pa.float64())),
    "a null": lambda: of_a_type(pa.null()),
    "another width": lambda: of_a_type(pa.float32()),
    "decimals": lambda: of_a_type(pa.decimal128(20)),
    "more rows than bytes": lambda: patched([1000, 0], [10**9, 0]),
    "rows of overflow": lambda: patched([1000, 0], [2**62, 0]),
    "negative rows": lambda: patched([1000, 0], [-1, 0]),
    "a longer list": lambda: patched([60_000, 0], [60_000_000, 0]),
    "missing values": lambda: patched([60_000, 0], [60_000, 5]),
    "a buffer over another": lambda: patched([8000, 0, 8000, 8000], [8000, 0, 0, 8000]),
    "a buffer in front": lambda: patched([8000, 0, 8000, 8000], [8000, 0, -8000, 8000]),
    "a buffer behind the file": lambda: patched([8000, 0, 8000, 8000], [8000, 0, 2**40, 8000]),
    "a buffer beyond the file": lambda: patched([8000, 0, 8000, 8000], [8000, 0, 8000, 2**40]),
    "a buffer of overflow": lambda: patched([8000, 0, 8000, 8000], [8000, 0, 8000, 2**63 - 1]),
    "a buffer too short": lambda: patched([8000, 0, 8000, 8000], [8000, 0, 8000, 7992]),
    "shared fields": lambda: shared_fields(1, 200_000),
    "shared fields in each other": lambda: shared_fields(30, 10),
    "many columns": many_columns,
    "a deep header": lambda: with_header("[" * 100_000),
    "a wide header": lambda: with_header(json.dumps(HEADER | {"meta": [[]] * 100_000})),
    "a huge number": lambda: with_header('{"version": 1' + "0" * 100_000 + "}"),
    "a huge shape": lambda: with_header(json.dumps(HEADER | {"tensors": [HUGE._asdict()]})),
    "a message of 2 GiB": lambda: claiming(2**31 - 1),
    "a message of negative length": lambda: claiming(-8),
    "no message": lambda: claiming(0),
}  # fmt: skip

INTACT_FIRST_ROW = [name for name in HISTORIES if re.search("second|buffer|rows|longer|missing", name)]
"""Names of those with an intact row before the first step, which is all that is read."""


def archive(members, claimed_size=None):
    """Make an .npz of members; `claimed_size` is the size that it claims for each."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
        if claimed_size is not None:
            for member in file.infolist():
                member.file_size = member.compress_size = claimed_size
    return sink.getvalue()


def array(shape, dtype="<f4", content=b""):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def text_array(text):
    sink = io.BytesIO()
    np.save(sink, np.array(text))
    return sink.getvalue()


TOLD = json.dumps({"version": 1, "every": 1, "n_steps": 2, "tensors": ["w"]})
SNAPSHOTS = {
    "another shape": lambda: archive({"head": text_array(TOLD), "steps": array((10**9,), "<i8", bytes(24))}),
    "no elements of any size": lambda: archive({"head": array((10**9,), "<U10", b"")}),
    "one element of any size": lambda: archive({"head": array((), "<U500000000", b"")}),
    "a negative shape": lambda: archive({"head": array((-1, -4), "<i8", bytes(32))}),
    "objects": lambda: archive({"head": array((1,), "|O", b"\x80\x04N.")}),
    "sizes beyond the file": lambda: archive({"head": array((10**9,))}, claimed_size=4 * 10**9),
    "text for arrays": lambda: archive({"head": b"x" * 1000}),
}

CELLS = {
    "empty lines": b"epoch,loss\n" + b"\n" * 1_000_000,
    "nothing but empty lines": b"\n" * 1_000_000,
    "one long line": b"epoch," + b"," * 1_000_000 + b"\n",
    "many names": ("epoch," + ",".join(f"{i:x}" for i in range(200_000)) + "\n").encode(),
    "long cells": b"epoch,loss\n0," + b"1" * 1_000_000 + b"\n",
    "a false seal": b"epoch,xxh3:0000000000000000\n" + b"0,x0000000000000000\n" * 100_000,
}

OPENED = """
import json, resource, sys, tracemalloc
from pathlib import Path
from mlflow_hp.history import TrainingHistory
from mlflow_hp.history import weight_snapshots as snapshots
from mlflow_hp.errors import UserError

def opened(path, check):
    if path.suffix == ".npz":
        return snapshots.load(path)
    found = TrainingHistory.open(path, check=check)
    return found.steps, found.weights("dense/kernel")

def most_resident():
    status = Path("/proc/self/status")
    if status.exists():  # getrusage includes the memory of the parent process
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for folder in sys.argv[1:]:
    for check in (False, True):
        tracemalloc.start()
        try:
            opened(Path(folder), check)
            said = None
        except UserError as error:
            said = str(error)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(json.dumps([folder, said, most, most_resident()]), flush=True)
"""


def opened(*paths):
    """Open files in a process of its own: message and peak memory in bytes of each, and growth of the whole process."""
    done = subprocess.run([sys.executable, "-c", OPENED, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {path: [line[1:3] for line in lines if line[0] == str(path)] for path in paths}, lines[-1][3] - lines[0][3]


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    initial = {"dense/kernel": np.zeros(60, np.float32)}
    with HistoryWriter(folder, columns=COLUMNS, tensors=[WEIGHTS], weights="values", initial=initial, meta={}) as file:
        file.append({"step": np.arange(3), "loss": np.zeros(3)}, {"dense/kernel": np.zeros((3, 60), np.float32)})
        file.append_epoch({"epoch": 0, "loss": 1.0})
    return folder


def test_hostile_history_is_refused_without_allocating(intact, tmp_path):
    paths = {name: tmp_path / f"{i}" for i, name in enumerate(HISTORIES)}
    for name, path in paths.items():
        path.mkdir()
        (path / STEPS_FILE).write_bytes(HISTORIES[name]())
    found, grown = opened(intact, *paths.values())
    assert [said for said, _ in found[intact]] == [None, None]
    for name, path in paths.items():
        for (said, most), check in zip(found[path], (False, True), strict=True):
            size = (path / STEPS_FILE).stat().st_size
            assert STEPS_FILE in said if said else name in INTACT_FIRST_ROW, (name, check, said)
            assert most < 40 * size + 2**20, (name, check, size, most)
    assert grown < 30 * 2**20, grown


def test_rows_before_a_hostile_chunk_are_read(tmp_path):
    for i, name in enumerate(INTACT_FIRST_ROW):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / STEPS_FILE).write_bytes(HISTORIES[name]())
        history = TrainingHistory.open(tmp_path / f"{i}")
        assert (history.n_steps, history.complete) == (0, False), name
        assert history.weights("dense/kernel").shape == (1, 60)


def test_compressed_history_is_named_in_the_error(tmp_path):
    (tmp_path / STEPS_FILE).write_bytes(compressed("zstd", first=True))
    with pytest.raises(ValueError, match=r"history\.arrows is damaged .*: it is compressed, unlike any history"):
        TrainingHistory.open(tmp_path)


def test_hostile_table_of_epochs_takes_little_memory(intact, tmp_path):
    paths = {}
    for i, (name, content) in enumerate(CELLS.items()):
        path = paths[name] = tmp_path / f"{i}"
        path.mkdir()
        (path / STEPS_FILE).write_bytes((intact / STEPS_FILE).read_bytes())
        (path / EPOCHS_FILE).write_bytes(content)
    found, _ = opened(*paths.values())
    for name, path in paths.items():
        for said, most in found[path]:
            assert said is None or EPOCHS_FILE in said, name
            assert most < 40 * len(CELLS[name]) + 2**20, (name, most)
        assert found[path][0][0], name


def test_snapshots_with_false_sizes_are_refused(intact, tmp_path):
    paths = {name: tmp_path / f"{i}.npz" for i, name in enumerate(SNAPSHOTS)}
    for name, path in paths.items():
        path.write_bytes(SNAPSHOTS[name]())
    found, grown = opened(intact, *paths.values())
    for name, path in paths.items():
        for said, most in found[path]:
            assert said, name
            assert f"{path} holds no weight snapshots" in said, name
            assert most < 2**20, (name, most)
    assert grown < 20 * 2**20
    made = weight_snapshots.Snapshots(
        np.array([0, 2]), {"w": np.zeros((2, 3), np.float32), "b": np.zeros((2, 0), np.float32)}, 1, 2
    )
    weight_snapshots.save(made, tmp_path / "intact.npz")
    assert weight_snapshots.load(tmp_path / "intact.npz").tensors["b"].shape == (2, 0)
