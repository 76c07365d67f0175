"""The command ``mlflow-hp repeat``."""

from __future__ import annotations

import click

from mlflow_hp.cli.command import EXIT_DIFFERS, Command, at_most_one, print_some
from mlflow_hp.cli.consent import ask, show
from mlflow_hp.terminal import count, say


@click.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@click.option("--run", "in_worktree", is_flag=True, help="Run it again in a copy of its code, and compare.")
@click.option(
    "--here", "in_this_folder", is_flag=True, help="Run it again in this folder, with the code in it, and compare."
)
@click.option("--against", "other_run_id", metavar="RUN", help="Compare with an existing run.")
@click.option("--yes", is_flag=True, help="Run without asking for consent, for scripts.")
@click.option(
    "--trust",
    is_flag=True,
    help="Run also without your seal: anyone who may write to the store can have written it.",
)
def repeat(
    run_id: str, other_run_id: str | None, *, in_worktree: bool, in_this_folder: bool, yes: bool, trust: bool
) -> int:
    """Show what a repetition needs; run it again, and compare.

    RUN is the id of a run; for a nested one, its whole program is repeated.
    """
    from mlflow_hp.reproduce import recipe, run_comparison

    at_most_one(run=in_worktree, here=in_this_folder, against=other_run_id is not None)
    if other_run_id is not None:
        original, repetition = recipe.get_run(run_id), recipe.get_run(other_run_id)
    else:
        steps = recipe.recipe_of(run_id)
        say(*recipe.describe(steps))
        if not (in_worktree or in_this_folder):
            return 0
        from mlflow_hp.reproduce.rerun import run_again

        confirm = show if yes else ask
        original, repetition = steps.run, run_again(steps, here=in_this_folder, trust=trust, confirm=confirm)
    comparison = run_comparison.compare(original, repetition)
    say("", f"run {original.info.run_id}, and {repetition.info.run_id}: {comparison.compared}")
    print_some(comparison.differences)
    say(count(len(comparison.differences), "difference") if comparison.differences else "the same, bit for bit")
    return EXIT_DIFFERS if comparison.differences else 0
