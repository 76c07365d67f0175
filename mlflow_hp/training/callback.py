"""TrainingRecorder, the Keras callback."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import keras
import mlflow
import numpy as np

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn
from mlflow_hp.delivery.metric_selection import MAX_POINTS
from mlflow_hp.delivery.signals import exit_on_sigterm, held
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.own_run import status_of
from mlflow_hp.training.capture.steps import WRAPS
from mlflow_hp.training.earlier_recordings import recover_earlier
from mlflow_hp.training.fit_settings import fit_settings
from mlflow_hp.training.open_fits import (
    callback_list_of,
    close_at_exit,
    end_watch,
    is_fitted,
    open_recorders,
    watch_fit,
)
from mlflow_hp.training.recorder_settings import check_settings
from mlflow_hp.training.session import FitSession
from mlflow_hp.training.training_run import start_training_run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

    from mlflow_hp.analysis import Finding
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.weight_snapshots import Snapshots
    from mlflow_hp.tracking.own_run import OwnRun
    from mlflow_hp.training.best_epoch import BestEpoch

_FIT_STATE = ("history", "snapshots", "restored_epoch", "best", "_fit", "_own_run", "_signals")

Hook = TypeVar("Hook", bound="Callable[..., None]")


def _guarded(hook: Hook) -> Hook:
    """On an error of the recording, warn and end the recording; the training goes on."""

    @functools.wraps(hook)
    def guarded(self: TrainingRecorder, *arguments: Any, **named: Any) -> None:
        if self._is_of_another_thread:
            return
        try:
            with np.errstate(all="ignore"):  # the user's np.seterr(raise) is not for our statistics
                hook(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001
            self.give_up(error)

    return guarded  # type: ignore[return-value]


class TrainingRecorder(keras.callbacks.Callback):
    """Keras callback that records every step of ``model.fit`` in an MLflow run.

    ``model.fit(..., callbacks=[TrainingRecorder()])`` inside ``with mlflow.start_run():`` is all that it takes.

    Each step (0-based, counted over all of the run's fits) is recorded with its epoch and batch (0-based),
    wall-clock time, number of samples, the batch's own loss, the running loss and metrics as Keras shows them,
    the learning rate in force for that step, and the weights after it; and the weights before the first step.
    They become MLflow metrics (``batch/...``, ``weights/...``; epoch values under Keras' own names) and the
    artifact ``training/history.arrows``, which `load_history` reads. A ``train_step`` of the user's own is recorded
    likewise, with all its losses and the optimizers that it applies; what is unknown has no column and no metric.

    At ends of epochs, on TensorFlow, the shares of dead ReLU units and of saturated sigmoid and tanh outputs of each
    layer are measured, in inference, on the first samples of the fit (up to 64): columns of the history's epochs, and
    metrics ``units/dead`` and ``units/saturated``. The first measurement is after 2 s, or after twice the time of
    tracing the step if that is longer, and their time is at most a share `overhead` of the time of the fit:
    see ``docs/history_format.md``.

    Hyperparameters become params of the run when it ends, each that the program has not logged itself by then; until
    then they are in the tag ``mlflow_hp.params``.

    Training computes what it would without the recorder, bit for bit. An error of the recording is a warning
    and the tag ``mlflow_hp.recording_error``; the training goes on.

    A copy of a recorder, pickled or deep, has its settings alone. A forked child has nothing to do with the fits of its
    parent: it ends no run and removes no file of theirs, and a recorder of its own records what it trains.

    Parameters
    ----------
    run_id : str, optional
        The run to record into. Defaults to the one that is active when ``fit`` begins; if none is, a run is started for
        the training, nested in that of the search or of the main thread if it has one, and ended with it.
    weights : {"auto", "all", "statistics", "none"}
        "all" keeps each tensor at every step in the artifact; "statistics" the norm, mean, standard deviation and
        update ratio ``|w_t - w_(t-1)| / |w_(t-1)|`` of each tensor; "auto" is "all" for a model of at most 32 weights,
        else "statistics". Defaults to ``"auto"``.
    metrics_every : int
        MLflow gets the metrics of steps 0, n, 2n, ...; the artifact holds all steps whatever this is. Defaults to 1.
    gradients : {"auto", True, False}
        Whether the norm of each tensor's gradient, as the optimizer gets it, of all together, and the cosine to the
        gradient of the step before are recorded, in the graph: see ``docs/history_format.md``. "auto" leaves them out
        where XLA compiles the step (``jit_compile``), since that could change the last bits of the training; True
        records them there, too. Defaults to ``"auto"``.
    overhead : float
        Share of the time of training, 0 to 1, that statistics of tensors with more than 16,384 weights may take: they
        are computed every n steps, with n from the measured times, those of more than 16 MiB of tensors in turns; 1
        means of all of them at every step, 0 of each once, in the first steps. The same share may be taken by
        measurements of dead and saturated units: 1 means at every epoch, 0 never. All else is recorded at every step
        whatever this is. Defaults to 0.05.
    sharpness_every : int, optional
        Interval n of the steps 0, n, 2n, ... of a fit at which the sharpness is recorded: the largest eigenvalue of the
        Hessian of the training loss on the step's batch, before the step. It takes the time of some tens of steps, and
        needs Keras' own ``train_step`` on TensorFlow. Defaults to None: not at all.
    metrics : {"summary", "all"}
        MLflow's metrics of the weights and gradients: "summary" is each weight where there are at most 32, else the
        smallest, median and largest update ratio of the layers; and the norm of all gradients, and the largest share
        of dead and of saturated units. "all" has metrics of each tensor and layer. The artifact holds all of them
        whatever this is. Defaults to ``"summary"``.
    max_points : int, optional
        Points of the metrics of steps that MLflow gets of a fit at most: of a longer one, the lowest and highest of
        each 2^k steps, and the first and last step. The artifact holds all steps. None for no limit. Defaults to
        20,000.
    report : bool
        Whether pictures, ``diagnosis.json`` and the run's description are made at the end of each fit; for one of less
        than a second, at the end of the run, unless a later fit of the run replaces them. Defaults to True.
    snapshot_megabytes : float
        Memory for snapshots of all trainable weights, from which `mlflow_hp.training.landscape` draws the network's
        descent: one of every 1, 2, 4, ... steps, as many as fit. They become the artifact ``training/snapshots.npz``.
        Defaults to 0.0.
    log_datasets : bool
        Whether digest, schema and shape of the data that the model is trained and validated on are logged to the run,
        for the first ten of its fits: of arrays, tables, dicts and lists of them, and of a `tf.data.Dataset` made from
        them. The digest is made before the first step, from all bytes of up to 512 MiB; the data are not read a second
        time, and no batch is drawn. Data sets that the program, or MLflow's autologging, has logged to the run before
        are enough. Defaults to True.
    on_finding : callable, optional
        Called with each `mlflow_hp.analysis.Finding` that becomes true while the training runs, in its thread. An error
        of it is a warning. Defaults to None.
    stop_on : tuple of str
        Verdicts that end the fit, as ``model.stop_training`` does, and are then in the tag ``mlflow_hp.ended_by``:
        "diverges", "not finite", "oscillates", "overfits", "stopped learning", "learns nothing", "at chance",
        "will not learn" or "brings nothing more". Defaults to ``()``: the training goes on.

    Attributes
    ----------
    history : TrainingHistory or None
        The last recorded fit.
    snapshots : Snapshots or None
        Of the last recorded fit, where they were asked for.
    restored_epoch : int or None
        Epoch (0-based) whose weights ``EarlyStopping(restore_best_weights=True)`` restored at the end of the last fit;
        the history and the snapshots end with the weights after the last step all the same.
    best : BestEpoch or None
        Best epoch of the last fit, with its values: by the metric that ``EarlyStopping`` or ``ModelCheckpoint``
        monitors, else by ``val_loss``, else by ``loss``. Over all fits of the run, it is in the metrics ``best/...``.
    owns_run : bool
        Whether nothing else logs to the run, as for a fold of a search: then params need not wait for its end.
    extra_tags : dict of str to str
        Further tags of the run.
    flush_seconds : float
        How long the last fit waited at its end until MLflow had everything.

    Raises
    ------
    UserError
        For an unknown `weights`, `gradients`, `metrics` or verdict in `stop_on`, a `metrics_every`, `sharpness_every`
        or `max_points` below 1, an `overhead` out of 0 to 1, or an `on_finding` that cannot be called; and, when
        ``fit`` begins, if there is no run `run_id`.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp import TrainingRecorder
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> recorder = TrainingRecorder(report=False)
    >>> x = np.linspace(0, 1, 8)[:, None]
    >>> with mlflow.start_run():
    ...     _ = model.fit(x, 2 * x, batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    >>> recorder.history.n_steps, recorder.history.n_epochs
    (6, 3)
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        weights: Literal["auto", "all", "statistics", "none"] = "auto",
        metrics_every: int = 1,
        gradients: Literal["auto"] | bool = "auto",
        overhead: float = 0.05,
        sharpness_every: int | None = None,
        metrics: Literal["summary", "all"] = "summary",
        max_points: int | None = MAX_POINTS,
        report: bool = True,
        snapshot_megabytes: float = 0.0,
        log_datasets: bool = True,
        on_finding: Callable[[Finding], object] | None = None,
        stop_on: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.run_id = run_id
        self.weights = weights
        self.metrics_every = metrics_every
        self.gradients = gradients
        self.overhead = overhead
        self.sharpness_every = sharpness_every
        self.metrics = metrics
        self.max_points = max_points
        self.report = report
        self.snapshot_megabytes = snapshot_megabytes
        self.log_datasets = log_datasets
        self.on_finding = on_finding
        self.stop_on = stop_on
        self.owns_run = False
        self.extra_tags: dict[str, str] = {}
        self.flush_seconds = 0.0
        self._start_empty()
        check_settings(self)

    def _start_empty(self) -> None:
        self.history: TrainingHistory | None = None
        self.snapshots: Snapshots | None = None
        self.restored_epoch: int | None = None
        self.best: BestEpoch | None = None
        self._fit: FitSession | None = None
        self._own_run: OwnRun | None = None
        self._signals = contextlib.ExitStack()
        abandon_in_child(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None and self._is_of_another_thread and is_fitted(self._fit.model):
            warn("a fit is not recorded, as its recorder records one in another thread: give each its own recorder")
            return
        self.close()
        check_settings(self)
        run_id = self._run_id()
        if run_id is None:
            return
        self.history = self.snapshots = self.restored_epoch = self.best = None
        self._recover(run_id)
        try:
            run = runs.find_run(run_id)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - not the user's error: the training goes on
            self.give_up(error)
            return
        caller = sys._getframe(1)
        self._begin(run_id, {} if run is None else run.data.tags, callback_list_of(caller))
        self._note_fit(caller)

    def _run_id(self) -> str | None:
        """Id of the run to record into; if there is none, of one that is started for this training."""
        active = mlflow.active_run()
        if self.run_id is not None or active is not None:
            return self.run_id or str(active.info.run_id)
        self._own_run = start_training_run()
        if self._own_run is None:
            return None
        run_id = self._own_run.run_id
        warn(
            f"no MLflow run is active: the training is recorded in a run of its own, {run_id}. To choose the run, "
            "start one around the training, `with mlflow.start_run(): model.fit(...)`, or name one: "
            "TrainingRecorder(run_id=...)"
        )
        return run_id

    @property
    def _is_of_another_thread(self) -> bool:
        """Whether the fit that is being recorded runs in another thread than the caller's."""
        return self._fit is not None and self._fit.thread_id != threading.get_ident()

    @_guarded
    def _begin(self, run_id: str, tags: dict[str, str], callback_list: Any) -> None:
        self._fit = FitSession(
            self.model,
            self.params,
            fit_settings(self),
            run_id,
            tags,
            on_end=self._set_results,
            give_up=self.give_up,
            close=self.close,
            callbacks=() if callback_list is None else callback_list.callbacks,
        )
        watch_fit(self, run_id, self._fit.token, callback_list)
        self._signals.enter_context(exit_on_sigterm())
        self._fit.start()

    @_guarded
    def _note_fit(self, caller: FrameType) -> None:
        """Note the arguments of the fit, and log its data."""
        if self._fit is not None:
            self._fit.note_arguments(caller)
        if self._fit is not None and self.log_datasets:
            self._fit.log_data(caller)

    @_guarded
    def _recover(self, run_id: str) -> None:
        recover_earlier(run_id)

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
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None:
            self._fit.begin_validation()

    @_guarded
    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None:
            self._fit.end_validation()

    @_guarded
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._is_of_another_thread:
            return
        if self._fit is not None:
            self._fit.epochs.note_restored()
            self.restored_epoch = self._fit.epochs.restored
        self._finish(is_complete=True)

    def close(self) -> None:
        """End the recording of a fit that an exception has left; do nothing if there is none."""
        try:
            self._finish()
        except Exception as error:  # noqa: BLE001
            self.give_up(error)

    def abandon(self) -> None:
        """Stop recording in a forked child process: the parent process records the fit."""
        fit, self._fit = self._fit, None
        self._own_run = None
        open_recorders.discard(self)
        if fit is not None:
            fit.abandon()
        self._signals.close()

    def __getstate__(self) -> dict[str, Any]:
        """Copy only the settings, not the fit, the model or the history (which can be pickled by itself)."""
        of_any_callback = vars(keras.callbacks.Callback())
        return {k: v for k, v in self.__dict__.items() if k not in _FIT_STATE and k not in of_any_callback}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self._start_empty()
        self.__dict__.update(settings)

    def is_recording(self, token: object) -> bool:
        """Whether the fit with this token is being recorded.

        Parameters
        ----------
        token : object
            Token of a fit.

        Returns
        -------
        bool
            True for the fit that is being recorded.
        """
        return self._fit is not None and self._fit.token is token

    def _set_results(self, history: TrainingHistory | None, snapshots: Snapshots | None, seconds: float) -> None:
        self.history, self.snapshots, self.flush_seconds = history, snapshots, seconds

    def _finish(self, *, is_complete: bool = False, ends_run: bool = True) -> None:
        try:
            if self._fit is not None:
                self._finish_fit(is_complete)
        finally:
            if ends_run and self._own_run is not None:
                run, self._own_run = self._own_run, None
                run.end("FINISHED" if is_complete else status_of(sys.exc_info()[1] or RuntimeError()))

    def _finish_fit(self, is_complete: bool) -> None:
        assert self._fit is not None
        try:
            with held("sending the record to MLflow"):
                fit, self._fit = self._fit, None
                end_watch(self, fit.run_id)
                fit.finish(is_complete=is_complete)
                self.best = fit.epochs.best
        finally:
            self._signals.close()  # after `held`, which restores our handler of SIGTERM

    def give_up(self, error: Exception) -> None:
        """End the recording because of an error, warn, and send everything recorded so far to MLflow.

        Parameters
        ----------
        error : Exception
            Why.
        """
        message = f"recording ended early: {type(error).__name__}: {error}"
        if self._fit is not None:
            self._fit.problems.note(message)
            try:
                self._finish(ends_run=False)  # the training goes on, and what it logs belongs to its run
            except Exception as another:  # noqa: BLE001
                message += f"; then {type(another).__name__}: {another}"
        warn(message)


close_at_exit()  # last: what the imported modules close at exit has to be closed after the fits
