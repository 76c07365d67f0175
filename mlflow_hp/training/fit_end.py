"""End of the recording of one fit: its history, report, best epoch and tags go to MLflow, and are waited for."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from typing import TYPE_CHECKING

import mlflow
from tqdm import tqdm

from mlflow_hp._notice import is_silent, log
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.terminal import is_live
from mlflow_hp.tracking import devices, provenance, runs
from mlflow_hp.tracking.artifact_paths import training_path
from mlflow_hp.tracking.tags import (
    BATCH_SIZE_PARAM,
    CADENCE_TAG,
    DEVICE_TAG,
    EPOCHS_TAG,
    FITS_TAG,
    READER_TAG,
    RECORDING_ERROR_TAG,
    RESTORED_EPOCH_TAG,
    STEPS_TAG,
)
from mlflow_hp.training.best_of_run import log_best
from mlflow_hp.training.short_fits import short_fits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.delivery.fit_recording import FitRecording
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.training.best_epoch import BestEpoch
    from mlflow_hp.training.fit_epochs import FitEpochs
    from mlflow_hp.training.fit_problems import FitProblems
    from mlflow_hp.training.fit_settings import FitSettings
    from mlflow_hp.training.report import TrainingReport

REPORT_BYTES = 3_000_000
"""Size of a report with its document, which may take its time to be sent."""
SHORT_SECONDS = 1.0
"""The recording of a fit that takes less time ends with its run: in a loop, each end would take longer than the fit."""


class FitEnd:
    """Sends the end of one fit to MLflow; the program waits for it, in a thread if it takes long.

    Parameters
    ----------
    settings : FitSettings
        Settings of the recording.
    recording : FitRecording
        The recording, whose history is finished.
    epochs : FitEpochs
        Epochs of the fit.
    problems : FitProblems
        Takes the problems, those of the recording included.
    first : FitNumbers
        Numbers of fit, step and epoch with which the fit began.
    reader : str
        Kind of the reader of the steps.
    earlier_tags : mapping of str to str
        Tags that the run had before the fit.
    seconds : float
        Time that the fit has taken.
    """

    def __init__(
        self,
        settings: FitSettings,
        recording: FitRecording,
        epochs: FitEpochs,
        problems: FitProblems,
        *,
        first: FitNumbers,
        reader: str,
        earlier_tags: Mapping[str, str],
        seconds: float,
    ) -> None:
        self._settings, self._recording, self._epochs, self._problems = settings, recording, epochs, problems
        self._first, self._reader, self._earlier_tags = first, reader, earlier_tags
        self._is_short = seconds < SHORT_SECONDS and not settings.owns_run
        self._run_id = recording.run_id

    def next_numbers(self, history: TrainingHistory | None) -> FitNumbers:
        """Numbers of fit, step and epoch with which the run's next fit begins.

        Parameters
        ----------
        history : TrainingHistory or None
            History of the fit.

        Returns
        -------
        FitNumbers
            As far as the run's other fits are known.
        """
        n_steps = 0 if history is None else history.n_steps
        n_epochs = max(self._epochs.next, self._first.epoch)
        return FitNumbers(self._first.fit + 1, self._first.step + n_steps, n_epochs).plus(self._recording.shift)

    def send(self, history: TrainingHistory | None, best: BestEpoch | None) -> None:
        """Send everything, and close the recording, in a thread of its own if MLflow has not everything soon.

        Parameters
        ----------
        history : TrainingHistory or None
            History of the fit; None if there is none.
        best : BestEpoch or None
            Best epoch of the fit, if it is known.
        """
        recording = self._recording
        if history is not None:
            size = sum(path.stat().st_size for path in recording.history_folder.iterdir())
            recording.do("the history", self._upload, size)
        recording.hurry()  # while the pictures are drawn
        with contextlib.ExitStack() as until_sent:
            if history is not None and self._settings.report and not self._is_short:
                report = self._problems.attempt("there is no report", lambda: self._report(history))
                if report is not None:
                    until_sent.callback(report.close)
                    recording.do("the report", lambda: report.upload(recording.cadence), REPORT_BYTES)
            if best is not None:
                recording.do("the best epoch", functools.partial(self._log_best, best))
            recording.do("the refused items", recording.upload_refused)
            recording.do("the tags of its end", lambda: self._tag(history))
            sent = self._problems.attempt(self._incomplete, self._flush)
            if sent is False:
                log(
                    f"the record of run {self._run_id} is still being sent to MLflow: this continues next to the "
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

    def _upload(self) -> None:
        runs.upload(self._run_id, self._recording.history_folder, training_path(self._recording.fit))

    def _report(self, history: TrainingHistory) -> TrainingReport:
        from mlflow_hp.training.report import TrainingReport

        return TrainingReport(self._run_id, history, self._recording.history_folder)

    def _log_best(self, best: BestEpoch) -> None:
        shift = self._recording.shift.epoch
        first, last = (int(self._epochs.rows[i]["epoch"]) + shift for i in (0, -1))
        log_best(self._run_id, best._replace(epoch=best.epoch + shift), first, last)

    def _tag(self, history: TrainingHistory | None) -> None:
        if self._recording.batch_size:
            late_params.add(self._run_id, {BATCH_SIZE_PARAM: self._recording.batch_size})
        after = self.next_numbers(history)
        tags: dict[str, str] = {READER_TAG: self._reader, FITS_TAG: str(after.fit)}
        if provenance.is_on():
            tags[DEVICE_TAG] = devices.describe()  # the devices that TensorFlow uses are known only now
        if history is not None:
            tags |= {STEPS_TAG: str(after.step), CADENCE_TAG: self._recording.cadence}
        if self._epochs.restored is not None:
            tags[RESTORED_EPOCH_TAG] = str(self._epochs.restored + self._recording.shift.epoch)
        elif RESTORED_EPOCH_TAG in self._earlier_tags:  # of an earlier fit, whose weights have been trained further
            mlflow.MlflowClient().delete_tag(self._run_id, RESTORED_EPOCH_TAG)
        if self._epochs.rows:
            tags[EPOCHS_TAG] = str(after.epoch)
        if problems := [*self._problems.messages, *self._recording.problems]:
            tags[RECORDING_ERROR_TAG] = "\n".join(problems)
        runs.set_tags(self._run_id, tags | late_params.tag(self._run_id))
        if self._settings.owns_run:
            late_params.log(self._run_id)

    @property
    def _incomplete(self) -> str:
        return f"MLflow lacks a part of the record; {self._recording.recovery_hint}"

    def _flush(self) -> bool:
        started = time.perf_counter()
        recording, n_unsent = self._recording, self._recording.n_unsent
        with tqdm(
            total=n_unsent,
            desc="metrics to MLflow",
            unit=" points",
            unit_scale=True,
            delay=1.0,
            disable=is_silent() or not is_live(),
        ) as bar:
            all_sent = bool(recording.flush(lambda: bar.update(n_unsent - recording.n_unsent - bar.n)))
        seconds = time.perf_counter() - started
        if seconds > 1 and all_sent:
            log(f"writing the last metrics to MLflow took {seconds:.1f} s", name=__name__)
        return all_sent

    def _wait_until_sent(self, history: TrainingHistory | None, until_sent: contextlib.ExitStack) -> None:
        """Wait until everything is sent, in a thread of its own."""

        def wait() -> bool:
            self._recording.wait()
            return True

        with until_sent:
            sent = self._problems.attempt(self._incomplete, wait)
        self._conclude(history, sent=bool(sent))
        self._problems.warn_of_noted()

    def _conclude(self, history: TrainingHistory | None, *, sent: bool) -> None:
        recording = self._recording
        self._problems.note_new(recording.problems)
        is_sent = sent and recording.is_complete
        if self._is_short and is_sent and history is not None:
            end = functools.partial(_close, recording, history)
            short_fits.add(self._run_id, history, end, report=self._settings.report, cadence=recording.cadence)
        else:
            short_fits.replace(self._run_id)
            recording.close(all_sent=is_sent, history=history)


def _close(recording: FitRecording, history: TrainingHistory, all_sent: bool) -> None:
    recording.close(all_sent=all_sent, history=history)
