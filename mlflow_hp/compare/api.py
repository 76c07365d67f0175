"""`compare_runs`: compare runs, and record the report as a run of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.compare.compared_runs import gather
from mlflow_hp.compare.formatting import count
from mlflow_hp.compare.html_report import Head, page
from mlflow_hp.compare.parts import sections
from mlflow_hp.compare.source import open_source
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import printable
from mlflow_hp.tracking import provenance, runs
from mlflow_hp.tracking.artifact_paths import COMPARISON_FILE
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import USER_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.comparability import Goal
    from mlflow_hp.compare.judging import Judge
    from mlflow_hp.compare.section import Section
    from mlflow_hp.compare.source import RunSource


class Comparison(NamedTuple):
    """Result of a comparison.

    Attributes
    ----------
    run_id : str
        Run that holds the report.
    sections : list of Section
        Contents of the report.
    n_runs : int
        Number of runs read.
    """

    run_id: str
    sections: list[Section]
    n_runs: int

    @property
    def summary(self) -> list[str]:
        """Main results, in sentences."""
        lines = list(self.sections[0].words)
        for section in self.sections[1:]:
            if section.level == 2:
                lines.append(f"{section.title}:")
            elif section.key.split("-")[0] in ("scores", "leaderboard", "importance", "next", "differences"):
                lines += section.words[:2]
        return lines

    def __str__(self) -> str:
        return "\n".join([*map(printable, self.summary), f"Report: artifact {COMPARISON_FILE} of run {self.run_id}"])

    def __repr__(self) -> str:
        return f"Comparison of {count(self.n_runs, 'run')}, run {self.run_id}:\n{self}"


def compare_runs(
    run_ids: Sequence[str] = (),
    *,
    experiments: Sequence[str] = (),
    filter_string: str = "",
    metric: str | None = None,
    goal: Goal | None = None,
    by: str | None = None,
    judge: Judge = "auto",
    output: Path | str | None = None,
    into: str | None = None,
    command: str | None = None,
) -> Comparison:
    """Compare runs of any authors, and record a report and a summary as a run.

    The report is one HTML file, the artifact ``comparison.html`` of a run of kind ``comparison`` in the experiment of
    the first run compared.

    Parameters
    ----------
    run_ids : sequence of str
        Runs to compare, each with its nested runs. Defaults to none.
    experiments : sequence of str
        Names of experiments whose runs are compared, as far as they match `filter_string`. Defaults to none.
    filter_string : str
        Filter of MLflow's search, such as ``"metrics.val_loss < 0.1"``. Defaults to no filter.
    metric : str, optional
        Metric to rank runs by. Defaults to the usual one of each kind of run.
    goal : {"min", "max"}, optional
        Whether lower or higher values of the metric are better. Defaults to a guess from its name.
    by : str, optional
        ``"author"``, ``"kind"``, ``"experiment"``, or the name of a param or tag, by which runs are coloured and the
        leaderboard is grouped. Defaults to a colour per run, and a leaderboard by author.
    judge : {"auto", "best", "last"}
        Whether runs are judged by their best epoch or by their last; "auto" by that of the model that each has kept,
        and by the last if that is not known. Defaults to ``"auto"``.
    output : path, optional
        File to which the report is written as well. Defaults to none.
    into : str, optional
        Id of the run to record into, which the caller ends. Defaults to a new run.
    command : str, optional
        Command that repeats the comparison. Defaults to the command line of this process.

    Returns
    -------
    Comparison
        What was found, and the run that holds the report.

    Raises
    ------
    UserError
        If the store does not answer, a run or experiment does not exist, the filter, metric or judge is invalid, there
        is nothing to compare, or the report cannot be written.

    Examples
    --------
    >>> import mlflow, mlflow_hp
    >>> for loss in (0.2, 0.1):
    ...     with mlflow.start_run(tags={"mlflow_hp.data_digest": "d", "mlflow_hp.split_digest": "s"}) as run:
    ...         mlflow.log_metric("val_loss", loss)
    >>> first, second = mlflow.search_runs(max_results=2)["run_id"]
    >>> comparison = mlflow_hp.compare_runs([first, second], metric="val_loss", output="report.html")
    >>> comparison.n_runs
    2
    """
    if filter_string and not experiments:
        raise UserError("a filter selects among the runs of experiments: give an experiment, too")
    if not run_ids and not experiments:
        raise UserError("nothing to compare: name runs by their ids, or give an experiment")
    runs.ensure_reachable()
    client = mlflow.MlflowClient()
    source = open_source(client)
    facts = gather(source, run_ids, [_id_of(name, source, client) for name in experiments], filter_string)
    facts = [run for run in facts if run.run_id != into]
    if not facts:
        raise UserError("nothing to compare: no runs match; check the experiment and the filter")
    content = sections(facts, source, metric=metric, goal=goal, by=by, judge=judge)
    arguments = {"runs": ",".join(run_ids), "experiments": ",".join(experiments), "filter": filter_string}
    arguments |= {"metric": metric or "", "goal": goal or "", "by": by or "", "judge": "" if judge == "auto" else judge}
    params = {name: value for name, value in arguments.items() if value}
    tags = runs.run_tags("comparison")
    command = command or provenance.command()
    report = page(_head(len(facts), params), content)
    if output is not None:
        _write(Path(output), report)
    experiment_id = next((run.experiment_id for run in facts if run.run_id in run_ids), facts[0].experiment_id)
    comparison = Comparison(into or "", content, len(facts))
    if into is not None:
        _record(client, comparison, params, tags, report, command)
        return comparison
    name = f"comparison of {count(len(facts), 'run')}"
    run = client.create_run(experiment_id, tags={USER_TAG: provenance.login()}, run_name=name)
    comparison = comparison._replace(run_id=run.info.run_id)
    status = "FAILED"
    try:
        _record(client, comparison, params, tags, report, command)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run.info.run_id, status)
    return comparison


def _record(
    client: mlflow.MlflowClient,
    comparison: Comparison,
    params: dict[str, str],
    tags: dict[str, str],
    report: str,
    command: str,
) -> None:
    """Record the summary first, then the report, since the artifact store may fail."""
    run_id = comparison.run_id
    groups = [section for section in comparison.sections if section.key.startswith("group-")]
    counts = {"n_runs": str(comparison.n_runs), "n_groups": str(len(groups))}
    runs.log_once(client.get_run(run_id), params | counts, tags)
    lines = "\n".join(f"- {plain(line)}" for line in comparison.summary)
    runs.set_description(
        run_id,
        f"{lines}\n\n**What differs, and is it real?** The report is `{COMPARISON_FILE}`.\n\n"
        f"**To repeat it**: `{command}`\n",
    )
    try:
        client.log_text(run_id, report, COMPARISON_FILE)
    except (OSError, MlflowException) as error:
        raise UserError(
            f"the report cannot be written to the artifact store ({type(error).__name__}: {error}); "
            "--output FILE writes it to a local file as well"
        ) from error


def _id_of(name: str, source: RunSource, client: mlflow.MlflowClient) -> str:
    experiment = source.experiment_named(name)
    if experiment is None:
        names = ", ".join(sorted(repr(other.name) for other in client.search_experiments(max_results=20)))
        raise UserError(f"there is no experiment {name!r}: the store has {names}")
    return str(experiment.experiment_id)


def _head(n_runs: int, params: dict[str, str]) -> Head:
    tracking_uri = mlflow.get_tracking_uri()
    arguments = ", ".join(f"{name} {value}" for name, value in params.items())
    when = time.strftime("%d %B %Y, %H:%M %Z")
    lines = [f"Created on {when} from {masked(tracking_uri)}.", masked(f"Compared: {arguments}.")]
    server = masked(tracking_uri).rstrip("/") if tracking_uri.startswith(("http://", "https://")) else ""
    return Head(f"Comparison of {count(n_runs, 'run')}", [line[:2000] for line in lines], server)


def _write(file: Path, report: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--output {str(file)!r} cannot be written ({error}): name a file in a folder that you may write to"
        ) from error
