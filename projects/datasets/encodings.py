"""Text of a file of any common encoding, packed by gzip or not."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import NamedTuple

from mlflow_hp.errors import UserError
from projects.datasets import downloads

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", ""),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
"""Byte order marks, the codecs that they announce, and the names of those that are reported."""


class Text(NamedTuple):
    """Text with line feeds at the ends of its lines, and sentences on how it was read."""

    text: str
    notes: list[str]


def decode(content: bytes, data: str) -> Text:
    """Decode the content of a file: UTF-8, UTF-16 with a byte order mark, else Latin-1 (Windows-1252).

    Parameters
    ----------
    content : bytes
        Content; what is packed by gzip is unpacked.
    data : str
        Name of the data in error messages.

    Returns
    -------
    Text
        The text.

    Raises
    ------
    UserError
        If it is not text.
    """
    notes = []
    if content.startswith(b"\x1f\x8b"):
        content = _unpack(content, data)
    if content.startswith(b"PK\x03\x04"):
        raise UserError(
            f"data={data!r} is a zip archive or an Excel workbook, not a CSV: unpack it and name the CSV in it, or "
            "save the sheet as CSV"
        )
    mark = next((mark for mark in _MARKS if content.startswith(mark[0])), None)
    try:
        text = content.decode(mark[1] if mark else "utf-8")
        if mark and mark[2]:
            notes.append(f"read as {mark[2]}")
    except UnicodeDecodeError as error:
        if mark:
            raise UserError(f"data={data!r} cannot be read as CSV ({error.reason}): save it as text in UTF-8") from None
        text = _latin(content)
        notes.append("read as Latin-1 (Windows-1252), since it is not UTF-8")
    if "\0" in text or sum(text[:10_000].count(chr(code)) for code in range(1, 9)) > 0:
        raise UserError(f"data={data!r} cannot be read as CSV, since it is not text: name a text file, or one in UTF-8")
    return Text(text.replace("\r\n", "\n").replace("\r", "\n"), notes)


def _latin(content: bytes) -> str:
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing in it
        return content.decode("latin-1")


def _unpack(content: bytes, data: str) -> bytes:
    largest = max(downloads.largest_bytes(), len(content))
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data={data!r} cannot be unpacked by gzip ({error}): make the file again") from None
    if len(unpacked) > largest:
        raise UserError(f"data={data!r} unpacks to {downloads.too_large(len(unpacked))}")
    return unpacked
