"""List, read and write the artifacts of a run or a model in any artifact store."""

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

    from mlflow_hp.sync.id_map import IdMap

_MLMODEL = "MLmodel"
"""File of a model that holds the ids of the model and of its run."""
_BREAKS_URLS = re.compile(r"[#?]|%[0-9a-fA-F]{2}")


class Artifacts:
    """All artifacts of one run or model.

    Parameters
    ----------
    uri : str
        Artifact URI of the run or model.
    tracking_uri : str
        Its tracking store.
    id_map : IdMap, optional
        If set, the ids in a model's ``MLmodel`` file are translated when it is read.
    """

    def __init__(self, uri: str, tracking_uri: str, id_map: IdMap | None = None) -> None:
        self._uri, self._tracking_uri, self._id_map = uri, tracking_uri, id_map
        self._repository = get_artifact_repository(uri, tracking_uri=tracking_uri)

    def sizes(self) -> dict[str, int | None]:
        """Size of every file in bytes, by path; None if the store does not know it."""
        sizes: dict[str, int | None] = {}
        folders: list[str | None] = [None]
        while folders:
            for entry in self._repository.list_artifacts(folders.pop()):
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    sizes[entry.path] = entry.file_size
        return sizes

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file, by path."""
        return {path: self.digest(path) for path in sorted(self.sizes())}

    def digest(self, path: str) -> str:
        """SHA-256 of a file."""
        with self.local(path) as local, local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """Provide the file on this machine while the block runs."""
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(self._repository, LocalArtifactRepository):
                file = Path(self._repository.artifact_dir, path)
            else:
                file = Path(self._repository.download_artifacts(path, dst_path=folder))
            if self._id_map is not None and file.name == _MLMODEL:
                text = file.read_text(encoding="utf-8", errors="surrogateescape")
                file = Path(folder, "translated", _MLMODEL)
                file.parent.mkdir()
                file.write_text(self._id_map.translate(text), encoding="utf-8", errors="surrogateescape")
            yield file

    def accepts_name(self, path: str) -> bool:
        """Whether the store can hold a file of this name: MLflow does not quote names in URLs."""
        return not (isinstance(self._repository, HttpArtifactRepository) and _BREAKS_URLS.search(path))

    def write(self, local: Path, path: str) -> None:
        """Write a file, replacing an existing one.

        Raises
        ------
        UserError
            If the artifact store cannot be written.
        """
        try:
            self._ensure_shared_with_server()
            folder = str(PurePosixPath(path).parent)
            self._repository.log_artifact(str(local), None if folder == "." else folder)
        except (OSError, MlflowException) as error:
            raise UserError(
                f"the artifact store {masked(self._uri)} cannot be written ({type(error).__name__}: {error}); "
                "fix it and run the command again: it resumes where it stopped"
            ) from error

    def _ensure_shared_with_server(self) -> None:
        """Refuse a local folder that only the server's own machine has: files written here would never reach it."""
        tracking = urlsplit(self._tracking_uri)
        if (
            isinstance(self._repository, LocalArtifactRepository)
            and tracking.scheme in ("http", "https")
            and tracking.hostname not in ("localhost", "127.0.0.1", "::1")
            and not any(parent.exists() for parent in list(Path(self._repository.artifact_dir).parents)[:3])
        ):
            raise MlflowException(
                f"it is a folder of the machine {tracking.hostname}, not of this one: start the server so that it "
                "takes uploads, with `mlflow server --artifacts-destination FOLDER`"
            )
