"""What some tests need that is not everywhere: a skip says what is missing, and how to get it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from packaging.version import Version

from tests.helpers.servers import postgresql
from tests.helpers.tutorial_data import SHARED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Kind = Callable[[str], AbstractContextManager[str]]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


def needs_file(path: Path) -> pytest.MarkDecorator:
    """Skip a test where a file of the tutorials is missing."""
    return pytest.mark.skipif(
        not path.exists(), reason=f"{path.name} may not be handed on with the project: lay it in {SHARED}"
    )


def since_mlflow(version: str, what: str) -> pytest.MarkDecorator:
    """Skip a test of what MLflow has only since a version."""
    return pytest.mark.skipif(
        Version(mlflow.__version__) < Version(version), reason=f"MLflow {version} is the first that {what}"
    )


def needed(module: str, package: str) -> Any:
    """Import a module, or skip where its package is not installed."""
    return pytest.importorskip(module, reason=f"{package} is not installed: pip install {package}")


@contextlib.contextmanager
def database_of_its_own(name: str, kind: Kind = postgresql) -> Iterator[str]:
    """The URI of a new database, or skip where no server of that kind answers."""
    if kind is postgresql:
        needed("psycopg2", "psycopg2-binary")
    sqlalchemy = needed("sqlalchemy", "sqlalchemy")
    with contextlib.ExitStack() as stack:
        try:
            uri = stack.enter_context(kind(name))
        except sqlalchemy.exc.OperationalError as error:
            pytest.skip(
                f"no {kind.__name__} answers on this machine: apt-get install it, start it, and let its user of "
                f"tests/helpers/servers.py in ({error.orig})"
            )
        yield uri
