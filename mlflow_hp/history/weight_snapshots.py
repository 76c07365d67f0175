"""Snapshots of the weights over a training, thinned evenly to a budget of memory, and their file."""

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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history.reader import TrainingHistory

FEWEST = 3
"""Snapshots that have to fit into the budget."""
FILE = "snapshots.npz"
"""Its name, beside a training's history."""
VERSION = 1
"""Of what is in it."""
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OSError, RuntimeError, MemoryError,
           BadZipFile, zlib.error, struct.error)  # fmt: skip


class Snapshots(NamedTuple):
    """The trainable weights at some moments of one training.

    Attributes
    ----------
    steps : ndarray of shape (n,)
        int64, ascending: how many steps were taken before each snapshot; 0 is the initial weights.
    tensors : dict of str to ndarray of shape (n, *shape)
        float32, by the tensor's name (``"dense/kernel"``).
    every : int
        One of every so many steps was kept; the last snapshot is the end of the training wherever that is.
    n_steps : int
        Steps of the training.
    """

    steps: np.ndarray
    tensors: dict[str, np.ndarray]
    every: int
    n_steps: int


class Thinner:
    """Keeps one of every 1, 2, 4, ... steps' weights, so that a training of any length fits a budget.

    Once the budget is reached, every second snapshot is dropped and half as many are taken from there on. The
    snapshots lie in arrays made at the first one; a system that gives memory when it is first written to, as Linux
    and macOS do, gives a short training no more than it fills.

    Parameters
    ----------
    budget_bytes : int
        Memory for all snapshots together.

    Attributes
    ----------
    every : int
        One of every so many steps is kept at the moment.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.every = 1
        self._budget = budget_bytes
        self._cell = -1  # of the newest snapshot: the steps divided by `every`
        self._n = 0
        self._steps = np.zeros(0, np.int64)
        self._tensors: dict[str, np.ndarray] = {}

    def due(self, step: int) -> bool:
        """Whether the weights after `step` steps are to be added."""
        return step // self.every > self._cell

    def add(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Keep the weights after `step` steps, name -> array, where that step is due; they are copied.

        Raises
        ------
        UserError
            At the first call, where fewer than ``FEWEST`` snapshots fit into the budget.
        """
        if not self._tensors:
            self._allocate(weights)
        if self._n == len(self._steps) - 1:  # one row is left for the end
            self._thin()
        if self.due(step):
            self._put(step, weights)
            self._cell = step // self.every

    def snapshots(self, last_step: int, last_weights: Mapping[str, np.ndarray]) -> Snapshots:
        """All that was kept, and the end: the weights after `last_step` steps.

        The arrays are views of the thinner's own, so that nothing is held twice: add nothing afterwards.
        """
        if not self._tensors:
            self._allocate(last_weights)
        if self._n and self._steps[self._n - 1] >= last_step:
            self._n -= 1  # the end replaces what was read at the same step
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
        """Double `every` and keep the first snapshot of each cell of so many steps, until half or more are gone."""
        kept = np.arange(self._n)
        while len(kept) > (self._n + 1) // 2:
            self.every *= 2
            kept = np.unique(self._steps[: self._n] // self.every, return_index=True)[1]
        for array in (self._steps, *self._tensors.values()):
            for to, row in enumerate(kept):  # row by row: NumPy would copy all of what overlaps
                if to != row:
                    array[to] = array[row]
        self._n = len(kept)
        self._cell = int(self._steps[self._n - 1]) // self.every


def from_history(history: TrainingHistory, budget_bytes: int) -> Snapshots:
    """The trainable tensors of a recorded training, thinned to a budget; they are read one tensor at a time.

    Parameters
    ----------
    history : TrainingHistory
        Recorded with the weights' values; its row 0 is before the first step.
    budget_bytes : int
        Memory for the snapshots, without the one tensor over all steps that is being read.

    Raises
    ------
    ValueError
        Where the weights themselves were not recorded.
    UserError
        Where no tensor trains, or fewer than ``FEWEST`` snapshots fit into the budget.
    """
    if history.recorded != "values":
        raise ValueError(
            f'the history holds {history.recorded!r} of the weights; record a path with TrainingRecorder(weights="all")'
        )
    shapes = {tensor.name: tensor.shape for tensor in history.tensors if tensor.trainable}
    rows, every = _capacity(shapes, budget_bytes), 1
    while -(-history.n_steps // every) + 1 > rows:
        every *= 2
    steps = np.append(np.arange(0, history.n_steps, every), history.n_steps)
    tensors = {name: history.weights(name)[steps].astype(np.float32, copy=False) for name in shapes}
    return Snapshots(steps, tensors, every, history.n_steps)


def save(snapshots: Snapshots, path: Path | str) -> None:
    """Write snapshots to an .npz file, which holds no pickled object."""
    head = {"version": VERSION, "every": snapshots.every, "n_steps": snapshots.n_steps,
            "tensors": list(snapshots.tensors)}  # fmt: skip
    arrays = {f"tensor_{i}": array for i, array in enumerate(snapshots.tensors.values())}
    with Path(path).open("wb") as file:
        np.savez(file, allow_pickle=False, head=np.array(json.dumps(head)), steps=snapshots.steps, **arrays)


def load(path: Path | str) -> Snapshots:
    """Read what `save` wrote.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Where it is broken, of another kind, or of a newer version.
    """
    try:
        _ensure_bounded(path)
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            head: dict[str, Any] = json.loads(str(arrays["head"]))
            version = head["version"]
            if version == VERSION:
                tensors = {name: arrays[f"tensor_{i}"] for i, name in enumerate(head["tensors"])}
                found = Snapshots(arrays["steps"], tensors, head["every"], head["n_steps"])
                _check(found, head["tensors"])
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise UserError(f"{path} holds no weight snapshots, or is cut off: {error}; write it again") from error
    if version != VERSION:
        raise UserError(f"{path} has format version {version}, not {VERSION}: upgrade mlflow_hp")
    return found


def _ensure_bounded(path: Path | str) -> None:
    """Raise where arrays are compressed or of another size than is in the file: NumPy takes memory for what they tell.

    `save` writes them as they are, one after the other.
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
                    raise ValueError(f"{member.filename} is of another version than NumPy's first")
                shape, _, dtype = read_array_header_1_0(file)
                if dtype.hasobject:
                    raise ValueError(
                        f"{member.filename} holds pickled objects, which are not read (allow_pickle=False)"
                    )
                if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise ValueError(f"{member.filename} tells of another size than it has")


def _check(snapshots: Snapshots, names: list[str]) -> None:
    steps = snapshots.steps
    if steps.dtype != np.int64 or steps.ndim != 1 or (np.diff(steps) <= 0).any():
        raise ValueError("its steps do not ascend")
    if len(snapshots.tensors) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"its tensors need names of their own: {names}")
    if type(snapshots.every) is not int or type(snapshots.n_steps) is not int or snapshots.every < 1:
        raise ValueError(f"it tells of every {snapshots.every!r} of {snapshots.n_steps!r} steps")
    for name, array in snapshots.tensors.items():
        if array.dtype != np.float32 or array.shape[:1] != steps.shape:
            raise ValueError(f"{name!r} is {array.dtype} of shape {array.shape} at {len(steps)} steps")


def _capacity(shapes: Mapping[str, tuple[int, ...]], budget_bytes: int) -> int:
    """How many snapshots of tensors of these shapes the budget holds."""
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if not size:
        raise UserError("the model has no trainable weights, so there is no path to keep; make a layer trainable")
    if budget_bytes < FEWEST * size:
        raise UserError(
            f"a budget of {budget_bytes:,} bytes is too small: {FEWEST} snapshots of {size // 4:,} trainable weights "
            f"need {FEWEST * size:,}; set the budget to that or more"
        )
    return int(budget_bytes) // size
