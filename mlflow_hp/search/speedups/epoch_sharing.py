"""Epochs as a shared parameter: candidates that differ only in how long they train, trained once.

The first epochs of a training are the training of fewer epochs, where nothing in it knows the total. So one fit of the
largest count is made, what the model is after each count asked for is kept, and the fits of the smaller counts get it
instead of training. scikit-learn builds, fits and scores each of them as ever, so its results are what they would have
been. A fit only takes what was kept if its data and its initial weights are the same bit for bit: else it trains.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import pickle
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np

from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture
from mlflow_hp.search.speedups.scikeras_fit import KerasFit, sped_up, untold

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from mlflow_hp.search.live.events import Call
    from mlflow_hp.search.speedups.scikeras_fit import Tell


class Group(NamedTuple):
    """Candidates that share a training, or one that doesn't.

    Attributes
    ----------
    indices : tuple of int
        Places of the candidates (0-based), the one with the fewest epochs first.
    name : str or None
        The parameter in which they differ (``clf__epochs``); None where nothing is shared.
    reason : str or None
        Why this candidate, although others differ from it only in epochs, trains for itself.
    """

    indices: tuple[int, ...]
    name: str | None = None
    reason: str | None = None


def sharing_groups(candidates: Sequence[Mapping[str, Any]], estimator: Any) -> list[Group]:
    """Which candidates of a search can share a training.

    Parameters
    ----------
    candidates : sequence of mapping
        Parameters of each candidate, by the search's names.
    estimator : estimator
        What the search tunes: a scikeras estimator, or a pipeline or other composition that has one.

    Returns
    -------
    list of Group
        Every candidate is in one, groups in the order of their first candidate.
    """
    alike: dict[Any, list[int]] = {}
    for index, candidate in enumerate(candidates):
        name = _epochs_name(candidate)
        rest = frozenset((key, _identity(value)) for key, value in candidate.items() if key != name)
        alike.setdefault((name, rest) if name else index, []).append(index)
    groups = []
    for key, indices in alike.items():
        if len(indices) < 2:
            groups.append(Group(tuple(indices)))
            continue
        name = key[0]
        reason = next((why for i in indices if (why := why_alone(estimator, candidates[i], name))), None)
        if reason is None:
            groups.append(Group(tuple(sorted(indices, key=lambda i: candidates[i][name])), name))
        else:
            groups.extend(Group((i,), None, reason) for i in indices)
    return sorted(groups, key=lambda group: min(group.indices))


def together(calls: Sequence[Call], estimator: Any) -> Iterator[tuple[list[Call], str | None]]:
    """Fits of one round of a search, those together that share a training.

    Parameters
    ----------
    calls : sequence of Call
    estimator : estimator
        What the search tunes.

    Yields
    ------
    list of Call, str or None
        One, or several of one split and the parameter in which they differ.
    """
    folds: dict[int, dict[int, Call]] = {}
    for call in calls:
        folds.setdefault(call.fit.candidate, {})[call.fit.split] = call
    candidates = list(folds.values())
    params = [next(iter(each.values())).fit.params for each in candidates]
    for group in sharing_groups(params, estimator):
        members = [candidates[index] for index in group.indices]
        for split in sorted({split for each in members for split in each}):
            chosen = [each[split] for each in members if split in each]
            yield chosen, group.name if len(chosen) > 1 else None


def why_alone(estimator: Any, candidate: Mapping[str, Any], name: str) -> str | None:
    """Why the training of a candidate can't be the beginning of a longer one; None where it is."""
    import keras
    from scikeras._utils import accepts_kwargs, has_param
    from scikeras.wrappers import BaseWrapper, KerasClassifier, KerasRegressor
    from sklearn.base import clone

    epochs = candidate[name]
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        return f"{name}={epochs!r} is not a number of epochs"
    try:
        whole = clone(estimator).set_params(**candidate)
    except (ValueError, TypeError) as error:  # the search will say so when it fits
        return f"the parameters can't be set: {error}"
    prefix = name.removesuffix("epochs").removesuffix("fit__").removesuffix("__")
    parts = whole.get_params()
    network = parts[prefix] if prefix else whole
    if type(network) not in (KerasClassifier, KerasRegressor):
        return f"{type(network).__name__} is not one of scikeras' own estimators"
    if sum(isinstance(part, BaseWrapper) for part in (whole, *parts.values())) > 1:
        return "the estimator trains several models"
    if not name.endswith("fit__epochs") and hasattr(network, "fit__epochs"):
        return "fit__epochs is set, too"
    if not isinstance(network.random_state, (int, np.integer)):
        return f"random_state={network.random_state!r} is not a number: each training draws its own"
    if network.warm_start:
        return "warm_start goes on from an earlier training"
    if callbacks := [key for key, value in network.get_params().items() if "callbacks" in key and value]:
        return f"{callbacks[0]} may depend on the number of epochs, or end the training"
    model = network.model if network.model is not None else network.build_fn
    if isinstance(model, keras.Model) or model is None:
        return "the estimator has no function that builds its model"
    if has_param(model, "params") or accepts_kwargs(model) or "epochs" in inspect.signature(model).parameters:
        return "the function that builds the model is told the number of epochs"
    return None


class State(NamedTuple):
    """A model after some epochs: its variables and its optimizer's, Keras' logs by epoch, seconds since it began."""

    model: list[np.ndarray]
    optimizer: list[np.ndarray]
    logs: list[dict[str, Any]]
    seconds: float


class Training:
    """Keeps what a training is after some of its epochs, and gives it to trainings that would only repeat it.

    Parameters
    ----------
    counts : set of int
        The numbers of epochs to keep.
    number : int
        Of the fit that comes first (0-based).

    Attributes
    ----------
    taken : State or None
        What the last fit was given instead of being trained.
    is_kept : bool
        Whether a training goes on now whose epochs are kept.
    curve : list of Epoch
        For who follows that training to keep what was told of it.
    """

    def __init__(self, counts: set[int], number: int) -> None:
        self.number = number
        self.taken: State | None = None
        self.is_kept = False
        self.curve: list[Any] = []
        self.after: dict[int, State] = {}
        self._counts = counts
        self._start: bytes | None = None

    @contextlib.contextmanager
    def next_fit(self, tell: Tell = untold) -> Iterator[None]:
        """Around each of the fits that share the training, one after the other, that with most epochs first.

        `tell` is told why one trains for itself, and whether for a fault rather than a known limit.
        """
        self.taken = None
        self._tell = lambda reason, is_fault: tell(f"the training is not shared: {reason}", is_fault)
        with sped_up(self._help, self._tell):
            yield

    def _help(self, fit: KerasFit) -> Generator[bool, None, None]:
        """Keep what a training is after each count, or take over what was kept."""
        _refuse_unknown(fit)
        start = _digest(fit)
        if self._start is None:
            self._start = start
            callback = _keeper(self._counts, self.after, self._tell)
            fit.estimator._fit_callbacks = [*fit.estimator._fit_callbacks, callback]
            self.is_kept = True
            try:
                yield True
            finally:
                self.is_kept = False
                fit.estimator._fit_callbacks.remove(callback)
            if missing := self._counts - self.after.keys():
                raise RuntimeError(f"nothing was kept after epochs {sorted(missing)}: Keras did not tell of their ends")
        elif start == self._start and fit.epochs in self.after:
            state = self.after[fit.epochs]
            _give(fit, state)
            self.taken = state
            yield False
        else:
            yield True


def _give(fit: KerasFit, state: State) -> None:
    """Make the model of a fit what it would be after its training, or leave it as it is."""
    model = fit.estimator.model_
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    try:
        for variable, value in zip(variables, [*state.model, *state.optimizer], strict=True):
            variable.assign(value)
        fit.estimator.history_ = _history(state.logs)
        _tell_history(model, state.logs)
    except BaseException:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise


def _tell_history(model: Any, logs: Sequence[Mapping[str, Any]]) -> None:
    """Set the model's ``history``, as its training would have."""
    import keras

    history = keras.callbacks.History()
    history.set_model(model)
    history.on_train_begin()
    for epoch, values in enumerate(logs):
        history.on_epoch_end(epoch, dict(values))


def _refuse_unknown(fit: KerasFit) -> None:
    """Refuse a fit unless all that a training changes is in variables, and what it is given is used up by none."""
    from keras import tree

    architecture(fit.estimator.model_)
    if not fit.is_plain() or not fit.estimator.model_.built:
        raise NotShareableError("the estimator goes on from an earlier training, or is not scikeras' own")
    for name, value in fit.arguments().items():
        for each in tree.flatten(value):
            if not (each is None or isinstance(each, (bool, int, float, str, np.ndarray, np.generic))):
                raise NotShareableError(f"{name} holds a {type(each).__name__}, which a training may use up")


def _keeper(counts: set[int], after: dict[int, State], tell: Tell) -> Any:
    """A callback that puts what the model is after each of the `counts` of epochs into `after`."""
    import keras

    class Keeper(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
            self.logs: list[dict[str, Any]] = []
            self.began = time.perf_counter()
            self.has_failed = False

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            if self.has_failed:
                return
            try:
                self.keep(epoch, logs or {})
            except Exception as error:  # noqa: BLE001 - inside the user's training
                self.has_failed = True
                tell(f"{type(error).__name__}: {error}", True)

        def keep(self, epoch: int, logs: Mapping[str, Any]) -> None:
            self.logs.append(dict(logs))
            if epoch + 1 in counts:
                seconds = time.perf_counter() - self.began
                model = [variable.numpy() for variable in self.model.variables]
                optimizer = [variable.numpy() for variable in self.model.optimizer.variables]
                after[epoch + 1] = State(model, optimizer, list(self.logs), seconds)

    return Keeper()


def _history(logs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Scikeras' ``history_`` of Keras' logs by epoch."""
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
    """What a training starts from: its data and the state of its model."""
    from keras import tree

    digest = hashlib.blake2b()
    for path, each in tree.flatten_with_path((fit.x, fit.y, fit.sample_weight)):
        values = np.asarray(each)
        digest.update(repr((path, values.dtype.str, values.shape)).encode())
        digest.update(pickle.dumps(each) if values.dtype.hasobject else values.tobytes())
    for variable in fit.estimator.model_.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.digest()


def _epochs_name(candidate: Mapping[str, Any]) -> str | None:
    """The one parameter of a candidate that is a number of epochs."""
    names = [key for key in candidate if key == "epochs" or key.endswith("__epochs")]
    return names[0] if len(names) == 1 else None


def _identity(value: Any) -> Any:
    """What two values of a parameter are compared by."""
    try:
        return joblib.hash(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return id(value)
