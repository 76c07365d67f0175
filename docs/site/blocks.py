"""Code blocks of a page of Markdown, with the markers that say how the build runs them.

A marker is an HTML comment, which readers do not see. In front of a block:

``<!-- not run: REASON -->``
    The block is shown with the reason, and not run.
``<!-- before CODE -->``
    Python code that is run before the block and not shown: the model or the file that the block assumes.
``<!-- with: OLD => NEW -->``
    What is replaced in the block when it is run: placeholders, or data that the build would have to download. Braces in
    `NEW`, as ``{run_id}``, hold an expression with the page's variables.
``<!-- small: -P epochs=1 -->``
    Parameters that each ``mlflow run`` of the block gets, unless it has them: the same program in less time.
``<!-- run: NAME -->``
    The block is run by the test that knows this name (``tests/test_team.py``).

Behind a block:

``<!-- output -->`` or ``<!-- output: folded -->``
    The site shows here what the block printed.
``<!-- shown: FILE | WORDS -->``
    The site shows here a picture that the block has written, with these words for those who do not see it.

In front of a picture:

``<!-- picture: artifact NAME of ENTRY -->`` or ``<!-- picture: artifact NAME of ENTRY N -->``
    It is this artifact of the run that the page's N-th command (1-based, by default the first) for this entry point of
    MLproject made.
``<!-- picture: script FILE -->``
    It is drawn by this program, which is run with the path of the picture.
``<!-- picture: not drawn: REASON -->``
    It is that of the checkout, shown with the reason.

Blocks of other languages than those in `LANGUAGES` are text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LANGUAGES = ("python", "console", "sh")
PATTERN = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$"
    r"|<!--(?P<comment>.*?)-->"
    r"|!\[(?P<words>[^\]]*)\]\((?P<picture>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)
BEFORE = ("not run", "before", "with", "small", "run")
AFTER = ("output", "shown")
OTHERS = ("picture", "findings", "end")


class Block(NamedTuple):
    """Code block that is run.

    Attributes
    ----------
    language : str
        Of `LANGUAGES`.
    code : str
        As shown.
    line : int
        Of the page, 1-based, where the code begins.
    before : str
        Code to run first.
    replaced : tuple of tuple of str
        Texts to replace in the code that is run, each with its replacement.
    small : str
        Parameters for ``mlflow run``.
    not_run : str
        Why it is not run; empty if it is.
    """

    language: str
    code: str
    line: int
    before: str = ""
    replaced: tuple[tuple[str, str], ...] = ()
    small: str = ""
    not_run: str = ""


class Shown(NamedTuple):
    """Place for what a block has printed or drawn.

    Attributes
    ----------
    block : int
        Position among the blocks of the page.
    kind : str
        ``output``, ``shown`` (a file), ``artifact``, ``script`` or ``not drawn``.
    value : str
        The file, artifact, script or reason; of an output, ``folded`` or nothing.
    start, end : int
        Characters of the page that it replaces.
    words : str
        Text for those who do not see the picture.
    command : int
        Of an artifact: position of the command in the block.
    picture : str
        Path of the picture that is replaced, as in the page.
    """

    block: int
    kind: str
    value: str
    start: int
    end: int
    words: str = ""
    command: int = 0
    picture: str = ""


class Page(NamedTuple):
    """Page of Markdown with its blocks.

    Attributes
    ----------
    name : str
        Path from the root of the checkout.
    text : str
        Markdown.
    blocks : list of Block
    ends : list of int
        For each block, the character after it.
    shown : list of Shown
    """

    name: str
    text: str
    blocks: list[Block]
    ends: list[int]
    shown: list[Shown]


class PageError(Exception):
    """Marker or block that the build does not understand."""


def read_page(name: str, text: str) -> Page:
    """Find the blocks and places of a page.

    Raises
    ------
    PageError
        If a marker is in front of no block, is unknown, or a picture has none.
    """
    page, pending = Page(name, text, [], [], []), []
    picture, pictures = "", []
    for match in PATTERN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["comment"] is not None:
            key, _, value = re.split(r"(:|\n|$)", match["comment"].strip(), maxsplit=1)
            if key in BEFORE:
                pending.append((key, value.strip()))
            elif key in AFTER:
                page.shown.append(_place(page, key, value.strip(), match, line))
            elif key == "picture":
                picture = value.strip()
            elif key not in OTHERS:
                raise PageError(
                    f"{name}:{line}: {key!r} is no marker: write one of {', '.join(BEFORE + AFTER + OTHERS)}"
                )
        elif match["picture"] is not None:
            if not match["picture"].startswith("http"):
                pictures.append((picture, match, line))
            picture = ""
        elif match["language"] in LANGUAGES:
            page.blocks.append(_block(match, text, pending))
            page.ends.append(match.end())
            pending = []
        if pending and match["comment"] is None:
            raise PageError(f"{name}:{line}: {pending[0][0]!r} is in front of no block of {', '.join(LANGUAGES)}")
    if pending:
        raise PageError(f"{name}: {pending[0][0]!r} is in front of no block of {', '.join(LANGUAGES)}")
    page.shown.extend(_picture(page, *each) for each in pictures)
    return page


def _block(match: re.Match[str], text: str, markers: list[tuple[str, str]]) -> Block:
    indent = match["indent"]
    code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
    values = {key: value for key, value in markers if key != "with"}
    replaced = tuple(
        (old.strip(), new.strip()) for key, value in markers if key == "with" for old, new in [value.split("=>")]
    )
    reason = values.get("not run", "")
    if "run" in values:
        reason = f"run by a test of its own, as `{values['run']}`"
    line = text.count("\n", 0, match.start("code")) + 1
    return Block(match["language"], code, line, values.get("before", ""), replaced, values.get("small", ""), reason)


def _place(page: Page, key: str, value: str, match: re.Match[str], line: int) -> Shown:
    if not page.blocks:
        raise PageError(f"{page.name}:{line}: {key!r} is behind no block")
    file, _, words = (each.strip() for each in value.partition("|"))
    return Shown(len(page.blocks) - 1, key, file, match.start(), match.end(), words)


def _picture(page: Page, marker: str, match: re.Match[str], line: int) -> Shown:
    if marker.startswith("not drawn:"):
        reason = marker.removeprefix("not drawn:").strip()
        return Shown(-1, "not drawn", reason, match.end(), match.end(), match["words"], picture=match["picture"])
    known = re.fullmatch(r"(?:artifact (\S+) of (\w+)(?: (\d+))?|script (\S+))", marker)
    if not known:
        raise PageError(
            f"{page.name}:{line}: {match['picture']} is drawn by nothing: write "
            "'<!-- picture: artifact NAME of ENTRY -->' or '<!-- picture: script FILE -->' in front of it"
        )
    name, entry, number, script = known.groups()
    place = (match.start("picture"), match.end("picture"), match["words"])
    if script:
        return Shown(-1, "script", script, *place, picture=match["picture"])
    places = entry_commands(page, entry)
    if len(places) < int(number or 1):
        raise PageError(f"{page.name}:{line}: no command of the page runs {marker.partition(' of ')[2]!r}")
    block, command = places[int(number or 1) - 1]
    return Shown(block, "artifact", name, *place, command, match["picture"])


def entry_commands(page: Page, entry: str) -> list[tuple[int, int]]:
    """Find the commands that run an entry point of MLproject: block and position in it, of blocks that are run."""
    return [
        (number, position)
        for number, block in enumerate(page.blocks)
        if not block.not_run and block.language != "python"
        for position, command in enumerate(split_commands(block.code))
        if (known := re.match(r"mlflow run \.(?: -e (\w+))?", command)) and (known[1] or "main") == entry
    ]


def split_commands(code: str) -> list[str]:
    """Split the code of a block into its commands, without comments and prompts."""
    joined = re.sub(r"\\\n\s*", "", code)
    commands = (re.sub(r"(^|\s+)#.*$", "", line).removeprefix("$ ").strip() for line in joined.splitlines())
    return [command for command in commands if command]


def parts(page: Page) -> list[list[int]]:
    """Divide the blocks of a page into what can run at once: each block of experiments, and all others in order."""
    alone = [
        number for number, block in enumerate(page.blocks)
        if not block.not_run and block.language == "console" and "{" not in str(block.replaced)
        and all(command.startswith("mlflow run ") for command in split_commands(block.code))
    ]  # fmt: skip
    others = [number for number in range(len(page.blocks)) if number not in alone]
    return [each for each in (others, *([number] for number in alone)) if each]
