"""The command ``mlflow-hp repeat``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlflow_hp.cli.command import EXIT_DIFFERS, print_some
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("run", metavar="RUN", help="id of a run; of a nested one, all of its program is repeated")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--run", dest="again", action="store_true", help="run it, in a copy of its code, and compare")
    how.add_argument(
        "--here", action="store_true", help="run it in this folder, with the code that is here, and compare"
    )
    how.add_argument("--against", metavar="RUN", help="compare with a run that there is")
    add("--yes", action="store_true", help="run what is shown without asking, for scripts")
    add("--trust", action="store_true",
        help="run also what does not bear your seal: whoever may write to the store can have written it")  # fmt: skip


def run(run: str, against: str | None, *, again: bool, here: bool, yes: bool, trust: bool) -> int:
    """Tell what it takes, or run it again and compare."""
    from mlflow_hp.reproduce import recipe, run_comparison

    if against is not None:
        one, other = recipe.find(run), recipe.find(against)
    else:
        made = recipe.recipe(run)
        say(*recipe.told(made))
        if not (again or here):
            return 0
        from mlflow_hp.reproduce.rerun import run_again

        one, other = made.run, run_again(made, here=here, trust=trust, agree=_said if yes else _asked)
    found = run_comparison.likeness(one, other)
    say("", f"run {one.info.run_id}, and {other.info.run_id}: {found.compared}")
    print_some(found.differences)
    say(f"{len(found.differences)} differences" if found.differences else "the same, bit for bit")
    return EXIT_DIFFERS if found.differences else 0


def _said(lines: Sequence[str]) -> None:
    say(*lines)


def _asked(lines: Sequence[str]) -> None:
    """Show what is about to be run, and ask."""
    say(*lines)
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError("nothing was run: that is asked for first, and stdin is no terminal. In a script, give --yes")
    print("Run it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was run: the answer was not yes")
