"""Tables of flatbuffers, the encoding of the metadata of Arrow's messages: https://flatbuffers.dev/internals."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


class FlatTable:
    """Table of a flatbuffer: values by slot, each of which may be absent."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data, self._offset = data, offset
        self._vtable = offset - self._unpack("i", offset)
        self._n_slots = (self._unpack("H", self._vtable) - 4) // 2

    def has(self, slot: int) -> bool:
        """Return whether the slot has a value."""
        return self._slot_offset(slot) is not None

    def number(self, slot: int, form: str) -> int:
        """Return a number, in a format of `struct`; 0 if it is absent."""
        offset = self._slot_offset(slot)
        return 0 if offset is None else self._unpack(form, offset)

    def table(self, slot: int) -> FlatTable:
        """Return another table."""
        return FlatTable(self._data, self._target(slot))

    def tables(self, slot: int, max_length: int) -> list[FlatTable]:
        """Return a vector of tables; raise ValueError if it is too long, as all may be one and the same table."""
        if not self.has(slot):
            return []
        start = self._target(slot)
        length = self._unpack("I", start)
        if length > max_length:
            raise ValueError(f"{length} entries are more than {max_length}")
        offsets = range(start + 4, start + 4 + 4 * length, 4)
        return [FlatTable(self._data, offset + self._unpack("I", offset)) for offset in offsets]

    def pairs(self, slot: int) -> np.ndarray:
        """Return a vector of structs of two 64-bit integers: shape (n, 2)."""
        start = self._target(slot)
        return np.frombuffer(self._data, "<i8", 2 * self._unpack("I", start), start + 4).reshape(-1, 2)

    def text(self, slot: int) -> bytes:
        """Return a text, in UTF-8."""
        start = self._target(slot)
        end = start + 4 + self._unpack("I", start)
        if end > len(self._data):
            raise ValueError("a text is longer than the message")
        return self._data[start + 4 : end]

    def _slot_offset(self, slot: int) -> int | None:
        if slot >= self._n_slots:
            return None
        offset = self._unpack("H", self._vtable + 4 + 2 * slot)
        return self._offset + offset if offset else None

    def _target(self, slot: int) -> int:
        offset = self._slot_offset(slot)
        if offset is None:
            raise ValueError("an entry is missing")
        return offset + self._unpack("I", offset)

    def _unpack(self, form: str, offset: int) -> Any:
        if offset < 0:
            raise ValueError("an entry is before the message")
        return struct.unpack_from(f"<{form}", self._data, offset)[0]
