"""Safe printing of untrusted text: every character is shown, and none controls the terminal.

Names, tags, params and messages come from a store that others write to. Control characters in them could clear the
terminal, change its title, make links, or show a line backwards or not at all.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["count", "is_live", "printable", "say"]

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\U0001bca0-\U0001bca3\U000e0000-\U000e0fff]"
)
"""Characters without a glyph that ``str.isprintable`` accepts."""


def printable(text: object) -> str:
    r"""Escape the characters of a text that a terminal does not show as such.

    Escaped (``\n``, ``\x1b``, ``\u202e``) are control characters, line ends, characters that reverse or join their
    neighbours, characters without width or meaning, all spaces but the common one, and lone surrogates.

    Parameters
    ----------
    text : object
        Text, or another object, which is converted by ``str``.

    Returns
    -------
    str
        Escaped text; printable text is unchanged.

    Examples
    --------
    >>> from mlflow_hp.terminal import printable
    >>> print(printable("red: " + chr(27) + "[31m"))
    red: \x1b[31m
    """
    text = str(text)
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(c if c.isprintable() and not _INVISIBLE.match(c) else _escaped(c) for c in text)


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines, escaped by `printable`.

    Parameters
    ----------
    *lines : object
        Texts, or other objects, printed on a line each.
    file : text stream, optional
        Stream to print to. Defaults to stdout.

    Examples
    --------
    >>> from mlflow_hp.terminal import say
    >>> say("run 1 of 2", "loss 0.25")
    run 1 of 2
    loss 0.25
    """
    stream = file or sys.stdout
    for line in lines:
        print(_encodable(printable(line), stream), file=stream, flush=True)


def count(n: int, noun: str) -> str:
    """Format a count of things, in English.

    Parameters
    ----------
    n : int
        How many.
    noun : str
        What, in the singular; with a regular plural.

    Returns
    -------
    str
        Such as "1 run", "2 runs", "3 classes".

    Examples
    --------
    >>> from mlflow_hp.terminal import count
    >>> [count(1, "batch"), count(0, "batch"), count(1200, "step")]
    ['1 batch', '0 batches', '1,200 steps']
    """
    ending = "" if n == 1 else "es" if noun.endswith(("s", "x", "sh", "tch")) else "s"
    return f"{n:,} {noun}{ending}"


def is_live() -> bool:
    """Whether stderr is shown while it is written, in a terminal or a notebook: else progress bars fill a log.

    Returns
    -------
    bool
        False for a file, a pipe, or no stderr.

    Examples
    --------
    >>> from mlflow_hp.terminal import is_live
    >>> is_live() in (True, False)
    True
    """
    if "ipykernel" in sys.modules:
        return True
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False


@contextlib.contextmanager
def escape_output() -> Iterator[None]:
    """Escape everything that is printed in the block, also by other libraries, except line ends.

    Characters that the stream's encoding lacks are escaped, too, instead of raising ``UnicodeEncodeError``. On stderr
    a write may begin with a carriage return, as progress bars do.
    """
    with contextlib.redirect_stdout(_safe(sys.stdout)), contextlib.redirect_stderr(_safe(sys.stderr, "\r")):
        yield


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _encodable(text: str, stream: TextIO | None) -> str:
    """Escape the characters that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _safe(stream: Any, allowed_prefix: str = "") -> Any:
    return stream if stream is None or isinstance(stream, _SafeStream) else _SafeStream(stream, allowed_prefix)


class _SafeStream:
    """Wrapper of a text stream that escapes all but line ends, and `allowed_prefix` at the start of a write."""

    def __init__(self, stream: TextIO, allowed_prefix: str) -> None:
        self._stream = stream
        self._allowed_prefix = allowed_prefix

    def write(self, text: str) -> int:
        prefix = self._allowed_prefix if text.startswith(self._allowed_prefix) else ""
        safe = prefix + "\n".join(map(printable, text[len(prefix) :].split("\n")))
        self._stream.write(_encodable(safe, self._stream))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
