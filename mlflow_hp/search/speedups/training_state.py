"""State of a training after some of its epochs: stored while it runs, and given to a model that is to go on from it."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.search.speedups.scikeras_fit import KerasFit, OnPlain


class State(NamedTuple):
    """State of a model after some epochs: variables of model and optimizer, Keras' logs by epoch, seconds so far."""

    model_variables: list[np.ndarray]
    optimizer_variables: list[np.ndarray]
    logs: list[dict[str, Any]]
    seconds: float


def restore(fit: KerasFit, state: State) -> None:
    """Set the model of a fit to the state after its training; on an error leave it unchanged."""
    model = fit.estimator.model_
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
    if getattr(fit.estimator.model_.optimizer, "use_ema", False):
        raise NotShareableError("the optimizer replaces the weights by their averages when a training ends")
    for name, value in fit.arguments().items():
        for each in tree.flatten(value):
            if not (each is None or isinstance(each, (bool, int, float, str, np.ndarray, np.generic))):
                raise NotShareableError(f"{name} holds a {type(each).__name__}, which a training may consume")


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
                states[epoch + 1] = State(model_variables, optimizer_variables, list(self.logs), seconds)

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
    """Digest of the start of a training: its data and the state of its model."""
    from keras import tree

    digest = hashlib.blake2b()
    for path, each in tree.flatten_with_path((fit.x, fit.y, fit.sample_weight)):
        values = np.asarray(each)
        digest.update(repr((path, values.dtype.str, values.shape)).encode())
        digest.update(pickle.dumps(each) if values.dtype.hasobject else values.tobytes())
    for variable in fit.estimator.model_.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.digest()
