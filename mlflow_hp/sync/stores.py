"""Source and target store of a sync."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.sync.folders import FolderClient, folder_of
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.runs import ensure_reachable

if TYPE_CHECKING:
    from mlflow_hp.sync.selection import Scope


class Stores(NamedTuple):
    """Clients and URIs of both sides."""

    source: mlflow.MlflowClient
    target: mlflow.MlflowClient
    source_uri: str
    target_uri: str

    def ensure_reachable(self) -> None:
        """Raise UserError if a server does not answer."""
        ensure_reachable(self.source_uri)
        ensure_reachable(self.target_uri)

    def ensure_distinct(self, scope: Scope) -> None:
        """Raise UserError if both sides are one store under two URIs."""
        for run in scope.runs[:1]:
            try:
                self.target.get_run(run.info.run_id)
            except MlflowException as error:
                if error.get_http_status_code() >= 500:
                    raise
            else:
                raise _same_store(self.source_uri, self.target_uri)


def connect(target_uri: str, source_uri: str | None = None) -> Stores:
    """Open both stores.

    Parameters
    ----------
    target_uri : str
        Tracking URI to copy to.
    source_uri : str, optional
        Tracking URI to copy from. Defaults to the current one.

    Raises
    ------
    UserError
        If a server does not answer, a URI is invalid, the source does not exist, or both are the same store.
    """
    for name, uri in (("--to", target_uri), ("--from", source_uri)):
        if uri is not None and not uri.strip():
            raise UserError(f"{name} is empty: give a tracking URI, such as http://HOST:5000")
    source_uri, target_uri = absolute(source_uri or mlflow.get_tracking_uri()), absolute(target_uri)
    if source_uri == target_uri:
        raise _same_store(source_uri, target_uri)
    _ensure_exists(source_uri)
    for option, uri in (("--from", source_uri), ("--to", target_uri)):
        ensure_reachable(uri, option=option)
    stores = Stores(_client(source_uri, "--from"), _client(target_uri, "--to"), source_uri, target_uri)
    if isinstance(stores.target, FolderClient):
        stores.target.ensure_undamaged()
    return stores


def absolute(uri: str) -> str:
    """Normalise the URI of a store: absolute paths, links resolved, no trailing slash."""
    if (file := _sqlite_file(uri)) is not None:
        return uri.replace(f":///{_database(uri)}", f":///{file.resolve()}", 1)
    if (folder := folder_of(uri)) is not None:
        return folder.resolve().as_uri()
    return uri.rstrip("/")


def _client(uri: str, option: str) -> Any:
    """Make a client, and read from the store once, so that a bad URI fails here."""
    try:
        folder = folder_of(uri)
        client = mlflow.MlflowClient(uri) if folder is None else FolderClient(mlflow.MlflowClient(uri), folder)
        client.search_experiments(max_results=1)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{option} {masked(uri)} cannot be opened as a tracking store ({type(error).__name__}: {masked(reason)}); "
            "a tracking URI is http://HOST:PORT, sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from error
    return client


def _ensure_exists(uri: str) -> None:
    """Raise UserError if the source is a missing SQLite file or folder: MLflow would create an empty one."""
    file = _sqlite_file(uri) or folder_of(uri)
    if file is not None and not file.exists():
        raise UserError(
            f"there is no tracking store {masked(uri)} to copy from: name it with --from or MLFLOW_TRACKING_URI, or "
            "change to the folder of mlflow.db"
        )


def _sqlite_file(uri: str) -> Path | None:
    path = _database(uri)
    named = path and path != ":memory:" and not path.startswith("file:")
    return Path(path) if named and uri.startswith("sqlite") else None


def _database(uri: str) -> str:
    """Path in the URI of a database."""
    return uri.partition(":///")[2].partition("?")[0]


def _same_store(source_uri: str, target_uri: str) -> UserError:
    return UserError(
        f"--to {masked(target_uri)} is the source store itself, {masked(source_uri)}: name two different ones "
        "with --from (defaults to MLFLOW_TRACKING_URI) and --to"
    )
