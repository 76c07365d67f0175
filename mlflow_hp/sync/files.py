"""The artifacts of a run or a model: listed, read, and written, wherever they lie."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.sync.id_map import Identities

_NAMES_IDS = "MLmodel"
"""The file of a model in which MLflow writes the ids of the model and of its run."""
_CUT_IN_URLS = re.compile(r"[#?]|%[0-9a-fA-F]{2}")


class Files:
    """The artifacts below one place of an artifact store.

    Parameters
    ----------
    uri : str
        The place, as the tracking store names it.
    tracking_uri : str
        That store.
    identities : Identities, optional
        The ids that a model's description is to name in place of its own.
    """

    def __init__(self, uri: str, tracking_uri: str, identities: Identities | None = None) -> None:
        self._uri, self._tracking_uri, self._identities = uri, tracking_uri, identities
        self._repository = get_artifact_repository(uri, tracking_uri=tracking_uri)

    def sizes(self) -> dict[str, int | None]:
        """Path -> bytes of every file; None where the store doesn't say."""
        found: dict[str, int | None] = {}
        folders: list[str | None] = [None]
        while folders:
            for entry in self._repository.list_artifacts(folders.pop()):
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    found[entry.path] = entry.file_size
        return found

    def digests(self) -> dict[str, str]:
        """Path -> SHA-256 of every file."""
        return {path: self.digest(path) for path in sorted(self.sizes())}

    def digest(self, path: str) -> str:
        """SHA-256 of a file."""
        with self.local(path) as local, local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """The file on this machine, for as long as the block lasts."""
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(self._repository, LocalArtifactRepository):
                file = Path(self._repository.artifact_dir, path)
            else:
                file = Path(self._repository.download_artifacts(path, dst_path=folder))
            if self._identities is not None and file.name == _NAMES_IDS:
                text = file.read_text(encoding="utf-8", errors="surrogateescape")
                file = Path(folder, "translated", _NAMES_IDS)
                file.parent.mkdir()
                file.write_text(self._identities.translate(text), encoding="utf-8", errors="surrogateescape")
            yield file

    def takes(self, path: str) -> bool:
        """Whether a file can have this name: MLflow does not quote names that it sends over http."""
        return not (isinstance(self._repository, HttpArtifactRepository) and _CUT_IN_URLS.search(path))

    def put(self, local: Path, path: str) -> None:
        """Write a file; one that is there is replaced.

        Raises
        ------
        UserError
            Where the artifact store can't be written.
        """
        try:
            self._ensure_seen_by_the_server()
            folder = str(PurePosixPath(path).parent)
            self._repository.log_artifact(str(local), None if folder == "." else folder)
        except (OSError, MlflowException) as error:
            raise UserError(
                f"the artifact store {masked(self._uri)} can't be written ({type(error).__name__}: {error}); "
                "mend it, and run the command again: it goes on where it was"
            ) from error

    def _ensure_seen_by_the_server(self) -> None:
        """Refuse the folder of a server on another machine: what is written to it here stays on this one."""
        tracking = urlsplit(self._tracking_uri)
        if (
            isinstance(self._repository, LocalArtifactRepository)
            and tracking.scheme in ("http", "https")
            and tracking.hostname not in ("localhost", "127.0.0.1", "::1")
            and not any(parent.exists() for parent in list(Path(self._repository.artifact_dir).parents)[:3])
        ):
            raise MlflowException(
                f"it is a folder of the machine {tracking.hostname}, and not of this one: the server has to "
                "hand artifacts on, `mlflow server --artifacts-destination FOLDER`"
            )
