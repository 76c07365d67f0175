"""The recording of one fit, from the model's train function to the run in MLflow."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from tqdm import tqdm

from mlflow_hp import fit_numbers, provenance, runs
from mlflow_hp.capture import why_host
from mlflow_hp.capture.host import HostReader
from mlflow_hp.capture.layout import trainable_weights
from mlflow_hp.fit_numbers import FitNumbers
from mlflow_hp.hyperparameters import hyperparameters, optimizer_settings
from mlflow_hp.process import this_process
from mlflow_hp.recording import Recording
from mlflow_hp.snapshots import FILE, Thinner, save
from mlflow_hp.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.recorder import TrainingRecorder
    from mlflow_hp.report import TrainingReport


WRAPS = keras.backend.backend() == "tensorflow"
"""Whether the model's train function is wrapped; on Keras' other backends its batch hooks are used."""


def warn(message: str) -> None:
    """Say to the user, once for each message, what the recording could not do."""
    warnings.warn(f"mlflow_hp: {printable(message)}", RuntimeWarning, stacklevel=2)


class RecordedFit:
    """What belongs to one fit: the reader of its steps, and the recording they go to."""

    def __init__(self, recorder: TrainingRecorder, run_id: str, tags: Mapping[str, str]) -> None:
        self.recorder = recorder
        self.model = recorder.model
        self.run_id = run_id
        self.token = object()
        self.problems: list[str] = []
        self._told: set[str] = set()
        self._numbers, self._before = fit_numbers.next_numbers(run_id, tags, runs.local_home() / run_id)
        self._epochs = 0
        self._epoch = self._numbers.epoch
        self._shift: int | None = None
        self._epoch_began = time.perf_counter()
        self._original: Any = None
        self._reader: Any = None
        budget = round(recorder.snapshot_megabytes * 2**20)
        self._snapshots = Thinner(budget) if budget else None

    def start(self) -> None:
        """Begin to record: tags and params, and the model's train function replaced by one that is read."""
        described = hyperparameters(self.model, self.recorder.params)
        tags = runs.run_tags("training", weights=self.recorder.weights)
        fit, first_step, first_epoch = self._numbers
        where = {"fit": fit, "first_step": first_step, "first_epoch": first_epoch}
        meta = {
            "run_id": self.run_id,
            **where,
            "optimizer": optimizer_settings(self.model),
            "params": described,
            "versions": provenance.versions(),
        }
        head = {"process": this_process(), **where, "report": self.recorder.report}
        folder = self._local_folder()
        self.recording = Recording(self.run_id, folder, meta, self.recorder.metrics_every, head, self._tell)
        self.recording.describe(described, tags, self._before)
        self.recording.do("the uncommitted changes of the code", lambda: runs.log_code(self.run_id))
        self._original = self.model.train_function
        before = getattr(self._original, "__self__", None)
        if isinstance(before, RecordedFit):  # of another recorder, whose fit an exception has left
            before.recorder.close()
            self._original = self.model.train_function
        self._reader = self._graph_reader() or self._host_reader()
        self._meta = meta
        meta["reader"] = self._reader.kind
        self._reader.start(first_step)
        if not WRAPS:
            self._reader.prepare()
            return
        self.model.train_function = self._train_function
        # Keras asks for the train function when a fit begins: if it does so while this one is open, an exception
        # has left this one, and the next must not be recorded as its continuation.
        self.model.make_train_function = self._make_train_function

    def _local_folder(self) -> Path | None:
        try:
            return runs.local_folder(self.run_id)
        except OSError as error:
            self.problems.append(f"there is no history: {error}")
            return None

    def _tell(self, sentence: str) -> None:
        """Warn, from any thread; where warnings are errors, it is what comes of it that is told."""
        with contextlib.suppress(RuntimeWarning):
            warn(sentence)
            self._told.add(sentence)

    def _graph_reader(self) -> Any:
        reason = why_host(self.model)
        if reason is not None:
            self._say_host(reason)
            return None
        from mlflow_hp.capture.graph import GraphReader, is_deterministic

        # Kept with the model's own train function, which lives from one compile to the next, so that a second fit
        # need not be traced again.
        readers = self._original.__dict__.setdefault("_mlflow_hp_readers", {})
        kind = self.recorder.weights, is_deterministic()
        if kind not in readers:
            readers[kind] = GraphReader(self.model, self.recorder.weights)
        reader = readers[kind]
        reader.connect(self.recording.open, self.recording.add)
        return reader

    def _host_reader(self) -> Any:
        reader = HostReader(self.model, self.recorder.weights, self._original if WRAPS else None)
        reader.connect(self.recording.open, self.recording.add)
        return reader

    def _say_host(self, reason: str) -> None:
        every = self.model.steps_per_execution
        seen = f", one record for every {every} steps" if every > 1 else ""
        warn(f"steps are read from the host, which is slower{seen}: {reason}")

    def before_batch(self) -> None:
        """Where the train function isn't wrapped, Keras' hook says when a step begins."""
        self._reader.make_room()
        self._take_snapshot()
        self._reader.before()

    def after_batch(self, logs: dict[str, Any]) -> None:
        """Where the train function isn't wrapped, Keras' hook says when a step has ended."""
        self._reader.read(logs)

    def _train_function(self, *arguments: Any) -> Any:
        """What Keras calls instead of its own train function."""
        try:
            self._reader.prepare(*arguments)
        except Exception as error:  # noqa: BLE001 - if the model itself is at fault, Keras' own function says so
            self._say_host(f"{type(error).__name__}: {error}")
            self._reader = self._host_reader()
            self._meta["reader"] = self._reader.kind
            self._reader.start(self._numbers.step)
            self._reader.begin_epoch(self._epoch)
            self._reader.prepare(*arguments)
        reader = self._reader
        if not self._read_safely(reader.make_room):
            return self._original(*arguments)
        if self._snapshots is not None:
            self._take_snapshot()
        try:
            logs = reader.execute(*arguments)
        except (StopIteration, _end_of_data()):
            raise
        except BaseException:
            self.recorder.close()
            raise
        self._read_safely(lambda: reader.read(logs))
        return logs

    def _take_snapshot(self) -> None:
        """Keep the weights before the next step, where one is due."""
        if self._snapshots is None or not self._snapshots.due(self._reader.steps_done) or not self.model.built:
            return
        try:
            self._snapshots.add(self._reader.steps_done, trainable_weights(self.model))
        except Exception as error:  # noqa: BLE001 - the rest of the recording goes on
            self._snapshots = None
            self.problems.append(f"there are no snapshots of the weights: {error}")

    def _save_snapshots(self) -> None:
        if self._snapshots is not None:
            self.recorder.snapshots = self._snapshots.snapshots(self._reader.steps_done, trainable_weights(self.model))
            save(self.recorder.snapshots, self.recording.history_folder / FILE)

    def _read_safely(self, read: Callable[[], None]) -> bool:
        """Whether reading went well; where not, the recording ends, and the training goes on."""
        try:
            read()
        except Exception as error:  # noqa: BLE001
            self.recorder.give_up(error)
            return False
        return True

    def _make_train_function(self, force: bool = False) -> Any:
        self.problems.append("it ends where the model's train function was asked for again, by another fit or batch")
        self.recorder.close()
        return self.model.make_train_function(force)

    def begin_epoch(self, epoch: int) -> None:
        """The next steps are those of Keras' `epoch` (0-based in the fit)."""
        if self._shift is None:  # a second fit in a run goes on behind the first, unless Keras counts on by itself
            self._shift = max(0, self._numbers.epoch - epoch)
        self._epoch = epoch + self._shift
        self._epoch_began = time.perf_counter()
        self._reader.begin_epoch(self._epoch)

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Record what Keras tells of the epoch that has ended."""
        numbers = {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
        seconds = time.perf_counter() - self._epoch_began
        self.recording.add_epoch({"epoch": self._epoch, **numbers, "seconds": seconds})
        self._epochs = self._epoch + 1

    def finish(self, *, whole: bool) -> None:
        """Put the model's own train function back and bring everything to MLflow; `whole`: the fit came to its end."""
        if self._original is not None and self.model.train_function == self._train_function:
            self.model.train_function = self._original
        self.model.__dict__.pop("make_train_function", None)
        if self._reader is None:
            return
        began = time.perf_counter()
        try:
            self._bring_to_mlflow(whole)
        except KeyboardInterrupt:
            self.recording.close(all_sent=False)
            warn(f"interrupted before MLflow had everything; {self.recording.later}")
            raise
        finally:
            self.recorder.flush_seconds = time.perf_counter() - began
            for problem in self.problems:
                if problem not in self._told:
                    warn(problem)

    def _bring_to_mlflow(self, whole: bool) -> None:
        recording = self.recording
        self._try("the last steps were not read", self._reader.fetch)
        history = self._try("the history on disk is not complete", lambda: recording.finish_history(whole=whole))
        fit_numbers.end_at(self.run_id, self._next_numbers(history))
        self.recorder.history = history
        report = None
        if history is not None:
            self._try("there are no snapshots of the weights", self._save_snapshots)
            size = sum(path.stat().st_size for path in recording.history_folder.iterdir())
            recording.do("the history", self._upload, size)
        if history is not None and self.recorder.report:
            report = self._try("there is no report", lambda: self._report(history))
        if report is not None:
            recording.do("the report", report.bring)
        recording.log_batch_size()
        recording.do("what it refuses", recording.upload_refused)
        recording.do("the tags of its end", lambda: self._tag(history))
        sent = self._try(f"MLflow lacks a part of what was recorded; {recording.later}", self._flush)
        self.problems += [problem for problem in recording.problems if problem not in self.problems]
        if report is not None:
            report.close()
        recording.close(all_sent=bool(sent) and recording.is_complete, history=history)

    def _flush(self) -> bool:
        began = time.perf_counter()
        left = self.recording.unsent
        with tqdm(total=left, desc="metrics to MLflow", unit=" points", unit_scale=True, delay=1.0) as bar:
            self.recording.flush(lambda: bar.update(left - self.recording.unsent - bar.n))
        seconds = time.perf_counter() - began
        if seconds > 1:
            print(f"mlflow_hp: writing the last metrics to MLflow took {seconds:.1f} s", file=sys.stderr)
        return True

    def _upload(self) -> None:
        runs.upload(self.run_id, self.recording.history_folder, runs.training_path(self.recording.fit))

    def _report(self, history: TrainingHistory) -> TrainingReport:
        from mlflow_hp.report import TrainingReport

        return TrainingReport(self.run_id, history)

    def _next_numbers(self, history: TrainingHistory | None) -> FitNumbers:
        """What the next fit of the run begins with."""
        n_steps = 0 if history is None else history.n_steps
        ours = self._numbers
        return FitNumbers(ours.fit + 1, ours.step + n_steps, max(self._epochs, ours.epoch)).plus(self.recording.shift)

    def _tag(self, history: TrainingHistory | None) -> None:
        after = self._next_numbers(history)
        tags = {"reader": self._reader.kind, "fits": str(after.fit)}
        if provenance.is_on():
            tags["device"] = provenance.device()  # now that TensorFlow is at work, those that it really uses
        if history is not None:
            tags["steps"] = str(after.step)
        if self._epochs:
            tags["epochs"] = str(after.epoch)
        if problems := [*self.problems, *self.recording.problems]:
            tags["recording_error"] = "\n".join(problems)
        runs.set_tags(self.run_id, {f"mlflow_hp.{name}": value for name, value in tags.items()})

    def _try(self, consequence: str, do: Callable[[], Any]) -> Any:
        """Do one part of the end; an error is noted, gives None, and keeps no other part from being done."""
        try:
            return do()
        except Exception as error:  # noqa: BLE001
            self.problems.append(f"{consequence}: {type(error).__name__}: {error}")
            return None


def _end_of_data() -> type[BaseException]:
    """What TensorFlow raises where an epoch's data end before its steps do; Keras handles it."""
    tensorflow = sys.modules.get("tensorflow")
    return StopIteration if tensorflow is None else tensorflow.errors.OutOfRangeError
