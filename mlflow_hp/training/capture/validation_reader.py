"""Reader of validation data inside Keras' ``evaluate``: statistics of what is validated on, as the batches pass by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.keras import is_own_train_function, strategy_of
from mlflow_hp.training.capture.data_statistics import DataReader
from mlflow_hp.training.capture.step_layout import without_optionals

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.history.program import DataStatistics

_READER = "_mlflow_hp_validation_reader"


class ValidationReader:
    """Takes the place of a model's test function while a fit validates, and counts the data of the first validation.

    The model's ``test_step`` runs unchanged, compiled as the model's settings say. Keras' own test function is back
    after each validation, so that an ``evaluate`` of the user's is not touched.

    Parameters
    ----------
    model : keras.Model
        Compiled, on TensorFlow; its test function is made.
    """

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        self._model, self._original = model, model.test_function
        self._data = DataReader()
        self._is_eager = bool(model.run_eagerly)
        step: Callable[[Any], Any] = model.test_step
        if not self._is_eager:
            step = tf.function(step, reduce_retracing=True, jit_compile=model.jit_compile, autograph=False)

        def counted(iterator: Any) -> Any:
            data = without_optionals(iterator.get_next())
            self._data.keep(data)
            return step(data)

        self._function = counted if self._is_eager else tf.function(counted, reduce_retracing=True, autograph=False)

    @classmethod
    def of(cls, model: Any) -> ValidationReader | None:
        """Return the reader of a model whose ``evaluate`` has begun; None if its test function cannot be replaced.

        Parameters
        ----------
        model : keras.Model
            The model.

        Returns
        -------
        ValidationReader or None
            The same for all fits until the model is compiled again.
        """
        function = model.test_function
        if model.steps_per_execution > 1 or strategy_of(model) is not None or not is_own_train_function(function):
            return None
        reader: ValidationReader = function.__dict__.get(_READER) or cls(model)
        function.__dict__[_READER] = reader
        return reader

    def begin(self, *, counts: bool) -> None:
        """Begin a validation, and count its data if asked for."""
        if counts:
            self._data.start()
        else:
            self._data.end_epoch()
        self._model.test_function = self._run

    def end(self) -> DataStatistics | None:
        """End the validation; return the statistics of its data, None if there are none."""
        if self._model.test_function == self._run:
            self._model.test_function = self._original
        self._data.end_epoch()
        return self._data.statistics()

    def _run(self, iterator: Any) -> Any:
        """Replacement for the model's test function."""
        import tensorflow as tf

        if not isinstance(iterator, tf.data.Iterator):  # of ``test_on_batch``
            return self._original(iterator)
        try:
            return self._function(iterator)
        except (StopIteration, tf.errors.OpError):
            raise
        except Exception:
            if self._is_eager or tf.config.functions_run_eagerly():
                raise
            self.end()  # tracing failed, before any operation ran: if the model is at fault, Keras' function says so
            return self._original(iterator)
