"""TrainingRecorder, the Keras callback."""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import sys
import weakref
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import keras
import mlflow
import numpy as np

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import print_line, warn
from mlflow_hp.delivery.metric_sender import PATIENCE_SECONDS
from mlflow_hp.delivery.signals import held, sigterm_leaves
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.run_observer import observer
from mlflow_hp.tracking.server_health import within
from mlflow_hp.training.capture.steps import WRAPS
from mlflow_hp.training.recovery import recover_quietly
from mlflow_hp.training.session import FitSession, FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.weight_snapshots import Snapshots
    from mlflow_hp.training.recovery import Recovered

WEIGHTS = ("auto", "all", "statistics", "none")
_OF_A_FIT = ("history", "snapshots", "_fit", "_signals")

Hook = TypeVar("Hook", bound="Callable[..., None]")


def _guarded(hook: Hook) -> Hook:
    """Let no error of the recording end the training: it is told, and the recording ends."""

    @functools.wraps(hook)
    def guarded(self: TrainingRecorder, *arguments: Any, **named: Any) -> None:
        try:
            with np.errstate(all="ignore"):  # where the user has NumPy raise, it is not for our statistics
                hook(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001
            self.give_up(error)

    return guarded  # type: ignore[return-value]


class TrainingRecorder(keras.callbacks.Callback):
    """Records every step of ``model.fit`` into an MLflow run.

    ``model.fit(..., callbacks=[TrainingRecorder()])`` inside ``with mlflow.start_run():`` is all that it takes.

    Each step (0-based, counted over all of the run's fits) is recorded with its epoch and batch (0-based),
    wall-clock time, number of samples, the batch's own loss, the running loss and metrics as Keras shows them,
    the learning rate in force for that step, and the weights after it; and the weights before the first step.
    They become MLflow metrics (``batch/...``, ``weights/...``; epoch values under Keras' own names) and the
    artifact ``training/history.arrows``, which `load_history` reads.

    Hyperparameters become params of the run when it ends, each that the program has not logged itself by then; until
    then they are in the tag ``mlflow_hp.params``.

    Training computes what it would without the recorder, bit for bit. An error of the recording is a warning
    and the tag ``mlflow_hp.recording_error``; the training goes on.

    A copy of a recorder, pickled or deep, has its settings alone. A forked child has nothing to do with the fits of its
    parent: it ends no run and removes no file of theirs, and a recorder of its own records what it trains.

    Parameters
    ----------
    run_id : str, optional
        The run to record into; by default the one that is active when ``fit`` begins.
    weights : {"auto", "all", "statistics", "none"}
        "all" keeps each tensor at every step in the artifact; "statistics" the norm, mean, standard deviation
        and update ratio ``|w_t - w_(t-1)| / |w_(t-1)|`` of each tensor; "auto" is "all" for a model of at most 32
        weights, else "statistics". MLflow's metrics are each weight where there are at most 32, else the statistics.
    metrics_every : int
        MLflow gets the metrics of steps 0, n, 2n, ...; the artifact holds all steps whatever this is.
    report : bool
        Whether pictures, ``diagnosis.json`` and the run's description are made at the end of each fit.
    snapshot_megabytes : float
        Memory for snapshots of all trainable weights, from which `mlflow_hp.training.landscape` draws the network's
        descent: one of every 1, 2, 4, ... steps, as many as fit. They become the artifact
        ``training/snapshots.npz``.

    Attributes
    ----------
    history : TrainingHistory or None
        The last recorded fit.
    snapshots : Snapshots or None
        Of the last recorded fit, where they were asked for.
    owns_run : bool
        Whether nobody else logs to the run, as a search's folds have theirs: params need not wait for its end then.
    flush_seconds : float
        How long the last fit waited at its end until MLflow had everything, the report included.

    Raises
    ------
    UserError
        For an unknown `weights` or a `metrics_every` below 1; and, when ``fit`` begins, where there is no run.
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        weights: Literal["auto", "all", "statistics", "none"] = "auto",
        metrics_every: int = 1,
        report: bool = True,
        snapshot_megabytes: float = 0.0,
    ) -> None:
        super().__init__()
        self.run_id = run_id
        self.weights = weights
        self.metrics_every = metrics_every
        self.report = report
        self.snapshot_megabytes = snapshot_megabytes
        self.owns_run = False
        self.flush_seconds = 0.0
        self._start_empty()
        self._check_settings()

    def _start_empty(self) -> None:
        self.history: TrainingHistory | None = None
        self.snapshots: Snapshots | None = None
        self._fit: FitSession | None = None
        self._signals = contextlib.ExitStack()
        abandon_in_child(self)

    def _check_settings(self) -> None:
        if self.weights not in WEIGHTS:
            raise UserError(f"weights={self.weights!r} is none of {', '.join(map(repr, WEIGHTS))}")
        if not isinstance(self.metrics_every, int) or self.metrics_every < 1:
            raise UserError(f"metrics_every={self.metrics_every!r} has to be a whole number of steps, 1 or more")
        if not isinstance(self.snapshot_megabytes, (int, float)) or not 0 <= self.snapshot_megabytes < math.inf:
            raise UserError(f"snapshot_megabytes={self.snapshot_megabytes!r} has to be a number of 0 or more")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.close()
        self._check_settings()  # they are attributes, and may have been set since
        run_id = runs.run_id_of(self.run_id)
        self.history = self.snapshots = None
        self._recover(run_id)
        try:
            run = runs.find_run(self.run_id)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - not the user's: the training goes on
            self.give_up(error)
            return
        self._begin(run_id, {} if run is None else run.data.tags, _callback_list(sys._getframe(1)))

    @_guarded
    def _begin(self, run_id: str, tags: dict[str, str], callback_list: Any) -> None:
        settings = FitSettings(self.weights, self.metrics_every, self.report, self.snapshot_megabytes, self.owns_run)
        self._fit = FitSession(
            self.model, self.params, settings, run_id, tags, on_end=self._keep, give_up=self.give_up, close=self.close
        )
        if callback_list is not None:  # gone when `fit` is left by an exception
            weakref.finalize(callback_list, _close, weakref.ref(self), self._fit.token).atexit = False
        _open.add(self)
        observer.before_end(
            run_id, f"fit {id(self)}", functools.partial(_close_if_left, weakref.ref(self), self._fit.token)
        )
        self._signals.enter_context(sigterm_leaves())
        self._fit.start()

    @_guarded
    def _recover(self, run_id: str) -> None:
        """Bring to MLflow what earlier processes have left behind on this machine; it may go on beside the training."""
        active = mlflow.active_run()
        in_use = {run_id} if active is None else {run_id, active.info.run_id}
        with contextlib.suppress(TimeoutError):
            within(PATIENCE_SECONDS, lambda: recover_quietly(warn, _tell_recovered, in_use))

    @_guarded
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None:
            self._fit.begin_epoch(epoch)

    if not WRAPS:  # overriding these hooks costs time on every batch, so TensorFlow does without

        @_guarded
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if self._fit is not None:
                self._fit.steps.before_batch()

        @_guarded
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if self._fit is not None:
                self._fit.steps.after_batch(logs or {})

    @_guarded
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None:
            self._fit.end_epoch(logs or {})

    @_guarded
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._finish(whole=True)

    def close(self) -> None:
        """End a fit that was left by an exception, with everything recorded up to then; else do nothing."""
        try:
            self._finish()
        except Exception as error:  # noqa: BLE001
            self.give_up(error)

    def abandon(self) -> None:
        """In a forked child: the fit is the parent's to record. What the child trains is not recorded."""
        fit, self._fit = self._fit, None
        _open.discard(self)
        if fit is not None:
            fit.abandon()
        self._signals.close()

    def __getstate__(self) -> dict[str, Any]:
        """Settings alone: a copy has no fit, no model, and no history, which can be pickled by itself."""
        return {k: v for k, v in self.__dict__.items() if k not in (*_OF_A_FIT, "_model", "params", "validation_data")}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self._start_empty()
        self.__dict__.update(settings)

    def fits(self, token: object) -> bool:
        """Whether the fit with this token is the one that is being recorded."""
        return self._fit is not None and self._fit.token is token

    def _keep(self, history: TrainingHistory | None, snapshots: Snapshots | None, seconds: float) -> None:
        self.history, self.snapshots, self.flush_seconds = history, snapshots, seconds

    def _finish(self, *, whole: bool = False) -> None:
        if self._fit is None:
            return
        try:
            with held("bringing the record to MLflow"):
                fit, self._fit = self._fit, None
                _open.discard(self)
                observer.before_end(fit.run_id, f"fit {id(self)}", None)
                fit.finish(whole=whole)
        finally:
            self._signals.close()  # behind `held`, which has put our handler of SIGTERM back

    def give_up(self, error: Exception) -> None:
        """Tell why recording ends here; what was recorded so far is still brought to MLflow."""
        said = f"recording ended early: {type(error).__name__}: {error}"
        if self._fit is not None:
            self._fit.problems.append(said)
            try:
                self._finish()
            except Exception as another:  # noqa: BLE001
                said += f"; then {type(another).__name__}: {another}"
        warn(said)


def _tell_recovered(found: Recovered) -> None:
    lost = f"; {'; '.join(found.problems)}" if found.problems else ""
    print_line(f"recovered {found.n_steps:,} steps of run {found.run_id}, which is {found.status} now{lost}")


def _callback_list(frame: FrameType | None) -> keras.callbacks.CallbackList | None:
    """The list of callbacks that has called this one, perhaps through a subclass or a callback of the user's."""
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back
    return None


_open: weakref.WeakSet[TrainingRecorder] = weakref.WeakSet()
"""Recorders with a fit that has not ended."""


weakref.finalize(_open, lambda: None)  # the first one makes `atexit` call them all: behind what is registered next


@atexit.register
def _close_all() -> None:
    """Bring to MLflow what a fit had recorded when the program ended inside it."""
    for recorder in list(_open):
        recorder.close()


def _close_if_left(recorder: weakref.ref[TrainingRecorder], token: object) -> None:
    """End the fit with this token where its ``fit`` was left by an exception that somebody keeps: its run ends now."""
    alive = recorder()
    if alive is not None and alive.fits(token) and not _is_running(alive.model):
        alive.close()


def _is_running(model: Any) -> bool:
    """Whether a ``fit`` of the model is on the stack of any thread."""
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
                return True
            frame = frame.f_back
    return False


def _close(recorder: weakref.ref[TrainingRecorder], token: object) -> None:
    """End the fit with this token where it is still open."""
    alive = recorder()
    if alive is not None and alive.fits(token):
        alive.close()
