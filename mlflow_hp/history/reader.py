"""TrainingHistory: a recorded training as arrays, each read when it is asked for."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history.arrow_reader import StepsFile
from mlflow_hp.history.epoch_table import epoch_column, read_epochs
from mlflow_hp.history.schema import EPOCHS_FILE, STATISTICS, STEPS_FILE, Tensor, fields_of, same_names, statistics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

FEW = 32  # so many recorded weights or fewer get a column each in a table


class TrainingHistory:
    """What a training recorded. ``open`` and ``from_arrays`` make it; arrays are read when asked for.

    Attributes
    ----------
    meta : dict
        What was noted beside the numbers.
    tensors : tuple of Tensor
        The model's variables.
    recorded : {"values", "statistics", "none"}
        What was recorded of them.
    n_steps, n_epochs : int
    columns : tuple of str
        What was recorded of each step.
    steps : mapping of str to ndarray of shape (n_steps,)
        Row i is the i-th step recorded, from 0.
    epochs : mapping of str to ndarray of shape (n_epochs,)
        float64, nan where an epoch has no such number; "epoch" (0-based) is int64.
    complete : bool
        False where the file was cut off, or is still being written: all before the cut is here.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        n_steps: int,
        read: Callable[[Sequence[str]], dict[str, np.ndarray]],
        epochs: Mapping[str, np.ndarray],
        *,
        complete: bool,
    ) -> None:
        self._head = head
        self.meta: dict[str, Any] = head["meta"]
        self.tensors = tuple(Tensor(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in head["tensors"])
        self.recorded: str = head["weights"]
        self.n_steps, self.complete, self._read = n_steps, complete, read
        self.epochs, self.n_epochs = epochs, len(next(iter(epochs.values()), ()))
        self.columns = tuple(head["columns"])

    @classmethod
    def open(cls, folder: Path | str, *, check: bool = False) -> TrainingHistory:
        """Open a recorded history, finished, cut off or still growing: every whole chunk there is now.

        Parameters
        ----------
        folder : path
            What holds ``history.arrows``.
        check : bool
            Whether to read everything now, and leave out all from the first chunk on that is not what was written.
            By default that is seen, by its checksum, when it is read, and is an error then.

        Raises
        ------
        FileNotFoundError
            Where the folder has no ``history.arrows``.
        ValueError
            Where that file is empty, of another kind, damaged in its head, cut off before the first chunk, or of a
            newer version.
        """
        path = Path(folder) / STEPS_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no training history at {path}: name the folder that holds {STEPS_FILE}")
        file = StepsFile(path)
        if check:
            file.keep_sound()

        def read(names: Sequence[str]) -> dict[str, np.ndarray]:
            # row 0 is before the first step: it has weights, but nothing in the step columns
            columns = file.head["columns"]
            return {name: array[1:] if name in columns else array for name, array in file.read(names).items()}

        epochs = read_epochs(path.with_name(EPOCHS_FILE), check=check)
        return cls(file.head, sum(file.chunks) - 1, read, epochs.columns, complete=file.complete and epochs.whole)

    @classmethod
    def from_arrays(
        cls,
        steps: Mapping[str, Any],
        epochs: Mapping[str, Any] | None = None,
        *,
        tensors: Sequence[Tensor] = (),
        weights: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Mapping[str, Any]] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> TrainingHistory:
        """Make a history in memory.

        Parameters
        ----------
        steps, epochs : mapping of str to array_like of shape (n_steps,), (n_epochs,)
        tensors : sequence of Tensor
            By default what ``weights`` or ``statistics`` tell, all trainable.
        weights : mapping of str to array_like of shape (n_steps + 1, *shape), optional
            Row 0 is before the first step.
        statistics : mapping of str to mapping of str to array_like of shape (n_steps + 1,), optional
            Tensor -> statistic -> values. Instead of ``weights``.
        meta : mapping, optional

        Raises
        ------
        ValueError
            Where shapes or names don't agree, or both weights and statistics came.
        """
        if weights and statistics:
            raise ValueError("give weights= or statistics=, not both: the weights' statistics are computed")
        arrays = {name: np.asarray(values) for name, values in steps.items()}
        columns = {name: array.dtype.name for name, array in arrays.items()}
        n_steps = len(next(iter(arrays.values()), ()))
        arrays |= {name: np.asarray(values) for name, values in (weights or {}).items()}
        for name, four in (statistics or {}).items():
            arrays |= {f"{name}/{key}": np.asarray(four[key], np.float64) for key in STATISTICS}
        tensors = tensors or [Tensor(n, arrays[n].shape[1:], arrays[n].dtype.name, True) for n in weights or ()]
        tensors = tensors or [Tensor(name, (), "float32", True) for name in statistics or ()]
        head = {
            "columns": columns,
            "tensors": [tensor._asdict() for tensor in tensors],
            "weights": "values" if weights else "statistics" if statistics else "none",
            "meta": dict(meta or {}),
        }
        fields = [field for part in fields_of(head) for field in part]
        same_names("arrays", arrays, [field.name for field in fields])
        for field in fields:
            shape = (n_steps if field.name in columns else n_steps + 1, *field.shape)
            if arrays[field.name].shape != shape:
                raise ValueError(f"{field.name!r} has shape {arrays[field.name].shape}, not {shape}")
            arrays[field.name] = arrays[field.name].astype(field.dtype, copy=False)
        by_epoch = {name: epoch_column(name, values) for name, values in (epochs or {}).items()}
        return cls(head, n_steps, lambda names: {n: arrays[n] for n in names}, by_epoch, complete=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with everything that was recorded, read now: the file may be gone where it is unpickled."""
        names = [field.name for part in fields_of(self._head) for field in part]
        return _in_memory, (dict(self._head), self.n_steps, self._read(names), dict(self.epochs), self.complete)

    def __deepcopy__(self, memo: object) -> TrainingHistory:
        """The history itself, which nobody changes."""
        return self

    @cached_property
    def steps(self) -> Mapping[str, np.ndarray]:
        """The step columns, (n_steps,) each; read when first asked for."""
        found = self._read(self.columns)
        return {name: found[name] for name in self.columns}

    def weights(self, tensor: str) -> np.ndarray:
        """Read one tensor over all steps and nothing else of the file: (n_steps + 1, *shape).

        Row 0 is before the first step, row i + 1 after step i.

        Raises
        ------
        ValueError
            For an unknown tensor, or where the weights themselves were not recorded.
        """
        self._check(tensor, "values")
        return self._read([tensor])[tensor]

    def statistics(self, tensor: str) -> dict[str, np.ndarray]:
        """Give each of ``STATISTICS`` of one tensor, (n_steps + 1,) and float64, in rows as of ``weights``.

        As recorded, or else as `statistics_of` computes them from the recorded weights.

        Raises
        ------
        ValueError
            For an unknown tensor, or where neither weights nor statistics were recorded.
        """
        self._check(tensor, "values", "statistics")
        if self.recorded == "values":
            return dict(zip(STATISTICS, statistics_of(self.weights(tensor)).T, strict=True))
        found = self._read([f"{tensor}/{key}" for key in STATISTICS])
        return {key: found[f"{tensor}/{key}"] for key in STATISTICS}

    def to_pandas(self) -> pd.DataFrame:
        """Make a table of the steps: their columns, and the weights or statistics after each; index "step".

        Where at most 32 weights in all were recorded, there is a column for each (``"dense/kernel/0"``, in
        C order; ``"dense/bias"`` for a tensor of one), else for each statistic (``"dense/kernel/norm"``).
        The row before the first step is left out.
        """
        import pandas as pd

        table = dict(self.steps)
        few = self.recorded == "values" and sum(math.prod(t.shape) for t in self.tensors) <= FEW
        for name, shape, *_ in self.tensors if self.recorded != "none" else ():
            if few:
                flat = self.weights(name)[1:].reshape(self.n_steps, math.prod(shape))
                if flat.dtype.itemsize < 4 and flat.dtype.kind in "fV":
                    flat = flat.astype(np.float32)  # pandas can't count with bfloat16, nor print float16
                names = [name] if flat.shape[1] == 1 else [f"{name}/{i}" for i in range(flat.shape[1])]
                table |= dict(zip(names, flat.T, strict=True))
            else:
                table |= {f"{name}/{key}": values[1:] for key, values in self.statistics(name).items()}
        index = pd.Index(table.pop("step", np.arange(self.n_steps)), name="step")
        return pd.DataFrame(table, index=index)

    def epochs_to_pandas(self) -> pd.DataFrame:
        """Make a table of the epochs; index "epoch"."""
        import pandas as pd

        table = dict(self.epochs)
        return pd.DataFrame(table, index=pd.Index(table.pop("epoch", np.arange(self.n_epochs)), name="epoch"))

    def _check(self, tensor: str, *enough: str) -> None:
        if self.recorded not in enough:
            only = ", only their statistics" if self.recorded == "statistics" else ""
            raise ValueError(f'weights were not recorded{only}; train with TrainingRecorder(weights="all")')
        if tensor not in (names := [t.name for t in self.tensors]):
            raise ValueError(f"no tensor {tensor!r}; there are {', '.join(names)}")


def _in_memory(head: Any, n_steps: int, arrays: Any, epochs: Any, complete: bool) -> TrainingHistory:
    """A history of the `arrays` that another one has read."""
    return TrainingHistory(head, n_steps, lambda names: {n: arrays[n] for n in names}, epochs, complete=complete)
