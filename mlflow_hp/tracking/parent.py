"""The run that runs started in this context are nested in, such as that of the search whose worker this is."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_parent: ContextVar[str | None] = ContextVar("mlflow_hp_parent", default=None)


def parent_id() -> str | None:
    """Return the id of that run; None if there is none."""
    return _parent.get()


@contextlib.contextmanager
def nested_in(run_id: str | None) -> Iterator[None]:
    """Nest runs that are started inside the block in a run; None changes nothing."""
    token = _parent.set(run_id or _parent.get())
    try:
        yield
    finally:
        _parent.reset(token)
