"""The program of one fit: described before its first step, completed with its data after the first epoch."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp._compat.private_name import UnsupportedVersionError, warn_once
from mlflow_hp.history.program import DataStatistics, Program
from mlflow_hp.training.fit_data import fit_arguments, unpacked
from mlflow_hp.training.program_description import describe_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from mlflow_hp.training.capture.data_statistics import DataReader
    from mlflow_hp.training.capture.validation_reader import ValidationReader

MAX_CLASSES = 100
"""Number of classes whose weights are described, at most."""
MAX_VALUES = 2_000_000
"""Number of values of an array that the program has in memory that are counted, at most: of evenly spaced samples."""


class FitProgram:
    """Describes the program of one fit, and passes the description on when it is made and when it is completed.

    Parameters
    ----------
    model : keras.Model
        The model that is fitted.
    keras_params : mapping
        The ``params`` that Keras gives to callbacks.
    callbacks : iterable of keras.callbacks.Callback
        Callbacks of the fit.
    is_own_step : bool
        Whether the model has a ``train_step`` of its own.
    pass_on : callable
        Called with each version of the program.

    Attributes
    ----------
    program : Program or None
        The description; None until the model is built.
    """

    def __init__(
        self,
        model: Any,
        keras_params: Mapping[str, Any],
        callbacks: Iterable[Any],
        *,
        is_own_step: bool,
        pass_on: Callable[[Program], None],
    ) -> None:
        self.program: Program | None = None
        self._model, self._callbacks, self._is_own_step = model, list(callbacks), is_own_step
        self._pass_on = pass_on
        self._fit = {"epochs": keras_params.get("epochs"), "steps": keras_params.get("steps")}
        self._validation: DataStatistics | None = None
        self._validation_reader: ValidationReader | None = None
        self._arrays: tuple[Any, ...] = (None, None)

    def note_arguments(self, frame: FrameType | None) -> None:
        """Note the arguments of the ``fit`` that is on the stack above `frame`, and count data that are in memory."""
        arguments = fit_arguments(frame, self._model)
        validation = arguments.get("validation_data")
        self._fit |= {
            "batch_size": arguments.get("batch_size"),
            "shuffle": arguments.get("shuffle") if isinstance(arguments.get("x"), np.ndarray) else None,
            "has_validation": validation is not None if arguments else None,
            "has_class_weight": arguments.get("class_weight") is not None if arguments else None,
            "class_weight": _class_weights(arguments.get("class_weight")),
        }
        self._validation = _count(unpacked(validation)) if validation is not None else None
        self._arrays = (arguments.get("x"), arguments.get("y"))

    def describe(self, optimizer: Mapping[str, Any], input_spec: Any = None) -> None:
        """Describe the model, once it is built; do nothing if that is done.

        Parameters
        ----------
        optimizer : mapping
            As `optimizer_settings` returns; empty if unknown.
        input_spec : nested structure of tf.TypeSpec, optional
            Specification of what ``train_step`` gets. Defaults to unknown.
        """
        if self.program is None:
            inputs = None if input_spec is None else keras.utils.unpack_x_y_sample_weight(input_spec)[0]
            try:
                program = describe_program(
                    self._model, optimizer, self._fit, self._callbacks, is_own_step=self._is_own_step, inputs=inputs
                )
            except UnsupportedVersionError as error:  # without a word on layers
                warn_once(error)
                return
            self.program = program._replace(validation=self._validation)
            self._pass_on(self.program)

    def begin_validation(self) -> None:
        """Count the data of the first validation as its batches pass by, if they were not in memory."""
        if keras.backend.backend() != "tensorflow" or (
            self._validation is not None and self._validation_reader is None
        ):
            return
        from mlflow_hp.training.capture.validation_reader import ValidationReader

        self._validation_reader = ValidationReader.of(self._model)
        if self._validation_reader is not None:
            self._validation_reader.begin(counts=self._validation is None)

    def end_validation(self) -> None:
        """Complete the description with the data of the first validation."""
        if self._validation_reader is None:
            return
        statistics = self._validation_reader.end()
        if self._validation is None and statistics is not None:
            self._validation = statistics
            if self.program is not None:
                self.program = self.program._replace(validation=statistics)
                self._pass_on(self.program)

    def end_epoch(self, data: DataReader | None, batch_size: int) -> None:
        """Complete the description with the data of the first epoch; do nothing after later ones.

        Parameters
        ----------
        data : DataReader or None
            Reader of the batches.
        batch_size : int
            Largest number of samples of a step so far; 0 if unknown.
        """
        if self.program is None or self.program.training is not None:
            return
        statistics = None
        if data is not None:
            data.end_epoch()
            statistics = data.statistics()
        if statistics is None:
            statistics = _count(self._arrays)
        fit = dict(self.program.fit)
        if not fit.get("batch_size"):
            fit["batch_size"] = batch_size or _mean_batch(statistics)
        self._arrays = (None, None)
        self.program = self.program._replace(training=statistics or DataStatistics(), fit=fit)
        self._pass_on(self.program)


def _class_weights(weights: Any) -> dict[str, float] | None:
    """Weights of up to 100 classes; None if there are none."""
    if not isinstance(weights, dict) or len(weights) > MAX_CLASSES:
        return None
    return {str(label): float(weight) for label, weight in weights.items()}


def _mean_batch(statistics: DataStatistics | None) -> int:
    """Mean size of the batches, rounded up; 0 if unknown."""
    inputs = statistics.inputs if statistics is not None else ()
    return math.ceil(inputs[0].n_samples / inputs[0].n_batches) if inputs else 0


def _count(arrays: tuple[Any, ...]) -> DataStatistics | None:
    """Statistics of inputs and targets in memory, of evenly spaced samples; None if they are no arrays."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    from mlflow_hp.training.capture.data_statistics import DataReader

    flat = [part for part in keras.tree.flatten(arrays[:2]) if part is not None]
    if not flat or not all(_is_in_memory(part) for part in flat):
        return None
    n_samples = len(flat[0])
    largest = max(math.prod(part.shape[1:]) for part in flat)
    every = max(1, math.ceil(n_samples * largest / MAX_VALUES))

    def chosen(part: Any) -> Any:
        return None if part is None else tf.convert_to_tensor(np.asarray(part)[::every])

    reader = DataReader()
    reader.keep(keras.tree.map_structure(chosen, tuple(arrays[:2]) if len(arrays) > 1 else arrays))
    return reader.statistics()


def _is_in_memory(part: Any) -> bool:
    """Whether it is an array of numbers or a table, and not one that is read from a file, such as a dataset of h5py."""
    import tensorflow as tf

    pandas = sys.modules.get("pandas")
    tables: tuple[type, ...] = () if pandas is None else (pandas.DataFrame, pandas.Series)
    kinds: Any = (np.ndarray, tf.Tensor, tf.Variable, *tables)
    return isinstance(part, kinds) and len(part.shape) > 0 and part.shape[0] > 0
