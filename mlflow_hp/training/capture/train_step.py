"""The model's training step as a traced function that also returns the values of the step."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from mlflow_hp.training.capture.replicas import run_in_replicas
from mlflow_hp.training.capture.step_layout import Unwrappable, batch_column, columns_of, leaves_of, running_column
from mlflow_hp.training.capture.step_values import StepValues, StepWatch, is_number, n_samples, optimizers_of

if TYPE_CHECKING:
    from mlflow_hp.training.capture.gradient_reader import GradientReader


class TrainStep:
    """The model's ``train_step`` as a separate function, as in Keras, that also returns its values.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    strategy : tf.distribute.Strategy or None
        Strategy that distributes the model.
    gradients : GradientReader or None
        Reader of its gradients.

    Attributes
    ----------
    columns : list of str
        Columns of the step's values; empty until it is traced.
    logged : list of str
        Column with each number in the logs of the step.
    optimizers : dict of str to keras.optimizers.Optimizer
        Those that the step applies, by the names of their attributes; empty until it is traced.
    """

    def __init__(self, model: Any, strategy: Any, gradients: GradientReader | None) -> None:
        self._model, self._strategy, self._gradients = model, strategy, gradients
        self.columns: list[str] = []
        self.logged: list[str] = []
        self.optimizers: dict[str, Any] = {}
        self._layout_of_gradients: Any = None
        self._are_columns_fixed = False
        self._problem: Exception | None = None

    def trace(self, data: Any) -> None:
        """Trace the step for a specification of its data.

        Raises
        ------
        Exception
            Any error of tracing, or of reading its values.
        """
        self._function.get_concrete_function(data)
        if self._problem is not None:
            raise self._problem

    def fix_columns(self) -> None:
        """Refuse other columns in later traces."""
        self._are_columns_fixed = True

    def __call__(self, data: Any) -> tuple[tuple[Any, StepValues, dict[str, list[Any]]], Any]:
        """Run the step on one batch, while TensorFlow traces.

        Returns
        -------
        step : tuple
            Logs of the step, its values, and its gradients by optimizer.
        samples : tf.Tensor
            Number of samples.
        """
        result = self._function(data)
        if self._problem is not None:
            raise self._problem
        return result

    @functools.cached_property
    def _function(self) -> Any:
        def step(data: Any) -> Any:
            reader = self._gradients
            watch = StepWatch(self._model, None if reader is None else reader.before_apply)

            def in_replica(part: Any) -> Any:
                logs, samples = self._model.train_step(part), n_samples(part)
                try:
                    values = watch.values(logs)
                    gradients = {} if reader is None else reader.end(watch.stepped)
                    self._note_values(logs, values, watch.stepped)
                except Exception as error:  # noqa: BLE001 - raised here, variables of the step would have no values
                    self._problem = error
                    return (logs, StepValues({}, {}), {}), samples
                return (logs, values, gradients), samples

            if reader is not None:
                reader.begin()
            with watch.watching():
                return run_in_replicas(self._strategy, in_replica, data)

        return tf.function(step, reduce_retracing=True, jit_compile=self._model.jit_compile, autograph=False)

    def _note_values(self, logs: Any, values: StepValues, stepped: list[str]) -> None:
        """Name the columns of the step's values, and the one that has each entry of its logs."""
        columns = columns_of(stepped, values.batch, values.running)
        of_gradients = None if self._gradients is None else self._gradients.layout
        if self._are_columns_fixed and (columns, of_gradients) != (self.columns, self._layout_of_gradients):
            # before, metrics that the step makes are missing
            raise Unwrappable(f"train_step has other values than when it was traced first: {', '.join(columns)}")
        self.columns, self._layout_of_gradients = columns, of_gradients
        held = optimizers_of(self._model)
        self.optimizers = {name: held[name] for name in stepped}
        self.logged = [
            running_column(name) if name in values.running else batch_column(name)
            for name, value in leaves_of(logs)
            if is_number(value)
        ]
