"""Pages as the site shows them: with what their blocks printed and the pictures that the build has drawn."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from docs.site.blocks import entry_commands, split_commands
from docs.site.pages import ROOT, draw

if TYPE_CHECKING:
    from docs.site.blocks import Page, Shown
    from docs.site.pages import PageResult

LONGEST, HEAD = 36, 12
"""Lines of an output that are shown, and how many of them are its first; those between are counted."""


def write_page(result: PageResult, target: Path) -> list[str]:
    """Write a page and its pictures below the folder of the site's sources, and return what went wrong."""
    page, faults, parts, position = result.page, [], [], 0
    edits = [(place.start, place.end, place, path) for place, path in zip(page.shown, result.pictures, strict=True)]
    notes = [(end, end, block.not_run, "") for block, end in zip(page.blocks, page.ends, strict=True) if block.not_run]
    for start, end, place, path in sorted([*edits, *notes], key=lambda edit: edit[:2]):
        parts.append(page.text[position:start])
        position = end
        if isinstance(place, str):
            parts.append(f"\n\n*Not run by the build: {place}.*{{ .not-run }}")
        elif place.kind == "output":
            parts.append(output(result, place))
        else:
            words, fault = _picture(page, place, path, target)
            parts.append(words)
            faults += [fault] if fault else []
    parts.append(page.text[position:])
    text = without_comments("".join(parts))
    file = target / page.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(for_the_site(text), encoding="utf-8")
    return faults


def without_comments(text: str) -> str:
    """Leave out the markers, with their lines: the empty ones around them stay, which end tables."""
    return re.sub(r"^ *<!--.*?--> *\n|<!--.*?-->", "", text, flags=re.DOTALL | re.MULTILINE)


def output(result: PageResult, place: Shown) -> str:
    """Return the Markdown of what a block has printed."""
    text = readable("".join(result.outcomes[place.block].outputs), result.folders)
    block = "```text\n" + text + "\n```"
    if place.value == "folded":
        return '??? quote "Output"\n\n' + re.sub(r"^", "    ", block, flags=re.MULTILINE)
    return block


def readable(text: str, folders: list[Path]) -> str:
    """Leave out the folders of the page, colours and the middle of what is long."""
    for folder in sorted(folders, key=lambda each: -len(str(each))):
        text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    lines = [line.rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")]
    if len(lines) > LONGEST:
        lines = [*lines[:HEAD], f"... ({len(lines) - LONGEST} more lines) ...", *lines[HEAD - LONGEST :]]
    return "\n".join(lines)


def _picture(page: Page, place: Shown, path: str, target: Path) -> tuple[str, str]:
    folder = (target / page.name).parent
    if place.kind == "shown":
        name = f"{Path(page.name).stem}_{Path(path).name}"
        drawn = folder / "drawn" / name
        drawn.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, drawn)
        return f"![{place.words}](drawn/{name})", ""
    drawn = folder / posixpath.normpath(place.picture)
    drawn.parent.mkdir(parents=True, exist_ok=True)
    if place.kind == "not drawn":
        shutil.copy((ROOT / page.name).parent / place.picture, drawn)
        return f"\n\n*Not drawn by the build: {place.value}.*{{ .not-run }}", ""
    if place.kind == "artifact":
        shutil.copy(path, drawn)
        return place.picture, ""
    return place.picture, draw(place.value, drawn)


def for_the_site(text: str) -> str:
    """Show diagrams as text: what draws them would be loaded from another server."""
    return text.replace("```mermaid\n", "```text\n").replace("```sh\n", "```bash\n")


class EntryRun(NamedTuple):
    """Run of an entry point by a page.

    Attributes
    ----------
    command : str
        As the page shows it.
    output : str
    run_ids : list of str
    artifacts : list of str
        Paths.
    """

    command: str
    output: str
    run_ids: list[str]
    artifacts: list[str]


def entry_run(result: PageResult, entry: str) -> EntryRun | None:
    """Find the first command of a page that runs an entry point."""
    for block, number in entry_commands(result.page, entry)[:1]:
        outcome, command = result.outcomes[block], split_commands(result.page.blocks[block].code)[number]
        output = readable(outcome.outputs[number], result.folders)
        return EntryRun(command, output, outcome.run_ids[number], outcome.artifacts[number])
    return None
