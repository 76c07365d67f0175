"""Forked children: they have copies of their parent's objects, but neither its threads nor its runs and files."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Abandons(Protocol):
    """What holds threads, runs, files or locks of this process."""

    def abandon(self) -> None:
        """In a forked child: hold nothing of the parent's any more. It waits for nothing and writes nothing."""


_held: weakref.WeakSet[Any] = weakref.WeakSet()


def abandon_in_child(holder: Abandons) -> None:
    """Have ``holder.abandon()`` called in each forked child, as long as there is the `holder`."""
    _held.add(holder)


def only_here(action: Callable[..., None]) -> Callable[..., None]:
    """Make an `action` do nothing in a forked child."""
    process = os.getpid()

    def act(*arguments: Any) -> None:
        if os.getpid() == process:
            action(*arguments)

    return act


def _in_child() -> None:
    for holder in list(_held):
        with contextlib.suppress(Exception):  # nobody could be told, and the next must hold nothing either
            holder.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
