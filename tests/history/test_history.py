"""mlflow_hp.history: what is written is read back, whatever happened in between."""

import json
import resource
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlflow_hp import history
from mlflow_hp.history import STATISTICS, HistoryWriter, Tensor, TrainingHistory, schema, statistics_of

COLUMNS = {"step": "int64", "batch_loss": "float64", "samples": "int32"}
KERNEL, BIAS = Tensor("dense/kernel", (3, 2), "float32", True), Tensor("dense/bias", (2,), "float32", True)
SCALAR = Tensor("scale", (), "float64", False)


def some_columns(k, start=0):
    steps = np.arange(start, start + k)
    return {"step": steps, "batch_loss": np.sin(steps) * 1e-3, "samples": (steps % 7).astype(np.int32)}


def some_weights(k, tensors=(KERNEL, BIAS, SCALAR), seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(k, *t.shape)).astype(schema.dtype_of(t.dtype)) for t in tensors}


def writer(folder, tensors=(KERNEL, BIAS, SCALAR), weights="values", initial=None, **kwargs):
    if initial is None and weights == "values":
        initial = {name: a[0] for name, a in some_weights(1, tensors, seed=99).items()}
    return HistoryWriter(
        folder,
        columns=COLUMNS,
        tensors=tensors,
        weights=weights,
        initial=initial,
        meta={"a": [1, "x"]},
        **kwargs,
    )


def write(folder, sizes=(4, 1, 5), tensors=(KERNEL, BIAS, SCALAR)):
    """A finished history of chunks with these numbers of rows; gives its chunks."""
    chunks, start = [], 0
    with writer(folder, tensors) as w:
        for i, k in enumerate(sizes):
            chunks.append((some_columns(k, start), some_weights(k, tensors, seed=i)))
            assert w.append(*chunks[-1]) == i
            start += k
    return chunks


def same_bits(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_what_is_written_is_read_back(tmp_path):
    chunks = write(tmp_path)
    found = TrainingHistory.open(tmp_path)
    assert (found.n_steps, found.n_epochs, found.complete, found.recorded) == (10, 0, True, "values")
    assert found.meta == {"a": [1, "x"]}
    assert found.tensors == (KERNEL, BIAS, SCALAR)
    assert list(found.steps) == list(COLUMNS)
    for name in COLUMNS:
        assert same_bits(found.steps[name], np.concatenate([columns[name] for columns, _ in chunks]))
    first = some_weights(1, seed=99)
    for tensor in (KERNEL, BIAS, SCALAR):
        expected = np.concatenate([first[tensor.name], *(weights[tensor.name] for _, weights in chunks)])
        assert same_bits(found.weights(tensor.name), expected)


@pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "float8_e5m2",
        "bool",
        "int8",
        "uint16",
        "int32",
        "uint32",
        "int64",
    ],
)
def test_every_bit_of_every_dtype_is_kept(tmp_path, dtype):
    real = schema.dtype_of(dtype)
    bits = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 256, (3, 4, real.itemsize), np.uint8)
    values = bits.view(real).reshape(3, 4)
    tensor = Tensor("t", (4,), dtype, True)
    with writer(tmp_path, [tensor], initial={"t": values[0]}) as w:
        w.append(some_columns(2), {"t": values[1:]})
        assert same_bits(w.chunk(0).weights["t"], values[1:])
    assert same_bits(TrainingHistory.open(tmp_path).weights("t"), values)


def test_nan_and_infinities_keep_their_bits(tmp_path):
    patterns = [
        0x7FF8000000000001,
        0xFFF8000000000ABC,
        0x7FF0000000000000,
        0xFFF0000000000000,
        0x8000000000000000,
    ]
    odd = np.array(patterns, np.uint64).view(np.float64)
    with writer(tmp_path, [SCALAR]) as w:
        w.append({**some_columns(5), "batch_loss": odd}, {"scale": odd})
    found = TrainingHistory.open(tmp_path)
    assert same_bits(found.steps["batch_loss"], odd)
    assert same_bits(found.weights("scale")[1:], odd)


def test_shapes_without_elements_and_without_axes(tmp_path):
    tensors = [
        Tensor("none", (0, 4), "float32", True),
        Tensor("one", (), "bfloat16", True),
        Tensor("x", (1, 1), "int8", True),
    ]
    chunks = write(tmp_path, (2, 3), tensors)
    found = TrainingHistory.open(tmp_path)
    assert found.weights("none").shape == (6, 0, 4)
    assert found.weights("x").shape == (6, 1, 1)
    assert same_bits(found.weights("one")[3:], chunks[1][1]["one"])
    assert np.isnan(found.statistics("none")["mean"]).all()
    assert list(found.to_pandas().columns) == ["batch_loss", "samples", "one", "x"]


def test_arrays_of_any_memory_layout(tmp_path):
    kernel = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32))
    columns = {name: np.repeat(a, 2)[::2] for name, a in some_columns(4).items()}
    with writer(tmp_path, [KERNEL]) as w:
        w.append(columns, {"dense/kernel": kernel})
    found = TrainingHistory.open(tmp_path)
    assert np.array_equal(found.weights("dense/kernel")[1:], kernel)
    assert np.array_equal(found.steps["batch_loss"], columns["batch_loss"])


def test_narrower_numbers_are_widened_and_wider_ones_refused(tmp_path):
    with writer(tmp_path, [SCALAR]) as w:
        w.append(some_columns(1), {"scale": np.ones(1, np.float32)})
        with pytest.raises(ValueError, match="'batch_loss' is complex128, which float64 does not hold"):
            w.append({**some_columns(1), "batch_loss": np.ones(1, complex)}, {"scale": np.ones(1)})
        with pytest.raises(ValueError, match="'samples' is int64, which int32 does not hold without loss"):
            w.append({**some_columns(1), "samples": np.ones(1, np.int64)}, {"scale": np.ones(1)})
    found = TrainingHistory.open(tmp_path)
    assert (found.n_steps, found.complete) == (1, True)
    assert found.weights("scale").dtype == np.float64


def test_training_of_no_steps(tmp_path):
    writer(tmp_path).close()
    found = TrainingHistory.open(tmp_path)
    assert (found.n_steps, found.n_epochs, found.complete) == (0, 0, True)
    assert found.steps["batch_loss"].shape == (0,)
    assert found.steps["samples"].dtype == np.int32
    assert same_bits(found.weights("dense/kernel"), some_weights(1, seed=99)["dense/kernel"])
    assert np.isnan(found.statistics("dense/kernel")["update_ratio"]).all()
    assert found.to_pandas().shape == (0, 2 + 6 + 2 + 1)
    assert found.epochs_to_pandas().shape == (0, 0)


def test_nothing_recorded_of_the_weights(tmp_path):
    with writer(tmp_path, weights="none") as w:
        w.append(some_columns(3), {})
        assert w.chunk(0).weights == {}
    found = TrainingHistory.open(tmp_path)
    assert (found.n_steps, found.complete) == (3, True)
    assert found.tensors == (KERNEL, BIAS, SCALAR)
    assert np.array_equal(found.steps["step"], [0, 1, 2])
    assert list(found.to_pandas().columns) == ["batch_loss", "samples"]
    with pytest.raises(ValueError, match=r"^weights were not recorded; train with"):
        found.statistics("dense/bias")


def test_a_history_can_be_opened_before_its_first_step(tmp_path):
    with writer(tmp_path / "none", weights="none"), writer(tmp_path / "values"):
        assert TrainingHistory.open(tmp_path / "none").steps["step"].shape == (0,)
        assert TrainingHistory.open(tmp_path / "values").weights("scale").shape == (1,)


def test_recorded_statistics(tmp_path):
    four = np.random.default_rng(0).normal(size=(6, 2, 4))
    four[0, :, 3] = np.nan
    names = ["dense/kernel", "dense/bias"]
    with writer(tmp_path, [KERNEL, BIAS], "statistics", {n: four[0, i] for i, n in enumerate(names)}) as w:
        w.append(some_columns(5), {n: four[1:, i] for i, n in enumerate(names)})
        assert same_bits(w.chunk(0).weights["dense/bias"], four[1:, 1])
    found = TrainingHistory.open(tmp_path)
    assert found.n_steps == 5
    for i, name in enumerate(names):
        for j, key in enumerate(STATISTICS):
            assert same_bits(found.statistics(name)[key], four[:, i, j])
    assert list(found.to_pandas().columns[2:]) == [f"{n}/{s}" for n in names for s in STATISTICS]
    with pytest.raises(ValueError, match="not recorded, only their statistics; train"):
        found.weights("dense/bias")


def test_statistics_computed_from_weights(monkeypatch):
    w = np.array([[[0, 0], [0, 0]], [[3, 0], [0, 4]], [[3, 0], [0, 4]], [[0, 0], [0, 2]]], ml_dtypes.bfloat16)
    norm, mean, std, ratio = statistics_of(w).T
    assert norm.tolist() == [0, 5, 5, 2]
    assert mean.tolist() == [0, 1.75, 1.75, 0.5]
    assert std.tolist() == [float(np.std(x.astype(float))) for x in w]
    assert np.isnan(ratio[0])
    assert np.isinf(ratio[1])
    assert ratio[2:] == pytest.approx([0, np.sqrt(9 + 4) / 5])
    many = np.random.default_rng(0).normal(size=(9, 2**19)).astype(np.float32)  # several blocks of rows
    expected = np.linalg.norm(np.diff(many.astype(float), axis=0), axis=1) / np.linalg.norm(
        many[:-1].astype(float), axis=1
    )
    assert statistics_of(many)[1:, 3] == pytest.approx(expected)
    assert statistics_of(many)[:, 1] == pytest.approx(many.mean(axis=1, dtype=float))


def test_statistics_of_recorded_weights_and_unknown_tensors(tmp_path):
    write(tmp_path)
    found = TrainingHistory.open(tmp_path)
    expected = statistics_of(found.weights("dense/kernel"))
    assert list(found.statistics("dense/kernel")) == list(STATISTICS)
    assert same_bits(np.stack(list(found.statistics("dense/kernel").values()), axis=1), expected)
    for method in (found.weights, found.statistics):
        with pytest.raises(ValueError, match="no tensor 'dense'; there are dense/kernel, dense/bias, scale"):
            method("dense")


def test_tables_by_weight_or_by_statistic(tmp_path):
    chunks = write(tmp_path / "few")
    table = TrainingHistory.open(tmp_path / "few").to_pandas()
    assert table.index.name == "step"
    assert table.index.tolist() == list(range(10))
    kernels = [f"dense/kernel/{i}" for i in range(6)]
    assert list(table) == ["batch_loss", "samples", *kernels, "dense/bias/0", "dense/bias/1", "scale"]
    assert table["dense/kernel/3"].to_numpy()[:4].tolist() == chunks[0][1]["dense/kernel"][:, 1, 1].tolist()
    many = [Tensor("k", (8, 4), "float16", True), BIAS]
    write(tmp_path / "many", tensors=many)
    found = TrainingHistory.open(tmp_path / "many")
    table = found.to_pandas()
    assert list(table) == [
        "batch_loss",
        "samples",
        *(f"{n}/{s}" for n in ("k", "dense/bias") for s in STATISTICS),
    ]
    assert table["k/norm"].tolist() == found.statistics("k")["norm"][1:].tolist()


def test_half_precision_in_a_table_is_what_pandas_can_show(tmp_path):
    write(tmp_path, tensors=[Tensor("a", (1,), "bfloat16", True), Tensor("b", (), "float16", True)])
    found = TrainingHistory.open(tmp_path)
    table = found.to_pandas()
    assert table["a"].to_numpy().tolist() == found.weights("a")[1:, 0].astype(float).tolist()
    assert "float32" in str(table.dtypes["b"])
    assert "batch_loss" in repr(table)


def test_epochs(tmp_path):
    with writer(tmp_path) as w:
        w.append_epoch({"epoch": 0, "loss": 0.1 + 0.2, "seconds": np.float32(0.1)})
        w.append_epoch({"epoch": 1, "loss": float("nan"), "seconds": 2, "val_loss": float("-inf"), "a, b": 1})
        w.append_epoch({"seconds": 1e-300, "epoch": np.int64(2), "loss": 1})
        with pytest.raises(ValueError, match=r"needs 'epoch'; it has \['loss'\]"):
            w.append_epoch({"loss": 1})
    found = TrainingHistory.open(tmp_path)
    assert found.n_epochs == 3
    assert same_bits(found.epochs["epoch"], np.array([0, 1, 2]))
    assert same_bits(found.epochs["seconds"], np.array([float(np.float32(0.1)), 2, 1e-300]))
    assert np.array_equal(found.epochs["loss"], [0.1 + 0.2, np.nan, 1], equal_nan=True)
    assert np.array_equal(found.epochs["val_loss"], [np.nan, -np.inf, np.nan], equal_nan=True)
    assert np.array_equal(found.epochs["a, b"], [np.nan, 1, np.nan], equal_nan=True)
    table = found.epochs_to_pandas()
    assert table.index.name == "epoch"
    assert list(table) == ["loss", "seconds", "val_loss", "a, b"]
    assert pd.read_csv(tmp_path / history.EPOCHS_FILE)["loss"][0] == 0.1 + 0.2


def test_cut_at_any_byte_it_reads_the_whole_chunks_before(tmp_path):
    sizes = (4, 1, 5)
    ends = [0]
    with writer(tmp_path / "whole") as w:
        path = tmp_path / "whole" / history.STEPS_FILE
        ends[0] = path.stat().st_size  # head and the row before the first step
        for i, k in enumerate(sizes):
            w.append(some_columns(k, sum(sizes[:i])), some_weights(k, seed=i))
            ends.append(path.stat().st_size)
    data = path.read_bytes()
    expected = TrainingHistory.open(path.parent)
    assert len(data) == ends[-1] + 8
    cut = tmp_path / "cut"
    cut.mkdir()
    for length in [
        *range(ends[0], len(data), 3),
        *(e + d for e in ends for d in (-1, 0, 1, 4, 7) if e + d >= ends[0]),
    ]:
        (cut / history.STEPS_FILE).write_bytes(data[:length])
        found = TrainingHistory.open(cut)
        n = [0, 4, 5, 10][sum(length >= end for end in ends) - 1]
        assert (found.n_steps, found.complete) == (n, False), length
        assert same_bits(found.weights("dense/bias"), expected.weights("dense/bias")[: n + 1])
        assert same_bits(found.steps["batch_loss"], expected.steps["batch_loss"][:n])
    for length in range(0, ends[0], 5):
        (cut / history.STEPS_FILE).write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"history\.arrows is"):
            TrainingHistory.open(cut)


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 64,
        b"\xff" * 64,
        b"garbage!" * 100,
        np.random.default_rng(0).bytes(5000),
        b"\xff\xff\xff\xff\x10\0\0\0" + b"\0" * 99,
    ],
    ids=["zeros", "ones", "text", "noise", "head"],
)
@pytest.mark.parametrize("closed", [False, True])
def test_a_garbage_tail_is_left_out(tmp_path, tail, closed):
    chunks = write(tmp_path)
    path = tmp_path / history.STEPS_FILE
    data = path.read_bytes()
    path.write_bytes((data if closed else data[:-8]) + tail)
    found = TrainingHistory.open(tmp_path)
    assert (found.n_steps, found.complete) == (10, False)
    assert same_bits(found.weights("dense/bias")[6:], chunks[2][1]["dense/bias"])


KILLED = """
import sys
import numpy as np
from mlflow_hp.history import HistoryWriter, Tensor
w = HistoryWriter(sys.argv[1], columns={"step": "int64"}, tensors=[Tensor("k", (100, 100), "float32", True)],
                  weights="values", initial={"k": np.zeros((100, 100), "f4")}, meta={})
for i in range(1000):
    w.append({"step": np.full(50, i)}, {"k": np.full((50, 100, 100), i, "f4")})
    w.append_epoch({"epoch": i, "loss": i})
    print(i, flush=True)
"""


def test_after_kill_9_every_finished_chunk_is_read(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        assert child.stdout.readline()
    child.kill()
    finished = 5 + len(child.stdout.read().split())
    child.stdout.close()
    assert child.wait() == -9
    found = TrainingHistory.open(tmp_path)
    assert not found.complete
    assert found.n_steps in (50 * finished, 50 * (finished + 1))
    assert finished <= found.n_epochs <= finished + 1
    weights = found.weights("k")
    assert np.array_equal(weights[1:, 0, 0], found.steps["step"].astype(np.float32))
    assert (weights[1:] == weights[1:, :1, :1]).all()


FULL = """
import resource, sys
import numpy as np
import pytest
from mlflow_hp.history import HistoryWriter, TrainingHistory
w = HistoryWriter(sys.argv[1], columns={"x": "float64"}, tensors=[], weights="none", initial=None, meta={})
w.append({"x": np.arange(1000.0)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
with pytest.raises(OSError):
    w.append({"x": np.arange(1000.0)}, {})
with pytest.raises(ValueError, match="is closed"):
    w.append({"x": np.arange(1.0)}, {})
w.close()
found = TrainingHistory.open(sys.argv[1])
assert (found.n_steps, found.complete, w.rows, w.n_chunks) == (1000, False, 1000, 1), found.n_steps
assert w.chunk(0).columns["x"][999] == 999
"""


def test_a_full_disk_costs_the_chunk_that_did_not_fit(tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", FULL, str(tmp_path)], check=True)
    assert (tmp_path / history.STEPS_FILE).stat().st_size == 12_000


def test_one_tensor_is_read_without_the_others(tmp_path):
    big = Tensor("big", (1000, 500), "float32", True)
    weights = {
        "big": np.ones((8, 1000, 500), np.float32),
        "dense/bias": some_weights(8, [BIAS])["dense/bias"],
    }
    with writer(tmp_path, [big, BIAS]) as w:
        for _ in range(4):
            w.append(some_columns(8), weights)

    def read(tensor):  # pages touched for the first time, of up to 64 KiB each, and bytes by read()
        started = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt, bytes_by_reading()]
        values = TrainingHistory.open(tmp_path).weights(tensor)
        return (
            values,
            resource.getrusage(resource.RUSAGE_SELF).ru_minflt - started[0],
            bytes_by_reading() - started[1],
        )

    read("dense/bias")
    values, faults, size = read("dense/bias")
    assert same_bits(values[25:], weights["dense/bias"])
    assert faults < 250  # 16 MiB of the file's 66
    assert size < 2**20
    assert read("big")[2] >= 4 * 8 * 2_000_000


def bytes_by_reading():
    return int(Path("/proc/self/io").read_text().split()[1]) if Path("/proc/self/io").exists() else 0


def test_a_spoilt_tensor_does_not_spoil_another(tmp_path):
    chunks = write(tmp_path, (50,), [KERNEL, BIAS])
    path = tmp_path / history.STEPS_FILE
    kernel = chunks[0][1]["dense/kernel"].tobytes()
    data = path.read_bytes()
    assert data.count(kernel) == 1
    path.write_bytes(data.replace(kernel, b"\xff" * len(kernel)))
    found = TrainingHistory.open(tmp_path)
    assert same_bits(found.weights("dense/bias")[1:], chunks[0][1]["dense/bias"])
    with pytest.raises(ValueError, match=r"is damaged: 'dense/kernel' in its rows 1 to 50 is not what was written"):
        found.weights("dense/kernel")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    write(tmp_path, (500,))
    found = TrainingHistory.open(tmp_path)
    path = tmp_path / history.STEPS_FILE
    for length in (3000, 300):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match="became shorter while it was read"):
            found.weights("scale")


def test_readers_beside_a_running_writer(tmp_path):
    with writer(tmp_path, [BIAS]) as w:
        for i in range(20):
            w.append(some_columns(3, 3 * i), {"dense/bias": np.full((3, 2), i, np.float32)})
            found = TrainingHistory.open(tmp_path)
            assert (found.n_steps, found.complete) == (3 * i + 3, False)
            w.append_epoch({"epoch": i, "loss": 1.0, f"metric{i % 3}": 2.0})
            assert found.weights("dense/bias")[:, 1].tolist()[1:] == np.repeat(np.arange(i + 1), 3).tolist()
        before = found
    assert before.n_steps == 60  # as it was when it was opened
    w.close()
    assert TrainingHistory.open(tmp_path).complete


def test_a_reader_keeps_to_what_there_was_when_it_opened(tmp_path):
    with writer(tmp_path, [BIAS]) as w:
        w.append(some_columns(3), some_weights(3, [BIAS]))
        found = TrainingHistory.open(tmp_path)
        w.append(some_columns(3, 3), some_weights(3, [BIAS]))
        assert len(found.weights("dense/bias")) == 4
        assert len(found.steps["step"]) == 3
        assert found.steps is found.steps


def test_chunks_are_read_back_from_another_thread(tmp_path):
    wrong, seen = [], []

    def read_back(w):
        while len(seen) < 300:
            if len(seen) == w.n_chunks:
                time.sleep(1e-4)
                continue
            i = len(seen)
            chunk = w.chunk(i)
            expected = some_columns(4, 4 * i)
            good = all(same_bits(chunk.columns[name], expected[name]) for name in COLUMNS)
            if not (good and chunk.weights["big"].shape == (4, 10, 10) and (chunk.weights["big"] == i).all()):
                wrong.append(i)
            seen.append(i)

    with writer(tmp_path, [Tensor("big", (10, 10), "float32", True)]) as w:
        thread = threading.Thread(target=read_back, args=(w,), daemon=True)
        thread.start()
        for i in range(300):
            w.append(some_columns(4, 4 * i), {"big": np.full((4, 10, 10), i, np.float32)})
        thread.join(20)
    assert seen == list(range(300))
    assert wrong == []
    assert w.rows == 1200
    for index in (-1, 300):
        with pytest.raises(IndexError, match=f"no chunk {index}: there are 300"):
            w.chunk(index)


def test_a_chunk_of_64_mib_is_written_without_a_copy(tmp_path):
    values = np.ones((16, 1024, 1024), np.float32)
    with writer(tmp_path, [Tensor("k", (1024, 1024), "float32", True)], initial={"k": values[0]}) as w:
        before = pa.default_memory_pool().max_memory()
        tracemalloc.start()
        try:
            w.append(some_columns(16), {"k": values})
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()
        assert pa.default_memory_pool().max_memory() - before < 2**20
    assert TrainingHistory.open(tmp_path).weights("k").shape == (17, 1024, 1024)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    with writer(tmp_path, [BIAS]) as w:
        good = some_columns(2), some_weights(2, [BIAS])
        for columns, weights, message in [
            (
                {"step": np.arange(2)},
                good[1],
                r"columns came for \['step'\], not for \['batch_loss', 'samples', 'step'\]",
            ),
            (good[0], {}, r"weights came for \[\], not for \['dense/bias'\]"),
            (
                good[0],
                {"dense/bias": np.ones((2, 3), "f4")},
                r"'dense/bias' has shape \(2, 3\), not \(2, 2\)",
            ),
            ({**good[0], "step": np.arange(3)}, good[1], r"has shape \(2,\), not \(3,\)"),
        ]:
            with pytest.raises(ValueError, match=message):
                w.append(columns, weights)
        assert w.append(*good) == 0
    assert TrainingHistory.open(tmp_path).n_steps == 2
    with pytest.raises(ValueError, match="is closed: open a HistoryWriter on another folder"):
        w.append(*good)


def test_what_a_writer_refuses(tmp_path):
    statistics = {"dense/bias": np.zeros(3)}
    for kwargs, message in [
        ({"weights": "all"}, "weights='all' is none of 'values', 'statistics', 'none'"),
        ({"tensors": [BIAS, BIAS]}, "names of their own"),
        ({"tensors": [BIAS._replace(name="step")]}, "names of their own"),
        ({"tensors": [BIAS._replace(dtype="complex64")]}, "has dtype complex64"),
        ({"tensors": [BIAS], "initial": {}}, r"weights came for \[\]"),
        (
            {"tensors": [BIAS], "weights": "statistics", "initial": statistics},
            r"shape \(1, 3\), not \(1, 4\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            writer(tmp_path / "new", **kwargs)
    assert not (tmp_path / "new").exists()
    write(tmp_path)
    with pytest.raises(FileExistsError, match=r"history\.arrows"):
        writer(tmp_path)
    assert TrainingHistory.open(tmp_path).n_steps == 10


def test_what_can_not_be_opened_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no training history at .*/nowhere/history\.arrows: name the folder"):
        TrainingHistory.open(tmp_path / "nowhere")
    path = tmp_path / history.STEPS_FILE
    for content in (b"a,b\n1,2\n" * 20, b"PK\x03\x04" + bytes(100), b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"history\.arrows is no training history"):
            TrainingHistory.open(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        TrainingHistory.open(tmp_path)
    for metadata in (None, {"mlflow_hp": "[]"}, {"mlflow_hp": "{}"}, {"mlflow_hp": "no json"}):
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, pa.schema([("x", "f8")], metadata)):
            pass
        with pytest.raises(ValueError, match="is no training history"):
            TrainingHistory.open(tmp_path)


def test_a_newer_version_says_upgrade(tmp_path):
    newer = {"mlflow_hp": json.dumps({"version": history.VERSION + 1, "shape of things to come": {}})}
    with (
        pa.OSFile(str(tmp_path / history.STEPS_FILE), "wb") as file,
        pa.ipc.new_stream(file, pa.schema([("x", "f8")], newer)),
    ):
        pass
    with pytest.raises(ValueError, match="format version 2, above 1: upgrade mlflow_hp"):
        TrainingHistory.open(tmp_path)


def test_from_arrays():
    steps = {"step": [5, 6], "batch_loss": [0.5, 0.25]}
    weights = {"w": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.zeros(3)}
    found = TrainingHistory.from_arrays(steps, {"epoch": [0], "loss": [1]}, weights=weights, meta={"x": 1})
    assert found.tensors == (Tensor("w", (2,), "float32", True), Tensor("b", (), "float64", True))
    assert (found.n_steps, found.n_epochs, found.complete, found.meta) == (2, 1, True, {"x": 1})
    assert same_bits(found.weights("w"), weights["w"])
    assert found.statistics("w")["norm"][0] == 1
    assert found.epochs["loss"].dtype == np.float64
    assert found.epochs["epoch"].dtype == np.int64
    assert found.to_pandas().loc[6].to_dict() == {"batch_loss": 0.25, "w/0": 4, "w/1": 5, "b": 0}
    four = {key: np.arange(3.0) for key in STATISTICS}
    found = TrainingHistory.from_arrays(steps, statistics={"w": four})
    assert found.recorded == "statistics"
    assert found.statistics("w")["std"].tolist() == [0, 1, 2]
    assert TrainingHistory.from_arrays(steps).to_pandas().shape == (2, 1)


def test_from_arrays_refuses_what_does_not_agree():
    four = {key: np.zeros(3) for key in STATISTICS}
    for kwargs, message in [
        ({"weights": {"w": np.zeros((2, 1))}}, r"'w' has shape \(2, 1\), not \(3, 1\)"),
        ({"weights": {"w": np.zeros(3)}, "statistics": {"w": four}}, "not both"),
        ({"weights": {"w": np.zeros(3)}, "tensors": [BIAS]}, r"arrays came for \['loss', 'w'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            TrainingHistory.from_arrays({"loss": [1, 2]}, **kwargs)


def test_other_programs_read_it_with_arrow_alone(tmp_path):
    chunks = write(tmp_path)
    table = pa.ipc.open_stream(tmp_path / history.STEPS_FILE).read_all()
    assert table["step"].to_pylist() == [None, *range(10)]
    assert table["dense/bias"].to_pylist()[1:5] == chunks[0][1]["dense/bias"].tolist()
    assert json.loads(table.schema.metadata[b"mlflow_hp"])["tensors"][0]["shape"] == [3, 2]


def test_a_copy_elsewhere_is_the_same_history(tmp_path):
    write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    assert TrainingHistory.open(tmp_path / "b").n_steps == 10
