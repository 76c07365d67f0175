"""Checksums of histories and journals: XXH3 of 64 bits; CRC-32, which earlier versions used, can still be checked."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence

CRC_VERSION = 1
"""Version of the steps file whose checksums are CRC-32."""
CRC_DIGITS = 8
"""Hexadecimal digits of a CRC-32; XXH3 has 16."""

_SECTOR = 512  # bytes that version 1 summed before taking the checksum
_BLOCK = _SECTOR * 2**13  # bytes that are summed at once


class Checksum(Protocol):
    """Running checksum of bytes."""

    def update(self, data: bytes, /) -> object:
        """Add the next bytes."""

    def hexdigest(self) -> str:
        """Return the checksum in hexadecimal digits."""


class Crc32:
    """CRC-32 as a `Checksum`."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """Add the next bytes."""
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        """Return the checksum in hexadecimal digits."""
        return f"{self._value:08x}"


def text_checksum(text: bytes) -> str:
    """Return the checksum of a text, in 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(text)


def is_intact(text: bytes, checksum: bytes) -> bool:
    """Return whether a text has this checksum: `text_checksum`, or a CRC-32 of 8 hexadecimal digits."""
    expected = f"{zlib.crc32(text):08x}" if len(checksum) == CRC_DIGITS else text_checksum(text)
    return checksum == expected.encode()


def header_checksum(text: bytes, version: int) -> str:
    """Return the checksum of a steps file's header, in this version of the format."""
    return str(zlib.crc32(text)) if version == CRC_VERSION else text_checksum(text)


def column_checksum(numbers: np.ndarray, version: int, bitmap: np.ndarray | None = None) -> int:
    """Return the checksum of an array's bytes, and of those of its bitmap if there is one, in a version of the format.

    In version 1 it is the CRC-32 of the sums of each 512 bytes, as 64-bit words, and of the remaining bytes.
    """
    data = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)
    if version > CRC_VERSION:
        if bitmap is None:
            return xxhash.xxh3_64_intdigest(data.data)
        digest = xxhash.xxh3_64(data.data)
        digest.update(bitmap.data)
        return digest.intdigest()
    n_summed, crc = data.size // _SECTOR * _SECTOR, 0
    for start in range(0, n_summed, _BLOCK):
        words = data[start : min(start + _BLOCK, n_summed)].view("<u8")
        crc = zlib.crc32(words.reshape(-1, _SECTOR // 8).sum(axis=1, dtype="<u8").data, crc)
    return zlib.crc32(data[n_summed:].data, crc)


def chunk_checksums(n_rows: int, checksums: Sequence[int], version: int) -> bytes:
    """Return the text in a chunk's metadata: its number of rows and the checksum of each column, in hexadecimal."""
    return np.array([n_rows, *checksums], _word(version)).tobytes().hex().encode()


def read_chunk_checksums(text: bytes, n_columns: int, version: int) -> tuple[int, list[int]]:
    """Read the text of `chunk_checksums`: the number of rows and the checksum of each column.

    Raises
    ------
    ValueError
        If the text is damaged, or does not have one checksum for each column.
    """
    n_rows, *checksums = np.frombuffer(bytes.fromhex(text.decode("ascii")), _word(version)).tolist() or [0]
    if len(checksums) != n_columns:
        raise ValueError(f"a chunk of {n_columns} columns has {len(checksums)} checksums")
    return n_rows, checksums


def _word(version: int) -> str:
    return "<u4" if version == CRC_VERSION else "<u8"
