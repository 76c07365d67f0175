"""Recording of one fit, from the model's train function to the run in MLflow."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._notice import warn
from mlflow_hp.delivery import fit_numbers
from mlflow_hp.delivery.duplicates import Duplicates
from mlflow_hp.delivery.fit_recording import FitRecording
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.metric_selection import MetricSelection
from mlflow_hp.tracking import provenance, runs
from mlflow_hp.tracking.home import local_folder, local_home
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.run_presentation import present
from mlflow_hp.tracking.store_uri import absolute_uri
from mlflow_hp.tracking.tags import BATCH_SIZE_PARAM, ENDED_BY_TAG, FINDINGS_TAG, WEIGHTS_TAG
from mlflow_hp.training.capture import train_step_is_own
from mlflow_hp.training.capture.manual_steps import ManualSteps
from mlflow_hp.training.capture.steps import Steps
from mlflow_hp.training.fit_data import FITS_WITH_DATA, data_sets_of
from mlflow_hp.training.fit_end import FitEnd
from mlflow_hp.training.fit_epochs import FitEpochs
from mlflow_hp.training.fit_problems import FitProblems
from mlflow_hp.training.fit_program import FitProgram
from mlflow_hp.training.fit_snapshots import FitSnapshots
from mlflow_hp.training.hyperparameters import hyperparameters, optimizer_params, optimizer_settings, training_name
from mlflow_hp.training.live_findings import LiveFindings, upload_findings
from mlflow_hp.training.live_layers import LiveLayers
from mlflow_hp.training.tensor_names import earlier_names, renamed, renamed_rows, tags_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import Program
    from mlflow_hp.history.step_record import Layout, Rows
    from mlflow_hp.history.weight_snapshots import Snapshots
    from mlflow_hp.training.capture.glances import OnGlance
    from mlflow_hp.training.fit_settings import FitSettings


class FitSession:
    """Recording of one fit: the reader of its steps, and the spool.

    Parameters
    ----------
    model : keras.Model
        The model being fitted.
    keras_params : mapping
        The ``params`` that Keras gives to callbacks.
    settings : FitSettings
    run_id : str
        The run to record into.
    tags : mapping of str to str
        The run's tags.
    on_end : callable
        Called when the fit has ended, with history, snapshots and the seconds that its end took.
    give_up : callable
        Called with an error that ends the recording early.
    close : callable
        Called if the fit is interrupted.
    callbacks : iterable of keras.callbacks.Callback, optional
        Callbacks of the fit. Defaults to none.
    optimizers : mapping of str to keras.optimizers.Optimizer, optional
        Optimizers, by name, of a loop that the program has written itself, and whose steps it reports. Defaults to
        recording those of ``fit``.
    """

    def __init__(
        self,
        model: Any,
        keras_params: Any,
        settings: FitSettings,
        run_id: str,
        tags: Mapping[str, str],
        *,
        on_end: Callable[[TrainingHistory | None, Snapshots | None, float], None],
        give_up: Callable[[Exception], None],
        close: Callable[[], None],
        callbacks: Iterable[Any] = (),
        optimizers: Mapping[str, Any] | None = None,
    ) -> None:
        self._is_loop = optimizers is not None
        self._optimizers = optimizers
        if optimizers is None and not train_step_is_own(model):
            self._optimizers = {"optimizer": model.optimizer}
        self._meta: dict[str, Any] = {"reader": "none"}
        self.model = model
        self.run_id = run_id
        self._keras_params = keras_params
        self._settings = settings
        self._on_end, self._give_up, self._close = on_end, give_up, close
        self._history: TrainingHistory | None = None
        self.token = object()
        self.thread_id = threading.get_ident()
        self.problems = FitProblems()
        self._warned_of_unseen = False
        self._tags = tags
        self._numbers, self._before = fit_numbers.next_numbers(run_id, tags, local_home() / run_id)
        self._names: dict[str, str] = {}
        self._started = time.perf_counter()
        self.epochs = FitEpochs(self._numbers.epoch, callbacks)
        self.steps: Any = None
        self.recording: Any = None
        self._duplicates: Any = None
        self._snapshots = FitSnapshots(model, settings.snapshot_megabytes, self.problems.note)
        self._unit_shares: dict[str, float] = {}
        self._n_left: int | None = None
        self._is_presented = False
        self.live: LiveFindings | None = None
        self._live_layers: LiveLayers | None = None
        self._program = FitProgram(
            model,
            keras_params,
            callbacks,
            is_own_step=self._optimizers is None or self._is_loop,
            pass_on=self._pass_on_program,
        )

    def start(self) -> None:
        """Start recording: write tags and params, and wrap the model's train function."""
        params = self.problems.attempt("its hyperparameters are not known", self._hyperparameters) or {}
        tags = runs.run_tags("training", {WEIGHTS_TAG: self._settings.capture.weights, **self._settings.extra_tags})
        fit, first_step, first_epoch = self._numbers
        numbers = {"fit": fit, "first_step": first_step, "first_epoch": first_epoch}
        meta = {
            "run_id": self.run_id,
            **numbers,
            **self._meta,
            "params": params,
            "versions": provenance.versions(),
            "reader": "none",
        }
        header = {"process": this_process(), **numbers, "report": self._settings.report}
        self.recording = FitRecording(
            self.run_id, lambda: local_folder(self.run_id), meta, self._selection(), header, self.problems.warn
        )
        self._duplicates = Duplicates(self.run_id)
        self.recording.filter_epochs(self._duplicates.remove, self._duplicates.must_wait)
        late_params.add(self.run_id, params, self._tags)
        self.recording.describe(params, tags, self._before)
        self.recording.do("the uncommitted changes of the code", lambda: runs.log_code(self.run_id))
        self._meta = meta
        if self._settings.live is not None:
            live, publish = self._settings.live, self._publish
            self.live = LiveFindings(self.model, live, meta=meta, publish=publish, first_step=first_step)
        if self._settings.report:
            uri = absolute_uri(mlflow.get_tracking_uri())
            self._live_layers = LiveLayers(self.run_id, uri, lambda: self.recording.open_history_folder)
        self.steps = self._make_steps()
        meta["reader"] = self.steps.kind
        self.steps.start(first_step)

    def _selection(self) -> MetricSelection:
        """Select the metrics of steps that go to MLflow."""
        settings, params = self._settings, self._keras_params
        n_steps = params["steps"] * params["epochs"] if params.get("steps") and params.get("epochs") else None
        return MetricSelection(settings.metrics, settings.metrics_every, settings.max_points, n_steps)

    def note_arguments(self, caller: FrameType) -> None:
        """Note the arguments of the fit on the stack now."""
        self.problems.attempt("the arguments of fit are not known", lambda: self._program.note_arguments(caller))

    def _describe_program(self) -> None:
        """Describe the program, once the model is built."""
        optimizer = self._meta.get("optimizer", {})
        spec = getattr(self.steps, "input_spec", None)
        self.problems.attempt("the program is not described", lambda: self._program.describe(optimizer, spec))

    def _pass_on_program(self, program: Program) -> None:
        self.recording.set_program(program)
        if self.live is not None:
            self.live.note_program(program)

    @property
    def _on_glance(self) -> OnGlance | None:
        return None if self.live is None else self.live.glance

    def _publish(self, findings: list[Finding], ended_by: str | None) -> None:
        """Write the findings so far to the run."""
        ending = {} if ended_by is None else {ENDED_BY_TAG: ended_by}
        self.recording.add_tags({FINDINGS_TAG: ", ".join(dict.fromkeys(f.verdict for f in findings)), **ending})
        if self._settings.report:
            self.recording.do("the findings so far", functools.partial(upload_findings, self.run_id, findings))

    def log_data(self, caller: FrameType) -> None:
        """Describe the data of the fit on the stack now, and log them next to the training."""
        if self._numbers.fit < FITS_WITH_DATA:
            data_sets = self.problems.attempt("the data sets are not logged", lambda: data_sets_of(caller, self.model))
            if data_sets:
                self.recording.add_data_sets(data_sets)

    def _make_steps(self) -> Any:
        if self._is_loop:
            return ManualSteps(
                self.model,
                self._settings.capture,
                self._optimizers or {},
                on_layout=self._open,
                on_rows=self._add,
                on_glance=self._on_glance,
                before_step=lambda: self._snapshots.take(self.steps.steps_done),
            )
        return Steps(
            self.model,
            self._settings.capture,
            on_layout=self._open,
            on_rows=self._add,
            on_host=self._note_host,
            on_glance=self._on_glance,
            before_step=lambda: self._snapshots.take(self.steps.steps_done),
            before_first=self._describe_program,
            after_epoch=self._after_epoch,
            steps_per_epoch=self._keras_params.get("steps"),
            on_error=self._give_up,
            on_interrupt=self._interrupt,
        )

    def _hyperparameters(self) -> dict[str, Any]:
        """Params that are known before the first step."""
        of_optimizers = {} if self._optimizers is None else self._note_optimizers(self._optimizers)
        return {**hyperparameters(self.model, self._keras_params), **of_optimizers}

    def _note_optimizers(self, optimizers: Mapping[str, Any]) -> dict[str, Any]:
        """Note the settings of the optimizers for the history, and return them as params."""
        settings = {name: optimizer_settings(each) for name, each in optimizers.items()}
        if len(settings) == 1:
            (self._meta["optimizer"],) = settings.values()
        else:
            self._meta["optimizers"] = settings
        return optimizer_params(settings)

    def _open(self, layout: Layout) -> None:
        """Begin the history; a step of the user's own has shown by now which optimizers it applies."""
        if self._optimizers is None:
            of_steps = functools.partial(self._note_optimizers, self.steps.optimizers)
            params = self.problems.attempt("the settings of its optimizers are not known", of_steps) or {}
            self._meta["params"] = {**self._meta["params"], **params}
            late_params.add(self.run_id, params)
            self.recording.add_params(params)
        self._names = earlier_names(layout.tensors, self._tags)
        if tags := {} if self._names else tags_with(layout.tensors, self._tags):
            self.recording.add_tags(tags)
        self.recording.open(renamed(layout, self._names))
        self._describe_program()

    def _add(self, rows: Rows) -> None:
        self.recording.add(renamed_rows(rows, self._names))
        self._present()

    def _present(self) -> None:
        """Show the run by its name, as soon as the size of its batches is known."""
        if not self._is_presented:
            self._is_presented = True
            params = {**self._meta.get("params", {}), BATCH_SIZE_PARAM: self.recording.batch_size or None}
            name = training_name(self.model, params)
            self.recording.do("its name", functools.partial(present, self.run_id, name))

    def _note_host(self, reason: str, every: int) -> Callable[[], object]:
        self._meta["reader"] = "host"
        gaps = f", one record for every {every} steps" if every > 1 else ""
        return functools.partial(warn, f"steps are read from the host, which is slower{gaps}: {reason}")

    def _interrupt(self, problem: str | None) -> None:
        if problem is not None:
            self.problems.note(problem)
        self._close()

    def begin_epoch(self, epoch: int) -> None:
        """Note that Keras' `epoch` begins (0-based in the fit)."""
        in_run = self.epochs.begin(epoch)
        self._duplicates.begin_epoch(in_run, epoch)
        self.steps.begin_epoch(in_run)
        self._n_left = self._keras_params["epochs"] - 1 - epoch if self._keras_params.get("epochs") else None
        if self.live is not None:
            self.live.begin_epoch(in_run)

    def _after_epoch(self) -> None:
        """Read what depends on the weights after the last step of an epoch."""
        self._snapshots.keep_last(self.steps.steps_done)
        shares = self.problems.attempt("the shares of dead and saturated units are not known", self.steps.units.measure)
        self._unit_shares = shares or {}
        self._complete_program()

    def _complete_program(self) -> None:
        """Complete the description of the program with the data of the first epoch."""
        data, size = getattr(self.steps, "data", None), self.recording.batch_size
        self.problems.attempt("the data are not described", lambda: self._program.end_epoch(data, size))

    def begin_validation(self) -> None:
        """Note that Keras begins to validate."""
        self.problems.attempt("the validation data are not described", self._program.begin_validation)

    def end_validation(self) -> None:
        """Note that Keras has validated."""
        self.problems.attempt("the validation data are not described", self._program.end_validation)

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Record the logs of the epoch that has ended."""
        row, shares = self.epochs.end(logs), self._unit_shares
        self._unit_shares = {}
        row = row | shares | row  # a value of Keras' stays, whatever its name
        self.recording.add_epoch(row)
        if self.live is not None:
            self.steps.glance()
            self.live.end_epoch(row, self._n_left)
        self._warn_of_unseen()

    def _warn_of_unseen(self) -> None:
        """Warn at once, and once in a fit, where steps pass by the reader."""
        unseen = None if self._warned_of_unseen else self.steps.unseen()
        if unseen is not None:
            self._warned_of_unseen = True
            self.problems.note(unseen)
            self.problems.warn(unseen)

    def finish(self, *, is_complete: bool) -> None:
        """Restore the model's train function, and send everything to MLflow.

        Parameters
        ----------
        is_complete : bool
            Whether the fit reached its end.
        """
        if self._live_layers is not None:
            self._live_layers.stop()
        if self.steps is not None:
            self.steps.stop()
        self.end_validation()  # which an exception may have left
        if self._duplicates is not None:
            self._duplicates.close()
        if self.recording is None:
            return
        started = time.perf_counter()
        try:
            self._send_to_mlflow(is_complete)
        except KeyboardInterrupt:
            self.recording.close(all_sent=False)
            warn(f"interrupted before MLflow had everything; {self.recording.recovery_hint}")
            raise
        finally:
            self._on_end(self._history, self._snapshots.saved, time.perf_counter() - started)
            self.problems.warn_of_noted()

    def abandon(self) -> None:
        """Restore the model's train function in a forked child process, and touch nothing else."""
        if self.steps is not None:
            self.steps.stop()

    def _send_to_mlflow(self, is_complete: bool) -> None:
        """Finish the history, and send everything to MLflow."""
        recording, attempt = self.recording, self.problems.attempt
        seconds = time.perf_counter() - self._started
        if self.steps is not None:
            attempt("the last steps were not read", self.steps.fetch)
            self._complete_program()
        best = attempt("the best epoch is not known", self.epochs.note_best)
        if best is not None:
            attempt("the best epoch is not kept", lambda: recording.note_best(best.to_json()))
        history = attempt(
            "the history on disk is not complete", lambda: recording.finish_history(is_complete=is_complete)
        )
        end = FitEnd(
            self._settings,
            recording,
            self.epochs,
            self.problems,
            first=self._numbers,
            reader=str(self._meta["reader"]),
            earlier_tags=self._tags,
            seconds=seconds,
        )
        fit_numbers.end_at(self.run_id, end.next_numbers(history))
        self._history = history
        if history is not None and self.live is not None and self.live.ended_by is not None:
            history.meta["ended_by"] = self.live.ended_by
        if history is not None:
            attempt(
                "there are no snapshots of the weights",
                lambda: self._snapshots.save(recording.history_folder, self.steps.steps_done, self._names),
            )
        end.send(history, best)
