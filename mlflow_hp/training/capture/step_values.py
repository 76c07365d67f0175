"""Values of a training step, of the batch alone and running ones; optimizers that it applies, and their gradients.

A step returns logs, by name. An entry is

- *running* if it is the result of a metric of the model, or reads any other state that is not the model's: a mean over
  the epoch so far, mostly;
- *of the batch alone* otherwise, as in ``return {"loss": loss}``.

Where a running entry is the result of a `keras.metrics.Mean`, the batch's own value is what the step gave it: ``v`` for
``update_state(v)``; in general ``sum(w_i v_i) / sum(w_i)`` over the calls of that step, with ``w_i = 1`` where there is
no weight. That is the mean that this metric would show for this batch alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import tensorflow as tf

from mlflow_hp._compat.keras import applied_variables, layers_of, original_method
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp.training.capture.replicas import replica_number
from mlflow_hp.training.capture.step_layout import leaves_of

if TYPE_CHECKING:
    from collections.abc import Iterator


_WITHOUT_STATE = (
    "LookupTable", "Rng", "StatefulRandom", "StatefulStandard", "StatefulTruncated", "StatefulUniform",
)  # fmt: skip
"""Beginnings of the types of operations that read tables and random generators, not what the step accumulates."""


BeforeApply = Callable[[str, list[tuple[Any, Any]]], list[Any]]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class StepValues(NamedTuple):
    """Entries of the logs of one step that are single numbers.

    Attributes
    ----------
    batch : dict of str to tensor
        Values of the batch alone, by the names in the logs.
    running : dict of str to tensor
        Values over several batches, by the names in the logs.
    """

    batch: dict[str, Any]
    running: dict[str, Any]


class StepWatch:
    """Watches the metrics and optimizers of a model while its step is traced, or runs eagerly; each replica by itself.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    before_apply : callable, optional
        Called before an optimizer is applied, outside of loops and conditions of TensorFlow, with its name and the
        pairs of variable and gradient; returns the gradients that it gets instead, of equal values. Defaults to None.

    Attributes
    ----------
    stepped : list of str
        Names in `optimizers_of` of the optimizers that were applied, in the order of their first step.
    """

    def __init__(self, model: Any, before_apply: BeforeApply | None = None) -> None:
        self._model = model
        self._before_apply = before_apply
        self._calls: dict[tuple[int, int], list[tuple[Any, Any, Any]]] = {}
        self._results: list[tuple[Any, Any, int]] = []
        self._error: Exception | None = None
        self.stepped: list[str] = []
        self._graph = _graph()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what happens inside the block; an error of it is raised by `values`."""
        with contextlib.ExitStack() as watched:
            try:
                for metric in metrics_of(self._model):
                    watched.enter_context(self._around(metric, "update_state", self._note_update, metric))
                    watched.enter_context(self._around(metric, "result", self._note_result, metric))
                for name, optimizer in optimizers_of(self._model).items():
                    watched.enter_context(self._around(optimizer, "apply", self._note_step, name, self._read_gradients))
            except Exception as error:  # noqa: BLE001 - the step goes on
                self._error = error
            yield

    def values(self, logs: Any) -> StepValues:
        """Sort the entries of the logs that the step returned.

        Parameters
        ----------
        logs : mapping or None
            What the step returned.

        Returns
        -------
        StepValues
            The entries that are single numbers.

        Raises
        ------
        Exception
            Any error of the watching, which does not leave the step itself.
        """
        if self._error is not None:
            raise self._error
        batch: dict[str, Any] = {}
        running: dict[str, Any] = {}
        own_state = None
        if not self.stepped:
            self.stepped = _assigned_optimizers(self._model)
        for name, entry in leaves_of(logs) if isinstance(logs, Mapping) else ():
            if not is_number(entry):
                continue
            value = tf.convert_to_tensor(entry) if _is_variable(entry) else entry
            metric, n_calls = next(((m, n) for result, m, n in self._results if result is value), (None, 0))
            if metric is None:
                own_state = own_state or _state_of(self._model)
                (running if _reads_other_state(value, own_state) else batch)[name] = value
                continue
            running[name] = value
            mean = _mean_of(self._calls_of(metric)[:n_calls]) if _is_mean(metric) else None
            if mean is not None:
                batch[name] = mean
        return StepValues(batch, running)

    @contextlib.contextmanager
    def _around(
        self,
        thing: Any,
        method: str,
        note: Callable[..., None],
        subject: Any,
        before_call: Callable[..., Arguments] | None = None,
    ) -> Iterator[None]:
        """Call `note` after each call of a method of one object, inside the block.

        The method gets the arguments that `before_call` returns.
        """
        before = vars(thing).get(method)
        original = getattr(thing, method)

        def noted(*arguments: Any, **named: Any) -> Any:
            if before_call is not None:
                try:
                    arguments, named = before_call(subject, arguments, named)
                except Exception as error:  # noqa: BLE001 - the step goes on
                    self._error = error
            result = original(*arguments, **named)
            try:
                note(subject, arguments, named, result)
            except Exception as error:  # noqa: BLE001 - the step goes on
                self._error = error
            return result

        object.__setattr__(thing, method, noted)
        try:
            yield
        finally:
            if before is None:
                object.__delattr__(thing, method)
            else:
                object.__setattr__(thing, method, before)

    def _note_update(self, metric: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], _: Any) -> None:
        values = dict(zip(("values", "sample_weight"), arguments, strict=False)) | dict(named)
        self._calls_of(metric).append((_graph(), values.get("values"), values.get("sample_weight")))

    def _note_result(self, metric: Any, _: tuple[Any, ...], __: Mapping[str, Any], result: Any) -> None:
        self._results.append((result, metric, len(self._calls_of(metric))))

    def _calls_of(self, metric: Any) -> list[tuple[Any, Any, Any]]:
        """Graph, value and weight of each update of a metric so far, in the replica that is being traced."""
        return self._calls.setdefault((replica_number(), id(metric)), [])

    def _note_step(self, name: str, *_: Any) -> None:
        if name not in self.stepped:
            self.stepped.append(name)

    def _read_gradients(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
        """Read the gradients of an optimizer's call, and return the arguments that it is to be called with."""
        if self._before_apply is None or _graph() is not self._graph:
            return arguments, named
        call = dict(zip(("grads", "trainable_variables"), arguments, strict=False)) | dict(named)
        gradients, variables = call["grads"], call.get("trainable_variables")
        if variables is None:
            variables = applied_variables(optimizers_of(self._model)[name])
        if not isinstance(gradients, list | tuple) or not isinstance(variables, list | tuple):
            return arguments, named  # an iterator, which can be read only once
        places = [place for place, pair in enumerate(zip(variables, gradients, strict=False)) if pair[1] is not None]
        read = self._before_apply(name, [(variables[place], gradients[place]) for place in places])
        by_place = dict(zip(places, read, strict=True))
        each = (by_place.get(place, gradient) for place, gradient in enumerate(gradients))
        passed = tuple(each) if isinstance(gradients, tuple) else list(each)
        if "grads" in named:
            return arguments, {**named, "grads": passed}
        return (passed, *arguments[1:]), named


def is_number(value: Any) -> bool:
    """Whether an entry of a step's logs is a single real number."""
    if _is_variable(value):
        dtype = tf.as_dtype(value.dtype)
        return len(value.shape) == 0 and (dtype.is_floating or dtype.is_integer)
    if isinstance(value, tf.Tensor):
        return value.shape.rank == 0 and (value.dtype.is_floating or value.dtype.is_integer)
    return type(value) in (int, float)  # as in the logs of Keras before 3.12 where functions run eagerly


def _is_variable(value: Any) -> bool:
    return isinstance(value, tf.Variable | keras.Variable)


def n_samples(data: Any) -> Any:
    """Number of samples in a batch: the size of its first array's first axis, 0 if unknown.

    Parameters
    ----------
    data : nested structure of tensors
        What ``train_step`` gets.
    """
    first: Any = next((part for part in keras.tree.flatten(data) if part is not None), None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows()
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    if not tf.is_tensor(first) or first.shape.rank in (None, 0):
        return tf.constant(0)
    return tf.shape(first)[0]


def metrics_of(model: Any) -> list[Any]:
    """Return all metrics of a model: those that Keras tracks, and those of a property ``metrics`` of its class."""
    metrics: dict[int, Any] = {}
    with contextlib.suppress(Exception):  # a property of the user's may fail: the step itself says so
        metrics |= {id(metric): metric for metric in model.metrics}
    metrics |= {id(metric): metric for metric in original_method("metrics").fget(model)}
    return [metric for metric in metrics.values() if isinstance(metric, keras.metrics.Metric)]


def optimizers_of(model: Any) -> dict[str, Any]:
    """Return all Keras optimizers that a model and its layers hold, by the names of their attributes.

    One that wraps another (``LossScaleOptimizer``) stands for both.
    """
    try:
        layers = layers_of(model)
    except UnsupportedVersionError:
        layers = [model]
    optimizers: dict[int, tuple[str, Any]] = {}
    names: set[str] = set()
    for layer in layers:
        prefix = "" if layer is model else f"{layer.name}/"
        for name, optimizer in _held(vars(layer)):
            if id(optimizer) not in optimizers and f"{prefix}{name}" not in names:
                names.add(f"{prefix}{name}")
                optimizers[id(optimizer)] = f"{prefix}{name}", optimizer
    for _, optimizer in list(optimizers.values()):
        optimizers.pop(id(getattr(optimizer, "inner_optimizer", None)), None)
    return dict(optimizers.values())


def _held(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Optimizers in attributes, then in the lists, tuples and dicts among them, with their names."""
    yield from ((name.lstrip("_"), value) for name, value in attributes.items() if _is_optimizer(value))
    for name, value in attributes.items():
        if isinstance(value, dict) and not name.startswith("_"):
            yield from ((f"{name}/{key}", each) for key, each in value.items() if _is_optimizer(each))
        elif isinstance(value, list | tuple) and not name.startswith("_"):
            yield from ((f"{name}/{index}", each) for index, each in enumerate(value) if _is_optimizer(each))


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, keras.optimizers.Optimizer)


def _is_mean(metric: Any) -> bool:
    """Whether a metric is the mean of what it is given."""
    mean = keras.metrics.Mean
    return type(metric).update_state is mean.update_state and type(metric).result is mean.result


def _graph() -> Any:
    """The graph that is being made; None if functions run eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _mean_of(calls: Sequence[tuple[Any, Any, Any]]) -> Any:
    """Mean of what a `keras.metrics.Mean` was called with in one step; None if unknown.

    `calls` has the graph, the value and the weight of each call. The mean is unknown if a call is inside of a loop or a
    condition of TensorFlow: that may run any number of times.
    """
    if not calls or any(graph is not _graph() for graph, _, _ in calls):
        return None
    pairs = [(tf.convert_to_tensor(v), None if w is None else tf.convert_to_tensor(w)) for _, v, w in calls]
    if len(pairs) == 1 and pairs[0][0].shape.rank == 0:
        return pairs[0][0]  # exact, whatever its weight
    total, count = tf.constant(0.0, tf.float64), tf.constant(0.0, tf.float64)
    for value, weight in pairs:
        if value.shape.rank is None or (weight is not None and (weight.shape.rank is None or weight.shape.rank > 1)):
            return None
        by_sample = tf.cast(value, tf.float64)
        if value.shape.rank > 1:
            by_sample = tf.reduce_mean(by_sample, axis=list(range(1, value.shape.rank)))
        each = tf.ones_like(by_sample) if weight is None else tf.cast(weight, tf.float64) * tf.ones_like(by_sample)
        total, count = total + tf.reduce_sum(each * by_sample), count + tf.reduce_sum(each)
    return tf.math.divide_no_nan(total, count)  # 0 without any weight, as the metric has it


def _state_of(model: Any) -> set[int]:
    """Ids of the variables' handles that are the model's own state: weights, seeds, optimizers, plain variables."""
    of_metrics = {id(variable) for metric in metrics_of(model) for variable in metric.variables}
    variables = [variable.value for variable in model.variables if id(variable) not in of_metrics]
    for optimizer in optimizers_of(model).values():
        variables += [variable.value for variable in optimizer.variables]
    variables += [value for value in vars(model).values() if isinstance(value, tf.Variable)]
    return {id(variable.handle) for variable in variables if hasattr(variable, "handle")}


def _assigned_optimizers(model: Any) -> list[str]:
    """Names of the optimizers whose count of steps the graph has; for those applied in a function traced before."""
    if tf.executing_eagerly():
        return []
    captured = {id(outer) for outer, _ in _graph().captures}
    optimizers = optimizers_of(model)
    return [name for name, each in optimizers.items() if id(getattr(each.iterations.value, "handle", None)) in captured]


def _reads_other_state(value: Any, own: set[int]) -> bool:
    """Whether a tensor of a graph depends on state that is not among `own`; False for a value outside of graphs.

    State is what the step changes: a variable of floating-point numbers that it assigns, such as those of a metric, or
    that it gives to a function, which may do so. Seeds are integers; what is never assigned is a constant.

    Parameters
    ----------
    value : tensor or number
        Entry of a step's logs.
    own : set of int
        Ids of handles of variables.
    """
    operation = getattr(value, "op", None) if not hasattr(value, "numpy") and tf.is_tensor(value) else None
    if operation is None:
        return False
    graph = operation.graph
    captured = {id(inner): id(outer) for outer, inner in graph.captures}
    assigned = {captured.get(id(each.inputs[0])) for each in graph.get_operations() if each.type.startswith("Assign")}
    todo, seen = [operation], set()
    while todo:
        operation = todo.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        for source in operation.inputs:
            if source.dtype != tf.resource:
                todo.append(source.op)
                continue
            outer = captured.get(id(source))
            if outer in own or operation.type.startswith(_WITHOUT_STATE):
                continue
            if operation.type != "ReadVariableOp":
                return True
            if operation.outputs[0].dtype.is_floating and outer in assigned:
                return True
    return False
