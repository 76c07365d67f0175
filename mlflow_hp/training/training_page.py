"""Page of a training as one file, for a program that makes the report of its trainings itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow

from mlflow_hp._notice import warn
from mlflow_hp.analysis.surfaces.landscape_file import from_json
from mlflow_hp.run_page.document import document, training_content
from mlflow_hp.run_page.summary import summary
from mlflow_hp.tracking.artifact_paths import LANDSCAPE_NAME, PLOTS_FOLDER, REPORT_FILE
from mlflow_hp.tracking.tags import PARENT_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.history import Snapshots, TrainingHistory
    from mlflow_hp.training.report import Report


def add_training_page(
    report: Report, history: TrainingHistory, findings: Sequence[Finding], snapshots: Snapshots | None = None
) -> None:
    """Add ``report.html``: answer, descent and all steps of a training as one HTML file that needs no server.

    The descent is on the loss landscape, if the report has one. A nested run gets no page, as that has 2 MB and the run
    may be one of hundreds. Where the page cannot be made, that is a warning.

    Parameters
    ----------
    report : Report
        Report of the run, whose description is set by now.
    history : TrainingHistory
        Recorded training.
    findings : sequence of Finding
        Findings, the most important first.
    snapshots : Snapshots, optional
        Weights that it has kept. Defaults to None.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.training import Report, add_training_page
    >>> history = TrainingHistory.from_arrays({"step": [0, 1], "batch_loss": [4.0, 2.0]})
    >>> with mlflow.start_run() as run, Report(run.info.run_id) as report:
    ...     add_training_page(report, history, [])
    >>> [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)]
    ['report.html']
    """
    try:
        run = mlflow.MlflowClient().get_run(report.run_id)
        if PARENT_TAG in run.data.tags:
            return
        landscape = from_json(report.text(f"{PLOTS_FOLDER}/{LANDSCAPE_NAME}.json"))
        shown = training_content(report.run_id, history, snapshots, landscape)
        report.file(REPORT_FILE).write_text(document(summary(run, findings), shown), encoding="utf-8")
    except Exception as error:  # noqa: BLE001 - the rest of the report is worth more
        warn(f"run {report.run_id} has no {REPORT_FILE}: {type(error).__name__}: {error}")
