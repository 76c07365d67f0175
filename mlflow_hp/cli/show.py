"""The command ``mlflow-hp show``."""

from __future__ import annotations

import click

from mlflow_hp.cli.command import Command
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say


@click.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@click.option("--open", "opens", is_flag=True, help="Open the page of the run in a browser.")
def show(run_id: str, *, opens: bool) -> int:
    """Show what a run is, what is wrong, and what to try.

    RUN is the id of a run.
    """
    from mlflow_hp.training.run_account import account_lines, describe_run, where_it_is

    account = describe_run(run_id)
    say(*account_lines(account), where_it_is(account))
    if opens:
        _open(account["page"] or _local_page(run_id))
    return 0


def _local_page(run_id: str) -> str:
    """Address of the page at a server of this machine, which has to serve the run."""
    from mlflow_hp.tracking.server_page import LOCAL_SERVER, page_address

    address = page_address(run_id, LOCAL_SERVER)
    if address is None:
        raise UserError(
            f"--open: no server with the page answers at {LOCAL_SERVER}: start `mlflow-hp ui`, and give --open again"
        )
    return address


def _open(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        raise UserError(f"--open: there is no browser here; open {address}")
