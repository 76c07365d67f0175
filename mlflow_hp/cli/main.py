"""The command ``mlflow-hp``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlflow_hp.cli.command import EXIT_BAD_INPUT, EXIT_DIFFERS, EXIT_KILLED
from mlflow_hp.cli.compare import compare
from mlflow_hp.cli.diagnose import diagnose
from mlflow_hp.cli.improve import improve
from mlflow_hp.cli.mcp import mcp
from mlflow_hp.cli.recover import recover
from mlflow_hp.cli.repeat import repeat
from mlflow_hp.cli.review import review
from mlflow_hp.cli.show import show
from mlflow_hp.cli.sync import sync
from mlflow_hp.cli.ui import ui
from mlflow_hp.terminal import escape_output

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXIT_BAD_INPUT", "EXIT_DIFFERS", "EXIT_KILLED", "commands", "main"]


@click.group(
    "mlflow-hp",
    commands=[compare, diagnose, improve, mcp, recover, repeat, review, show, sync, ui],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="mlflow-hp", prog_name="mlflow-hp")
def commands() -> None:
    """Show, compare, diagnose, improve, recover, repeat, review and copy runs of Keras models in MLflow."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its status: 0, 1 (differences or a failure), 2 (bad input) or 130 (interrupted)."""
    try:
        return int(commands.main(argv, prog_name=commands.name, standalone_mode=False))
    except click.ClickException as error:
        with escape_output():
            error.show(sys.stderr)
        return error.exit_code
