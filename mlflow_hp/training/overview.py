"""Overview of several trainings as one file in the run of their parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.run_page.illustrated import ReportPart, illustrated
from mlflow_hp.tracking.artifact_paths import REPORT_FILE
from mlflow_hp.tracking.run_name import run_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlflow_hp.training.report import Report


def add_overview(
    report: Report,
    subtitle: str,
    parts: Sequence[tuple[str, Sequence[str], Sequence[str], Sequence[Sequence[str]]]],
    pictures: Mapping[str, Path],
) -> None:
    """Add ``report.html``: sentences, tables and pictures as one HTML file that needs no server, of 3 MB at most.

    Parameters
    ----------
    report : Report
        Report of the run that the overview is for; the name of the run is its title.
    subtitle : str
        Small print next to the title.
    parts : sequence of (str, sequence of str, sequence of str, sequence of sequence of str)
        Heading (empty for none), sentences, headings of the columns, and rows of each part, the result first. Marks of
        Markdown's bold and code are left out.
    pictures : mapping of str to Path
        PNG files by caption, the most important first; those that do not fit are left out, which is said.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.training import Report, add_overview
    >>> with mlflow.start_run(run_name="two rates") as run, Report(run.info.run_id) as report:
    ...     rows = [["0.1", "0.5"], ["0.2", "0.4"]]
    ...     add_overview(report, "a sweep", [("", ["**0.2** won."], ["learning_rate", "loss"], rows)], {})
    >>> [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)]
    ['report.html']
    """
    title = run_name(report.run_id) or report.run_id
    shown = [ReportPart(*part, is_result=index == 0) for index, part in enumerate(parts)]
    content = illustrated(title, subtitle, shown, pictures)
    report.file(REPORT_FILE).write_text(content, encoding="utf-8")
