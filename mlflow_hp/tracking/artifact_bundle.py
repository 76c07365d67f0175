"""Files for a run, collected in a folder and uploaded together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mlflow_hp.tracking import runs

if TYPE_CHECKING:
    from types import TracebackType


class ArtifactBundle:
    """Collects files in a folder, and uploads them to a run when its ``with`` block ends without an exception.

    Parameters
    ----------
    run_id : str
        Id of the run.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._folder = tempfile.TemporaryDirectory(prefix="mlflow_hp_report_")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        with self._folder:
            if error is None:
                self.upload()

    def upload(self) -> None:
        """Upload the files to the run."""
        runs.upload(self.run_id, self._folder.name)

    def close(self) -> None:
        """Delete the local files."""
        self._folder.cleanup()

    def file(self, name: str) -> Path:
        """Local path of the artifact `name`, a path with slashes; its folder is made."""
        path = Path(self._folder.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str) -> str:
        """Content of the file `name`, as it was added; empty if there is none."""
        path = Path(self._folder.name, name)
        return path.read_text(encoding="utf-8") if path.is_file() else ""
