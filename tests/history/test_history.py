"""TrainingHistory: arrays, statistics and tables of a recorded training."""

import json
import resource
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlflow_hp.history import EPOCHS_FILE, STATISTICS, STEPS_FILE, Tensor, TrainingHistory, schema, statistics_of
from tests.helpers.histories import (
    BIAS,
    COLUMNS,
    KERNEL,
    SCALAR,
    history_writer,
    random_weights,
    same_bits,
    step_columns,
    write_history,
)


def test_write_and_read_round_trip(tmp_path):
    chunks = write_history(tmp_path)
    history = TrainingHistory.open(tmp_path)
    assert (history.n_steps, history.n_epochs, history.complete, history.recorded) == (10, 0, True, "values")
    assert history.meta == {"a": [1, "x"]}
    assert history.tensors == (KERNEL, BIAS, SCALAR)
    assert list(history.steps) == list(COLUMNS)
    for name in COLUMNS:
        assert same_bits(history.steps[name], np.concatenate([columns[name] for columns, _ in chunks]))
    first = random_weights(1, seed=99)
    for tensor in (KERNEL, BIAS, SCALAR):
        expected = np.concatenate([first[tensor.name], *(weights[tensor.name] for _, weights in chunks)])
        assert same_bits(history.weights(tensor.name), expected)


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
def test_all_dtypes_round_trip_bit_for_bit(tmp_path, dtype):
    real = schema.dtype_of(dtype)
    bits = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 256, (3, 4, real.itemsize), np.uint8)
    values = bits.view(real).reshape(3, 4)
    tensor = Tensor("t", (4,), dtype, True)
    with history_writer(tmp_path, [tensor], initial={"t": values[0]}) as w:
        w.append(step_columns(2), {"t": values[1:]})
        assert same_bits(w.chunk(0).weights["t"], values[1:])
    assert same_bits(TrainingHistory.open(tmp_path).weights("t"), values)


def test_nan_and_infinities_round_trip_bit_for_bit(tmp_path):
    patterns = [
        0x7FF8000000000001,
        0xFFF8000000000ABC,
        0x7FF0000000000000,
        0xFFF0000000000000,
        0x8000000000000000,
    ]
    odd = np.array(patterns, np.uint64).view(np.float64)
    with history_writer(tmp_path, [SCALAR]) as w:
        w.append({**step_columns(5), "batch_loss": odd}, {"scale": odd})
    history = TrainingHistory.open(tmp_path)
    assert same_bits(history.steps["batch_loss"], odd)
    assert same_bits(history.weights("scale")[1:], odd)


def test_empty_tensors_and_scalars(tmp_path):
    tensors = [
        Tensor("none", (0, 4), "float32", True),
        Tensor("one", (), "bfloat16", True),
        Tensor("x", (1, 1), "int8", True),
    ]
    chunks = write_history(tmp_path, (2, 3), tensors)
    history = TrainingHistory.open(tmp_path)
    assert history.weights("none").shape == (6, 0, 4)
    assert history.weights("x").shape == (6, 1, 1)
    assert same_bits(history.weights("one")[3:], chunks[1][1]["one"])
    assert np.isnan(history.statistics("none")["mean"]).all()
    assert list(history.to_pandas().columns) == ["batch_loss", "samples", "one", "x"]


def test_arrays_in_any_memory_layout(tmp_path):
    kernel = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32))
    columns = {name: np.repeat(a, 2)[::2] for name, a in step_columns(4).items()}
    with history_writer(tmp_path, [KERNEL]) as w:
        w.append(columns, {"dense/kernel": kernel})
    history = TrainingHistory.open(tmp_path)
    assert np.array_equal(history.weights("dense/kernel")[1:], kernel)
    assert np.array_equal(history.steps["batch_loss"], columns["batch_loss"])


def test_narrow_dtypes_are_widened_and_wide_ones_refused(tmp_path):
    with history_writer(tmp_path, [SCALAR]) as w:
        w.append(step_columns(1), {"scale": np.ones(1, np.float32)})
        with pytest.raises(ValueError, match="'batch_loss' is complex128, which does not fit into float64"):
            w.append({**step_columns(1), "batch_loss": np.ones(1, complex)}, {"scale": np.ones(1)})
        with pytest.raises(ValueError, match="'samples' is int64, which does not fit into int32 without loss"):
            w.append({**step_columns(1), "samples": np.ones(1, np.int64)}, {"scale": np.ones(1)})
    history = TrainingHistory.open(tmp_path)
    assert (history.n_steps, history.complete) == (1, True)
    assert history.weights("scale").dtype == np.float64


def test_training_without_steps(tmp_path):
    history_writer(tmp_path).close()
    history = TrainingHistory.open(tmp_path)
    assert (history.n_steps, history.n_epochs, history.complete) == (0, 0, True)
    assert history.steps["batch_loss"].shape == (0,)
    assert history.steps["samples"].dtype == np.int32
    assert same_bits(history.weights("dense/kernel"), random_weights(1, seed=99)["dense/kernel"])
    assert np.isnan(history.statistics("dense/kernel")["update_ratio"]).all()
    assert history.to_pandas().shape == (0, 2 + 6 + 2 + 1)
    assert history.epochs_to_pandas().shape == (0, 0)


def test_history_without_weights(tmp_path):
    with history_writer(tmp_path, weights="none") as w:
        w.append(step_columns(3), {})
        assert w.chunk(0).weights == {}
    history = TrainingHistory.open(tmp_path)
    assert (history.n_steps, history.complete) == (3, True)
    assert history.tensors == (KERNEL, BIAS, SCALAR)
    assert np.array_equal(history.steps["step"], [0, 1, 2])
    assert list(history.to_pandas().columns) == ["batch_loss", "samples"]
    with pytest.raises(ValueError, match=r"^weights were not recorded; train with"):
        history.statistics("dense/bias")


def test_history_opens_before_its_first_step(tmp_path):
    with history_writer(tmp_path / "none", weights="none"), history_writer(tmp_path / "values"):
        assert TrainingHistory.open(tmp_path / "none").steps["step"].shape == (0,)
        assert TrainingHistory.open(tmp_path / "values").weights("scale").shape == (1,)


def test_recorded_statistics(tmp_path):
    four = np.random.default_rng(0).normal(size=(6, 2, 4))
    four[0, :, 3] = np.nan
    names = ["dense/kernel", "dense/bias"]
    with history_writer(tmp_path, [KERNEL, BIAS], "statistics", {n: four[0, i] for i, n in enumerate(names)}) as w:
        w.append(step_columns(5), {n: four[1:, i] for i, n in enumerate(names)})
        assert same_bits(w.chunk(0).weights["dense/bias"], four[1:, 1])
    history = TrainingHistory.open(tmp_path)
    assert history.n_steps == 5
    for i, name in enumerate(names):
        for j, key in enumerate(STATISTICS):
            assert same_bits(history.statistics(name)[key], four[:, i, j])
    assert list(history.to_pandas().columns[2:]) == [f"{n}/{s}" for n in names for s in STATISTICS]
    with pytest.raises(ValueError, match="not recorded, only their statistics; train"):
        history.weights("dense/bias")


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


def test_statistics_of_a_large_tensor_take_a_part_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    weights = np.cumsum(rng.normal(3.0, 0.1, (4, 5, 7)), axis=0).astype("float32")
    weights[2, 0, 0] = np.nan
    weights = np.concatenate([weights, np.zeros((2, 5, 7), "float32")])
    whole = statistics_of(weights)
    monkeypatch.setattr(schema, "ELEMENTS_AT_ONCE", 8)
    np.testing.assert_allclose(statistics_of(weights), whole, rtol=1e-12)


def test_statistics_of_recorded_weights_and_unknown_tensors(tmp_path):
    write_history(tmp_path)
    history = TrainingHistory.open(tmp_path)
    expected = statistics_of(history.weights("dense/kernel"))
    assert list(history.statistics("dense/kernel")) == list(STATISTICS)
    assert same_bits(np.stack(list(history.statistics("dense/kernel").values()), axis=1), expected)
    for method in (history.weights, history.statistics):
        with pytest.raises(ValueError, match="no tensor 'dense'; there are dense/kernel, dense/bias, scale"):
            method("dense")


def test_tables_by_weight_or_by_statistic(tmp_path):
    chunks = write_history(tmp_path / "few")
    table = TrainingHistory.open(tmp_path / "few").to_pandas()
    assert table.index.name == "step"
    assert table.index.tolist() == list(range(10))
    kernels = [f"dense/kernel/{i}" for i in range(6)]
    assert list(table) == ["batch_loss", "samples", *kernels, "dense/bias/0", "dense/bias/1", "scale"]
    assert table["dense/kernel/3"].to_numpy()[:4].tolist() == chunks[0][1]["dense/kernel"][:, 1, 1].tolist()
    many = [Tensor("k", (8, 4), "float16", True), BIAS]
    write_history(tmp_path / "many", tensors=many)
    history = TrainingHistory.open(tmp_path / "many")
    table = history.to_pandas()
    assert list(table) == [
        "batch_loss",
        "samples",
        *(f"{n}/{s}" for n in ("k", "dense/bias") for s in STATISTICS),
    ]
    assert table["k/norm"].tolist() == history.statistics("k")["norm"][1:].tolist()


def test_half_precision_is_converted_for_pandas(tmp_path):
    write_history(tmp_path, tensors=[Tensor("a", (1,), "bfloat16", True), Tensor("b", (), "float16", True)])
    history = TrainingHistory.open(tmp_path)
    table = history.to_pandas()
    assert table["a"].to_numpy().tolist() == history.weights("a")[1:, 0].astype(float).tolist()
    assert "float32" in str(table.dtypes["b"])
    assert "batch_loss" in repr(table)


def test_epochs_round_trip(tmp_path):
    with history_writer(tmp_path) as w:
        w.append_epoch({"epoch": 0, "loss": 0.1 + 0.2, "seconds": np.float32(0.1)})
        w.append_epoch({"epoch": 1, "loss": float("nan"), "seconds": 2, "val_loss": float("-inf"), "a, b": 1})
        w.append_epoch({"seconds": 1e-300, "epoch": np.int64(2), "loss": 1})
        with pytest.raises(ValueError, match=r"needs 'epoch'; it has \['loss'\]"):
            w.append_epoch({"loss": 1})
    history = TrainingHistory.open(tmp_path)
    assert history.n_epochs == 3
    assert same_bits(history.epochs["epoch"], np.array([0, 1, 2]))
    assert same_bits(history.epochs["seconds"], np.array([float(np.float32(0.1)), 2, 1e-300]))
    assert np.array_equal(history.epochs["loss"], [0.1 + 0.2, np.nan, 1], equal_nan=True)
    assert np.array_equal(history.epochs["val_loss"], [np.nan, -np.inf, np.nan], equal_nan=True)
    assert np.array_equal(history.epochs["a, b"], [np.nan, 1, np.nan], equal_nan=True)
    table = history.epochs_to_pandas()
    assert table.index.name == "epoch"
    assert list(table) == ["loss", "seconds", "val_loss", "a, b"]
    table = pd.read_csv(tmp_path / EPOCHS_FILE)
    assert table["loss"][0] == pytest.approx(0.1 + 0.2, rel=1e-15)  # pandas 2 rounds the last bit


def test_reading_one_tensor_skips_the_others(tmp_path):
    big = Tensor("big", (1000, 500), "float32", True)
    weights = {
        "big": np.ones((8, 1000, 500), np.float32),
        "dense/bias": random_weights(8, [BIAS])["dense/bias"],
    }
    with history_writer(tmp_path, [big, BIAS]) as w:
        for _ in range(4):
            w.append(step_columns(8), weights)

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


def test_from_arrays():
    steps = {"step": [5, 6], "batch_loss": [0.5, 0.25]}
    weights = {"w": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.zeros(3)}
    history = TrainingHistory.from_arrays(steps, {"epoch": [0], "loss": [1]}, weights=weights, meta={"x": 1})
    assert history.tensors == (Tensor("w", (2,), "float32", True), Tensor("b", (), "float64", True))
    assert (history.n_steps, history.n_epochs, history.complete, history.meta) == (2, 1, True, {"x": 1})
    assert same_bits(history.weights("w"), weights["w"])
    assert history.statistics("w")["norm"][0] == 1
    assert history.epochs["loss"].dtype == np.float64
    assert history.epochs["epoch"].dtype == np.int64
    assert history.to_pandas().loc[6].to_dict() == {"batch_loss": 0.25, "w/0": 4, "w/1": 5, "b": 0}
    four = {key: np.arange(3.0) for key in STATISTICS}
    history = TrainingHistory.from_arrays(steps, statistics={"w": four})
    assert history.recorded == "statistics"
    assert history.statistics("w")["std"].tolist() == [0, 1, 2]
    assert TrainingHistory.from_arrays(steps).to_pandas().shape == (2, 1)


def test_from_arrays_refuses_mismatched_arrays():
    four = {key: np.zeros(3) for key in STATISTICS}
    for kwargs, message in [
        ({"weights": {"w": np.zeros((2, 1))}}, r"'w' has shape \(2, 1\), not \(3, 1\)"),
        ({"weights": {"w": np.zeros(3)}, "statistics": {"w": four}}, "not both"),
        ({"weights": {"w": np.zeros(3)}, "tensors": [BIAS]}, r"arrays have the names \['loss', 'w'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            TrainingHistory.from_arrays({"loss": [1, 2]}, **kwargs)


def test_arrow_reads_the_file_without_mlflow_hp(tmp_path):
    chunks = write_history(tmp_path)
    table = pa.ipc.open_stream(tmp_path / STEPS_FILE).read_all()
    assert table["step"].to_pylist() == [None, *range(10)]
    assert table["dense/bias"].to_pylist()[1:5] == chunks[0][1]["dense/bias"].tolist()
    assert json.loads(table.schema.metadata[b"mlflow_hp"])["tensors"][0]["shape"] == [3, 2]


def test_copied_history_opens(tmp_path):
    write_history(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    assert TrainingHistory.open(tmp_path / "b").n_steps == 10
