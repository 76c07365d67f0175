"""What a run shows of a training when it has ended: pictures, findings, description."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import mlflow

from mlflow_hp.analysis import diagnosis
from mlflow_hp.plots import figure, training
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.artifact_bundle import ArtifactBundle
from mlflow_hp.tracking.names import file_name
from mlflow_hp.tracking.params_and_tags import DESCRIPTION
from mlflow_hp.tracking.runs import log_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.history import TrainingHistory


class Report(ArtifactBundle):
    """Gathers files, pictures and findings, and brings them to a run all at once."""

    def picture(self, name: str, axes: Axes) -> None:
        """Keep a picture as ``plots/<name>.png``; what is no file's name in `name` is replaced."""
        figure.save(axes, self.file(f"plots/{file_name(name)}.png"))

    def findings(self, findings: Sequence[Finding]) -> None:
        """Keep findings as ``diagnosis.json``."""
        text = json.dumps(diagnosis.to_json(findings), indent=2, allow_nan=False)
        self.file("diagnosis.json").write_text(text, encoding="utf-8")


def training_pictures(report: Report, history: TrainingHistory) -> None:
    """The pictures that any training allows: losses by batch and by epoch, metrics by epoch, learning rate."""
    report.picture("loss_by_batch", training.draw_curves(training.loss_by_batch(history)))
    metrics = [name for name in history.epochs if f"val_{name}" in history.epochs or name == "loss"]
    for metric in metrics:
        report.picture(f"{metric}_by_epoch", training.draw_curves(training.metric_by_epoch(history, metric)))
    report.picture("learning_rate_by_step", training.draw_curves(training.learning_rate_by_step(history)))


class TrainingReport:
    """Pictures, ``diagnosis.json``, finding metrics and a description: made at once, and brought to a run later.

    Parameters
    ----------
    run_id : str
        The run.
    history : TrainingHistory
        Of which training.
    """

    def __init__(self, run_id: str, history: TrainingHistory) -> None:
        self._report = Report(run_id)
        try:
            findings = diagnosis.diagnose(history)
            self._numbers = diagnosis.to_metrics(findings)
            told = diagnosis.to_markdown(findings) or "- nothing out of the ordinary"
            self._description = f"**{history.n_steps} steps of {_optimizer(history)}**\n\n{told}\n"
            self._report.findings(findings)
            training_pictures(self._report, history)
        except BaseException:
            self.close()
            raise

    def bring(self) -> None:
        """Log it; a run that has a description keeps that."""
        run_id = self._report.run_id
        log_numbers(run_id, self._numbers)
        if DESCRIPTION not in mlflow.MlflowClient().get_run(run_id).data.tags:
            runs.set_description(run_id, self._description)
        self._report.bring()

    def close(self) -> None:
        """Remove its files from this machine."""
        self._report.close()


def _optimizer(history: TrainingHistory) -> str:
    settings = history.meta.get("optimizer", {})
    return f"{settings.get('name', 'training')}, learning rate {settings.get('learning_rate', 'unknown')}"
