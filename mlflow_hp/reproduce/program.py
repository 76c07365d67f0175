"""Command of a run, rebuilt from validated parts: a Python program of its repository, and its arguments.

Anyone who may write to the store can have written the tag that holds the command, so its text is never executed.
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


class CommandLine(NamedTuple):
    """Parsed command, every part of which is validated.

    Attributes
    ----------
    settings : dict of str to str
        Environment variables, each one of `provenance.SETTINGS`.
    options : tuple of str
        Options of Python itself; none that loads code is allowed.
    module : str or None
        Module to run with ``python -m``.
    script : str or None
        Path of the file to run, where there is no module.
    arguments : tuple of str
        Arguments of the program.
    """

    settings: dict[str, str]
    options: tuple[str, ...]
    module: str | None
    script: str | None
    arguments: tuple[str, ...]

    @property
    def shell_command(self) -> str:
        """Command quoted for a shell: pasted there, it runs this program and nothing else."""
        settings = [f"{name}={shell_word(value)}" for name, value in self.settings.items()]
        target = ["-m", self.module] if self.module is not None else [self.script or ""]
        return " ".join([*settings, shell_line(["python", *self.options, *target, *self.arguments])])


def parse_command(command: str) -> CommandLine:
    """Parse and validate a recorded command.

    Raises
    ------
    ValueError
        If a part of it is not allowed; the message names it.
    """
    if len(command) >= LONGEST["tags"]:
        raise ValueError(f"it is truncated: MLflow keeps {LONGEST['tags']:,} characters")
    if "\0" in command:
        raise ValueError("an argument contains a NUL")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"a shell cannot read it: {error}") from error
    settings: dict[str, str] = {}
    while words and (setting := _SETTING.fullmatch(words[0])):
        name, value = setting.groups()
        if name not in provenance.SETTINGS or not re.fullmatch(provenance.SETTINGS[name], value):
            raise ValueError(f"the setting {printable(words[0])} is not one that runs record")
        settings[name] = value
        del words[0]
    if not words or not _PYTHON.fullmatch(words[0]):
        raise ValueError("it does not begin with `python`")
    return _program(settings, words[1:])


def _program(settings: dict[str, str], words: list[str]) -> CommandLine:
    options: list[str] = []
    while words and words[0].startswith("-") and words[0] != "-m":
        if words[0] in _OPTION_VALUES and len(words) > 1 and _OPTION_VALUES[words[0]].fullmatch(words[1]):
            options += words[:2]
            del words[:2]
        elif _OPTION.fullmatch(words[0]):
            options.append(words.pop(0))
        else:
            raise ValueError(f"Python's option {printable(words[0])} may run code from outside the repository")
    if not words or words == ["-m"]:
        raise ValueError(NO_PROGRAM)
    if words[0] != "-m":
        return CommandLine(settings, tuple(options), None, words[0], tuple(words[1:]))
    if not all(part.isidentifier() for part in words[1].split(".")):
        raise ValueError(f"{printable(words[1])} is not a module name")
    return CommandLine(settings, tuple(options), words[1], None, tuple(words[2:]))


class LocatedProgram(NamedTuple):
    """Program found in a copy of its repository.

    Attributes
    ----------
    python_arguments : list of str
        Options of Python, the program, and its arguments.
    import_folder : Path
        Folder for ``PYTHONPATH`` that holds the module, or the folder of the script.
    """

    python_arguments: list[str]
    import_folder: Path


def locate(program: CommandLine, root: Path, folder: Path) -> LocatedProgram:
    """Find a program in a copy of its repository.

    Parameters
    ----------
    program : CommandLine
    root : Path
        The copy.
    folder : Path
        Working folder of the program within the copy.

    Raises
    ------
    UserError
        If the program is not a file of the copy.
    """
    options, arguments = list(program.options), list(program.arguments)
    if program.module is not None:
        path = program.module.replace(".", "/")
        for base in (folder, root, root / "src"):
            for file in (base / f"{path}.py", base / path / "__main__.py"):
                if file.is_file() and is_within(root, file):
                    return LocatedProgram([*options, "-m", program.module, *arguments], base)
        raise UserError(f"there is no module {program.module} in {folder}, {root} or its src: only these are searched")
    script = folder / str(program.script)
    if not (script.is_file() and is_within(root, script)):
        raise UserError(f"{program.script}, seen from {folder}, is not a file of {root}: only such files are run")
    return LocatedProgram([*options, str(program.script), *arguments], script.parent)


def is_within(root: Path, path: Path) -> bool:
    """Whether `path`, with links resolved, is inside a copy of a repository and outside its ``.git``."""
    try:
        inside = path.resolve().relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # outside, a loop of links, or a NUL
        return False
    return ".git" not in [part.casefold() for part in inside.parts]


def shell_word(text: str) -> str:
    """Quote a word for bash and zsh, with invisible characters escaped."""
    if printable(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(map(_ansi_c_quoted, text)) + "'"


def shell_line(words: Sequence[str]) -> str:
    """Join the words of a command, each quoted by `shell_word`."""
    return " ".join(map(shell_word, words))


def _ansi_c_quoted(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if printable(character) == character:
        return character
    try:
        as_bytes = character.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        as_bytes = character.encode(errors="surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in as_bytes)
