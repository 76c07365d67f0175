"""Code that the commands share: exit statuses, errors, exclusive options, and output."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import click

from mlflow_hp._extras import needed_by
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import escape_output, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_DIFFERS, EXIT_BAD_INPUT, EXIT_KILLED = 1, 2, 130

MAX_LINES = 20
"""Number of differences that are printed at most."""

MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""Environment variables of MLflow in a command, unless the user sets them."""


class Command(click.Command):
    """Command whose function returns the exit status; errors are printed to stderr, in one or two lines."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, and exit with its status."""
        with escape_output(), quiet_mlflow():
            ctx.exit(self._status(ctx))

    def _status(self, ctx: click.Context) -> int:
        try:
            with needed_by(ctx.command_path):
                return int(super().invoke(ctx))
        except click.UsageError:
            raise
        except UserError as error:
            message, status = str(error), EXIT_BAD_INPUT
        except KeyboardInterrupt:
            message, status = "interrupted; run the same command again to continue", EXIT_KILLED
        except Exception as error:  # noqa: BLE001 - a line for the user
            from mlflow_hp.tracking.redaction import masked

            reason = (str(error).strip() or "no reason given").splitlines()[0]
            message, status = f"{type(error).__name__}: {masked(reason)}", EXIT_DIFFERS
        say(f"{ctx.command_path}: {message}", file=sys.stderr)
        return status


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Apply `MLFLOW_SETTINGS` inside the block: MLflow prints only errors, and stops retrying after seconds."""
    added = {name: value for name, value in MLFLOW_SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def at_most_one(**is_given: bool) -> None:
    """Refuse options that exclude one another.

    Parameters
    ----------
    **is_given : bool
        Whether each option is on the command line, by its name with underscores.

    Raises
    ------
    click.UsageError
        If two of them are.
    """
    options = [f"--{name.replace('_', '-')}" for name, is_on_command_line in is_given.items() if is_on_command_line]
    if len(options) > 1:
        raise click.UsageError(f"{options[1]} is not allowed with {options[0]}.", click.get_current_context())


def print_some(lines: Sequence[str]) -> None:
    """Print the first `MAX_LINES` lines, and the number of others."""
    say(*lines[:MAX_LINES])
    if len(lines) > MAX_LINES:
        say(f"... and {len(lines) - MAX_LINES} more")


def show_progress(bar: Any, n: int) -> None:
    """Set a progress bar to `n`."""
    bar.update(n - bar.n)
