"""Recording of one fit, from the model's train function to the run in MLflow."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from tqdm import tqdm

from mlflow_hp._notice import is_silent, log, warn
from mlflow_hp.delivery import fit_numbers
from mlflow_hp.delivery.duplicates import Duplicates
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.fit_recording import FitRecording
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.metric_selection import MAX_POINTS, MetricSelection
from mlflow_hp.tracking import devices, provenance, runs
from mlflow_hp.tracking.artifact_paths import training_path
from mlflow_hp.tracking.home import local_folder, local_home
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.tags import (
    BATCH_SIZE_PARAM,
    CADENCE_TAG,
    DEVICE_TAG,
    ENDED_BY_TAG,
    EPOCHS_TAG,
    FINDINGS_TAG,
    FITS_TAG,
    READER_TAG,
    RECORDING_ERROR_TAG,
    RESTORED_EPOCH_TAG,
    STEPS_TAG,
    WEIGHTS_TAG,
)
from mlflow_hp.training.best_of_run import log_best
from mlflow_hp.training.capture import CaptureSettings, train_step_is_own
from mlflow_hp.training.capture.manual_steps import ManualSteps
from mlflow_hp.training.capture.steps import Steps
from mlflow_hp.training.fit_data import FITS_WITH_DATA, data_sets_of
from mlflow_hp.training.fit_epochs import FitEpochs
from mlflow_hp.training.fit_program import FitProgram
from mlflow_hp.training.fit_snapshots import FitSnapshots
from mlflow_hp.training.hyperparameters import hyperparameters, optimizer_params, optimizer_settings
from mlflow_hp.training.live_findings import LiveFindings, LiveSettings, upload_findings
from mlflow_hp.training.short_fits import short_fits
from mlflow_hp.training.tensor_names import earlier_names, renamed, renamed_rows, tags_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import Program
    from mlflow_hp.history.step_record import Layout, Rows
    from mlflow_hp.history.weight_snapshots import Snapshots
    from mlflow_hp.training.best_epoch import BestEpoch
    from mlflow_hp.training.capture.glances import OnGlance
    from mlflow_hp.training.report import TrainingReport

SHORT_SECONDS = 1.0
"""The recording of a fit that takes less time ends with its run: in a loop, each end would take longer than the fit."""


class FitSettings(NamedTuple):
    """Settings of `TrainingRecorder` for one fit."""

    capture: CaptureSettings
    metrics_every: int
    report: bool
    snapshot_megabytes: float
    owns_run: bool
    extra_tags: Mapping[str, str]
    metrics: str = "summary"
    max_points: int | None = MAX_POINTS
    live: LiveSettings | None = None


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
        self.problems: list[str] = []
        self._warned: set[str] = set()
        self._warned_of_unseen = False
        self._tags = tags
        self._numbers, self._before = fit_numbers.next_numbers(run_id, tags, local_home() / run_id)
        self._names: dict[str, str] = {}
        self._started = time.perf_counter()
        self._is_short = False
        self.epochs = FitEpochs(self._numbers.epoch, callbacks)
        self.steps: Any = None
        self.recording: Any = None
        self._duplicates: Any = None
        self._snapshots = FitSnapshots(model, settings.snapshot_megabytes, self.problems.append)
        self._unit_shares: dict[str, float] = {}
        self._n_left: int | None = None
        self.live: LiveFindings | None = None
        self._program = FitProgram(
            model,
            keras_params,
            callbacks,
            is_own_step=self._optimizers is None or self._is_loop,
            pass_on=self._pass_on_program,
        )

    def start(self) -> None:
        """Start recording: write tags and params, and wrap the model's train function."""
        params = hyperparameters(self.model, self._keras_params)
        tags = runs.run_tags("training", {WEIGHTS_TAG: self._settings.capture.weights, **self._settings.extra_tags})
        if self._optimizers is not None:
            params |= self._note_optimizers(self._optimizers)
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
            self.run_id, lambda: local_folder(self.run_id), meta, self._selection(), header, self._warn
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
        self._try("the arguments of fit are not known", lambda: self._program.note_arguments(caller))

    def _describe_program(self) -> None:
        """Describe the program, once the model is built."""
        optimizer = self._meta.get("optimizer", {})
        spec = getattr(self.steps, "input_spec", None)
        self._try("the program is not described", lambda: self._program.describe(optimizer, spec))

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
            data_sets = self._try("the data sets are not logged", lambda: data_sets_of(caller, self.model))
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
            params = self._note_optimizers(self.steps.optimizers)
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

    def _warn(self, sentence: str) -> None:
        """Warn once, from any thread; again at the end if the warning became an error."""
        if warn(sentence):
            self._warned.add(sentence)

    def _note_host(self, reason: str, every: int) -> Callable[[], object]:
        self._meta["reader"] = "host"
        gaps = f", one record for every {every} steps" if every > 1 else ""
        return functools.partial(warn, f"steps are read from the host, which is slower{gaps}: {reason}")

    def _interrupt(self, problem: str | None) -> None:
        if problem is not None:
            self.problems.append(problem)
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
        shares = self._try("the shares of dead and saturated units are not known", self.steps.units.measure)
        self._unit_shares = shares or {}
        self._complete_program()

    def _complete_program(self) -> None:
        """Complete the description of the program with the data of the first epoch."""
        data, size = getattr(self.steps, "data", None), self.recording.batch_size
        self._try("the data are not described", lambda: self._program.end_epoch(data, size))

    def begin_validation(self) -> None:
        """Note that Keras begins to validate."""
        self._try("the validation data are not described", self._program.begin_validation)

    def end_validation(self) -> None:
        """Note that Keras has validated."""
        self._try("the validation data are not described", self._program.end_validation)

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
            self.problems.append(unseen)
            self._warn(unseen)

    def finish(self, *, is_complete: bool) -> None:
        """Restore the model's train function, and send everything to MLflow.

        Parameters
        ----------
        is_complete : bool
            Whether the fit reached its end.
        """
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
            self._warn_of_problems()

    def _warn_of_problems(self) -> None:
        for problem in self.problems:
            if problem not in self._warned:
                self._warned.add(problem)
                warn(problem)

    def abandon(self) -> None:
        """Restore the model's train function in a forked child process, and touch nothing else."""
        if self.steps is not None:
            self.steps.stop()

    def _send_to_mlflow(self, is_complete: bool) -> None:
        recording = self.recording
        self._is_short = time.perf_counter() - self._started < SHORT_SECONDS and not self._settings.owns_run
        if self.steps is not None:
            self._try("the last steps were not read", self.steps.fetch)
            self._complete_program()
        best = self._try("the best epoch is not known", self.epochs.note_best)
        if best is not None:
            self._try("the best epoch is not kept", lambda: recording.note_best(best.to_json()))
        history = self._try(
            "the history on disk is not complete", lambda: recording.finish_history(is_complete=is_complete)
        )
        fit_numbers.end_at(self.run_id, self._next_numbers(history))
        self._history = history
        if history is not None and self.live is not None and self.live.ended_by is not None:
            history.meta["ended_by"] = self.live.ended_by
        if history is not None:
            self._try(
                "there are no snapshots of the weights",
                lambda: self._snapshots.save(recording.history_folder, self.steps.steps_done, self._names),
            )
            size = sum(path.stat().st_size for path in recording.history_folder.iterdir())
            recording.do("the history", self._upload, size)
        recording.hurry()  # while the pictures are drawn
        with contextlib.ExitStack() as until_sent:
            if history is not None and self._settings.report and not self._is_short:
                report = self._try("there is no report", lambda: self._report(history))
                if report is not None:
                    until_sent.callback(report.close)
                    recording.do("the report", lambda: report.upload(recording.cadence))
            if best is not None:
                recording.do("the best epoch", functools.partial(self._log_best, best))
            recording.do("the refused items", recording.upload_refused)
            recording.do("the tags of its end", lambda: self._tag(history))
            sent = self._try(self._incomplete, self._flush)
            if sent is False:
                log(
                    f"the record of run {self.run_id} is still being sent to MLflow: this continues next to the "
                    f"program, which waits for it before it ends; if it is killed before, {recording.recovery_hint}",
                    logging.WARNING,
                    __name__,
                )
                arguments = (history, until_sent.pop_all())
                threading.Thread(
                    target=self._wait_until_sent, args=arguments, name="mlflow_hp-rest", daemon=False
                ).start()
                return
        self._conclude(history, sent=bool(sent))

    def _log_best(self, best: BestEpoch) -> None:
        shift = self.recording.shift.epoch
        first, last = (int(self.epochs.rows[i]["epoch"]) + shift for i in (0, -1))
        log_best(self.run_id, best._replace(epoch=best.epoch + shift), first, last)

    @property
    def _incomplete(self) -> str:
        return f"MLflow lacks a part of the record; {self.recording.recovery_hint}"

    def _wait_until_sent(self, history: TrainingHistory | None, until_sent: contextlib.ExitStack) -> None:
        """Wait until everything is sent, in a thread of its own."""
        with until_sent:
            sent = self._try(self._incomplete, lambda: self.recording.wait() or True)
        self._conclude(history, sent=bool(sent))
        self._warn_of_problems()

    def _conclude(self, history: TrainingHistory | None, *, sent: bool) -> None:
        self.problems += [problem for problem in self.recording.problems if problem not in self.problems]
        is_sent = sent and self.recording.is_complete
        if self._is_short and is_sent and history is not None:
            end = functools.partial(_end, self.recording, history)
            short_fits.add(self.run_id, history, end, report=self._settings.report, cadence=self.recording.cadence)
        else:
            short_fits.replace(self.run_id)
            self.recording.close(all_sent=is_sent, history=history)

    def _flush(self) -> bool:
        started = time.perf_counter()
        n_unsent = self.recording.n_unsent
        with tqdm(
            total=n_unsent, desc="metrics to MLflow", unit=" points", unit_scale=True, delay=1.0, disable=is_silent()
        ) as bar:
            all_sent = bool(self.recording.flush(lambda: bar.update(n_unsent - self.recording.n_unsent - bar.n)))
        seconds = time.perf_counter() - started
        if seconds > 1 and all_sent:
            log(f"writing the last metrics to MLflow took {seconds:.1f} s", name=__name__)
        return all_sent

    def _upload(self) -> None:
        runs.upload(self.run_id, self.recording.history_folder, training_path(self.recording.fit))

    def _report(self, history: TrainingHistory) -> TrainingReport:
        from mlflow_hp.training.report import TrainingReport

        return TrainingReport(self.run_id, history)

    def _next_numbers(self, history: TrainingHistory | None) -> FitNumbers:
        """Numbers of fit, step and epoch with which the run's next fit begins."""
        n_steps = 0 if history is None else history.n_steps
        first = self._numbers
        n_epochs = max(self.epochs.next, first.epoch)
        return FitNumbers(first.fit + 1, first.step + n_steps, n_epochs).plus(self.recording.shift)

    def _tag(self, history: TrainingHistory | None) -> None:
        if self.recording.batch_size:
            late_params.add(self.run_id, {BATCH_SIZE_PARAM: self.recording.batch_size})
        after = self._next_numbers(history)
        tags: dict[str, str] = {READER_TAG: str(self._meta["reader"]), FITS_TAG: str(after.fit)}
        if provenance.is_on():
            tags[DEVICE_TAG] = devices.describe()  # the devices that TensorFlow uses are known only now
        if history is not None:
            tags |= {STEPS_TAG: str(after.step), CADENCE_TAG: self.recording.cadence}
        if self.epochs.restored is not None:
            tags[RESTORED_EPOCH_TAG] = str(self.epochs.restored + self.recording.shift.epoch)
        elif RESTORED_EPOCH_TAG in self._tags:  # of an earlier fit, whose weights have been trained further
            mlflow.MlflowClient().delete_tag(self.run_id, RESTORED_EPOCH_TAG)
        if self.epochs.rows:
            tags[EPOCHS_TAG] = str(after.epoch)
        if problems := [*self.problems, *self.recording.problems]:
            tags[RECORDING_ERROR_TAG] = "\n".join(problems)
        runs.set_tags(self.run_id, tags | late_params.tag(self.run_id))
        if self._settings.owns_run:
            late_params.log(self.run_id)

    def _try(self, consequence: str, do: Callable[[], Any]) -> Any:
        """Do one part of the end; on an error, note it and return None, so that the other parts are done."""
        try:
            return do()
        except Exception as error:  # noqa: BLE001
            self.problems.append(f"{consequence}: {type(error).__name__}: {error}")
            return None


def _end(recording: FitRecording, history: TrainingHistory, all_sent: bool) -> None:
    recording.close(all_sent=all_sent, history=history)
