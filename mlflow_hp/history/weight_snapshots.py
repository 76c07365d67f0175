"""Snapshots of the weights during a training, thinned evenly to a memory budget, and their file."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_magic

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history.training_history import TrainingHistory

MIN_SNAPSHOTS = 3
"""Least number of snapshots that the budget has to hold."""
FILE = "snapshots.npz"
"""Name of the file, next to the history of the training."""
VERSION = 1
"""Version of the format of the file."""
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OSError, RuntimeError, MemoryError,
           BadZipFile, zlib.error, struct.error)  # fmt: skip


class Snapshots(NamedTuple):
    """Trainable weights at some moments of one training.

    Attributes
    ----------
    steps : ndarray of shape (n,)
        int64, ascending: number of steps before each snapshot; 0 is the initial weights.
    tensors : dict of str to ndarray of shape (n, *shape)
        float32, by name of the tensor (``"dense/kernel"``).
    every : int
        Number of steps between snapshots; the last snapshot is the end of the training in any case.
    n_steps : int
        Number of steps of the training.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import Snapshots
    >>> path = Snapshots(np.array([0, 2, 4]), {"dense/bias": np.zeros((3, 1), np.float32)}, every=2, n_steps=4)
    >>> path.tensors["dense/bias"].shape
    (3, 1)
    """

    steps: np.ndarray
    tensors: dict[str, np.ndarray]
    every: int
    n_steps: int

    def __repr__(self) -> str:
        n_weights = sum(math.prod(array.shape[1:]) for array in self.tensors.values())
        names = printable(", ".join(self.tensors))
        return (
            f"Snapshots: {len(self.steps)} of {count(self.n_steps, 'step')}, every {self.every}; "
            f"{count(n_weights, 'weight')} in {count(len(self.tensors), 'tensor')}: {names}"
        )


class Thinner:
    """Keeps the weights of every 1, 2, 4, ... steps, so that a training of any length stays within a memory budget.

    Once the budget is reached, every second snapshot is dropped, and half as many are taken from there on. Their arrays
    are allocated at the first snapshot; on Linux and macOS, which assign memory on the first write, a short training
    takes only the memory that it fills.

    Parameters
    ----------
    budget_bytes : int
        Memory for all snapshots together.

    Attributes
    ----------
    every : int
        Current number of steps between snapshots.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.every = 1
        self._budget = budget_bytes
        self._newest_interval = -1  # of the last snapshot: its steps divided by `every`
        self._n = 0
        self._steps = np.zeros(0, np.int64)
        self._tensors: dict[str, np.ndarray] = {}

    def due(self, step: int) -> bool:
        """Return whether the weights after `step` steps are to be added."""
        return step // self.every > self._newest_interval

    def add(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Copy the weights after `step` steps, name -> array, if that step is due.

        Raises
        ------
        UserError
            At the first call, if fewer than ``MIN_SNAPSHOTS`` snapshots fit into the budget.
        """
        if not self._tensors:
            self._allocate(weights)
        if self._n == len(self._steps) - 1:  # one row is left for the end
            self._thin()
        if self.due(step):
            self._put(step, weights)
            self._newest_interval = step // self.every

    def snapshots(self, last_step: int, last_weights: Mapping[str, np.ndarray]) -> Snapshots:
        """Return all snapshots, with the weights after `last_step` steps as the last.

        The arrays are views of the thinner's own, to save memory: add nothing afterwards.
        """
        if not self._tensors:
            self._allocate(last_weights)
        if self._n and self._steps[self._n - 1] >= last_step:
            self._n -= 1  # the end replaces the snapshot of the same step
        self._put(last_step, last_weights)
        tensors = {name: array[: self._n] for name, array in self._tensors.items()}
        return Snapshots(self._steps[: self._n], tensors, self.every, last_step)

    def _allocate(self, weights: Mapping[str, np.ndarray]) -> None:
        shapes = {name: np.shape(array) for name, array in weights.items()}
        rows = _capacity(shapes, self._budget)
        self._steps = np.empty(rows, np.int64)
        self._tensors = {name: np.empty((rows, *shape), np.float32) for name, shape in shapes.items()}

    def _put(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        for name, array in self._tensors.items():
            array[self._n] = weights[name]
        self._steps[self._n] = step
        self._n += 1

    def _thin(self) -> None:
        """Double `every` and keep the first snapshot of each interval, until half or more are dropped."""
        rows = np.arange(self._n)
        while len(rows) > (self._n + 1) // 2:
            self.every *= 2
            rows = np.unique(self._steps[: self._n] // self.every, return_index=True)[1]
        for array in (self._steps, *self._tensors.values()):
            for to, row in enumerate(rows):  # row by row: NumPy would copy an overlapping part
                if to != row:
                    array[to] = array[row]
        self._n = len(rows)
        self._newest_interval = int(self._steps[self._n - 1]) // self.every


def from_history(history: TrainingHistory, budget_bytes: int) -> Snapshots:
    """Make snapshots of the trainable tensors of a recorded training, thinned to a budget; reads one tensor at a time.

    Parameters
    ----------
    history : TrainingHistory
        Recorded with the weights' values; its row 0 is before the first step.
    budget_bytes : int
        Memory for the snapshots, not including the tensor over all steps that is being read.

    Raises
    ------
    ValueError
        If the weights themselves were not recorded.
    UserError
        If no tensor is trainable, or fewer than ``MIN_SNAPSHOTS`` snapshots fit into the budget.
    """
    if history.recorded != "values":
        raise ValueError(
            f'the history holds {history.recorded!r} of the weights; record values with TrainingRecorder(weights="all")'
        )
    shapes = {tensor.name: tensor.shape for tensor in history.tensors if tensor.trainable}
    n_snapshots, every = _capacity(shapes, budget_bytes), 1
    while -(-history.n_steps // every) + 1 > n_snapshots:
        every *= 2
    steps = np.append(np.arange(0, history.n_steps, every), history.n_steps)
    tensors = {name: history.weights(name)[steps].astype(np.float32, copy=False) for name in shapes}
    return Snapshots(steps, tensors, every, history.n_steps)


def save(snapshots: Snapshots, path: Path | str) -> None:
    """Write snapshots to an .npz file without pickled objects."""
    header = {"version": VERSION, "every": snapshots.every, "n_steps": snapshots.n_steps,
              "tensors": list(snapshots.tensors)}  # fmt: skip
    arrays = {f"tensor_{i}": array for i, array in enumerate(snapshots.tensors.values())}
    with Path(path).open("wb") as file:
        np.savez(file, allow_pickle=False, head=np.array(json.dumps(header)), steps=snapshots.steps, **arrays)


def load(path: Path | str) -> Snapshots:
    """Read the file that `save` writes.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    UserError
        If it is damaged, of another kind, or of a newer version.
    """
    try:
        _ensure_bounded(path)
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            header: dict[str, Any] = json.loads(str(arrays["head"]))
            version = header["version"]
            if version == VERSION:
                tensors = {name: arrays[f"tensor_{i}"] for i, name in enumerate(header["tensors"])}
                snapshots = Snapshots(arrays["steps"], tensors, header["every"], header["n_steps"])
                _validate(snapshots, header["tensors"])
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise UserError(f"{path} holds no weight snapshots, or is cut off: {error}; write it again") from error
    if version != VERSION:
        raise UserError(f"{path} has format version {version}, not {VERSION}: upgrade mlflow_hp")
    return snapshots


def _ensure_bounded(path: Path | str) -> None:
    """Raise if an array is compressed, or claims another size than it has in the file: NumPy would allocate that.

    `save` writes arrays uncompressed, one after the other.
    """
    with ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != ZIP_STORED for member in members):
            raise ValueError("its arrays are compressed")
        if sum(member.file_size for member in members) > Path(path).stat().st_size:
            raise ValueError("its arrays are larger than the file")
        for member in members:
            with archive.open(member) as file:
                if read_magic(file) != (1, 0):
                    raise ValueError(f"{member.filename} is not of version 1.0 of NumPy's format")
                shape, _, dtype = read_array_header_1_0(file)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds pickled objects, which are refused (allow_pickle=False)")
                if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise ValueError(f"{member.filename} claims another size than it has")


def _validate(snapshots: Snapshots, names: list[str]) -> None:
    steps = snapshots.steps
    if steps.dtype != np.int64 or steps.ndim != 1 or (np.diff(steps) <= 0).any():
        raise ValueError("its steps are not ascending")
    if len(snapshots.tensors) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"its tensors need distinct names: {names}")
    if type(snapshots.every) is not int or type(snapshots.n_steps) is not int or snapshots.every < 1:
        raise ValueError(f"it has every={snapshots.every!r} and n_steps={snapshots.n_steps!r}")
    for name, array in snapshots.tensors.items():
        if array.dtype != np.float32 or array.shape[:1] != steps.shape:
            raise ValueError(f"{name!r} is {array.dtype} of shape {array.shape} at {count(len(steps), 'step')}")


def _capacity(shapes: Mapping[str, tuple[int, ...]], budget_bytes: int) -> int:
    """Number of snapshots of tensors of these shapes that fit into the budget."""
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if not size:
        raise UserError("the model has no trainable weights to take snapshots of; make a layer trainable")
    if budget_bytes < MIN_SNAPSHOTS * size:
        raise UserError(
            f"a budget of {budget_bytes:,} bytes is too small: {MIN_SNAPSHOTS} snapshots of {size // 4:,} trainable "
            f"weights need {MIN_SNAPSHOTS * size:,}; set the budget to that or more"
        )
    return int(budget_bytes) // size
