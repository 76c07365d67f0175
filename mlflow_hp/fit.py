"""The recording of one fit, from the model's train function to the run in MLflow."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlflow_hp import provenance, runs
from mlflow_hp.capture.layout import distinct, numbers_of, trainable_weights
from mlflow_hp.capture.steps import Steps
from mlflow_hp.duplicates import Duplicates
from mlflow_hp.forks import only_here
from mlflow_hp.hyperparameters import hyperparameters, optimizer_settings
from mlflow_hp.late_params import late_params
from mlflow_hp.notice import print_line, warn
from mlflow_hp.process import this_process
from mlflow_hp.recording import Recording
from mlflow_hp.snapshots import FILE, Thinner, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.recorder import TrainingRecorder


class RecordedFit:
    """What belongs to one fit: the reader of its steps, and the recording they go to."""

    def __init__(self, recorder: TrainingRecorder, run: Any) -> None:
        self.recorder = recorder
        self.model = recorder.model
        self.run_id = run.info.run_id
        self.token = object()
        self.problems: list[str] = []
        self._told: set[str] = set()
        self._run = run
        tags = run.data.tags
        self._number = int(tags.get("mlflow_hp.fits", 0))
        self._first_step = int(tags.get("mlflow_hp.steps", 0))
        self._first_epoch = int(tags.get("mlflow_hp.epochs", 0))
        self._epochs = 0
        self._epoch = self._first_epoch
        self._shift: int | None = None
        self._epoch_began = time.perf_counter()
        self.steps: Any = None
        self.recording: Any = None
        self._duplicates: Any = None
        budget = round(recorder.snapshot_megabytes * 2**20)
        self._snapshots = Thinner(budget) if budget else None

    def start(self) -> None:
        """Begin to record: tags and params, and the model's train function replaced by one that is read."""
        described = hyperparameters(self.model, self.recorder.params)
        tags = runs.run_tags("training", weights=self.recorder.weights)
        meta = {
            "run_id": self.run_id,
            "fit": self._number,
            "first_step": self._first_step,
            "first_epoch": self._first_epoch,
            "optimizer": optimizer_settings(self.model),
            "params": described,
            "versions": provenance.versions(),
            "reader": "none",
        }
        head = {"process": this_process(), "fit": self._number, "report": self.recorder.report}
        folder = self._local_folder()
        self.recording = Recording(self.run_id, folder, meta, self.recorder.metrics_every, head, self._tell)
        self._duplicates = Duplicates(self.run_id)
        self.recording.choose = self._duplicates.left
        late_params.add(self.run_id, described, self._run.data.tags)
        self.recording.describe(described, tags, lambda: self._describe(tags))
        self._meta = meta
        self.steps = Steps(
            self.model,
            self.recorder.weights,
            on_layout=self.recording.open,
            on_rows=self.recording.add,
            on_host=self._say_host,
            before_step=self._take_snapshot,
            on_error=self.recorder.give_up,
            on_interrupt=self._interrupt,
        )
        meta["reader"] = self.steps.kind
        self.steps.start(self._first_step)

    def _describe(self, tags: dict[str, str]) -> None:
        provenance.uncommitted()  # as it is now, even where it has to wait for MLflow
        runs.log_once(self._run, tags=tags | late_params.tag(self.run_id))  # an earlier fit's stays until the end
        runs.log_code(self.run_id)

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
        self.recorder.close()

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
            self.recorder.snapshots = self._snapshots.snapshots(self.steps.steps_done, trainable_weights(self.model))
            save(self.recorder.snapshots, self.recording.history_folder / FILE)

    def begin_epoch(self, epoch: int) -> None:
        """The next steps are those of Keras' `epoch` (0-based in the fit)."""
        if self._shift is None:  # a second fit in a run goes on behind the first, unless Keras counts on by itself
            self._shift = max(0, self._first_epoch - epoch)
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
            folder = self.recording.folder
            warn(f"interrupted before MLflow had everything; `mlflow-hp recover` brings it there from {folder}")
            raise
        finally:
            self.recorder.flush_seconds = time.perf_counter() - began
            for problem in self.problems:
                if problem not in self._told:
                    warn(problem)

    def abandon(self) -> None:
        """In a forked child: put the model's own train function back, and touch nothing else."""
        if self.steps is not None:
            self.steps.stop()

    def _bring_to_mlflow(self, whole: bool) -> None:
        if self.steps is not None:
            self._try("the last steps were not read", self.steps.fetch)
        history = self._try("the history on disk is not complete", lambda: self.recording.finish_history(whole=whole))
        if self.recording.trouble is not None:
            self.problems.append(self.recording.trouble)
        folder = self.recording.folder
        later = f"`mlflow-hp recover` brings it there from {folder}"
        sent = self._try(f"MLflow lacks a part of what was recorded; {later}", self._flush)
        self.recorder.history = history
        uploaded = history is None
        if history is not None:
            self._try("there are no snapshots of the weights", self._save_snapshots)
            uploaded = self._try(f"MLflow lacks the history; {later}", self._upload)
        if history is not None and self.recorder.report:
            self._try("there is no report", lambda: self._report(history))
        tagged = self._try("the run's tags are not complete", lambda: self._tag(history))
        all_there = sent and uploaded and tagged
        self.recording.close(all_sent=all_there)
        if all_there and folder is not None:
            if history is None:
                runs.remove_local(folder)
            else:
                weakref.finalize(history, only_here(runs.remove_local), folder)  # it is read lazily from there

    def _flush(self) -> bool:
        began = time.perf_counter()
        left = self.recording.unsent
        with tqdm(total=left, desc="metrics to MLflow", unit=" points", unit_scale=True, delay=1.0) as bar:
            self.recording.flush(lambda: bar.update(left - self.recording.unsent - bar.n))
        seconds = time.perf_counter() - began
        if seconds > 1:
            print_line(f"writing the last metrics to MLflow took {seconds:.1f} s")
        if self.recording.n_dropped:
            self.problems.append(f"{self.recording.n_dropped:,} metric points are lost: no disk, and memory was full")
        return True

    def _upload(self) -> bool:
        runs.upload(self.run_id, self.recording.history_folder, runs.training_path(self._number))
        return True

    def _report(self, history: TrainingHistory) -> None:
        from mlflow_hp.report import report_training

        report_training(self._run, history)

    def _tag(self, history: TrainingHistory | None) -> bool:
        if self.recording.batch_size:
            late_params.add(self.run_id, {"batch_size": self.recording.batch_size})
        tags = {"reader": self._meta["reader"], "fits": str(self._number + 1)}
        if provenance.is_on():
            tags["device"] = provenance.device()  # now that TensorFlow is at work, those that it really uses
        if history is not None:
            tags["steps"] = str(self._first_step + history.n_steps)
        if self._epochs:
            tags["epochs"] = str(self._epochs)
        if self.problems:
            tags["recording_error"] = "\n".join(self.problems)
        named = {f"mlflow_hp.{name}": value for name, value in tags.items()}
        runs.set_tags(self.run_id, named | late_params.tag(self.run_id))
        if self.recorder.owns_run:
            late_params.log(self.run_id)
        return True

    def _try(self, consequence: str, do: Callable[[], Any]) -> Any:
        """Do one part of the end; an error is noted, gives None, and keeps no other part from being done."""
        try:
            return do()
        except Exception as error:  # noqa: BLE001
            self.problems.append(f"{consequence}: {type(error).__name__}: {error}")
            return None
