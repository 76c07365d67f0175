"""Consent of the user to run a recorded program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence


def show(lines: Sequence[str]) -> None:
    """Show the program, without asking."""
    say(*lines)


def ask(lines: Sequence[str]) -> None:
    """Show the program, and ask for consent to run it.

    Raises
    ------
    UserError
        If it is not given, or stdin is not a terminal.
    """
    say(*lines)
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError("nothing was run: it needs your consent, and stdin is not a terminal. In a script, give --yes")
    print("Run it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was run: the answer was not yes")
