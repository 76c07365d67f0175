"""Shares of dead and saturated units by layer, on the first samples of a fit, while the model is trained."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import keras

from mlflow_hp._compat.keras import is_built
from mlflow_hp._compat.private_name import UnsupportedVersionError, warn_once
from mlflow_hp.history.unit_shares import DEAD_UNITS, SATURATED_UNITS
from mlflow_hp.training.capture.graph_operations import changing_operations
from mlflow_hp.training.capture.step_layout import Unwrappable
from mlflow_hp.training.layer_outputs import SATURATED, activated_layers, outputs_on

if TYPE_CHECKING:
    import numpy as np

    from mlflow_hp.training.layer_outputs import ActivatedLayer

SAMPLES = 64
"""Number of samples that are kept, at most."""
FEWEST_SAMPLES = 16
"""Number of samples below which nothing is measured: a healthy unit outputs 0 for half of the samples, or for most."""
MAX_BYTES = 16 * 2**20
"""Size of the samples that are kept, at most."""
LEAST_SECONDS = 0.1
"""Expected time of the first measurement, which traces the model, at least."""
SHARE_OF_TRACING = 0.1
"""Expected time of the first measurement, as a share of the time in which the training step was traced; it was 0.05 to
0.11 for networks of 3 to 45 layers."""


class UnitShares:
    """Measures the shares of dead and saturated units at ends of epochs, as often as their cost allows.

    The first samples that are trained on are kept in memory when they pass by: no batch is drawn for them. They are
    those of the first batch, and of further ones of the first epoch until there are ``SAMPLES``; of the first batch
    alone if the shape of a sample varies.

    The model is called on as many samples at once as the first batch has, in inference and in a `keras.StatelessScope`,
    in a function that is traced once. A model is not measured if that fails, or would change a state, draw a random
    number or call Python.

    The time of all measurements is at most the share `overhead` of the time since the fit began. That of the first,
    which traces the model, is not known before: it is taken to be ``SHARE_OF_TRACING`` of the time in which the
    training step was traced, and ``LEAST_SECONDS`` at least. That of others is taken to be that of the one before.

    Parameters
    ----------
    model : keras.Model
        Compiled, and possibly not built.
    overhead : float
        Share of the time of training, 0 to 1: 0 for no measurement, 1 for one at each call.
    """

    def __init__(self, model: Any, overhead: float) -> None:
        self._model, self._overhead = model, overhead
        self._is_off = overhead <= 0
        self._samples: list[Any] = []
        self._structure: Any = None
        self._has_fixed_shapes = False
        self._layers: list[ActivatedLayer] = []
        self._columns: list[str] = []
        self._function: Any = None
        self._expected = LEAST_SECONDS
        self.start()

    def start(self) -> None:
        """Begin a fit, with samples of its own."""
        self._started, self._spent = time.perf_counter(), 0.0
        self._has_ended = False
        if self._samples:
            self._room.assign(self._limit)
            self._chunk.assign(0)
            for variable in self._samples:
                variable.assign(variable[:0])

    def note_tracing(self, seconds: float) -> None:
        """Note how long the training step took to be traced, from which the cost of the first measurement follows."""
        if self._function is None:
            self._expected = max(self._expected, SHARE_OF_TRACING * seconds)

    def keep(self, data: Any) -> None:
        """Keep samples of a batch, as ``train_step`` gets it, unless there are enough; eagerly, or while it is traced.

        Other inputs than dense tensors are not kept. Nothing is raised.
        """
        if not self._is_off:
            try:
                self._keep(keras.utils.unpack_x_y_sample_weight(data)[0])
            except Exception:  # noqa: BLE001 - the step itself is traced, or runs
                self._is_off = True

    def _keep(self, x: Any) -> None:
        import tensorflow as tf

        parts = keras.tree.flatten(x)
        if tf.distribute.has_strategy() or not all(tf.is_tensor(part) and part.shape.rank for part in parts):
            raise Unwrappable("there are no dense samples")
        if not self._samples and is_built(self._model) and not activated_layers(self._model, _is_measured):
            raise Unwrappable("there are no layers to measure")
        if not self._samples:
            self._make_variables(x, parts)
        if tf.executing_eagerly():
            if int(self._room):
                self._append(parts)
            return
        with tf.device("CPU:0"):  # a GPU would finish all steps before the condition is known
            has_room = self._room > 0
        tf.cond(has_room, lambda: self._append(parts), lambda: tf.constant(0, tf.int64))

    def _make_variables(self, x: Any, parts: list[Any]) -> None:
        import tensorflow as tf

        self._structure = keras.tree.map_structure(lambda _: 0, x)
        shapes = [tuple(part.shape[1:]) for part in parts]
        self._has_fixed_shapes = not any(None in shape for shape in shapes)
        smallest = [tuple(size or 0 for size in shape) for shape in shapes]
        n_bytes = sum(part.dtype.size * math.prod(shape) for part, shape in zip(parts, smallest, strict=True))
        self._limit = min(SAMPLES, max(1, MAX_BYTES // max(1, n_bytes)))
        with tf.init_scope():
            with tf.device("CPU:0"):
                self._room = tf.Variable(self._limit, dtype=tf.int64, trainable=False)
                self._chunk = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._samples = [
                tf.Variable(tf.zeros([0, *empty], part.dtype), trainable=False, shape=[None, *shape])
                for part, shape, empty in zip(parts, shapes, smallest, strict=True)
            ]

    def _append(self, parts: list[Any]) -> Any:
        """Keep samples, as many as are still needed; return how many are needed then."""
        import tensorflow as tf

        n = tf.minimum(self._room, tf.shape(parts[0], tf.int64)[0])
        for variable, part in zip(self._samples, parts, strict=True):
            variable.assign(tf.concat([variable, part[:n]], 0) if self._has_fixed_shapes else part[:n])
        self._chunk.assign(tf.where(self._chunk > 0, self._chunk, n))
        return self._room.assign(self._room - n if self._has_fixed_shapes else 0)

    def measure(self) -> dict[str, float]:
        """Measure the shares at the end of an epoch, if it is due and there are samples; wait for the steps before.

        Returns
        -------
        dict of str to float
            Column of the table of epochs -> share; empty if nothing is measured.

        Raises
        ------
        Exception
            Any error that is not the model's; nothing is measured any more then.
        """
        if self._is_off or not self._samples:
            return {}
        if not self._has_ended:
            self._room.assign(0)  # further epochs have the same samples
            self._has_ended = True
        if not self._is_due:
            return {}
        import tensorflow as tf

        n_samples = int(self._samples[0].read_value().shape[0])
        if n_samples < FEWEST_SAMPLES:
            return {}
        self._is_off = True
        self._wait_for_steps()
        started = time.perf_counter()
        try:
            if self._function is None:
                self._function = self._trace()
            traced = time.perf_counter()
            shares = self._shares(n_samples) if self._weights_are_finite() else {}
        except UnsupportedVersionError as error:
            warn_once(error)
            return {}
        except (Unwrappable, tf.errors.OpError):
            return {}
        ended = time.perf_counter()
        self._expected, self._spent = ended - traced, self._spent + ended - started
        self._is_off = False
        return shares

    @property
    def _is_due(self) -> bool:
        seconds = time.perf_counter() - self._started
        return self._overhead >= 1 or self._spent + self._expected <= self._overhead * seconds

    def _wait_for_steps(self) -> None:
        """Wait until the last step is done: a GPU runs it while Python goes on, and would add its time to ours."""
        weights = self._model.trainable_variables
        if weights:
            min(weights, key=lambda weight: math.prod(weight.shape)).numpy()

    def _weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite: the ReLU of NaN may be 0."""
        import tensorflow as tf

        values = [tf.convert_to_tensor(weight.value) for weight in self._model.trainable_variables]
        return all(tf.reduce_all(tf.math.is_finite(value)) for value in values if value.dtype.is_floating)

    def _trace(self) -> Any:
        import tensorflow as tf

        self._layers = activated_layers(self._model, _is_measured)
        function = tf.function(self._reduced_outputs, autograph=False)
        traced = function.get_concrete_function(tf.TensorSpec((), tf.int64))
        changing = changing_operations(traced.graph.as_graph_def())
        if changing or not self._columns:
            raise Unwrappable(f"the model changes a state, is random or calls Python ({', '.join(changing)})")
        return traced

    def _reduced_outputs(self, start: Any) -> list[tuple[Any, Any]]:
        """Call the model on a chunk of the samples; reduce each output, and note of which column it is.

        Returns
        -------
        list of (Tensor, Tensor)
            Whether each unit is dead, or the number of saturated outputs and of all; and whether all are finite.
        """
        import tensorflow as tf

        parts = [samples.read_value()[start : start + self._chunk] for samples in self._samples]
        try:
            batch = keras.tree.pack_sequence_as(self._structure, parts)
            outputs, result = outputs_on(self._model, batch, self._layers)
        except Exception as error:
            raise Unwrappable(f"the model cannot be called: {error}") from error
        of_model = {id(output) for output in keras.tree.flatten(result)}
        self._columns, reduced = [], []
        for layer, output in outputs:
            if not tf.is_tensor(output) or not output.shape.rank:
                continue
            if layer.activation == "relu":
                self._columns.append(f"{DEAD_UNITS}{layer.name}")
                value = tf.reduce_all(tf.equal(output, 0), axis=list(range(output.shape.rank - 1)))
            elif id(output) not in of_model:
                self._columns.append(f"{SATURATED_UNITS}{layer.name}")
                low, high = SATURATED[layer.activation]
                is_saturated = tf.logical_or(output < low, output > high)
                value = tf.stack([tf.math.count_nonzero(is_saturated), tf.size(output, tf.int64)])
            else:
                continue
            reduced.append((value, tf.reduce_all(tf.math.is_finite(output))))
        return reduced

    def _shares(self, n_samples: int) -> dict[str, float]:
        """Share of each column over all chunks; layers with an output that is not finite are left out."""
        import tensorflow as tf

        chunk = int(self._chunk)
        values: dict[str, np.ndarray] = {}
        not_finite: set[str] = set()
        for start in range(0, n_samples - chunk + 1, chunk):
            reduced = self._function(tf.constant(start, tf.int64))
            for column, (value, is_finite) in zip(self._columns, reduced, strict=True):
                if not is_finite:
                    not_finite.add(column)
                elif column not in values:
                    values[column] = value.numpy()
                elif column.startswith(DEAD_UNITS):
                    values[column] = values[column] & value.numpy()
                else:
                    values[column] = values[column] + value.numpy()
        return {
            column: float(value.mean() if value.dtype == bool else value[0] / value[1])
            for column, value in values.items()
            if column not in not_finite and value.size
        }


def _is_measured(activation: str) -> bool:
    return activation == "relu" or activation in SATURATED
