"""The command ``mlflow-hp improve``."""

from __future__ import annotations

import click

from mlflow_hp.cli.command import EXIT_DIFFERS, Command
from mlflow_hp.cli.consent import ask, show
from mlflow_hp.terminal import say


@click.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@click.option(
    "--trainings", type=click.IntRange(1, 100), default=3, show_default=True, help="Trainings after the first one."
)
@click.option(
    "--here", "in_this_folder", is_flag=True, help="Run it with the code in this folder, not in a copy of its."
)
@click.option("--yes", is_flag=True, help="Run without asking for consent, for scripts.")
@click.option(
    "--trust",
    is_flag=True,
    help="Run also without your seal: anyone who may write to the store can have written it.",
)
def improve(run_id: str, trainings: int, *, in_this_folder: bool, yes: bool, trust: bool) -> int:
    """Run an experiment again, following the advice of its findings.

    RUN is the id of a run of an experiment; a nested one starts from its own values. For a program of your own, call
    mlflow_hp.improve(train, start).
    """
    from mlflow_hp.reproduce import recipe
    from mlflow_hp.reproduce.improved import improving, run_improvement
    from mlflow_hp.tracking.tags import BEST_RUN_ID_TAG, BEST_TAG

    steps = improving(recipe.recipe_of(run_id), trainings)
    run = run_improvement(steps, here=in_this_folder, trust=trust, confirm=show if yes else ask)
    best = run.data.tags.get(BEST_TAG)
    say("", f"run {run.info.run_id}: the best training is {best}, run {run.data.tags.get(BEST_RUN_ID_TAG)}")
    return 0 if run.info.status == "FINISHED" else EXIT_DIFFERS
