"""Continuation of trainings from one round of a halving search over epochs to the next.

If nothing in a training depends on the total number of epochs, a training of more epochs begins as the one of the round
before. So the state after each training is kept in a file, and the fit of the same candidate on the same split in the
next round goes on from there: bit for bit what it would get from the start. A fit goes on from a state only if its data
and initial weights are the same bit for bit; otherwise it is trained from the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.scikeras import add_callback
from mlflow_hp.search.speedups.epoch_groups import identity_of, reason_to_train_alone
from mlflow_hp.search.speedups.model_signature import NotShareableError
from mlflow_hp.search.speedups.scikeras_fit import ignore_reason, sped_up
from mlflow_hp.search.speedups.training_state import (
    State,
    digest,
    new_names,
    refuse_unsafe,
    renamed,
    restore,
    set_histories,
    state_callback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from mlflow_hp.search.live.events import Call, Epoch
    from mlflow_hp.search.speedups.scikeras_fit import KerasFit, OnPlain

LARGEST_SHARE_OF_DISK = 0.02
"""Largest share of the free disk space that one state may take."""


class Stage(NamedTuple):
    """A training up to some epoch, as a file holds it.

    Attributes
    ----------
    start : bytes
        Digest of its data and initial weights.
    task : int
        Number of the fit that trained it (0-based).
    state : State
        State after its last epoch.
    curve : list of Epoch
        Events of its epochs.
    """

    start: bytes
    task: int
    state: State
    curve: list[Epoch]


class Stages:
    """Files for the states of a halving search's trainings.

    Parameters
    ----------
    search : BaseSearchCV
        The search.
    folder : callable
        Returns the folder for the files, which need not exist.
    on_plain : callable
        Called with the reason why a candidate is trained from the start in each round, and whether that is a fault.
    """

    def __init__(self, search: Any, folder: Callable[[], Path], on_plain: Callable[[str, bool], None]) -> None:
        resource = str(getattr(search, "resource", None))
        self._name = resource if resource.rpartition("__")[2] == "epochs" else None
        self._on_plain = on_plain
        self._reasons: dict[int, str | None] = {}
        self._folder = folder
        self._used: set[Path] = set()
        self._refused: str | None = None

    def refuse(self, reason: str) -> None:
        """Let no training go on from one round to the next, for this reason."""
        self._refused = reason

    def file_of(self, call: Call) -> Path | None:
        """File for the state of a fit's training; None if it does not go on from one round to the next."""
        fit, name = call.fit, self._name
        if name is None or name not in fit.params:
            return None
        if fit.candidate not in self._reasons:
            reason = self._refused or reason_to_train_alone(call.arguments["estimator"], fit.params, name)
            self._reasons[fit.candidate] = reason
            if reason is not None:
                self._on_plain(f"rounds do not continue trainings: {reason}", False)
        if self._reasons[fit.candidate] is not None:
            return None
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._used.add(folder)
        others = sorted((key, repr(identity_of(value))) for key, value in fit.params.items() if key != name)
        key = hashlib.blake2b(repr((others, fit.split)).encode(), digest_size=16).hexdigest()
        return folder / key

    def remove(self) -> None:
        """Remove the files."""
        for folder in self._used:
            shutil.rmtree(folder, ignore_errors=True)


class ContinuedTraining:
    """A training that goes on from where that of an earlier round ended.

    Parameters
    ----------
    file : Path
        File for its state, where that of the earlier round is.
    task : int
        Number of the fit (0-based).

    Attributes
    ----------
    task : int
        Number of the fit whose training it goes on with; its own if there is none.
    reused : State or None
        State from which it goes on.
    is_recorded : bool
        Whether the training is running now.
    curve : list of Epoch
        Events of all its epochs: those of the earlier rounds, then its own, which the caller adds.
    """

    def __init__(self, file: Path, task: int) -> None:
        self.task = task
        self.reused: State | None = None
        self.is_recorded = False
        self.curve: list[Epoch] = []
        self._file = file
        self._own_task = task
        self._has_begun = False

    @contextlib.contextmanager
    def next_fit(self, on_plain: OnPlain = ignore_reason) -> Iterator[None]:
        """Enter this block around the fit.

        `on_plain` is called with the reason why the training starts at the first epoch, or is not kept, and whether
        that is a fault rather than a known limit.
        """
        self._on_plain = lambda reason, is_fault: on_plain(f"the training is not continued: {reason}", is_fault)
        with sped_up(self._continue, self._on_plain):
            yield

    def _continue(self, fit: KerasFit) -> Generator[int, None, None]:
        """Go on from the state of the earlier round, and keep the new one."""
        if self._has_begun:
            raise NotShareableError("the estimator trains several models")
        self._has_begun = True
        refuse_unsafe(fit)
        _refuse_unrepeatable(fit)
        start, earlier = digest(fit), self._earlier(fit)
        states: dict[int, State] = {}
        callback = state_callback({fit.epochs}, states, self._on_plain)
        remove_callback = add_callback(fit.estimator, callback)
        try:
            if earlier is not None and earlier.start == start:
                names = new_names(fit.estimator.model_, earlier.state)
                self.reused, self.task = restore(fit, earlier.state), earlier.task
                self.curve = [epoch._replace(values=renamed(epoch.values, names)) for epoch in earlier.curve]
            elif earlier is not None:
                self._on_plain("its data, model or initial weights are not those of the round before", False)
            logs = self.reused.logs if self.reused is not None else []
            self.is_recorded = True
            yield len(logs)
        finally:
            self.is_recorded = False
            remove_callback()
        if len(logs) == fit.epochs:
            return
        if self.reused is not None:
            set_histories(fit, [*logs, *callback.logs])
        state = states.get(fit.epochs)
        if state is None:
            raise NotShareableError(f"it has no state after epoch {fit.epochs}")
        if self.reused is not None:
            seconds = self.reused.seconds + state.seconds
            state = state._replace(logs=[*logs, *state.logs], seconds=seconds)
        self._keep(Stage(start, self._own_task, state, self.curve))

    def _earlier(self, fit: KerasFit) -> Stage | None:
        """Read the state of the earlier round, unless it has more epochs than this one."""
        try:
            stage: Stage = pickle.loads(self._file.read_bytes())  # noqa: S301 - of a process of this search
        except FileNotFoundError:
            return None
        return stage if len(stage.state.logs) <= fit.epochs else None

    def _keep(self, stage: Stage) -> None:
        content = pickle.dumps(stage, protocol=pickle.HIGHEST_PROTOCOL)
        if len(content) > LARGEST_SHARE_OF_DISK * shutil.disk_usage(self._file.parent).free:
            raise NotShareableError(f"its state takes {len(content) / 2**20:.0f} MiB, and little disk space is free")
        part = self._file.with_suffix(f".{stage.task}")
        part.write_bytes(content)
        part.replace(self._file)


def _refuse_unrepeatable(fit: KerasFit) -> None:
    """Refuse a fit whose epochs do not all see the data in the same order, whichever is the first."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise NotShareableError(f"Keras runs on {keras.backend.backend()}")
    if fit.arguments().get("steps_per_epoch") is not None:
        raise NotShareableError("with steps_per_epoch, an epoch begins where the one before has ended in the data")
