"""Acknowledgement of a journal's records, in order, each when MLflow has all its items."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Acknowledgements:
    """Counts the items of records, and those that MLflow has.

    Parameters
    ----------
    on_acknowledged : callable
        Called with the number of records, from the first, that MLflow has, whenever it grows.
    """

    def __init__(self, on_acknowledged: Callable[[int], object]) -> None:
        self._on_acknowledged = on_acknowledged
        self._n_items = self._n_sent = 0
        self._has_gap = self._is_held = False
        self._records: deque[tuple[int, int]] = deque()

    @property
    def is_complete(self) -> bool:
        """Whether there is no gap, and no item waits."""
        return not self._has_gap and not self._is_held and self._n_sent == self._n_items

    def add_items(self, n_items: int, record: int | None) -> None:
        """Count the items of a record, perhaps 0; `record` is None for items without a record in the journal."""
        self._n_items += n_items
        if record is not None and not self._has_gap:
            self._records.append((self._n_items, record))
            self._acknowledge()

    def note_sent(self, n_items: int) -> None:
        """Count the next items as sent, or set aside."""
        self._n_sent += n_items
        self._acknowledge()

    def note_gap(self) -> None:
        """Note that items were left out: neither their record nor a later one is acknowledged."""
        self._has_gap = True
        self._records.clear()

    def hold(self) -> None:
        """Acknowledge nothing more until `release`: a record is being sent apart from the items."""
        self._is_held = True

    def release(self) -> None:
        """Acknowledge what MLflow has."""
        self._is_held = False
        self._acknowledge()

    def _acknowledge(self) -> None:
        last = None
        while not self._is_held and self._records and self._records[0][0] <= self._n_sent:
            _, last = self._records.popleft()
        if last is not None:
            self._on_acknowledged(last + 1)
