"""Values that a step lacks: nulls in the file, masked arrays in chunks, NaN in a history."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from mlflow_hp.analysis.diagnosis.layers import update_ratios
from mlflow_hp.history import STATISTICS, STEPS_FILE, HistoryWriter, Tensor, TrainingHistory, read_chunks, sound_chunks

LARGE, SMALL = (Tensor(name, (100, 10), "float32", True) for name in ("large/kernel", "small/kernel"))
COLUMNS = {"step": "int64", "batch_loss": "float64", "sharpness": "float64"}
TAKEN = np.array([True, False, False, False, True])
"""Steps with statistics of the large tensor, in each of three chunks."""


def written(folder, *, masked=True):
    """Write 15 steps in 3 chunks; the large tensor has statistics in steps 0 and 4, 5 and 9, ..."""
    initial = {tensor.name: np.array([1.0, 0.5, 0.25, np.nan]) for tensor in (LARGE, SMALL)}
    with HistoryWriter(
        folder, columns=COLUMNS, tensors=[LARGE, SMALL], weights="statistics", initial=initial, meta={}
    ) as writer:
        for first in (0, 5, 10):
            step = np.arange(first, first + 5)
            sharpness, rows = step / 10, np.outer(step, [4.0, 3, 2, 1])
            large = rows.copy()
            large[4, 1] = np.nan  # a mean that is NaN is there, unlike one that is missing
            if masked:
                sharpness = np.ma.masked_array(sharpness, step % 3 > 0)
                large = np.ma.masked_array(large, np.repeat(~TAKEN[:, None], 4, axis=1))
            columns = {"step": step, "batch_loss": np.full(5, np.nan), "sharpness": sharpness}
            writer.append(columns, {LARGE.name: large, SMALL.name: rows})
        return writer.chunk(1)


def test_history_has_nan_and_says_which_rows_have_statistics(tmp_path):
    written(tmp_path)
    history = TrainingHistory.open(tmp_path)
    for each in (history, pickle.loads(pickle.dumps(history))):  # noqa: S301
        assert type(each.steps["sharpness"]) is np.ndarray
        np.testing.assert_array_equal(np.flatnonzero(np.isfinite(each.steps["sharpness"])), [0, 3, 6, 9, 12])
        norm = each.statistics(LARGE.name)["norm"]
        taken = np.concatenate([[True], TAKEN, TAKEN, TAKEN])
        np.testing.assert_array_equal(np.isfinite(norm), taken)
        np.testing.assert_array_equal(each.has_statistics(LARGE.name), taken)
        assert np.isnan(each.statistics(LARGE.name)["mean"][5])
        assert each.has_statistics(LARGE.name)[5]
        assert each.has_statistics(SMALL.name).all()
        assert norm[5] == 16
    table = history.to_pandas()
    assert table["large/kernel/norm"].isna().tolist() == (~np.tile(TAKEN, 3)).tolist()


def test_chunks_are_masked(tmp_path):
    for chunk in (written(tmp_path), list(read_chunks(tmp_path))[1]):
        assert chunk.columns["sharpness"].tolist() == [None, 0.6, None, None, 0.9]
        assert not isinstance(chunk.columns["batch_loss"], np.ma.MaskedArray)
        large = chunk.weights[LARGE.name]
        assert large[0].tolist() == [20, 15, 10, 5]
        assert large[1].tolist() == [None] * 4
        assert not isinstance(chunk.weights[SMALL.name], np.ma.MaskedArray)


def test_pyarrow_alone_reads_nulls(tmp_path):
    written(tmp_path)
    steps = pa.ipc.open_stream(tmp_path / STEPS_FILE).read_all()
    assert steps["large/kernel/norm"].is_valid().to_pylist() == [True, *TAKEN.tolist() * 3]
    assert steps["batch_loss"].null_count == 1  # of the row before the first step
    assert steps["sharpness"].drop_null().to_pylist() == [0.0, 0.3, 0.6, 0.9, 1.2]


def test_rules_on_layers_use_the_rows_with_statistics(tmp_path):
    written(tmp_path)
    ratios = update_ratios(TrainingHistory.open(tmp_path))
    assert ratios == {LARGE.name: 14.0, SMALL.name: 13.0}


def test_large_tensor_without_recent_statistics():
    rows = np.ma.masked_array(np.linspace(1, 2, 101), np.arange(101) % 60 > 0)
    large = dict.fromkeys(STATISTICS, rows)
    history = TrainingHistory.from_arrays(
        {"step": np.arange(100)}, statistics={"k": large}, tensors=[LARGE._replace(name="k")]
    )
    assert history.has_statistics("k").nonzero()[0].tolist() == [0, 60]
    assert update_ratios(history) == {"k": pytest.approx(1.6)}


def test_bitmap_is_covered_by_the_checksum(tmp_path):
    """Flip each bit of the file's bitmaps: a value that was missing must not appear, nor one disappear."""
    written(tmp_path)
    path = tmp_path / STEPS_FILE
    content = path.read_bytes()
    bits = np.packbits(TAKEN, bitorder="little").tobytes() + bytes(7)
    places = [i for i in range(0, len(content), 8) if content[i : i + 8] == bits]
    assert len(places) == 3 * 4
    for place in places:
        for bit in range(5):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            assert sound_chunks(tmp_path) == places.index(place) // 4
    path.write_bytes(content)
    assert sound_chunks(tmp_path) == 3


def test_flipped_bytes_are_detected_or_harmless(tmp_path):
    written(tmp_path)
    path, rng = tmp_path / STEPS_FILE, np.random.default_rng(0)
    content = path.read_bytes()
    expected = TrainingHistory.open(tmp_path).to_pandas()
    for place in rng.integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            table = TrainingHistory.open(tmp_path, check=True).to_pandas()
        except ValueError:
            continue
        assert table.equals(expected[: len(table)])


@pytest.mark.parametrize("name", ["step", "dense/kernel"])
def test_columns_that_cannot_miss_values(tmp_path, name):
    values = {"step": np.arange(2), "dense/kernel": np.ones((2, 3), np.float32)}
    values[name] = np.ma.masked_array(values[name], values[name] == values[name])
    writer = HistoryWriter(
        tmp_path, columns={"step": "int64"}, tensors=[Tensor("dense/kernel", (3,), "float32", True)], weights="values",
        initial={"dense/kernel": np.ones(3, np.float32)}, meta={},
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"'{name}' has masked values, which only columns of floating-point numbers"):
        writer.append({"step": values["step"]}, {"dense/kernel": values["dense/kernel"]})


def test_files_without_missing_values_stay_as_small(tmp_path):
    written(tmp_path / "plain", masked=False)
    written(tmp_path / "masked")
    sizes = [(tmp_path / name / STEPS_FILE).stat().st_size for name in ("plain", "masked")]
    assert sizes[0] < sizes[1]
    assert TrainingHistory.open(tmp_path / "plain").has_statistics(LARGE.name).all()
