"""A subcommand, and what several of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

EXIT_DIFFERS, EXIT_BAD_INPUT, EXIT_KILLED = 1, 2, 130

MOST_LINES = 20
"""Of what differs, on the terminal."""


class Command(NamedTuple):
    """A subcommand.

    Attributes
    ----------
    name : str
        As on the command line.
    help : str
        What it does, in a sentence.
    declare : callable
        Adds its arguments to a parser.
    run : callable
        Takes the arguments by name, and gives the exit status.
    """

    name: str
    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., int]


def print_some(lines: Sequence[str]) -> None:
    """Print lines, not more than `MOST_LINES` of them."""
    say(*lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        say(f"... and {len(lines) - MOST_LINES} more")


def show_progress(bar: Any, n: int) -> None:
    """Have a progress bar show `n`."""
    bar.update(n - bar.n)
