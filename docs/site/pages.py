"""Run pages, each in a folder and a process of its own, with a tracking store of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from docs.site.blocks import parts
from docs.site.commands import free_port
from docs.site.page_run import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docs.site.blocks import Page

ROOT = Path(__file__).parents[2]
LINKED = ("MLproject", "conda.yaml", "projects")
"""What a command of a page finds in its folder: that of `mlflow run .`."""
AUTHOR = "Ada"
NO_BROWSER = 3
AT_ONCE = 3
"""Pages that are run at once: many commands wait."""


class PageResult(NamedTuple):
    """What the blocks of a page gave.

    Attributes
    ----------
    page : Page
    folders : list of Path
        Where it ran.
    outcomes : list of Outcome
        Of its blocks; after one that failed, they are empty.
    pictures : list of str
        For each place, the path of its picture; empty if it has none.
    """

    page: Page
    folders: list[Path]
    outcomes: list[Outcome]
    pictures: list[str]

    @property
    def error(self) -> str:
        """Why the page failed, with the place; empty if it did not."""
        for block, outcome in zip(self.page.blocks, self.outcomes, strict=False):
            if outcome.error:
                return f"{self.page.name}:{block.line}\n{outcome.error}"
        for place, path in zip(self.page.shown, self.pictures, strict=False):
            if place.kind in ("artifact", "shown") and not Path(path).is_file():
                line = self.page.text.count("\n", 0, place.start) + 1
                return f"{self.page.name}:{line}: there is no {place.value}"
            if place.kind == "output" and not "".join(self.outcomes[place.block].outputs).strip():
                line = self.page.text.count("\n", 0, place.start) + 1
                return f"{self.page.name}:{line}: the block has printed nothing"
        return ""


def run_pages(pages: Sequence[Page], folder: Path, *, reuse: bool = False) -> list[PageResult]:
    """Run all pages in folders below one; a few parts of them at once, those that take longest first.

    With `reuse`, what ran before with the same blocks, without a fault, is not run again.
    """
    from tests.helpers.forked_python import commands

    if not reuse:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    programs = Path(commands())  # forks of a process that has the libraries loaded
    shim = programs / "mlflow-hp"
    shim.write_text(f'#!/bin/sh\nexec {programs}/python -m docs.site.mlflow_hp "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    store = _empty_store(folder / "store", programs)
    asked = [(page, blocks) for page in pages for blocks in parts(page) or [[]]]
    order = sorted(range(len(asked)), key=lambda number: -work(*asked[number]))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {number: pool.submit(_run_part, *asked[number], folder, programs, store) for number in order}
        done = [running[number].result() for number in range(len(asked))]
    return [
        _whole(page, [part for (other, _), part in zip(asked, done, strict=True) if other is page]) for page in pages
    ]


def work(page: Page, blocks: list[int]) -> int:
    """Estimate how long some blocks take, in units of a block of Python: an experiment takes five of them."""
    run = [page.blocks[number] for number in blocks if not page.blocks[number].not_run]
    return sum(5 * block.code.count("mlflow run ") or 1 for block in run)


class Part(NamedTuple):
    """What some blocks of a page gave: outcomes by block, pictures by place."""

    folder: Path
    outcomes: dict[int, Outcome]
    pictures: dict[int, str]


def _whole(page: Page, done: list[Part]) -> PageResult:
    outcomes = {number: outcome for part in done for number, outcome in part.outcomes.items()}
    pictures = {number: path for part in done for number, path in part.pictures.items()}
    return PageResult(
        page, [part.folder for part in done], [outcomes[number] for number in range(len(page.blocks))],
        [pictures.get(number, "") for number in range(len(page.shown))],
    )  # fmt: skip


def _run_part(page: Page, blocks: list[int], parent: Path, programs: Path, store: Path) -> Part:
    folder = parent / "_".join([re.sub(r"\W+", "_", page.name.removesuffix(".md")), _key(page, blocks)])
    asked, result = folder / "page.json", folder / "result.json"
    if result.exists() and not any((part := _read(folder, result)).outcomes[number].error for number in blocks):
        return part
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if all(page.blocks[number].not_run for number in blocks):
        return Part(folder, dict.fromkeys(blocks, Outcome()), {})
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(store, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("UPDATE experiments SET artifact_location = ?", [(folder / "mlruns" / "0").as_uri()])
    asked.write_text(json.dumps({"name": page.name, "text": page.text, "blocks": blocks}), encoding="utf-8")
    done = subprocess.run(
        [programs / "python", "-m", "docs.site.page_run", asked, result], check=False, cwd=folder,
        env=_environment(folder, programs), capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if not result.exists():
        fault = Outcome(error=f"status {done.returncode}\n{done.stdout}{done.stderr}")
        return Part(folder, dict.fromkeys(blocks, fault), {})
    part = _read(folder, result)
    seconds = sum(each.seconds for each in part.outcomes.values())
    failed = any(each.error for each in part.outcomes.values())
    print(f"{seconds:6.1f} s  {page.name} {blocks}{'  FAILED' if failed else ''}", flush=True)
    return part


def _key(page: Page, blocks: list[int]) -> str:
    """Return what names the run of some blocks: it changes with them and with what is shown of them."""
    places = [place._replace(start=0, end=0) for place in page.shown]
    content = [[page.blocks[number]._replace(line=0) for number in blocks], blocks, places]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]


def _read(folder: Path, result: Path) -> Part:
    values = json.loads(result.read_text(encoding="utf-8"))
    outcomes = {int(number): Outcome(**each) for number, each in values["outcomes"].items()}
    return Part(folder, outcomes, {int(number): path for number, path in values["pictures"].items()})


def _environment(folder: Path, programs: Path) -> dict[str, str]:
    """Make the variables of a page's process: nothing of the user's MLflow is read or written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "GIT_"))}
    return kept | {
        "PATH": f"{programs}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DOCS_MLFLOW": f"{sysconfig.get_path('scripts')}/mlflow",  # a server is no fork
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_HP_FOLDER": str(folder / "journals"),
        "MLFLOW_HP_AUTHOR": AUTHOR,
        "MLFLOW_PORT": str(free_port()),
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MPLBACKEND": "agg",
        "COLUMNS": "110",
        "NO_COLOR": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def _empty_store(folder: Path, programs: Path) -> Path:
    """Make a store without runs, to be copied: its tables take seconds."""
    if (folder / "mlflow.db").exists():
        return folder / "mlflow.db"
    folder.mkdir(exist_ok=True)
    program = f"import logging; logging.disable(20); import mlflow; mlflow.MlflowClient('sqlite:///{folder}/mlflow.db').search_experiments()"
    subprocess.run([programs / "python", "-c", program], check=True, cwd=folder, env=_environment(folder, programs))
    return folder / "mlflow.db"


def draw(script: str, picture: Path) -> str:
    """Run a program that draws a picture into a file, and return why it failed; empty if it did not.

    A program may draw several pictures at once; with status 3 it says that the machine lacks a browser to draw with:
    then the picture of the checkout is shown.
    """
    if picture.exists():
        return ""
    done = subprocess.run(
        [sys.executable, ROOT / script, picture], check=False, capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode == NO_BROWSER:
        print(f"{picture.name} is that of the checkout: {script} found no Chromium (set CHROMIUM to its path)")
        shutil.copy(ROOT / "docs" / "pictures" / picture.name, picture)
        return ""
    if done.returncode or not picture.exists():
        return f"{script}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return ""
