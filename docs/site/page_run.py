"""Run blocks of one page, in order and in one process; a program: ``python -m docs.site.page_run PAGE RESULT``.

All Python blocks of a page share their variables. Commands run in a shell, in the same folder and tracking store.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import re
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from docs.site import commands
from docs.site.blocks import read_page, split_commands
from mlflow_hp.delivery import patience

if TYPE_CHECKING:
    from docs.site.blocks import Block


class Outcome(NamedTuple):
    """What a block gave.

    Attributes
    ----------
    outputs : tuple of str
        What each of its commands printed; of Python, one for the block.
    error : str
        Why it failed; empty if it did not.
    run_ids : tuple of list of str
        For each of its commands, the runs that it made: the newest first.
    artifacts : tuple of list of str
        For each of its commands, the artifacts of those of these runs that are nested in no other: paths.
    seconds : float
        Wall time.
    """

    outputs: tuple[str, ...] = ()
    error: str = ""
    run_ids: tuple[list[str], ...] = ()
    artifacts: tuple[list[str], ...] = ()
    seconds: float = 0.0


def run_block(block: Block, name: str, variables: dict[str, Any]) -> Outcome:
    """Run a block, and return what it gave; it raises nothing."""
    start = time.monotonic()
    try:
        if block.before:
            with contextlib.redirect_stdout(io.StringIO()):
                _execute(block.before, f"{name}:{block.line}: before", variables)
        code = _replaced(block, variables)
        if block.language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                _execute("\n" * (block.line - 1) + code, name, variables)
            return Outcome((output.getvalue(),), seconds=time.monotonic() - start)
        return _run_commands(code, block.small, start)
    except BaseException:  # noqa: BLE001 - whatever a page does, the build says so
        return Outcome(error=traceback.format_exc(), seconds=time.monotonic() - start)


def _replaced(block: Block, variables: dict[str, Any]) -> str:
    """Return the code of a block as it is run."""
    code = block.code
    for old, new in block.replaced:
        if old not in code:
            raise ValueError(f"{old!r}, which is to be replaced, is not in the block")
        text = re.sub(r"\{(.+?)\}", lambda match: str(eval(match[1], variables)), new)  # noqa: S307
        code = code.replace(old, text)
    return code


def _execute(code: str, name: str, variables: dict[str, Any]) -> None:
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # for inspect and tracebacks
    exec(compile(code, name, "exec"), variables)  # noqa: S102


def _run_commands(code: str, small: str, start: float) -> Outcome:
    outputs: list[str] = []
    run_ids: list[list[str]] = []
    files: list[list[str]] = []
    error, before = "", _run_ids()
    for command in split_commands(code):
        done = commands.run(commands.with_parameters(command, small))
        outputs.append(done.output)
        after = _run_ids()
        run_ids.append([each for each in after if each not in before])
        files.append(artifacts(run_ids[-1], top=True))
        before = after
        if done.status:
            error = f"$ {done.command}\nstatus {done.status}\n{done.output}{done.errors}"
            break
    return Outcome(tuple(outputs), error, tuple(run_ids), tuple(files), time.monotonic() - start)


def _run_ids() -> list[str]:
    import mlflow

    client = mlflow.MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(experiments, order_by=["attributes.start_time DESC"])]


def artifacts(run_ids: list[str], *, top: bool = False) -> list[str]:
    """Return the paths of the artifacts of these runs, on this machine; `top`: without those of nested runs."""
    import mlflow
    from mlflow.artifacts import download_artifacts

    from mlflow_hp.tracking.tags import PARENT_TAG

    client = mlflow.MlflowClient()
    if top:
        run_ids = [each for each in run_ids if PARENT_TAG not in client.get_run(each).data.tags]
    folders = [Path(download_artifacts(run_id=each)) for each in run_ids if client.list_artifacts(each)]
    return [str(path) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def artifact(run_ids: list[str], pattern: str) -> str:
    """Return the first artifact that matches a pattern, as ``plots/*.png``, of a nested run last; empty if none."""
    paths = [*artifacts(run_ids, top=True), *artifacts(run_ids)]
    return next((path for path in paths if Path(path).match(pattern)), "")


def main(page_file: str, result_file: str) -> None:
    """Run the page of a file, as `docs.site.pages` writes it, and write the outcomes."""
    asked = json.loads(Path(page_file).read_text(encoding="utf-8"))
    page = read_page(asked["name"], asked["text"])
    patience.PATIENCE_SECONDS = 300.0  # a busy machine is not a store that fails
    variables: dict[str, Any] = {"__name__": "__main__"}
    outcomes = dict.fromkeys(asked["blocks"], Outcome())
    for number in outcomes:
        if not page.blocks[number].not_run:
            outcomes[number] = run_block(page.blocks[number], page.name, variables)
        if outcomes[number].error:
            break
    commands.end_servers()
    pictures = {}
    for number, place in enumerate(page.shown):
        if place.block not in outcomes or any(outcome.error for outcome in outcomes.values()):
            continue
        if place.kind == "artifact":
            run_ids = outcomes[place.block].run_ids[place.command]
            pictures[number] = artifact(run_ids, place.value)
        elif place.kind == "shown":
            pictures[number] = str(Path(place.value).absolute())
    result = {"outcomes": {number: outcome._asdict() for number, outcome in outcomes.items()}, "pictures": pictures}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
