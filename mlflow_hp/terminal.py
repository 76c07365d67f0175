"""Text from elsewhere on a terminal: every character shows, and none of them steers.

Names, tags, params and messages come from a store that others write to. A terminal would obey what is in them: clear
itself, change its title, make links, show a line backwards or nothing at all.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\U0001bca0-\U0001bca3\U000e0000-\U000e0fff]"
)
"""Characters without a shape that Python takes to be printable."""


def printable(text: object) -> str:
    r"""The text in one line in which every character shows.

    Spelled out, as ``\n``, ``\x1b``, ``\u202e``, are controls, ends of lines, what turns or joins its neighbours, what
    has no width or no meaning, all spaces but the common one, and halves of characters (lone surrogates).
    """
    text = str(text)
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(each if each.isprintable() and not _UNSEEN.match(each) else _spelled(each) for each in text)


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print each of `lines`, `printable`, in a line of its own, in any encoding; on stdout by default."""
    stream = file or sys.stdout
    for line in lines:
        print(_encodable(printable(line), stream), file=stream, flush=True)


@contextlib.contextmanager
def shown_safely() -> Iterator[None]:
    """Have all that is printed in the block be `printable`, whoever prints it, but for the ends of lines.

    What the stream's encoding lacks is spelled out, too, instead of raising ``UnicodeEncodeError``. On stderr a write
    may begin with a carriage return, as progress bars do.
    """
    with contextlib.redirect_stdout(_shown(sys.stdout)), contextlib.redirect_stderr(_shown(sys.stderr, "\r")):
        yield


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _encodable(text: str, stream: TextIO | None) -> str:
    """The text with what the stream's encoding lacks spelled out."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _shown(stream: Any, beginning: str = "") -> Any:
    return stream if stream is None or isinstance(stream, _Shown) else _Shown(stream, beginning)


class _Shown:
    """A stream to which only what is printable goes on, and ends of lines, and `beginning` where a write begins so."""

    def __init__(self, stream: TextIO, beginning: str) -> None:
        self._stream = stream
        self._beginning = beginning

    def write(self, text: str) -> int:
        begun = self._beginning if self._beginning and text.startswith(self._beginning) else ""
        shown = begun + "\n".join(map(printable, text[len(begun) :].split("\n")))
        self._stream.write(_encodable(shown, self._stream))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
