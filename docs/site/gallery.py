"""The gallery: short programs, each with one picture; each is also a page and a notebook.

A program is in the percent format: ``# %% [markdown]`` begins text, ``# %%`` begins code.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from docs.site.pages import ROOT

if TYPE_CHECKING:
    from docs.site.pages import PageResult

FOLDER = "docs/gallery"


class Cell(NamedTuple):
    """Cell of a program: its text or code."""

    is_code: bool
    content: str


def programs() -> list[Path]:
    """List the programs of the gallery, by name."""
    return sorted((ROOT / FOLDER).glob("*.py"))


def cells(program: str) -> list[Cell]:
    """Split a program into its cells."""
    parts = re.split(r"^# %%(.*)\n", program, flags=re.MULTILINE)
    found = []
    for kind, content in zip(parts[1::2], parts[2::2], strict=True):
        is_code = "[markdown]" not in kind
        text = content if is_code else re.sub(r"^# ?", "", content, flags=re.MULTILINE)
        if text.strip():
            found.append(Cell(is_code, text.strip()))
    return found


def markdown(path: Path) -> str:
    """Write the page of a program, with a marker for the output of each cell that prints and for the picture."""
    parts = []
    for cell in cells(path.read_text(encoding="utf-8")):
        if not cell.is_code:
            parts.append(cell.content)
            continue
        parts.append(f"```python\n{cell.content}\n```")
        if "print(" in cell.content:
            parts.append("<!-- output -->")
        if picture := re.search(r"savefig\(\"([\w.]+)\"", cell.content):
            parts.append(f"<!-- shown: {picture[1]} | Picture drawn by the code above -->")
    parts.append(f"Download: [program]({path.name}){{ download }} · [notebook]({path.stem}.ipynb){{ download }}")
    return "\n\n".join(parts) + "\n"


def thumbnails() -> str:
    """Write the pictures of all programs, each as a link to its page."""
    links = []
    for path in programs():
        text = path.read_text(encoding="utf-8")
        picture = re.search(r"savefig\(\"([\w.]+)\"", text)
        title = cells(text)[0].content.partition("\n")[0].lstrip("# ")
        if picture:
            links.append(f"[![{title}](drawn/{path.stem}_{picture[1]})]({path.stem}.md)")
    return "\n".join(['<div class="thumbnails" markdown>', "", "\n\n".join(links), "", "</div>"])


def notebook(path: Path, result: PageResult) -> dict[str, Any]:
    """Convert a program to a notebook of format 4.5, with what the build printed and drew."""
    outcomes = iter(enumerate(result.outcomes))
    pictures = {place.block: Path(file) for place, file in zip(result.page.shown, result.pictures, strict=True)
                if place.kind == "shown"}  # fmt: skip
    converted = []
    for number, cell in enumerate(cells(path.read_text(encoding="utf-8"))):
        each: dict[str, Any] = {
            "id": f"cell-{number}",
            "metadata": {},
            "source": cell.content.splitlines(keepends=True),
        }
        if not cell.is_code:
            converted.append({"cell_type": "markdown", **each})
            continue
        block, outcome = next(outcomes)
        outputs: list[dict[str, Any]] = []
        if text := "".join(outcome.outputs):
            outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
        if block in pictures:
            image = base64.b64encode(pictures[block].read_bytes()).decode()
            outputs.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": image}})
        converted.append({"cell_type": "code", "execution_count": block + 1, "outputs": outputs, **each})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": converted, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(path: Path, result: PageResult, target: Path) -> None:
    """Write the notebook next to the page."""
    text = json.dumps(notebook(path, result), indent=1, ensure_ascii=False)
    (target / FOLDER / f"{path.stem}.ipynb").write_text(text + "\n", encoding="utf-8")
