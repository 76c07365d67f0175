"""A comparison as a run: asked, read, written as one HTML file, described in words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.compare.formatting import count
from mlflow_hp.compare.html_report import Head, page
from mlflow_hp.compare.parts import sections
from mlflow_hp.compare.run_summary import gather
from mlflow_hp.compare.source import open_source
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import provenance, runs
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.comparability import Goal
    from mlflow_hp.compare.section import Section
    from mlflow_hp.compare.source import Source

REPORT = "comparison.html"
"""The artifact."""


class Comparison(NamedTuple):
    """What a comparison gave.

    Attributes
    ----------
    run_id : str
        The run that holds the report.
    sections : list of Section
        What it says.
    n_runs : int
        How many runs were looked at.
    """

    run_id: str
    sections: list[Section]
    n_runs: int

    @property
    def told(self) -> list[str]:
        """What was found, in sentences."""
        told = list(self.sections[0].words)
        for section in self.sections[1:]:
            if section.level == 2:
                told.append(f"{section.title}:")
            elif section.key.split("-")[0] in ("scores", "leaderboard", "importance", "differences"):
                told += section.words[:2]
        return told


def compare_runs(
    run_ids: Sequence[str] = (),
    *,
    experiments: Sequence[str] = (),
    filter_string: str = "",
    metric: str | None = None,
    goal: Goal | None = None,
    by: str | None = None,
    output: Path | str | None = None,
    into: str | None = None,
    command: str | None = None,
) -> Comparison:
    """Compare runs of any colleagues, and record what was found: a report, and in words.

    The report is one HTML file, the artifact ``comparison.html`` of a run of kind ``comparison`` in the experiment of
    the first run compared.

    Parameters
    ----------
    run_ids : sequence of str
        Runs to compare, each with those nested in it.
    experiments : sequence of str
        Names of experiments, of which all runs are compared that `filter_string` lets through.
    filter_string : str
        In the language of MLflow's search, as ``"metrics.val_loss < 0.1"``.
    metric : str, optional
        By what to judge; by default what each kind of run is usually judged by.
    goal : {"min", "max"}, optional
        Which values of it are better; by default told from its name.
    by : str, optional
        ``"author"``, ``"kind"``, ``"experiment"``, or the name of a param or tag: what colours tell apart, and whose
        leaderboard is made.
    output : path, optional
        A file to write the report to, besides.
    into : str, optional
        The run to record into, which the caller ends; by default a new one.
    command : str, optional
        What repeats the comparison; by default the command line of this process.

    Returns
    -------
    Comparison

    Raises
    ------
    UserError
        Where the store doesn't answer, a run or experiment is not there, the filter or the metric is none, there is
        nothing to compare, or the report can't be written.
    """
    if not run_ids and not experiments:
        raise UserError("nothing to compare: name runs by their ids, or experiments with --experiment")
    if filter_string and not experiments:
        raise UserError("a filter chooses among the runs of experiments: name them with --experiment")
    runs.ensure_reachable()
    client = mlflow.MlflowClient()
    source = open_source(client)
    facts = gather(source, run_ids, [_id_of(name, source, client) for name in experiments], filter_string)
    facts = [run for run in facts if run.run_id != into]
    if not facts:
        raise UserError("nothing to compare: no run was found; look at the experiment and the filter")
    found = sections(facts, source, metric=metric, goal=goal, by=by)
    asked = {"runs": ",".join(run_ids), "experiments": ",".join(experiments), "filter": filter_string}
    asked |= {"metric": metric or "", "goal": goal or "", "by": by or ""}
    given = {name: value for name, value in asked.items() if value}
    tags = runs.run_tags("comparison")
    command = command or provenance.command()
    report = page(_head(len(facts), given), found)
    if output is not None:
        _write(Path(output), report)
    experiment_id = next((run.experiment_id for run in facts if run.run_id in run_ids), facts[0].experiment_id)
    comparison = Comparison(into or "", found, len(facts))
    if into is not None:
        _record(client, comparison, given, tags, report, command)
        return comparison
    named = f"comparison of {count(len(facts), 'run')}"
    made = client.create_run(experiment_id, tags={"mlflow.user": provenance.login()}, run_name=named)
    comparison = comparison._replace(run_id=made.info.run_id)
    status = "FAILED"
    try:
        _record(client, comparison, given, tags, report, command)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(made.info.run_id, status)
    return comparison


def _record(
    client: mlflow.MlflowClient,
    found: Comparison,
    given: dict[str, str],
    tags: dict[str, str],
    report: str,
    command: str,
) -> None:
    """Words first, then what needs the artifact store."""
    run_id = found.run_id
    runs.log_once(client.get_run(run_id), given, tags)
    groups = [section for section in found.sections if section.key.startswith("group-")]
    runs.log_numbers(run_id, {"runs": found.n_runs, "groups": len(groups)})
    told = "\n".join(f"- {plain(words)}" for words in found.told)
    runs.set_description(
        run_id,
        f"**What differs, and is it real?**\n\n{told}\n\nThe report is `{REPORT}`.\n\n**To repeat it**: `{command}`\n",
    )
    try:
        client.log_text(run_id, report, REPORT)
    except (OSError, MlflowException) as error:
        raise UserError(
            f"the report can't be written to the artifact store ({type(error).__name__}: {error}); "
            "--output FILE writes it to a file of this machine, too"
        ) from error


def _id_of(name: str, source: Source, client: mlflow.MlflowClient) -> str:
    found = source.experiment_named(name)
    if found is None:
        there = ", ".join(sorted(repr(other.name) for other in client.search_experiments(max_results=20)))
        raise UserError(f"there is no experiment {name!r}: the store has {there}")
    return str(found.experiment_id)


def _head(n_runs: int, given: dict[str, str]) -> Head:
    uri = mlflow.get_tracking_uri()
    asked = ", ".join(f"{name} {value}" for name, value in given.items())
    when = time.strftime("%d %B %Y, %H:%M %Z")
    lines = [f"Made on {when} from {masked(uri)}.", masked(f"Asked for: {asked}.")]
    server = masked(uri).rstrip("/") if uri.startswith(("http://", "https://")) else ""
    return Head(f"Comparison of {count(n_runs, 'run')}", [line[:2000] for line in lines], server)


def _write(file: Path, report: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--output {str(file)!r} can't be written ({error}): name a file in a folder of yours"
        ) from error
