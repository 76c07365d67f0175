"""TrainingHistory: a recorded training as arrays that are read on access."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history import display, tables
from mlflow_hp.history.arrays import checked_arrays
from mlflow_hp.history.epoch_table import epoch_column, read_epochs
from mlflow_hp.history.missing import missing_in, nan_where_missing
from mlflow_hp.history.program import Program, read_program
from mlflow_hp.history.schema import EPOCHS_FILE, STATISTICS, STEPS_FILE, Tensor, fields_of, statistics_of
from mlflow_hp.history.steps_file import ALL, StepsFile
from mlflow_hp.history.unit_shares import without_unit_shares

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd


class TrainingHistory:
    """Recorded training; made by ``open`` and ``from_arrays``. Arrays are read on access.

    Parameters
    ----------
    header : mapping of str to object
        Header of the file: columns, tensors, the form in which tensors were recorded, metadata.
    n_steps : int
        Number of steps.
    read : callable
        Names, rows -> arrays; row 0 is before the first step.
    epochs : mapping of str to ndarray
        Columns of the epochs.
    complete : bool
        Whether the training was recorded to its end.
    program : Program, optional
        Description of what was trained. Defaults to an empty one.

    Attributes
    ----------
    meta : dict
        Metadata of the training.
    tensors : tuple of Tensor
        The model's variables.
    recorded : {"values", "statistics", "none"}
        Form in which they were recorded.
    n_steps, n_epochs : int
        Number of steps, and of epochs.
    columns : tuple of str
        Names of the step columns.
    steps : mapping of str to ndarray of shape (n_steps,)
        Step columns; row i is the i-th recorded step (0-based). NaN where a step has no such value.
    epochs : mapping of str to ndarray of shape (n_epochs,)
        float64, nan if an epoch has no such number; "epoch" (0-based) is int64. Keras' logs, ``seconds``, and shares of
        units by layer: ``dead_units/<layer>`` and ``saturated_units/<layer>``.
    complete : bool
        False if the file was cut off, or is still being written: everything before the cut is available.
    program : Program
        Description of the model, its loss, optimizer, callbacks and data; empty for a training of an
        earlier version, and for a loop of the user's own.

    Examples
    --------
    >>> from mlflow_hp import TrainingHistory
    >>> history = TrainingHistory.from_arrays(
    ...     {"batch_loss": [4.0, 2.0, 1.0]},
    ...     {"epoch": [0], "loss": [2.5]},
    ...     weights={"dense/bias": [[0.0], [0.5], [0.7], [0.8]]},
    ... )
    >>> history.n_steps, history.columns
    (3, ('batch_loss',))
    >>> history.weights("dense/bias")[-1]
    array([0.8])
    >>> history.to_pandas()
          batch_loss  dense/bias
    step
    0            4.0         0.5
    1            2.0         0.7
    2            1.0         0.8
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        n_steps: int,
        read: Callable[[Sequence[str], slice], dict[str, np.ndarray]],
        epochs: Mapping[str, np.ndarray],
        *,
        complete: bool,
        program: Program | None = None,
    ) -> None:
        self._header = header
        self.program = program or Program()
        self.meta: dict[str, Any] = header["meta"]
        self.tensors = tuple(Tensor(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in header["tensors"])
        self.recorded: str = header["weights"]
        self.n_steps, self.complete, self._read = n_steps, complete, read
        self.epochs, self.n_epochs = epochs, len(next(iter(epochs.values()), ()))
        self.columns = tuple(header["columns"])

    @classmethod
    def open(cls, folder: Path | str, *, check: bool = False) -> TrainingHistory:
        """Open a recorded history, whether finished, cut off or still growing: all complete chunks up to now.

        Parameters
        ----------
        folder : path
            Folder that holds ``history.arrows``.
        check : bool
            Whether to read and check everything now, and leave out the first damaged chunk and all later ones.
            Defaults to False: damage is detected by its checksum on access, and raises an error then.

        Returns
        -------
        TrainingHistory
            The history.

        Raises
        ------
        FileNotFoundError
            If the folder has no ``history.arrows``.
        ValueError
            If that file is empty, not a history, damaged in its header, cut off before the first chunk, or of a newer
            version.
        """
        path = Path(folder) / STEPS_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no training history at {path}: name the folder that holds {STEPS_FILE}")
        file = StepsFile(path)
        if check:
            file.drop_damaged()

        def read(names: Sequence[str], rows: slice = ALL) -> dict[str, np.ndarray]:
            # row 0 is before the first step: it has weights, but nothing in the step columns
            columns = file.header["columns"]
            return {name: array[1:] if name in columns else array for name, array in file.read(names, rows).items()}

        epochs = read_epochs(path.with_name(EPOCHS_FILE), check=check)
        n_steps = sum(file.chunk_rows) - 1
        complete = file.complete and epochs.intact
        return cls(file.header, n_steps, read, epochs.columns, complete=complete, program=read_program(path.parent))

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
        program: Program | None = None,
    ) -> TrainingHistory:
        """Make a history in memory.

        Parameters
        ----------
        steps, epochs : mapping of str to array_like of shape (n_steps,), (n_epochs,)
            Numbers by name; those of steps may be masked where there is none. `epochs` defaults to None.
        tensors : sequence of Tensor
            The variables. Defaults to those of ``weights`` or ``statistics``, all trainable.
        weights : mapping of str to array_like of shape (n_steps + 1, *shape), optional
            Row 0 is before the first step. Defaults to None.
        statistics : mapping of str to mapping of str to array_like of shape (n_steps + 1,), optional
            Tensor -> statistic -> values, which may be masked, instead of ``weights``. Defaults to None.
        meta : mapping, optional
            Metadata of the training. Defaults to none.
        program : Program, optional
            Description of what was trained. Defaults to an empty one.

        Returns
        -------
        TrainingHistory
            The history.

        Raises
        ------
        ValueError
            If shapes or names do not match, or both weights and statistics are given.
        """
        if weights and statistics:
            raise ValueError("give weights= or statistics=, not both: the weights' statistics are computed")
        tensors = tensors or [
            Tensor(name, np.shape(values)[1:], np.asarray(values).dtype.name, True)
            for name, values in (weights or {}).items()
        ]
        tensors = tensors or [Tensor(name, (), "float32", True) for name in statistics or ()]
        header = {
            "columns": {name: np.asarray(values).dtype.name for name, values in steps.items()},
            "tensors": [tensor._asdict() for tensor in tensors],
            "weights": "values" if weights else "statistics" if statistics else "none",
            "meta": dict(meta or {}),
        }
        arrays = checked_arrays(header, steps, weights or {}, statistics or {})
        n_steps = len(arrays[next(iter(steps))])
        by_epoch = {name: epoch_column(name, values) for name, values in (epochs or {}).items()}
        return _in_memory(header, n_steps, arrays, by_epoch, complete=True, program=program)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle everything that was recorded, read now: the file may not exist where it is unpickled."""
        names = [field.name for group in fields_of(self._header) for field in group]
        arrays = self._read(names, ALL)
        return _in_memory, (
            dict(self._header), self.n_steps, arrays, dict(self.epochs), self.complete, self.program,
        )  # fmt: skip

    def __deepcopy__(self, memo: object) -> TrainingHistory:
        """Return the history itself, which is immutable."""
        return self

    def __repr__(self) -> str:
        return display.text_of(self)

    def _repr_html_(self) -> str:
        """Write it as HTML for a notebook: a table, and the curve of the loss by step."""
        return display.html_of(self)

    @cached_property
    def steps(self) -> Mapping[str, np.ndarray]:
        """Step columns, shape (n_steps,) each, NaN where a step has no such value; read on first access."""
        return self.read_steps(self.columns)

    def read_steps(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read some of the step columns, and no other part of the file; `steps` reads all, and keeps them.

        Parameters
        ----------
        names : sequence of str
            Names among ``columns``.

        Returns
        -------
        dict of str to ndarray of shape (n_steps,)
            The columns, NaN where a step has no such value.

        Raises
        ------
        KeyError
            For a name that is not among ``columns``.
        """
        arrays = self._read(names, ALL)
        return {name: nan_where_missing(arrays[name]) for name in names}

    @property
    def epoch_metrics(self) -> tuple[str, ...]:
        """Names of the columns of ``epochs`` with losses and metrics: those of Keras' logs."""
        return tuple(name for name in without_unit_shares(self.epochs) if name not in ("epoch", "seconds"))

    def weights(self, tensor: str) -> np.ndarray:
        """Read one tensor over all steps, and no other part of the file: shape (n_steps + 1, *shape).

        Row 0 is before the first step, row i + 1 after step i.

        Parameters
        ----------
        tensor : str
            Name, as ``"dense/kernel"``.

        Returns
        -------
        ndarray of shape (n_steps + 1, *shape)
            Values of the tensor.

        Raises
        ------
        ValueError
            For an unknown tensor, or if the weights themselves were not recorded.
        """
        self._check_recorded(tensor, "values")
        return self._read([tensor], ALL)[tensor]

    def statistics(self, tensor: str) -> dict[str, np.ndarray]:
        """Return each of ``STATISTICS`` of one tensor, in rows as of ``weights``.

        As recorded, or as `statistics_of` computes them from the recorded weights. NaN in rows without: those of a
        large tensor are not taken at every step; see ``has_statistics``.

        Parameters
        ----------
        tensor : str
            Name, as ``"dense/kernel"``.

        Returns
        -------
        dict of str to ndarray of shape (n_steps + 1,)
            Statistic -> values, float64.

        Raises
        ------
        ValueError
            For an unknown tensor, or if neither weights nor statistics were recorded.
        """
        self._check_recorded(tensor, "values", "statistics")
        if self.recorded == "values":
            return dict(zip(STATISTICS, statistics_of(self.weights(tensor)).T, strict=True))
        arrays = self._read([f"{tensor}/{key}" for key in STATISTICS], ALL)
        return {key: nan_where_missing(arrays[f"{tensor}/{key}"]) for key in STATISTICS}

    def read_statistics(self, keys: Sequence[str] = STATISTICS) -> dict[str, dict[str, np.ndarray]]:
        """Read statistics of all trainable tensors in one pass over the file, as `statistics` does of one.

        Parameters
        ----------
        keys : sequence of str
            Which of ``STATISTICS``. Defaults to all.

        Returns
        -------
        dict of str to dict of str to ndarray of shape (n_steps + 1,)
            Tensor -> statistic -> values, float64, NaN in rows without.

        Raises
        ------
        ValueError
            If neither weights nor statistics were recorded.
        """
        tensors = [tensor.name for tensor in self.tensors if tensor.trainable]
        if self.recorded != "statistics":
            of_all = {tensor: self.statistics(tensor) for tensor in tensors}
            return {tensor: {key: values[key] for key in keys} for tensor, values in of_all.items()}
        arrays = self._read([f"{tensor}/{key}" for tensor in tensors for key in keys], ALL)
        return {tensor: {key: nan_where_missing(arrays[f"{tensor}/{key}"]) for key in keys} for tensor in tensors}

    def has_statistics(self, tensor: str) -> np.ndarray:
        """Return the rows that have statistics of one tensor: those of a large one are not taken at every step.

        Parameters
        ----------
        tensor : str
            Name, as ``"dense/kernel"``.

        Returns
        -------
        ndarray of shape (n_steps + 1,)
            bool, in rows as of ``weights``.

        Raises
        ------
        ValueError
            As ``statistics``.
        """
        self._check_recorded(tensor, "values", "statistics")
        if self.recorded == "values":
            return np.ones(self.n_steps + 1, bool)
        name = f"{tensor}/{STATISTICS[0]}"
        missing = missing_in(self._read([name], ALL)[name])
        return np.ones(self.n_steps + 1, bool) if missing is None else ~missing

    def part(self, start: int, stop: int) -> TrainingHistory:
        """Return a stretch of the training, of which nothing else is read.

        Parameters
        ----------
        start, stop : int
            Its first step and the step after its last, counted from the first recorded one (0-based).

        Returns
        -------
        TrainingHistory
            With the steps of that stretch, and all epochs; row 0 of a tensor is before step `start`.

        Raises
        ------
        ValueError
            Unless 0 <= start <= stop <= n_steps.

        Examples
        --------
        >>> from mlflow_hp import TrainingHistory
        >>> history = TrainingHistory.from_arrays({"batch_loss": [4.0, 2.0, 1.0]})
        >>> history.part(1, 3).steps["batch_loss"]
        array([2., 1.])
        """
        if not 0 <= start <= stop <= self.n_steps:
            raise ValueError(f"there are no steps {start} to {stop}: the training has {self.n_steps}, from 0 on")

        def read(names: Sequence[str], rows: slice = ALL) -> dict[str, np.ndarray]:
            first, last, _ = rows.indices(stop - start + 1)
            return self._read(names, slice(start + first, start + max(first, last)))

        complete, program = self.complete and stop == self.n_steps, self.program
        return TrainingHistory(self._header, stop - start, read, self.epochs, complete=complete, program=program)

    def to_pandas(self) -> pd.DataFrame:
        """Make a table of the steps: their columns, and the weights or statistics after each; index "step".

        For at most 32 recorded weights in all, there is a column for each (``"dense/kernel/0"``, in C order;
        ``"dense/bias"`` for a tensor of one), otherwise for each statistic (``"dense/kernel/norm"``). The row before
        the first step is left out.

        Returns
        -------
        DataFrame
            A row for each step.
        """
        return tables.step_table(self)

    def epochs_to_pandas(self) -> pd.DataFrame:
        """Make a table of the epochs; index "epoch".

        Returns
        -------
        DataFrame
            A row for each epoch.
        """
        return tables.epoch_table(self)

    def _check_recorded(self, tensor: str, *forms: str) -> None:
        """Raise ValueError unless there is such a tensor, recorded in one of these forms."""
        if self.recorded not in forms:
            only = ", only their statistics" if self.recorded == "statistics" else ""
            raise ValueError(f'weights were not recorded{only}; train with TrainingRecorder(weights="all")')
        if tensor not in (names := [each.name for each in self.tensors]):
            raise ValueError(f"no tensor {tensor!r}; there are {', '.join(names)}")


def _in_memory(
    header: Any, n_steps: int, arrays: Any, epochs: Any, complete: bool, program: Program | None = None
) -> TrainingHistory:
    """Make a history of arrays in memory."""

    def read(names: Sequence[str], rows: slice = ALL) -> dict[str, np.ndarray]:
        start, stop, _ = rows.indices(n_steps + 1)
        steps = slice(start, max(start, stop - 1))
        return {name: arrays[name][steps if name in header["columns"] else rows] for name in names}

    return TrainingHistory(header, n_steps, read, epochs, complete=complete, program=program)
