"""The command ``mlflow-hp review``."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_hp.cli.command import Command
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say


@click.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@click.option("--fit", type=click.IntRange(min=0), default=0, help="Which of the search's fits, 0-based.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the next search space to, for `-P grid=FILE` or mlflow_hp.search.read_space.",
)
def review(run_id: str, fit: int, output: Path | None) -> int:
    """Review a finished search, and propose the next search space.

    RUN is the id of the parent run of a search that record_search has recorded.
    """
    from mlflow_hp.analysis.review import to_yaml
    from mlflow_hp.search.run_review import review_run

    reviewed = review_run(run_id, fit=fit)
    for finding in reviewed.findings:
        say(f"{finding.severity}: {finding.verdict}: {finding.text} What to do: {finding.suggestion}.")
    if not reviewed.findings:
        say("nothing is wrong with this search, as far as its results show")
    say(*reviewed.remarks)
    if reviewed.next_space is None:
        raise UserError(
            f"run {run_id}: there is no next space, since nothing varied or fewer than 3 candidates have all scores"
        )
    text = to_yaml(reviewed.next_space)
    if output is None:
        say("", *text.splitlines())
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output={output}: {error.strerror}") from None
    say("", f"the next space is in {output}")
    return 0
