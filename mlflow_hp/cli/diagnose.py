"""The command ``mlflow-hp diagnose``."""

from __future__ import annotations

import json

import click

from mlflow_hp.cli.command import Command
from mlflow_hp.terminal import say


@click.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@click.option("--fit", type=click.IntRange(min=0), default=0, help="Which of the run's fits, 0-based.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def diagnose(run_id: str, fit: int, *, as_json: bool) -> int:
    """Say what is wrong with a training, and what to try.

    RUN is the id of a run with a recorded training; of the parent of several, the best is diagnosed.
    """
    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.training.run_diagnosis import diagnose as diagnose_run

    findings = diagnose_run(run_id, fit=fit)
    if as_json:
        say(*json.dumps(diagnosis.to_json(findings), indent=2, allow_nan=False).splitlines())
        return 0
    for severity in ("problem", "hint", "fine"):
        for finding in findings:
            if finding.severity == severity and finding.name != "next_try":
                say(f"{severity}: {finding.verdict}: {finding.text}")
    say(*(finding.text for finding in findings if finding.name == "next_try"))
    return 0
