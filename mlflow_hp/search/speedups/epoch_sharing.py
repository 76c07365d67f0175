"""Sharing of one training by candidates that differ only in the number of epochs.

If nothing in a training depends on the total number, its first epochs equal a training of fewer epochs. So the fit with
most epochs is trained, the state of its model after each of the smaller numbers is stored, and the other fits get that
state instead of being trained. scikit-learn still builds, fits and scores each of them, so its results do not change. A
fit reuses a state only if its data and initial weights are the same bit for bit; otherwise it is trained.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp._compat.scikeras import add_callback
from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture
from mlflow_hp.search.speedups.scikeras_fit import KerasFit, ignore_reason, sped_up

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from mlflow_hp.search.speedups.scikeras_fit import OnPlain


class State(NamedTuple):
    """State of a model after some epochs: variables of model and optimizer, Keras' logs by epoch, seconds so far."""

    model_variables: list[np.ndarray]
    optimizer_variables: list[np.ndarray]
    logs: list[dict[str, Any]]
    seconds: float


class SharedTraining:
    """A training whose states after some of its epochs are stored, for trainings that would only repeat it.

    Parameters
    ----------
    counts : set of int
        Numbers of epochs after which to store the state.
    task : int
        Number of the fit that is trained (0-based).

    Attributes
    ----------
    reused : State or None
        State that the last fit got instead of being trained.
    is_recorded : bool
        Whether the training is running now.
    curve : list of Epoch
        Events of its epochs, for the fits that reuse it; filled by the caller.
    """

    def __init__(self, counts: set[int], task: int) -> None:
        self.task = task
        self.reused: State | None = None
        self.is_recorded = False
        self.curve: list[Any] = []
        self.states: dict[int, State] = {}
        self._counts = counts
        self._start: bytes | None = None

    @contextlib.contextmanager
    def next_fit(self, on_plain: OnPlain = ignore_reason) -> Iterator[None]:
        """Enter this block around each of the fits that share the training, the one with most epochs first.

        `on_plain` is called with the reason why a fit is trained alone, and whether that is a fault rather than a known
        limit.
        """
        self.reused = None
        self._on_plain = lambda reason, is_fault: on_plain(f"the training is not shared: {reason}", is_fault)
        with sped_up(self._share, self._on_plain):
            yield

    def _share(self, fit: KerasFit) -> Generator[bool, None, None]:
        """Store the states of the first training; give them to later ones."""
        _refuse_unsafe(fit)
        start = _digest(fit)
        if self._start is None:
            self._start = start
            callback = _state_callback(self._counts, self.states, self._on_plain)
            remove_callback = add_callback(fit.estimator, callback)
            self.is_recorded = True
            try:
                yield True
            finally:
                self.is_recorded = False
                remove_callback()
            if missing := self._counts - self.states.keys():
                raise RuntimeError(f"no state after epochs {sorted(missing)}: Keras did not call on_epoch_end")
        elif start == self._start and fit.epochs in self.states:
            state = self.states[fit.epochs]
            _restore(fit, state)
            self.reused = state
            yield False
        else:
            yield True


def _restore(fit: KerasFit, state: State) -> None:
    """Set the model of a fit to the state after its training; on an error leave it unchanged."""
    model = fit.estimator.model_
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    try:
        for variable, value in zip(variables, [*state.model_variables, *state.optimizer_variables], strict=True):
            variable.assign(value)
        fit.estimator.history_ = _history(state.logs)
        _set_history(model, state.logs)
    except BaseException:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise


def _set_history(model: Any, logs: Sequence[Mapping[str, Any]]) -> None:
    """Set the model's ``history``, as its training would have."""
    import keras

    history = keras.callbacks.History()
    history.set_model(model)
    history.on_train_begin()
    for epoch, values in enumerate(logs):
        history.on_epoch_end(epoch, dict(values))


def _refuse_unsafe(fit: KerasFit) -> None:
    """Refuse a fit unless all state is in variables, and no argument is consumed by a training."""
    from keras import tree

    architecture(fit.estimator.model_)
    if not fit.is_plain() or not fit.estimator.model_.built:
        raise NotShareableError("the estimator continues an earlier training, or is not scikeras' own")
    for name, value in fit.arguments().items():
        for each in tree.flatten(value):
            if not (each is None or isinstance(each, (bool, int, float, str, np.ndarray, np.generic))):
                raise NotShareableError(f"{name} holds a {type(each).__name__}, which a training may consume")


def _state_callback(counts: set[int], states: dict[int, State], on_plain: OnPlain) -> Any:
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


def _digest(fit: KerasFit) -> bytes:
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
