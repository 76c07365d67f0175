"""SQLite that does not wait for the disk: MLflow commits seven times a run, and no test here cuts the power."""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy


def install() -> None:
    """Have every connection that this process opens from now on write without waiting until it is on the disk."""
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _without_waiting)


def _without_waiting(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
