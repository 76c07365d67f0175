"""State of a training after some of its epochs: stored while it runs, and given to a model that is to go on from it."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp._compat.keras import compile_arguments
from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.search.speedups.scikeras_fit import KerasFit, OnPlain


class State(NamedTuple):
    """State of a model after some epochs.

    Attributes
    ----------
    model_variables, optimizer_variables : list of ndarray
    logs : list of dict
        Keras' logs by epoch.
    seconds : float
        Time that they took.
    metric_names : list of str
        Names of the model's own metric objects, which the logs contain.
    """

    model_variables: list[np.ndarray]
    optimizer_variables: list[np.ndarray]
    logs: list[dict[str, Any]]
    seconds: float
    metric_names: list[str]


def restore(fit: KerasFit, state: State) -> State:
    """Set the model of a fit to the state after its training; on an error leave it unchanged.

    Returns the state, with the names of this model's metrics in the logs.
    """
    model = fit.estimator.model_
    names = new_names(model, state)
    state = state._replace(logs=[renamed(logs, names) for logs in state.logs], metric_names=_metric_names(model))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    try:
        for variable, value in zip(variables, [*state.model_variables, *state.optimizer_variables], strict=True):
            variable.assign(value)
        set_histories(fit, state.logs)
    except BaseException:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise
    return state


def new_names(model: Any, state: State) -> dict[str, str]:
    """Names in the logs of a state that differ in those of a model: Keras numbers metrics (``auc``, ``auc_1``)."""
    prefixes = ["", *(f"{name}_" for name in _output_names(model))]
    return {
        f"{part}{prefix}{before}": f"{part}{prefix}{now}"
        for before, now in zip(state.metric_names, _metric_names(model), strict=True)
        for prefix in prefixes
        for part in ("", "val_")
        if before != now
    }


def renamed(logs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Values by their new names."""
    return {names.get(name, name): value for name, value in logs.items()}


def _metrics(model: Any) -> list[Any]:
    """Metric objects that ``compile`` got."""
    import keras
    from keras import tree

    compiled = compile_arguments(model)
    metrics = tree.flatten([compiled.get("metrics"), compiled.get("weighted_metrics")])
    return [metric for metric in metrics if isinstance(metric, keras.Metric)]


def _metric_names(model: Any) -> list[str]:
    return [metric.name for metric in _metrics(model)]


def _output_names(model: Any) -> list[str]:
    """Names of outputs that Keras' logs contain: those of a model with several."""
    return list(model.output_names) if len(model.outputs) > 1 else []


def set_histories(fit: KerasFit, logs: Sequence[Mapping[str, Any]]) -> None:
    """Set the estimator's ``history_`` and the model's ``history``, as the training of these epochs would have."""
    import keras

    fit.estimator.history_ = _history(logs)
    history = keras.callbacks.History()
    history.set_model(fit.estimator.model_)
    history.on_train_begin()
    for epoch, values in enumerate(logs):
        history.on_epoch_end(epoch, dict(values))


def refuse_unsafe(fit: KerasFit) -> None:
    """Refuse a fit unless all state is in variables, and no argument is consumed by a training."""
    from keras import tree

    architecture(fit.estimator.model_)
    if not fit.is_plain() or not fit.estimator.model_.built:
        raise NotShareableError("the estimator continues an earlier training, or is not scikeras' own")
    if _averages(fit.estimator.model_.optimizer):
        raise NotShareableError("the optimizer replaces the weights by their averages when a training ends")
    for name, value in fit.arguments().items():
        for each in tree.flatten(value):
            if not (each is None or isinstance(each, (bool, int, float, str, np.ndarray, np.generic))):
                raise NotShareableError(f"{name} holds a {type(each).__name__}, which a training may consume")


def _averages(optimizer: Any) -> bool:
    """Whether an optimizer, or one that it wraps, keeps averages of the weights."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return bool(getattr(optimizer, "use_ema", False)) or (inner is not None and _averages(inner))


def state_callback(counts: set[int], states: dict[int, State], on_plain: OnPlain) -> Any:
    """Make a callback that stores the state of the model after each of the `counts` of epochs in `states`."""
    import keras

    class StateCallback(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
            self.logs: list[dict[str, Any]] = []
            self.started = time.perf_counter()
            self.has_failed = False

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            if self.has_failed:
                return
            try:
                self.store(epoch, logs or {})
            except Exception as error:  # noqa: BLE001 - inside the user's training
                self.has_failed = True
                on_plain(f"{type(error).__name__}: {error}", True)

        def store(self, epoch: int, logs: Mapping[str, Any]) -> None:
            self.logs.append(dict(logs))
            if epoch + 1 in counts:
                seconds = time.perf_counter() - self.started
                model_variables = [variable.numpy() for variable in self.model.variables]
                optimizer_variables = [variable.numpy() for variable in self.model.optimizer.variables]
                names = _metric_names(self.model)
                states[epoch + 1] = State(model_variables, optimizer_variables, list(self.logs), seconds, names)

    return StateCallback()


def _history(logs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Convert Keras' logs by epoch to scikeras' ``history_``."""
    from scikeras.utils import metric_name

    history: dict[str, list[Any]] = defaultdict(list)
    for epoch in logs:
        for key, value in epoch.items():
            name = key
            if key != "loss" and not key.startswith("val_"):
                with contextlib.suppress(ValueError):
                    name = metric_name(key)
            history[name].append(value)
    return history


def digest(fit: KerasFit) -> bytes:
    """Digest of the start of a training: data, computation and state of its model, what its metrics hold already.

    A new model does not reset its metrics before the first epoch, as they are built by the first batch: one that
    several models share begins with what the training before has left in it.
    """
    from keras import tree

    model = fit.estimator.model_
    reset = {id(variable) for metric in model.metrics for variable in metric.variables}
    unreset = [each for metric in _metrics(model) for each in metric.variables if id(each) not in reset]
    variables = [*model.variables, *(variable for variable in unreset if variable.numpy().any())]
    rate = getattr(model.optimizer, "learning_rate", None)  # of a wrapping optimizer, that of the inner one
    computation = repr((architecture(model), _output_names(model), None if rate is None else float(rate)))
    for index, name in enumerate(_metric_names(model)):
        computation = computation.replace(repr(name), f"#{index}")  # which may have another number
    digest = hashlib.blake2b(computation.encode())
    for path, each in tree.flatten_with_path((fit.x, fit.y, fit.sample_weight)):
        values = np.asarray(each)
        digest.update(repr((path, values.dtype.str, values.shape)).encode())
        digest.update(pickle.dumps(each) if values.dtype.hasobject else values.tobytes())
    for variable in variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.digest()
