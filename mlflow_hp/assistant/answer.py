"""Answer of a tool: lines of text, bounded in size, without secrets or control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.terminal import printable
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 4000
"""Size of an answer in UTF-8: some 1,000 tokens of a language model."""
MAX_LINE_BYTES = 900
"""Size of a line, so that one long text does not take the place of all others."""
RESERVED_BYTES = 200
"""Room for the line that tells what is left out."""


def answer(lines: Iterable[str], more: str = "") -> str:
    """Join lines to an answer of at most `MAX_BYTES`: what does not fit is left out at the end, and counted.

    Parameters
    ----------
    lines : iterable of str
        The most important first; secrets in them are masked.
    more : str
        Advice how to read what is left out. Defaults to ``""``: there is none.

    Returns
    -------
    str
        The answer.

    Examples
    --------
    >>> from mlflow_hp.assistant.answer import answer
    >>> print(answer(["loss 0.5"]))
    loss 0.5
    >>> print(answer(["x" * 800] * 10).splitlines()[-1])
    (left out: 6 of 10 lines)
    """
    safe = [_cut(printable(masked(line)), MAX_LINE_BYTES) for line in lines]
    shown: list[str] = []
    size = 0
    for line in safe:
        size += len(line.encode()) + 1
        if size > MAX_BYTES - RESERVED_BYTES:
            advice = f"; {more}" if more else ""
            shown.append(_cut(f"(left out: {len(safe) - len(shown)} of {len(safe)} lines{advice})", RESERVED_BYTES))
            break
        shown.append(line)
    return "\n".join(shown)


def _cut(text: str, n_bytes: int) -> str:
    """Cut a text to a size in UTF-8, between characters, and mark that."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= n_bytes:
        return text
    return f"{data[: n_bytes - 4].decode(errors='ignore')}…"
