"""Damaged histories: cut off, overwritten, killed while writing, on a full disk, or other files altogether."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from mlflow_hp.history import STEPS_FILE, VERSION, TrainingHistory
from tests.helpers.histories import BIAS, KERNEL, history_writer, random_weights, same_bits, step_columns, write_history


def test_file_cut_at_any_byte_has_its_complete_chunks(tmp_path):
    sizes = (4, 1, 5)
    ends = [0]
    with history_writer(tmp_path / "whole") as w:
        path = tmp_path / "whole" / STEPS_FILE
        ends[0] = path.stat().st_size  # head and the row before the first step
        for i, k in enumerate(sizes):
            w.append(step_columns(k, sum(sizes[:i])), random_weights(k, seed=i))
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
        (cut / STEPS_FILE).write_bytes(data[:length])
        history = TrainingHistory.open(cut)
        n = [0, 4, 5, 10][sum(length >= end for end in ends) - 1]
        assert (history.n_steps, history.complete) == (n, False), length
        assert same_bits(history.weights("dense/bias"), expected.weights("dense/bias")[: n + 1])
        assert same_bits(history.steps["batch_loss"], expected.steps["batch_loss"][:n])
    for length in range(0, ends[0], 5):
        (cut / STEPS_FILE).write_bytes(data[:length])
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
def test_trailing_garbage_is_ignored(tmp_path, tail, closed):
    chunks = write_history(tmp_path)
    path = tmp_path / STEPS_FILE
    data = path.read_bytes()
    path.write_bytes((data if closed else data[:-8]) + tail)
    history = TrainingHistory.open(tmp_path)
    assert (history.n_steps, history.complete) == (10, False)
    assert same_bits(history.weights("dense/bias")[6:], chunks[2][1]["dense/bias"])


APPEND_FOREVER = """
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


def test_complete_chunks_survive_kill_9(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", APPEND_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        assert child.stdout.readline()
    child.kill()
    finished = 5 + len(child.stdout.read().split())
    child.stdout.close()
    assert child.wait() == -9
    history = TrainingHistory.open(tmp_path)
    assert not history.complete
    assert history.n_steps in (50 * finished, 50 * (finished + 1))
    assert finished <= history.n_epochs <= finished + 1
    weights = history.weights("k")
    assert np.array_equal(weights[1:, 0, 0], history.steps["step"].astype(np.float32))
    assert (weights[1:] == weights[1:, :1, :1]).all()


FILL_THE_DISK = """
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
history = TrainingHistory.open(sys.argv[1])
assert (history.n_steps, history.complete, w.rows, w.n_chunks) == (1000, False, 1000, 1), history.n_steps
assert w.chunk(0).columns["x"][999] == 999
"""


def test_full_disk_loses_only_the_chunk_that_did_not_fit(tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", FILL_THE_DISK, str(tmp_path)], check=True)
    assert (tmp_path / STEPS_FILE).stat().st_size == 12_000


def test_damaged_tensor_leaves_others_readable(tmp_path):
    chunks = write_history(tmp_path, (50,), [KERNEL, BIAS])
    path = tmp_path / STEPS_FILE
    kernel = chunks[0][1]["dense/kernel"].tobytes()
    data = path.read_bytes()
    assert data.count(kernel) == 1
    path.write_bytes(data.replace(kernel, b"\xff" * len(kernel)))
    history = TrainingHistory.open(tmp_path)
    assert same_bits(history.weights("dense/bias")[1:], chunks[0][1]["dense/bias"])
    with pytest.raises(ValueError, match=r"is damaged: 'dense/kernel' in its rows 1 to 50 differs"):
        history.weights("dense/kernel")


def test_file_that_shrinks_while_open_raises(tmp_path):
    write_history(tmp_path, (500,))
    history = TrainingHistory.open(tmp_path)
    path = tmp_path / STEPS_FILE
    for length in (3000, 300):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match="became shorter while it was read"):
            history.weights("scale")


def test_files_that_are_not_histories(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no training history at .*/nowhere/history\.arrows: name the folder"):
        TrainingHistory.open(tmp_path / "nowhere")
    path = tmp_path / STEPS_FILE
    for content in (b"a,b\n1,2\n" * 20, b"PK\x03\x04" + bytes(100), b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"history\.arrows is not a training history"):
            TrainingHistory.open(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        TrainingHistory.open(tmp_path)
    for metadata in (None, {"mlflow_hp": "[]"}, {"mlflow_hp": "{}"}, {"mlflow_hp": "no json"}):
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, pa.schema([("x", "f8")], metadata)):
            pass
        with pytest.raises(ValueError, match="is not a training history"):
            TrainingHistory.open(tmp_path)


def test_newer_version_asks_to_upgrade(tmp_path):
    newer = {"mlflow_hp": json.dumps({"version": VERSION + 1, "shape of things to come": {}})}
    with (
        pa.OSFile(str(tmp_path / STEPS_FILE), "wb") as file,
        pa.ipc.new_stream(file, pa.schema([("x", "f8")], newer)),
    ):
        pass
    with pytest.raises(ValueError, match=f"format version {VERSION + 1}, above {VERSION}: upgrade mlflow_hp"):
        TrainingHistory.open(tmp_path)
