"""The command `mlflow-hp`."""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.compare import command as comparing
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import printable, say, shown_safely

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_DIFFERS, EXIT_BAD_INPUT, EXIT_KILLED = 1, 2, 130

_MOST_LINES = 20
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
        from mlflow_hp.masking import masked

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


def _declare_sync(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        metavar="RUN",
        help="ids of runs, each with those nested in it; default: all of the experiment",
    )
    add("--to", required=True, metavar="URI", help="the tracking store to bring them to, as http://HOST:5000")
    add(
        "--from",
        dest="source",
        metavar="URI",
        help="the store that has them; default: MLFLOW_TRACKING_URI",
    )
    named = "default: MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, else Default"
    add("--experiment", metavar="NAME", help=f"whose runs; {named}")
    add("--verify", action="store_true", help="compare both sides afterwards: status 1 where something differs")


def _sync(runs: list[str], to: str, source: str | None, experiment: str | None, *, verify: bool) -> int:
    from mlflow_hp.sync import scope, stores, transfer
    from mlflow_hp.sync.verify import compare

    gc.freeze()  # that the collector walks the libraries again and again takes longer than reading the points
    both = stores.connect(to, source)
    chosen = scope.find(both.source, experiment, runs)
    both.ensure_two(chosen)
    done = transfer.bring(both, chosen, thorough=verify, on_wait=_say_of_sync)
    say(
        f"{done.new} runs new, {done.completed} completed, {done.unchanged} unchanged; "
        f"{done.points:,} metric points and {done.files:,} artifacts sent"
    )
    if done.at_home:
        say(f"{done.at_home} left out: they are copies of runs of the target")
    if done.duplicates and not verify:
        say(f"{done.duplicates} are at the target more than once: --verify names the duplicates")
    for name, reason in done.failed.items():
        _say_of_sync(f"{name} could not be brought: {reason}")
    for folder, reason in chosen.damaged.items():
        _say_of_sync(f"{folder} is left out: {reason}. Restore that folder from a copy, or move it out of the store")
    differs = _verified(compare(both, scope.find(both.source, experiment, runs))) if verify else False
    return EXIT_DIFFERS if done.failed or chosen.damaged or differs else 0


def _verified(comparison: Any) -> bool:
    """Print a comparison, and tell whether there are differences."""
    say(f"{'':14}{'source':>12}{'target':>12}")
    for kind, (here, there) in comparison.counts.items():
        say(f"{kind:14}{here:>12,}{there:>12,}")
    _print_some(comparison.differences)
    say(f"{len(comparison.differences)} differences" if comparison.differences else "no differences")
    return bool(comparison.differences)


def _say_of_sync(text: str) -> None:
    say(f"mlflow-hp sync: {text}", file=sys.stderr)


def _print_some(lines: Sequence[str]) -> None:
    say(*lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        say(f"... and {len(lines) - _MOST_LINES} more")


def _show_progress(bar: Any, n: int) -> None:
    bar.update(n - bar.n)


def _declare_recover(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="ids of runs; default: all that were left behind here")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--take-over", action="store_true",
                     help="also what another machine has shown a sign of life of a moment ago")  # fmt: skip
    how.add_argument("--discard", action="store_true", help="remove what MLflow lacks of the runs named, for ever")


def _recover(runs: list[str], *, take_over: bool, discard: bool) -> int:
    from mlflow_hp import recovery
    from mlflow_hp.folder_lock import HeldError
    from mlflow_hp.masking import masked
    from mlflow_hp.runs import local_home

    if discard and not runs:
        raise UserError("--discard gives up what was recorded: name the runs, as in `mlflow-hp recover --discard RUN`")
    unusable: list[str] = []
    chosen = [left for left in recovery.recordings(on_unusable=unusable.append) if not runs or left.run_id in runs]
    problems, n_held = unusable, 0
    for left in chosen:
        try:
            if discard:
                recovery.discard(left)
                say(f"{left.run_id}: discarded what was in {left.folder}")
            else:
                _recover_one(left, take_over=take_over)
        except HeldError as held:
            if left.is_done:  # its history is still read by the process that has recorded it
                continue
            n_held += 1
            say(f"{left.run_id}: left alone in {left.folder}: {held}")
        except UserError as error:
            problems.append(masked(str(error)))
    for problem in problems:
        say(f"mlflow-hp recover: {problem}", file=sys.stderr)
    if missing := set(runs) - {left.run_id for left in chosen}:
        raise UserError(f"nothing of {', '.join(sorted(missing))} is on this machine, in {local_home()}")
    if not chosen and not unusable:
        say("nothing was left behind")
    return EXIT_DIFFERS if problems or (n_held and runs) else 0


def _recover_one(left: Any, *, take_over: bool) -> None:
    from tqdm import tqdm

    from mlflow_hp.masking import masked
    from mlflow_hp.recovery import recover
    from mlflow_hp.search.recovery import KINDS

    with tqdm(desc=f"metrics of {printable(left.run_id)}", unit=" points", unit_scale=True, delay=1.0) as bar:
        found = recover(left, functools.partial(_show_progress, bar), take_over=take_over, kinds=KINDS)
    if found is not None:
        lost = f"; {'; '.join(found.problems)}" if found.problems else ""
        what = "its search" if left.kind == "search" else f"{found.n_steps:,} steps"
        say(f"{found.run_id} in {masked(left.tracking_uri)}: {what}, {found.status}{lost}")


def _declare_repeat(parser: argparse.ArgumentParser) -> None:
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


def _repeat(run: str, against: str | None, *, again: bool, here: bool, yes: bool, trust: bool) -> int:
    from mlflow_hp.repeat import likeness, recipe

    if against is not None:
        one, other = recipe.find(run), recipe.find(against)
    else:
        made = recipe.recipe(run)
        say(*recipe.told(made))
        if not (again or here):
            return 0
        from mlflow_hp.repeat.again import run_again

        one, other = made.run, run_again(made, here=here, trust=trust, agree=_said if yes else _asked)
    found = likeness.likeness(one, other)
    say("", f"run {one.info.run_id}, and {other.info.run_id}: {found.compared}")
    _print_some(found.differences)
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


COMMANDS = (
    Command("compare", "Compare runs, and write a report that says what differs.", comparing.declare, comparing.run),
    Command("recover", "Bring to MLflow what killed processes have left on this machine.", _declare_recover, _recover),
    Command("repeat", "Tell what it takes to repeat a run; run it again, and compare.", _declare_repeat, _repeat),
    Command("sync", "Bring runs to another tracking store, again and again without duplicates.", _declare_sync, _sync),
)

if __name__ == "__main__":
    sys.exit(main())
