"""Snapshots of weights: which steps are kept, the memory budget, and the file."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mlflow_hp.errors import UserError
from mlflow_hp.history import Tensor, TrainingHistory, weight_snapshots
from mlflow_hp.history.weight_snapshots import Snapshots, Thinner

ROW = 4 * 7


def weights(step):
    """Make seven weights in two tensors that encode their step."""
    kernel = step + np.arange(6, dtype=np.float32).reshape(2, 3) / 8
    return {"a/dense/kernel": kernel, "a/dense/bias": np.array([-step], np.float32)}


def trained(n_steps, rows, stride=1):
    thinner = Thinner(rows * ROW)
    for step in range(0, n_steps, stride):
        if thinner.due(step):
            thinner.add(step, weights(step))
    return thinner.snapshots(n_steps, weights(n_steps))


def check_rows(found):
    assert found.steps.dtype == np.int64
    for row, step in enumerate(found.steps):
        for name, value in weights(step).items():
            assert found.tensors[name].dtype == np.float32
            np.testing.assert_array_equal(found.tensors[name][row], value)


@pytest.mark.parametrize("n_steps", [0, 1, 2, 3, 9, 10, 11, 50, 1000])
@pytest.mark.parametrize("rows", [3, 4, 10, 11])
def test_evenly_spaced_snapshots_with_both_ends(n_steps, rows):
    found = trained(n_steps, rows)
    regular = [*range(0, n_steps, found.every), n_steps]
    assert found.steps.tolist() == regular
    assert len(regular) <= rows
    assert found.n_steps == n_steps
    if found.every > 1:
        assert len(range(0, n_steps, found.every // 2)) + 1 > rows  # twice as many would not have fitted
    check_rows(found)


def test_sparse_steps_are_thinned_evenly():
    found = trained(100_000, 40, stride=50)
    check_rows(found)
    assert found.steps[[0, -1]].tolist() == [0, 100_000]
    gaps = np.diff(found.steps[:-1])
    assert len(found.steps) > 20
    assert gaps.max() < 2 * found.every
    assert gaps.min() > found.every / 2


def test_last_weights_replace_a_snapshot_of_the_same_step():
    thinner = Thinner(10 * ROW)
    for step in range(4):
        thinner.add(step, weights(step))
    found = thinner.snapshots(3, {name: value + 0.5 for name, value in weights(3).items()})
    assert found.steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.tensors["a/dense/bias"][:, 0], [0, -1, -2, -2.5])


def test_weights_are_copied():
    thinner, state = Thinner(10 * ROW), weights(0)
    thinner.add(0, state)
    state["a/dense/bias"][:] = 9
    assert thinner.snapshots(1, weights(1)).tensors["a/dense/bias"][0, 0] == 0


def test_memory_stays_within_the_budget_while_thinning():
    big = {"kernel": np.zeros((500, 100), np.float32)}
    budget = 20 * big["kernel"].nbytes + 100
    tracemalloc.start()
    try:
        thinner = Thinner(budget)
        for step in range(500):
            if thinner.due(step):
                thinner.add(step, big)
        found = thinner.snapshots(500, big)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.steps) > 10
    assert peak < budget + 50_000


@pytest.mark.parametrize("budget", [0, 3 * ROW - 1])
def test_too_small_budget_names_the_needed_one(budget):
    with pytest.raises(UserError, match=f"7 trainable weights need {3 * ROW}"):
        Thinner(budget).add(0, weights(0))


def test_no_trainable_weights():
    with pytest.raises(UserError, match="no trainable weights"):
        Thinner(1000).add(0, {})


def history(n_steps, **changed):
    values = [weights(step) for step in range(n_steps + 1)]
    arrays = {name: np.stack([value[name] for value in values]) for name in values[0]}
    tensors = [Tensor(name, array.shape[1:], "float32", True) for name, array in arrays.items()]
    tensors.insert(1, Tensor("norm/mean", (1000,), "float32", False))
    arrays["norm/mean"] = np.zeros((n_steps + 1, 1000), np.float32)
    return TrainingHistory.from_arrays({"loss": np.zeros(n_steps)}, tensors=tensors, weights=arrays)


@pytest.mark.parametrize("n_steps", [1, 9, 10, 200])
def test_from_history_equals_thinning_while_training(n_steps):
    found, expected = weight_snapshots.from_history(history(n_steps), 10 * ROW), trained(n_steps, 10)
    assert found.steps.tolist() == expected.steps.tolist()
    assert (found.every, found.n_steps) == (expected.every, expected.n_steps)
    assert list(found.tensors) == list(weights(0))
    check_rows(found)


def test_from_history_without_weights():
    bare = TrainingHistory.from_arrays({"loss": np.zeros(3)})
    with pytest.raises(ValueError, match='weights="all"'):
        weight_snapshots.from_history(bare, 1000)


def test_save_and_load_round_trip(tmp_path):
    path, odd = tmp_path / "path.npz", {"file": np.zeros((3, 0), np.float32), "a/b.npy": np.ones(3, np.float32)}
    found = trained(30, 10)
    found = found._replace(tensors=found.tensors | {k: np.resize(v, (len(found.steps), 2)) for k, v in odd.items()})
    weight_snapshots.save(found, path)
    again = weight_snapshots.load(path)
    assert list(again.tensors) == list(found.tensors)
    assert (again.every, again.n_steps) == (found.every, found.n_steps)
    np.testing.assert_array_equal(again.steps, found.steps)
    for name, array in found.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], array)
        assert again.tensors[name].dtype == np.float32


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def pickled(path):
    np.savez(path, head=np.array([{"version": 1}], dtype=object), steps=np.zeros(1))


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def unordered(path):
    weight_snapshots.save(weight_snapshots.load(path)._replace(steps=np.array([3, 2, 1])), path)


def newer(path):
    np.savez(path, head=np.array('{"version": 2}'))


BROKEN = {
    "cut": (cut, "cut off"),
    "flipped": (flip, "cut off|no weight"),
    "empty": (lambda path: path.write_bytes(b""), "no weight snapshots"),
    "text": (lambda path: path.write_text("weights"), "no weight snapshots"),
    "one array": (one_array, "no weight snapshots"),
    "other arrays": (lambda path: np.savez(path, x=np.zeros(3)), "no weight snapshots"),
    "pickled": (pickled, "allow_pickle"),
    "unordered": (unordered, "not ascending"),
    "newer": (newer, "upgrade"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused(name, tmp_path):
    path = tmp_path / "path.npz"
    weight_snapshots.save(Snapshots(np.arange(3), {"w": np.ones((3, 100), np.float32)}, 1, 2), path)
    spoil, said = BROKEN[name]
    spoil(path)
    with pytest.raises(ValueError, match=said) as raised:
        weight_snapshots.load(path)
    assert str(path) in str(raised.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        weight_snapshots.load(tmp_path / "nothing.npz")
