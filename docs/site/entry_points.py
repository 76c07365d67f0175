"""A page for each entry point of MLproject: what it does, its parameters, a run of it and what the run holds."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from docs.site.pages import ROOT

if TYPE_CHECKING:
    from docs.site.staging import EntryRun

FOLDER = "docs/entry_points"
PARAMETERS = "Each is set by `-P name=value`."
SEVERAL = "Several values, comma-separated, give a nested run for each combination."


def entry_points() -> dict[str, Any]:
    """Read the entry points of MLproject, by name."""
    return yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


def section(readme: str, name: str) -> str:
    """Return the section of an entry point in the README, without its heading; empty if it has none."""
    match = re.search(rf"^### `{name}`: [^\n]*\n(.*?)(?=^##)", readme, re.MULTILINE | re.DOTALL)
    return match[1].strip() if match else ""


def page(name: str, entry: dict[str, Any], readme: str, run: EntryRun, files: list[str]) -> str:
    """Write the page of an entry point.

    Parameters
    ----------
    name : str
        Of the entry point.
    entry : dict
        What MLproject says about it.
    readme : str
        The README as the site shows it.
    run : EntryRun
        That the build made.
    files : list of str
        Artifacts of its run.
    """
    program = importlib.import_module(f"projects.{name}")
    experiment = getattr(program, "EXPERIMENT", None)
    question = getattr(experiment, "question", "") or getattr(program, "QUESTION", "")
    text = section(readme, name).replace("](docs/", "](../").replace("](README.md", "](../../README.md")
    several = any(each.several for each in program.PARAMETERS)
    rows = [
        f"| `{each.name}` | `{short(each.default)}` | {cell(each.help)}{' (one value)' * (several > each.several)} |"
        for each in program.PARAMETERS
    ]
    how = f"{PARAMETERS} {SEVERAL}" if several else PARAMETERS
    output = run.output or "(nothing)"
    made = f"{len(run.run_ids)} {'run' if len(run.run_ids) == 1 else 'runs'}"
    artifacts = [f"    - `{each}`" for each in sorted(set(files))]
    return "\n".join(
        [
            f"# `{name}`", "", f"{entry['description']}.", "", *([f"> {question}", ""] if question else []),
            *([text, ""] if text else []),
            "## What it prints", "", "```console", run.command, "```", "", "```text", output, "```", "",
            f"It made {made}. The build runs it with less data or fewer epochs where the whole would take minutes.", "",
            *(['??? quote "Artifacts of the run"', "", *artifacts, ""] if artifacts else []),
            "## Parameters", "", how, "", "| parameter | default | meaning |", "|---|---|---|", *rows, "",
        ]
    )  # fmt: skip


def cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def short(text: str, longest: int = 40) -> str:
    """Shorten a long default."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def artifact_names(paths: list[str]) -> list[str]:
    """Return the names of artifacts from their paths on this machine, without the files of a model."""
    names = [re.sub(r"^.*/artifacts/", "", path) for path in paths]
    return [name for name in names if Path(name).suffix and not name.startswith(("model", "code/"))]
