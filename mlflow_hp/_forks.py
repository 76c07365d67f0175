"""Forked child processes, which copy the parent's objects, but not its threads, and must not use its runs or files."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Abandonable(Protocol):
    """Owner of threads, runs, files or locks of this process."""

    def abandon(self) -> None:
        """Release, in a forked child process, all that belongs to the parent, without waiting or writing."""


_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def abandon_in_child(owner: Abandonable) -> None:
    """Call ``owner.abandon()`` in each forked child process, as long as `owner` exists."""
    _owners.add(owner)


def only_in_this_process(action: Callable[..., None]) -> Callable[..., None]:
    """Wrap `action` so that it does nothing in a forked child process."""
    pid = os.getpid()

    def guarded(*arguments: Any) -> None:
        if os.getpid() == pid:
            action(*arguments)

    return guarded


def _abandon_all() -> None:
    for owner in list(_owners):
        with contextlib.suppress(Exception):  # a child has no one to report to, and must still release the other owners
            owner.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
