"""Findings of a training as they become true, while it runs: each is reported once, and may end the fit."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import numpy as np

from mlflow_hp._notice import warn
from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.diagnosis.batch_losses import WINDOW, BatchLosses
from mlflow_hp.analysis.diagnosis.curve import SMALLER, change_rate
from mlflow_hp.analysis.diagnosis.program import diagnose_program
from mlflow_hp.errors import TrainingWarning
from mlflow_hp.history import TrainingHistory
from mlflow_hp.tracking.artifact_paths import DIAGNOSIS_FILE
from mlflow_hp.tracking.server_health import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.history.program import Program

VERDICTS = (
    "diverges", "not finite", "oscillates", "overfits", "stopped learning", "learns nothing", "at chance",
    "will not learn", "brings nothing more",
)  # fmt: skip
"""Verdicts that `stop_on` accepts: those that can become true while a training runs."""
CERTAIN = ("not_finite", "unbounded_loss", "forecast")
"""Findings at the end of an epoch that one look is enough for. Others have to be true at two in a row: the noise of one
epoch makes and unmakes them, and what it makes of the program as their cause."""
SHARE = 0.005
"""Share of the time of the training that the rules at the ends of epochs may take."""
FIRST_STEPS, LAST_STEPS = 64, 512
"""Number of steps whose columns are kept for the rules: of the first at most, of the last at least."""
GRADIENT = "gradient_norm"
"""Beginning of the names of columns that are not finite if a gradient is not."""


class LiveSettings(NamedTuple):
    """Settings of `LiveFindings`.

    Attributes
    ----------
    on_finding : callable or None
        Called with each `Finding`, in the training's thread. Defaults to None.
    stop_on : tuple of str
        Verdicts that end the fit. Defaults to none.
    """

    on_finding: Callable[[Finding], object] | None = None
    stop_on: tuple[str, ...] = ()


class LiveFindings:
    """Decides which findings of one fit have become true, and reports each once.

    Parameters
    ----------
    model : keras.Model
        The model that is fitted; its ``stop_training`` becomes True to end the fit.
    settings : LiveSettings
        What to do with findings.
    meta : mapping
        Metadata of the training, as in its history: ``params``, ``optimizer``, ``first_epoch``; read when needed.
    publish : callable
        Called with all findings so far, the latest last, and the reason for the end of the fit, or None. It must not
        wait for MLflow.
    first_step : int
        Number of the fit's first step in its run (0-based). Defaults to 0.

    Attributes
    ----------
    findings : list of Finding
        Those reported so far.
    ended_by : str or None
        Sentence with the finding that has ended the fit.
    """

    def __init__(
        self,
        model: Any,
        settings: LiveSettings,
        *,
        meta: Mapping[str, Any],
        publish: Callable[[list[Finding], str | None], None],
        first_step: int = 0,
    ) -> None:
        self.findings: list[Finding] = []
        self.ended_by: str | None = None
        self._program: Program | None = None
        self._model, self._settings, self._meta, self._publish = model, settings, meta, publish
        self._losses: BatchLosses | None = BatchLosses()
        self._names: list[str] = []
        self._watched: list[int] = []
        self._loss = 0
        self._first: list[np.ndarray] = []
        self._last: deque[np.ndarray] = deque()
        self._first_step, self._n_steps = first_step, 0
        self._epochs: list[Mapping[str, float]] = []
        self._before: set[tuple[str, str]] = set()
        self._epoch = 0
        self._started, self._spent, self._longest = time.perf_counter(), 0.0, 0.0
        self._is_watching = True

    def note_program(self, program: Program) -> None:
        """Ask the rules on the program, as far as it is known: before the first step, and after the first epoch.

        Parameters
        ----------
        program : Program
            Description of the program.
        """
        self._program = program
        self._safely(lambda: self._report_new(diagnose_program(program), certain=True))

    def begin_epoch(self, epoch: int) -> None:
        """The next step belongs to `epoch` (0-based, in the run)."""
        self._epoch = epoch

    def glance(self, names: Sequence[str], table: np.ndarray) -> None:
        """Look at the columns of new steps.

        Parameters
        ----------
        names : sequence of str
            Names of the first n columns.
        table : ndarray of shape (k, >= n)
            Values of k consecutive steps; each step is passed once.
        """
        self._safely(lambda: self._look_at(names, table))

    def end_epoch(self, row: Mapping[str, float], n_left: int | None) -> None:
        """Ask the rules at the end of an epoch, as far as there is time.

        Parameters
        ----------
        row : mapping of str to float
            Values of the epoch.
        n_left : int or None
            Number of planned epochs after it; None if unknown.
        """
        self._epochs.append(row)
        now = time.perf_counter()
        if self._spent + self._longest > SHARE * (now - self._started):
            return
        self._safely(lambda: self._diagnose(n_left))
        seconds = time.perf_counter() - now
        self._spent += seconds
        self._longest = max(self._longest, seconds)

    def _safely(self, look: Callable[[], None]) -> None:
        if not self._is_watching:
            return
        try:
            with np.errstate(all="ignore"):
                look()
        except Exception as error:  # noqa: BLE001 - the training goes on
            self._is_watching = False
            warn(f"findings are reported only at the end of the training: {reason(error)}")

    def _look_at(self, names: Sequence[str], table: np.ndarray) -> None:
        first = self._n_steps
        self._n_steps += len(table)
        if len(names) != len(self._names):
            self._note_columns(names)
        self._keep(table[:, : len(names)])
        if self._watched and not np.isfinite(table[:, self._watched]).all():
            place, self._watched = next(j for j in self._watched if not np.isfinite(table[:, j]).all()), []
            self._losses = None
            self._report([self._not_finite(names[place], table[:, place], first)])
        elif self._losses is not None and self._losses.add(table[:, self._loss].tolist()):
            losses, self._losses = self._losses, None
            self._report([self._divergence(losses, first + len(table) - 1)])

    def _note_columns(self, names: Sequence[str]) -> None:
        """Note which columns have to be finite, and which is the loss that falls: none of several optimizers."""
        self._names, self._first, self._last = list(names), [], deque()
        is_scaled = getattr(getattr(self._model, "optimizer", None), "inner_optimizer", None) is not None
        watched = ("batch_",) if is_scaled else ("batch_", GRADIENT)  # a scaled loss may overflow, and is repeated
        self._watched = [place for place, name in enumerate(names) if name.startswith(watched)]
        if "batch_loss" in names and "learning_rate" in names:
            self._loss = self._names.index("batch_loss")
        else:
            self._losses = None

    def _not_finite(self, name: str, values: np.ndarray, first: int) -> Finding:
        subject = "gradient" if name.startswith(GRADIENT) else name.removeprefix("batch_")
        place = int(np.argmax(~np.isfinite(values)))
        step, kind = self._first_step + first + place, "NaN" if np.isnan(values[place]) else "infinite"
        text = f"The {subject} is {kind} at step {step}, in epoch {self._epoch + 1}."
        evidence: dict[str, Any] = {"first_step_not_finite": step}
        losses = self._history().steps.get("batch_loss", np.zeros(0))
        losses = losses[np.isfinite(losses)]
        if len(losses) > 1 and losses[-1] > 100 * losses[0]:
            text += " The loss had grown before."
            suggestion, numbers, change = change_rate(self._history(), SMALLER**2)
            verdict, cause, evidence = "diverges", "the learning rate is too large", evidence | numbers
        else:
            suggestion, change = "check the data for NaN and very large values, or try a smaller learning rate", ()
            verdict, cause = "not finite", None
        return diagnosis.Finding(
            "not_finite", verdict, text, evidence, suggestion, severity="problem", cause=cause,
            where={"step": step, "epoch": self._epoch}, change=change,
        )  # fmt: skip

    def _divergence(self, losses: BatchLosses, last: int) -> Finding:
        step, growth = self._first_step + last, losses.level / losses.start
        text = (
            f"The training diverges in epoch {self._epoch + 1}: the median loss of {WINDOW} batches is "
            f"{losses.level:.3g} at step {step}, {growth:.3g} times that of the first batches."
        )
        suggestion, evidence, change = change_rate(self._history(), SMALLER)
        return diagnosis.Finding(
            "divergence", "diverges", text, {"loss_growth": growth, **evidence}, suggestion, severity="problem",
            where={"step": step, "epoch": self._epoch}, change=change,
        )  # fmt: skip

    def _keep(self, table: np.ndarray) -> None:
        """Keep the first steps and the last."""
        if self._n_steps <= FIRST_STEPS:
            self._first.append(table)
            return
        self._last.append(table)
        while sum(map(len, self._last)) - len(self._last[0]) >= LAST_STEPS:
            self._last.popleft()

    def _history(self) -> TrainingHistory:
        """The training so far: its epochs, and the columns of its first and last steps."""
        first, last = (np.concatenate([np.zeros((0, len(self._names))), *parts]) for parts in (self._first, self._last))
        steps = np.concatenate([np.arange(len(first)), np.arange(self._n_steps - len(last), self._n_steps)])
        columns = dict(zip(self._names, np.concatenate([first, last]).T, strict=True))
        names = dict.fromkeys(name for row in self._epochs for name in row)
        epochs = {name: np.array([row.get(name, np.nan) for row in self._epochs]) for name in names}
        if "epoch" in epochs:
            epochs["epoch"] = epochs["epoch"].astype(int)
        table = {"step": self._first_step + steps, **columns}
        return TrainingHistory.from_arrays(table, epochs, meta=self._meta, program=self._program)

    def _diagnose(self, n_left: int | None) -> None:
        history = self._history()
        true = diagnosis.diagnose(history, so_far=True)
        if n_left is not None:
            ahead = diagnosis.prospects(history, history.n_epochs + n_left)
            true += [] if ahead is None else [ahead]
        self._report_new(true, certain=False)
        self._before = {(finding.name, finding.verdict) for finding in true}

    def _report_new(self, true: Sequence[Finding], *, certain: bool) -> None:
        """Report those that were not reported, unless their epoch alone may have made them."""
        reported = {finding.name for finding in self.findings}
        new = [
            finding
            for finding in true
            if finding.severity != "fine"
            and finding.name not in reported
            and (certain or finding.name in CERTAIN or (finding.name, finding.verdict) in self._before)
        ]
        if new:
            self._report(new)

    def _report(self, new: list[Finding]) -> None:
        """Warn, publish, call the user's function, and end the fit if a finding is to end it."""
        self.findings += new
        ending = next((finding for finding in new if finding.verdict in self._settings.stop_on), None)
        if ending is not None and self.ended_by is None:
            self.ended_by = f"{ending.verdict}: {ending.text}"
            self._model.stop_training = True
        for finding in new:
            if finding.severity == "problem" or finding is ending:
                advice = f" Next: {finding.suggestion}." if finding.suggestion else ""
                end = " The fit ends here, as stop_on has it." if finding is ending else ""
                warn(f"{finding.verdict}: {finding.text}{advice}{end}", category=TrainingWarning)
        self._publish(list(self.findings), self.ended_by)
        if self._settings.on_finding is not None:
            for finding in new:
                self._call(self._settings.on_finding, finding)

    def _call(self, on_finding: Callable[[Finding], object], finding: Finding) -> None:
        try:
            on_finding(finding)
        except Exception as error:  # noqa: BLE001 - the training goes on
            warn(f"on_finding failed at {finding.verdict!r}: {type(error).__name__}: {reason(error)}")


def upload_findings(run_id: str, findings: list[Finding]) -> None:
    """Upload findings to a run as ``diagnosis.json``, which the report replaces at the end of the fit."""
    text = json.dumps(diagnosis.to_json(findings), indent=2, allow_nan=False)
    mlflow.MlflowClient().log_text(run_id, text, DIAGNOSIS_FILE)


def live_settings(recorder: Any) -> LiveSettings | None:
    """Settings of a recorder; None if it reports nothing."""
    if not (recorder.report or recorder.on_finding or recorder.stop_on):
        return None
    return LiveSettings(recorder.on_finding, tuple(recorder.stop_on))
