"""Files for a run, gathered in a folder and brought to it all at once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mlflow_hp.tracking import runs

if TYPE_CHECKING:
    from types import TracebackType


class ArtifactBundle:
    """Gathers files in a folder, and brings them to a run all at once when its ``with`` block ends well.

    Parameters
    ----------
    run_id : str
        The run.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._folder = tempfile.TemporaryDirectory(prefix="mlflow_hp_report_")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        with self._folder:
            if kind is None:
                self.bring()

    def bring(self) -> None:
        """Bring the files to the run."""
        runs.upload(self.run_id, self._folder.name)

    def close(self) -> None:
        """Remove the files from this machine."""
        self._folder.cleanup()

    def file(self, name: str) -> Path:
        """Where to write the artifact `name`, a path with slashes."""
        path = Path(self._folder.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
