"""The command of a run, rebuilt from parts that are known: a Python program of its repository, and its arguments.

What a tag says is text that anybody may have written. Nothing of it is run as it stands.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import printable
from mlflow_hp.tracking import provenance
from mlflow_hp.tracking.params_and_tags import LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_PROGRAM = "it names no program"

_PYTHON = re.compile(r"python[\d.]*(\.exe)?")
_OPTION = re.compile(r"-[uBOsqb]{1,6}")
_OPTION_VALUES = {
    "-X": re.compile(r"dev|utf8(=[01])?|faulthandler|importtime"),
    "-W": re.compile(r"default|error|always|module|once|ignore"),
}
_SETTING = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


class Program(NamedTuple):
    """A command of which every part is known.

    Attributes
    ----------
    settings : dict of str to str
        Environment variables, of `provenance.SETTINGS`.
    options : tuple of str
        For Python itself: such as load no code.
    module : str or None
        As ``python -m`` takes it.
    script : str or None
        Else the path of a file, as it was given.
    arguments : tuple of str
        For the program.
    """

    settings: dict[str, str]
    options: tuple[str, ...]
    module: str | None
    script: str | None
    arguments: tuple[str, ...]

    @property
    def shown(self) -> str:
        """For a shell: pasted, it runs this and nothing else."""
        settings = [f"{name}={shell_word(value)}" for name, value in self.settings.items()]
        what = ["-m", self.module] if self.module is not None else [self.script or ""]
        return " ".join([*settings, shell_line(["python", *self.options, *what, *self.arguments])])


def program_of(command: str) -> Program:
    """Take a command apart.

    Raises
    ------
    ValueError
        Where one of its parts is none that is known; the message says which.
    """
    if len(command) >= LONGEST["tags"]:
        raise ValueError(f"it is cut: MLflow keeps {LONGEST['tags']:,} characters")
    if "\0" in command:
        raise ValueError("no argument can hold a NUL")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"a shell can't read it: {error}") from error
    settings: dict[str, str] = {}
    while words and (setting := _SETTING.fullmatch(words[0])):
        name, value = setting.groups()
        if name not in provenance.SETTINGS or not re.fullmatch(provenance.SETTINGS[name], value):
            raise ValueError(f"the setting {printable(words[0])} is none that a run records")
        settings[name] = value
        del words[0]
    if not words or not _PYTHON.fullmatch(words[0]):
        raise ValueError("it does not begin with `python`")
    return _program(settings, words[1:])


def _program(settings: dict[str, str], words: list[str]) -> Program:
    options: list[str] = []
    while words and words[0].startswith("-") and words[0] != "-m":
        if words[0] in _OPTION_VALUES and len(words) > 1 and _OPTION_VALUES[words[0]].fullmatch(words[1]):
            options += words[:2]
            del words[:2]
        elif _OPTION.fullmatch(words[0]):
            options.append(words.pop(0))
        else:
            raise ValueError(f"Python's option {printable(words[0])} may run other code than the repository's")
    if not words or words == ["-m"]:
        raise ValueError(NO_PROGRAM)
    if words[0] != "-m":
        return Program(settings, tuple(options), None, words[0], tuple(words[1:]))
    if not all(part.isidentifier() for part in words[1].split(".")):
        raise ValueError(f"{printable(words[1])} is no name of a module")
    return Program(settings, tuple(options), words[1], None, tuple(words[2:]))


class Located(NamedTuple):
    """Where a program is.

    Attributes
    ----------
    words : list of str
        What Python gets: options, the program, its arguments.
    base : Path
        The folder for ``PYTHONPATH`` in which the module is, or that of the script.
    """

    words: list[str]
    base: Path


def located(program: Program, root: Path, folder: Path) -> Located:
    """Find a program in a copy of its repository.

    Parameters
    ----------
    program : Program
    root, folder : Path
        The copy, and where in it the program is started.

    Raises
    ------
    UserError
        Where it is no file of the copy.
    """
    options, arguments = list(program.options), list(program.arguments)
    if program.module is not None:
        path = program.module.replace(".", "/")
        for base in (folder, root, root / "src"):
            for file in (base / f"{path}.py", base / path / "__main__.py"):
                if file.is_file() and is_within(root, file):
                    return Located([*options, "-m", program.module, *arguments], base)
        raise UserError(f"there is no module {program.module} in {folder}, {root} or its src: only those are run")
    script = folder / str(program.script)
    if not (script.is_file() and is_within(root, script)):
        raise UserError(f"{program.script} is no file of {root}, seen from {folder}: only those are run")
    return Located([*options, str(program.script), *arguments], script.parent)


def is_within(root: Path, path: Path) -> bool:
    """Whether a path, links followed, is in a copy of a repository, and not in what git keeps there for itself."""
    try:
        place = path.resolve().relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # it leads out, in a circle, or has a NUL
        return False
    return ".git" not in [part.casefold() for part in place.parts]


def shell_word(text: str) -> str:
    """A word as bash and zsh read it back, of characters that show."""
    if printable(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(map(_in_quotes, text)) + "'"


def shell_line(words: Sequence[str]) -> str:
    """A command, each word by `shell_word`."""
    return " ".join(map(shell_word, words))


def _in_quotes(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if printable(character) == character:
        return character
    try:
        as_bytes = character.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        as_bytes = character.encode(errors="surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in as_bytes)
