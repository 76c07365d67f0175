"""The command `mlflow-hp`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from mlflow_hp.cli import compare, recover, repeat, sync
from mlflow_hp.cli.command import EXIT_BAD_INPUT, EXIT_DIFFERS, EXIT_KILLED, Command
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say, shown_safely

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand: status 0, 1 (something differs or failed), 2 (bad input) or 130 (interrupted)."""
    with shown_safely():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="mlflow-hp", description="Hyperparameters of Keras models in MLflow.")
    below = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.declare(below.add_parser(command.name, help=command.help, description=command.help))
    arguments: dict[str, Any] = vars(parser.parse_args(argv))
    chosen = next(command for command in COMMANDS if command.name == arguments["command"])
    del arguments["command"]
    _prepare()
    try:
        return chosen.run(**arguments)
    except UserError as error:
        say(f"mlflow-hp {chosen.name}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say(f"mlflow-hp {chosen.name}: interrupted; the same command goes on where it was", file=sys.stderr)
        return EXIT_KILLED
    except Exception as error:  # noqa: BLE001 - a line for the user
        from mlflow_hp.tracking.redaction import masked

        reason = (str(error).strip() or "no reason given").splitlines()[0]
        say(f"mlflow-hp {chosen.name}: {type(error).__name__}: {masked(reason)}", file=sys.stderr)
        return EXIT_DIFFERS


def _prepare() -> None:
    """Have MLflow speak when it has to, and give up in seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", category=DeprecationWarning)


COMMANDS = (
    Command("compare", "Compare runs, and write a report that says what differs.", compare.declare, compare.run),
    Command(
        "recover", "Bring to MLflow what killed processes have left on this machine.", recover.declare, recover.run
    ),
    Command("repeat", "Tell what it takes to repeat a run; run it again, and compare.", repeat.declare, repeat.run),
    Command(
        "sync", "Bring runs to another tracking store, again and again without duplicates.", sync.declare, sync.run
    ),
)
