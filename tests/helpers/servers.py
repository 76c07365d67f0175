"""Real ``mlflow server`` processes, and databases for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import requests

from tests.helpers.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

POSTGRES = "postgresql+psycopg2://postgres@127.0.0.1:5432"
"""A PostgreSQL on this machine, where databases may be made and dropped."""
MARIADB = "mysql+pymysql://root@127.0.0.1:3306"
"""A MariaDB likewise."""


class Server:
    """An ``mlflow server`` on this machine, that can be killed and started again.

    Parameters
    ----------
    folder : Path
        For its artifacts and its log.
    store : str, optional
        URI of its database. Defaults to a SQLite file in `folder`.
    workers : int
        How many processes answer. Defaults to 1.
    options : sequence of str
        More options of the command. Defaults to none.
    environment : mapping of str to str, optional
        Variables of its environment, next to those of this process. Defaults to none.

    Attributes
    ----------
    uri : str
        Where it is; the same when it is started again.
    """

    def __init__(
        self, folder: Path, store: str | None = None, workers: int = 1, options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        prefix = options[options.index("--static-prefix") + 1] if "--static-prefix" in options else ""
        self.uri = f"http://127.0.0.1:{port}{prefix}"
        store = store or f"sqlite:///{folder}/server.db"
        self._words = ["-m", "mlflow", "server", "--backend-store-uri", store, "--workers", str(workers), *options,
                       "--artifacts-destination", str(folder / "at-the-server"), "--port", str(port)]  # fmt: skip
        self._folder, self._log = folder, folder / "server.log"
        self._environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises
        ------
        RuntimeError
            With the end of its log, where it ends instead.
        """
        with self._log.open("a") as log:
            process = subprocess.Popen([sys.executable, *self._words], env=self._environment, stdout=log, stderr=log,
                                       cwd=self._folder, start_new_session=True)  # fmt: skip
        self._process = process
        wait_for(lambda: self._answers() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(self._log.read_text()[-2000:])

    def _answers(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.uri}/health", timeout=60).ok
        return False

    def kill(self) -> float:
        """Kill it and what it has started; gives the seconds of a core that they took."""
        import psutil

        assert self._process is not None
        used = 0.0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
            used = sum(one.user + one.system for one in times)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return used


@contextlib.contextmanager
def serving(folder: Path, app_name: str, *options: str, store: str | None = None, **environment: str) -> Iterator[str]:
    """The address of an ``mlflow server`` with an app, killed at the end."""
    served = Server(folder, store, options=["--app-name", app_name, *options], environment=environment)
    served.start()
    try:
        yield served.uri
    finally:
        served.kill()


@contextlib.contextmanager
def postgresql(name: str) -> Iterator[str]:
    """A new database at `POSTGRES`, dropped at the end; gives its URI.

    Raises
    ------
    sqlalchemy.exc.OperationalError
        Where no PostgreSQL answers there.
    """
    with _database(f"{POSTGRES}/postgres", name, "WITH (FORCE)"):
        yield f"{POSTGRES}/{name}"


@contextlib.contextmanager
def mariadb(name: str) -> Iterator[str]:
    """A new database at `MARIADB`, dropped at the end; gives its URI.

    Raises
    ------
    sqlalchemy.exc.OperationalError
        Where no MariaDB answers there.
    """
    with _database(MARIADB, name):
        yield f"{MARIADB}/{name}"


@contextlib.contextmanager
def _database(server: str, name: str, force: str = "") -> Iterator[None]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    try:
        yield
    finally:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} {force}"))
