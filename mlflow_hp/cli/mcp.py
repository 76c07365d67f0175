"""The command ``mlflow-hp mcp``."""

from __future__ import annotations

import contextlib
import sys

import click

from mlflow_hp.cli.command import Command, quiet_mlflow


@click.command(cls=Command)
@click.option("--allow-run", is_flag=True, help="Also let the assistant run experiments again (mlflow-hp improve).")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Longest time of one such improvement.",
)
def mcp(seconds: float, *, allow_run: bool) -> int:
    """Let an assistant read runs, over stdin and stdout.

    It speaks the Model Context Protocol; the assistant starts it: see docs/mcp.md.
    """
    protocol = sys.__stdout__
    with contextlib.redirect_stdout(sys.stderr), quiet_mlflow():  # what libraries print is no part of the protocol
        from mlflow_hp.assistant.server import make_server

        server = make_server(allow_run=allow_run, seconds=seconds)
    with contextlib.redirect_stdout(protocol):
        server.run("stdio")
    return 0
