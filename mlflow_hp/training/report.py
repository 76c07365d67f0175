"""Report of a finished training in its run: pictures, findings, description."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._notice import warn
from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.diagnosis.gradient_products import has_gradients, reason_unknown
from mlflow_hp.analysis.surfaces import landscape_file
from mlflow_hp.errors import UserError
from mlflow_hp.history import weight_snapshots
from mlflow_hp.history.step_record import batch_values, gradient_norms, learning_rates
from mlflow_hp.plots import figure, gradients, training
from mlflow_hp.plots.landscape import draw_landscape, landscape_info
from mlflow_hp.run_page.document import document, training_content
from mlflow_hp.run_page.summary import summary
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.artifact_bundle import ArtifactBundle
from mlflow_hp.tracking.artifact_paths import DIAGNOSIS_FILE, LANDSCAPE_NAME, PLOTS_FOLDER, REPORT_FILE
from mlflow_hp.tracking.names import file_name
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.run_name import run_name
from mlflow_hp.tracking.runs import log_numbers
from mlflow_hp.tracking.tags import DESCRIPTION_TAG, PARENT_TAG
from mlflow_hp.training.settings_text import is_constant, settings_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.analysis.surfaces.plane import Landscape
    from mlflow_hp.history import TrainingHistory


EVERY_STEP = "every step"
"""Cadence of a training of which MLflow has the metrics of all steps."""

PICTURES_OF = {"layers": ("gradient_norms_by_step",), "rate_schedule": ("learning_rate_by_step",)}
"""Name of a finding -> pictures that show it better than the loss."""


class Report(ArtifactBundle):
    """Collects files, pictures and findings, and uploads them to a run together.

    Parameters
    ----------
    run_id : str
        Id of the run.
    about : str
        Settings in words, written below the title of each picture after the name of the run. Defaults to ``""``; then
        `training_pictures` sets it to those of the training.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.analysis import Finding
    >>> from mlflow_hp.training import Report
    >>> with mlflow.start_run() as run:
    ...     report = Report(run.info.run_id)
    ...     report.findings([Finding("speed", "too slow", "The loss still falls.", {"slope": -0.5})])
    ...     report.upload()
    ...     report.close()
    >>> [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)]
    ['diagnosis.json']
    """

    def __init__(self, run_id: str, about: str = "") -> None:
        super().__init__(run_id)
        self.about = about
        self._run_name: str | None = None

    def picture(self, name: str, axes: Axes) -> None:
        """Add a picture as ``plots/<name>.png``; characters that a file name cannot have are replaced.

        A figure that this package made gets a line with the run's name and settings below its title.

        Parameters
        ----------
        name : str
            Name of the picture.
        axes : Axes
            Axes of the figure to keep.
        """
        figure.add_subtitle(axes, self.subtitle())
        figure.save(axes, self.file(f"{PLOTS_FOLDER}/{file_name(name)}.png"))

    def landscape(self, plane: Landscape, run_ids: Mapping[str, str], name: str = LANDSCAPE_NAME) -> None:
        """Add a loss landscape: its picture, and its numbers as JSON, which the page of the run draws as a surface.

        Parameters
        ----------
        plane : Landscape
            From `mlflow_hp.training.landscape`.
        run_ids : mapping of str to str
            Label of a path -> id of its run.
        name : str
            Name of the picture, beginning with "landscape". Defaults to that.
        """
        self.picture(name, draw_landscape(landscape_info(plane)))
        path = f"{PLOTS_FOLDER}/{file_name(name)}.json"
        self.file(path).write_text(landscape_file.to_json(plane, run_ids), encoding="utf-8")

    def subtitle(self) -> str:
        """Name and settings of the run, for the small print of pictures.

        Returns
        -------
        str
            Both, or the settings alone if MLflow does not say the name.
        """
        if self._run_name is None:
            self._run_name = run_name(self.run_id)
        return " · ".join(filter(None, (f"run {self._run_name}" if self._run_name else "", self.about)))

    def findings(self, findings: Sequence[Finding]) -> None:
        """Add findings as ``diagnosis.json``.

        Parameters
        ----------
        findings : sequence of Finding
            Findings, the most important first.
        """
        text = json.dumps(diagnosis.to_json(findings), indent=2, allow_nan=False)
        self.file(DIAGNOSIS_FILE).write_text(text, encoding="utf-8")


def training_pictures(report: Report, history: TrainingHistory) -> None:
    """Add the pictures that a training allows: losses by batch and by epoch, metrics by epoch, learning rate.

    A learning rate that does not change has no picture: the small print of the others says it. Curves by epoch need two
    epochs; the losses by batch have the validation loss of an only one. Of recorded gradients also their norms, if
    there are several tensors, the noise scale, and the sharpness.

    Parameters
    ----------
    report : Report
        Report to add them to.
    history : TrainingHistory
        Recorded training.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.training import Report, training_pictures
    >>> history = TrainingHistory.from_arrays(
    ...     {"step": [0, 1], "batch_loss": [4.0, 2.0], "running_loss": [4.0, 3.0], "learning_rate": [0.1, 0.1]},
    ...     {"epoch": [0], "loss": [3.0]},
    ... )
    >>> with mlflow.start_run() as run:
    ...     report = Report(run.info.run_id)
    ...     training_pictures(report, history)
    ...     report.upload()
    ...     report.close()
    >>> [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id, "plots")]
    ['plots/loss_by_batch.png']
    """
    report.about = report.about or settings_in_words(history)
    if batch_values(history.steps) or "running_loss" in history.steps:
        report.picture("loss_by_batch", training.draw_curves(training.loss_by_batch(history)))
    metrics = [name for name in history.epochs if f"val_{name}" in history.epochs or name == "loss"]
    for metric in metrics if history.n_epochs > 1 or not history.n_steps else []:
        report.picture(f"{metric}_by_epoch", training.draw_curves(training.metric_by_epoch(history, metric)))
    if not all(is_constant(rate) for rate in learning_rates(history.steps).values()):
        report.picture("learning_rate_by_step", training.draw_curves(training.learning_rate_by_step(history)))
    _gradient_pictures(report, history)


def _gradient_pictures(report: Report, history: TrainingHistory) -> None:
    """Add the pictures of what was recorded of the gradients."""
    if len(gradient_norms(history.steps)) > 1:
        norms = gradients.gradient_norms_by_step(history)
        report.picture("gradient_norms_by_step", gradients.draw_gradient_norms(norms))
    curves = {"sharpness_by_step": gradients.sharpness_curve(history)}
    if has_gradients(history) and reason_unknown(history) is None:
        curves["noise_scale_by_step"] = gradients.noise_scale_curve(history)
    for name, info in curves.items():
        if info.curves:
            report.picture(name, training.draw_curves(info))


def _first_picture(report: Report, findings: Sequence[Finding]) -> str | None:
    """Artifact path of the picture that shows the most important finding, of those that were drawn; None for none."""
    first = next((finding for finding in findings if finding.severity != "fine" and finding.name != "next_try"), None)
    names = [*PICTURES_OF.get("" if first is None else first.name, ()), "loss_by_epoch", "loss_by_batch"]
    paths = [f"{PLOTS_FOLDER}/{name}.png" for name in names]
    return next((path for path in paths if report.file(path).is_file()), None)


class TrainingReport:
    """Pictures, ``diagnosis.json``, finding metrics, description, ``report.html``; uploaded by `upload`.

    A nested run has no ``report.html``, which has 2 MB: it may be one of hundreds.

    Parameters
    ----------
    run_id : str
        The run.
    history : TrainingHistory
        History of the training.
    folder : Path, optional
        Folder of the history, where snapshots of the weights may be. Defaults to None: there are none.
    """

    def __init__(self, run_id: str, history: TrainingHistory, folder: Path | None = None) -> None:
        self._report = Report(run_id)
        try:
            findings = diagnosis.diagnose(history)
            self._findings = findings
            self._numbers = diagnosis.to_metrics(findings)
            result = f"{diagnosis.result_in_words(history)}, by {_optimizer(history)}"
            ended_by = history.meta.get("ended_by")
            end = f"\n\nThe fit was ended by `stop_on`: {plain(ended_by)}" if ended_by else ""
            self._description = f"{result}{end}\n\n{diagnosis.findings_in_words(findings)}\n"
            self._report.findings(findings)
            training_pictures(self._report, history)
            if (path := _first_picture(self._report, findings)) is not None:
                self._description += f"\nThe picture to look at first: `{path}`\n"
            self._shown = _content(run_id, history, folder)
        except BaseException:
            self.close()
            raise

    def upload(self, cadence: str = EVERY_STEP) -> None:
        """Log the report; an existing description is kept.

        Parameters
        ----------
        cadence : str
            The steps whose metrics MLflow has, in words. Defaults to every step.
        """
        run_id = self._report.run_id
        log_numbers(run_id, self._numbers)
        run = mlflow.MlflowClient().get_run(run_id)
        if DESCRIPTION_TAG not in run.data.tags:
            note = "" if cadence == EVERY_STEP else f"\nMLflow has metrics of {cadence}; the history has every step.\n"
            runs.set_description(run_id, self._description + note)
            run.data.tags[DESCRIPTION_TAG] = self._description
        if PARENT_TAG not in run.data.tags and self._shown is not None:
            content = document(summary(run, self._findings), self._shown)
            self._report.file(REPORT_FILE).write_text(content, encoding="utf-8")
        self._report.upload()

    def close(self) -> None:
        """Remove the local files."""
        self._report.close()


def _content(run_id: str, history: TrainingHistory, folder: Path | None) -> dict[str, Any] | None:
    """Compute what ``report.html`` shows, before MLflow is called; None if that fails: the rest is uploaded."""
    try:
        snapshots = None if folder is None else weight_snapshots.load(folder / weight_snapshots.FILE)
    except (UserError, OSError):
        snapshots = None
    try:
        return training_content(run_id, history, snapshots)
    except Exception as error:  # noqa: BLE001
        warn(f"run {run_id} has no {REPORT_FILE}: {type(error).__name__}: {error}")
        return None


def _optimizer(history: TrainingHistory) -> str:
    """Describe the optimizers of a training and their learning rates."""
    several = history.meta.get("optimizers", {})
    if several:
        return " and ".join(f"{name} ({_settings(each)})" for name, each in several.items())
    return _settings(history.meta.get("optimizer", {}))


def _settings(optimizer: Mapping[str, Any]) -> str:
    return f"{optimizer.get('name', 'training')}, learning rate {optimizer.get('learning_rate', 'unknown')}"
