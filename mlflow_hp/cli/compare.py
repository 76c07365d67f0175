"""The command ``mlflow-hp compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlflow_hp.cli.command import Command
from mlflow_hp.tracking.artifact_paths import COMPARISON_FILE

if TYPE_CHECKING:
    from mlflow_hp.compare.comparability import Goal
    from mlflow_hp.compare.judging import Judge


@click.command(cls=Command)
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="Experiment whose runs are compared; may be given several times.",
)
@click.option(
    "--filter",
    "filter_string",
    default="",
    metavar="TEXT",
    help="Which runs of the experiments, in MLflow's search syntax.",
)
@click.option(
    "--by",
    metavar="NAME",
    help="Group runs by author, param or tag: a colour and a row of the leaderboard each. Default: no groups.",
)
@click.option(
    "--metric", metavar="NAME", help="Metric that ranks the runs. Default: the usual one for each kind of run."
)
@click.option(
    "--goal",
    type=click.Choice(["min", "max"]),
    help="Which values of the metric are better. Default: derived from its name.",
)
@click.option(
    "--judge",
    type=click.Choice(["auto", "best", "last"]),
    default="auto",
    help="Epoch by which each run is judged: its best or its last. Default, auto: that of the model that it has kept.",
)
@click.option("--output", metavar="FILE", help="File to write the report to, besides the run's artifact.")
def compare(
    run_ids: tuple[str, ...],
    experiments: tuple[str, ...],
    filter_string: str,
    by: str | None,
    metric: str | None,
    goal: Goal | None,
    judge: Judge,
    output: str | None,
) -> int:  # fmt: skip
    """Compare runs, and write a report of their differences.

    RUN is the id of a run; the runs nested in it are compared as well.
    """
    import mlflow

    from mlflow_hp.compare.api import compare_runs
    from mlflow_hp.terminal import say
    from mlflow_hp.tracking.redaction import masked

    comparison = compare_runs(
        list(run_ids),
        experiments=list(experiments),
        filter_string=filter_string,
        metric=metric,
        goal=goal,
        by=by,
        judge=judge,
        output=output,
    )
    say(*comparison.summary, "")
    say(f"Report: artifact {COMPARISON_FILE} of run {comparison.run_id} in {masked(mlflow.get_tracking_uri())}")
    if output is not None:
        say(f"        and {output}")
    return 0
