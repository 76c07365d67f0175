"""The recording of one fit, from the model's train function to the run in MLflow."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from mlflow_hp._notice import print_line, warn
from mlflow_hp.delivery import fit_numbers
from mlflow_hp.delivery.duplicates import Duplicates
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.spool import Recording
from mlflow_hp.history.step_record import distinct
from mlflow_hp.history.weight_snapshots import FILE, Thinner, save
from mlflow_hp.tracking import provenance, runs
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.training.capture.step_layout import numbers_of, trainable_weights
from mlflow_hp.training.capture.steps import Steps
from mlflow_hp.training.hyperparameters import hyperparameters, optimizer_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.weight_snapshots import Snapshots
    from mlflow_hp.training.report import TrainingReport


class FitSettings(NamedTuple):
    """How a fit is recorded: parameters and attributes of `TrainingRecorder`."""

    weights: str
    metrics_every: int
    report: bool
    snapshot_megabytes: float
    owns_run: bool


class FitSession:
    """What belongs to one fit: the reader of its steps, and the recording they go to.

    Parameters
    ----------
    model : keras.Model
        The model that is fitted.
    params : mapping
        What Keras tells callbacks of the fit.
    settings : FitSettings
    run_id : str
        The run to record into.
    tags : mapping of str to str
        The run's tags.
    on_end : callable
        Given the history, the snapshots and the seconds that the end took, when the fit has ended.
    give_up : callable
        Given the error that ends the recording before the fit ends.
    close : callable
        Called where the fit is interrupted.
    """

    def __init__(
        self,
        model: Any,
        params: Any,
        settings: FitSettings,
        run_id: str,
        tags: Mapping[str, str],
        *,
        on_end: Callable[[TrainingHistory | None, Snapshots | None, float], None],
        give_up: Callable[[Exception], None],
        close: Callable[[], None],
    ) -> None:
        self.model = model
        self.run_id = run_id
        self._params = params
        self._settings = settings
        self._on_end, self._give_up, self._close = on_end, give_up, close
        self._history: TrainingHistory | None = None
        self._saved: Snapshots | None = None
        self.token = object()
        self.problems: list[str] = []
        self._told: set[str] = set()
        self._tags = tags
        self._numbers, self._before = fit_numbers.next_numbers(run_id, tags, runs.local_home() / run_id)
        self._epochs = 0
        self._epoch = self._numbers.epoch
        self._shift: int | None = None
        self._epoch_began = time.perf_counter()
        self.steps: Any = None
        self.recording: Any = None
        self._duplicates: Any = None
        budget = round(settings.snapshot_megabytes * 2**20)
        self._snapshots = Thinner(budget) if budget else None

    def start(self) -> None:
        """Begin to record: tags and params, and the model's train function replaced by one that is read."""
        described = hyperparameters(self.model, self._params)
        tags = runs.run_tags("training", weights=self._settings.weights)
        fit, first_step, first_epoch = self._numbers
        where = {"fit": fit, "first_step": first_step, "first_epoch": first_epoch}
        meta = {
            "run_id": self.run_id,
            **where,
            "optimizer": optimizer_settings(self.model),
            "params": described,
            "versions": provenance.versions(),
            "reader": "none",
        }
        head = {"process": this_process(), **where, "report": self._settings.report}
        folder = self._local_folder()
        self.recording = Recording(self.run_id, folder, meta, self._settings.metrics_every, head, self._tell)
        self._duplicates = Duplicates(self.run_id)
        self.recording.choose, self.recording.has_to_wait = self._duplicates.left, self._duplicates.has_to_wait
        late_params.add(self.run_id, described, self._tags)
        self.recording.describe(described, tags, self._before)
        self.recording.do("the uncommitted changes of the code", lambda: runs.log_code(self.run_id))
        self._meta = meta
        self.steps = Steps(
            self.model,
            self._settings.weights,
            on_layout=self.recording.open,
            on_rows=self.recording.add,
            on_host=self._say_host,
            before_step=self._take_snapshot,
            on_error=self._give_up,
            on_interrupt=self._interrupt,
        )
        meta["reader"] = self.steps.kind
        self.steps.start(first_step)

    def _local_folder(self) -> Path | None:
        try:
            return runs.local_folder(self.run_id)
        except OSError as error:
            self.problems.append(f"there is no history: {error}")
            return None

    def _tell(self, sentence: str) -> None:
        """Warn, from any thread; where warnings are errors, it is what comes of it that is told again at the end."""
        if warn(sentence):
            self._told.add(sentence)

    def _say_host(self, reason: str, every: int) -> None:
        self._meta["reader"] = "host"
        seen = f", one record for every {every} steps" if every > 1 else ""
        warn(f"steps are read from the host, which is slower{seen}: {reason}")

    def _interrupt(self, problem: str | None) -> None:
        if problem is not None:
            self.problems.append(problem)
        self._close()

    def _take_snapshot(self) -> None:
        """Keep the weights before the next step, where one is due."""
        if self._snapshots is None or not self._snapshots.due(self.steps.steps_done) or not self.model.built:
            return
        try:
            self._snapshots.add(self.steps.steps_done, trainable_weights(self.model))
        except Exception as error:  # noqa: BLE001 - the rest of the recording goes on
            self._snapshots = None
            self.problems.append(f"there are no snapshots of the weights: {error}")

    def _save_snapshots(self) -> None:
        if self._snapshots is not None:
            self._saved = self._snapshots.snapshots(self.steps.steps_done, trainable_weights(self.model))
            save(self._saved, self.recording.history_folder / FILE)

    def begin_epoch(self, epoch: int) -> None:
        """The next steps are those of Keras' `epoch` (0-based in the fit)."""
        if self._shift is None:  # a second fit in a run goes on behind the first, unless Keras counts on by itself
            self._shift = max(0, self._numbers.epoch - epoch)
        self._epoch = epoch + self._shift
        self._epoch_began = time.perf_counter()
        self._duplicates.begin_epoch(self._epoch, epoch)
        self.steps.begin_epoch(self._epoch)

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Record what Keras tells of the epoch that has ended."""
        numbers = numbers_of(logs)
        names = distinct(["epoch", "seconds", *numbers])[2:]  # a metric of Keras may be called so, too
        row = dict(zip(names, numbers.values(), strict=True))
        seconds = time.perf_counter() - self._epoch_began
        self.recording.add_epoch({"epoch": self._epoch, **row, "seconds": seconds})
        self._epochs = self._epoch + 1

    def finish(self, *, whole: bool) -> None:
        """Put the model's own train function back and bring everything to MLflow; `whole`: the fit came to its end."""
        if self.steps is not None:
            self.steps.stop()
        if self._duplicates is not None:
            self._duplicates.close()
        if self.recording is None:
            return
        began = time.perf_counter()
        try:
            self._bring_to_mlflow(whole)
        except KeyboardInterrupt:
            self.recording.close(all_sent=False)
            warn(f"interrupted before MLflow had everything; {self.recording.later}")
            raise
        finally:
            self._on_end(self._history, self._saved, time.perf_counter() - began)
            self._tell_problems()

    def _tell_problems(self) -> None:
        for problem in self.problems:
            if problem not in self._told:
                self._told.add(problem)
                warn(problem)

    def abandon(self) -> None:
        """In a forked child: put the model's own train function back, and touch nothing else."""
        if self.steps is not None:
            self.steps.stop()

    def _bring_to_mlflow(self, whole: bool) -> None:
        recording = self.recording
        if self.steps is not None:
            self._try("the last steps were not read", self.steps.fetch)
        history = self._try("the history on disk is not complete", lambda: recording.finish_history(whole=whole))
        fit_numbers.end_at(self.run_id, self._next_numbers(history))
        self._history = history
        if history is not None:
            self._try("there are no snapshots of the weights", self._save_snapshots)
            size = sum(path.stat().st_size for path in recording.history_folder.iterdir())
            recording.do("the history", self._upload, size)
        with contextlib.ExitStack() as until_sent:
            if history is not None and self._settings.report:
                report = self._try("there is no report", lambda: self._report(history))
                if report is not None:
                    until_sent.callback(report.close)
                    recording.do("the report", report.bring)
            recording.do("what it refuses", recording.upload_refused)
            recording.do("the tags of its end", lambda: self._tag(history))
            sent = self._try(self._lacking, self._flush)
            if sent is False:
                print_line(
                    f"MLflow is still taking what was recorded of run {self.run_id}: that goes on next to the program, "
                    f"which waits for it before it ends; should it be killed before, {recording.later}"
                )
                arguments = (history, until_sent.pop_all())
                threading.Thread(target=self._go_on, args=arguments, name="mlflow_hp-rest", daemon=False).start()
                return
        self._conclude(history, sent=bool(sent))

    @property
    def _lacking(self) -> str:
        return f"MLflow lacks a part of what was recorded; {self.recording.later}"

    def _go_on(self, history: TrainingHistory | None, until_sent: contextlib.ExitStack) -> None:
        """Wait for what MLflow is still taking, next to the program."""
        with until_sent:
            sent = self._try(self._lacking, lambda: self.recording.wait() or True)
        self._conclude(history, sent=bool(sent))
        self._tell_problems()

    def _conclude(self, history: TrainingHistory | None, *, sent: bool) -> None:
        self.problems += [problem for problem in self.recording.problems if problem not in self.problems]
        self.recording.close(all_sent=sent and self.recording.is_complete, history=history)

    def _flush(self) -> bool:
        began = time.perf_counter()
        left = self.recording.unsent
        with tqdm(total=left, desc="metrics to MLflow", unit=" points", unit_scale=True, delay=1.0) as bar:
            whole = bool(self.recording.flush(lambda: bar.update(left - self.recording.unsent - bar.n)))
        seconds = time.perf_counter() - began
        if seconds > 1 and whole:
            print_line(f"writing the last metrics to MLflow took {seconds:.1f} s")
        return whole

    def _upload(self) -> None:
        runs.upload(self.run_id, self.recording.history_folder, runs.training_path(self.recording.fit))

    def _report(self, history: TrainingHistory) -> TrainingReport:
        from mlflow_hp.training.report import TrainingReport

        return TrainingReport(self.run_id, history)

    def _next_numbers(self, history: TrainingHistory | None) -> FitNumbers:
        """What the next fit of the run begins with."""
        n_steps = 0 if history is None else history.n_steps
        ours = self._numbers
        return FitNumbers(ours.fit + 1, ours.step + n_steps, max(self._epochs, ours.epoch)).plus(self.recording.shift)

    def _tag(self, history: TrainingHistory | None) -> None:
        if self.recording.batch_size:
            late_params.add(self.run_id, {"batch_size": self.recording.batch_size})
        after = self._next_numbers(history)
        tags: dict[str, str] = {"reader": str(self._meta["reader"]), "fits": str(after.fit)}
        if provenance.is_on():
            tags["device"] = provenance.device()  # now that TensorFlow is at work, those that it really uses
        if history is not None:
            tags["steps"] = str(after.step)
        if self._epochs:
            tags["epochs"] = str(after.epoch)
        if problems := [*self.problems, *self.recording.problems]:
            tags["recording_error"] = "\n".join(problems)
        named = {f"mlflow_hp.{name}": value for name, value in tags.items()}
        runs.set_tags(self.run_id, named | late_params.tag(self.run_id))
        if self._settings.owns_run:
            late_params.log(self.run_id)

    def _try(self, consequence: str, do: Callable[[], Any]) -> Any:
        """Do one part of the end; an error is noted, gives None, and keeps no other part from being done."""
        try:
            return do()
        except Exception as error:  # noqa: BLE001
            self.problems.append(f"{consequence}: {type(error).__name__}: {error}")
            return None
