"""HistoryWriter: chunks that are read while it writes, and arguments that it refuses."""

import threading
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from mlflow_hp.history import Tensor, TrainingHistory
from tests.helpers.histories import (
    BIAS,
    COLUMNS,
    history_writer,
    random_weights,
    same_bits,
    step_columns,
    write_history,
)
from tests.helpers.waiting import wait_for


def test_reading_while_writing(tmp_path):
    with history_writer(tmp_path, [BIAS]) as w:
        for i in range(20):
            w.append(step_columns(3, 3 * i), {"dense/bias": np.full((3, 2), i, np.float32)})
            history = TrainingHistory.open(tmp_path)
            assert (history.n_steps, history.complete) == (3 * i + 3, False)
            w.append_epoch({"epoch": i, "loss": 1.0, f"metric{i % 3}": 2.0})
            assert history.weights("dense/bias")[:, 1].tolist()[1:] == np.repeat(np.arange(i + 1), 3).tolist()
        before = history
    assert before.n_steps == 60  # as it was when it was opened
    w.close()
    assert TrainingHistory.open(tmp_path).complete


def test_open_history_does_not_grow(tmp_path):
    with history_writer(tmp_path, [BIAS]) as w:
        w.append(step_columns(3), random_weights(3, [BIAS]))
        history = TrainingHistory.open(tmp_path)
        w.append(step_columns(3, 3), random_weights(3, [BIAS]))
        assert len(history.weights("dense/bias")) == 4
        assert len(history.steps["step"]) == 3
        assert history.steps is history.steps


def test_chunks_are_read_back_from_another_thread(tmp_path):
    wrong, seen = [], []

    def read_back(w):
        while len(seen) < 300:
            i = len(seen)
            wait_for(lambda i=i: w.n_chunks > i)
            chunk = w.chunk(i)
            expected = step_columns(4, 4 * i)
            good = all(same_bits(chunk.columns[name], expected[name]) for name in COLUMNS)
            if not (good and chunk.weights["big"].shape == (4, 10, 10) and (chunk.weights["big"] == i).all()):
                wrong.append(i)
            seen.append(i)

    with history_writer(tmp_path, [Tensor("big", (10, 10), "float32", True)]) as w:
        thread = threading.Thread(target=read_back, args=(w,), daemon=True)
        thread.start()
        for i in range(300):
            w.append(step_columns(4, 4 * i), {"big": np.full((4, 10, 10), i, np.float32)})
        thread.join()
    assert seen == list(range(300))
    assert wrong == []
    assert w.rows == 1200
    for index in (-1, 300):
        with pytest.raises(IndexError, match=f"no chunk {index}: there are 300"):
            w.chunk(index)


def test_large_chunk_is_written_without_a_copy(tmp_path):
    values = np.ones((16, 1024, 1024), np.float32)
    with history_writer(tmp_path, [Tensor("k", (1024, 1024), "float32", True)], initial={"k": values[0]}) as w:
        before = pa.default_memory_pool().max_memory()
        tracemalloc.start()
        try:
            w.append(step_columns(16), {"k": values})
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()
        assert pa.default_memory_pool().max_memory() - before < 2**20
    assert TrainingHistory.open(tmp_path).weights("k").shape == (17, 1024, 1024)


def test_mismatched_chunk_is_refused_before_writing(tmp_path):
    with history_writer(tmp_path, [BIAS]) as w:
        good = step_columns(2), random_weights(2, [BIAS])
        for columns, weights, message in [
            (
                {"step": np.arange(2)},
                good[1],
                r"columns have the names \['step'\], not \['batch_loss', 'samples', 'step'\]",
            ),
            (good[0], {}, r"weights have the names \[\], not \['dense/bias'\]"),
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


def test_invalid_writer_arguments(tmp_path):
    statistics = {"dense/bias": np.zeros(3)}
    for kwargs, message in [
        ({"weights": "all"}, "weights='all' is none of 'values', 'statistics', 'none'"),
        ({"tensors": [BIAS, BIAS]}, "distinct names"),
        ({"tensors": [BIAS._replace(name="step")]}, "distinct names"),
        ({"tensors": [BIAS._replace(dtype="complex64")]}, "has dtype complex64"),
        ({"tensors": [BIAS], "initial": {}}, r"weights have the names \[\]"),
        (
            {"tensors": [BIAS], "weights": "statistics", "initial": statistics},
            r"shape \(1, 3\), not \(1, 4\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            history_writer(tmp_path / "new", **kwargs)
    assert not (tmp_path / "new").exists()
    write_history(tmp_path)
    with pytest.raises(FileExistsError, match=r"history\.arrows"):
        history_writer(tmp_path)
    assert TrainingHistory.open(tmp_path).n_steps == 10
