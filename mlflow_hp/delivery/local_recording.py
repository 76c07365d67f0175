"""Recording on this machine, finished or not, and the result of its recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_hp.delivery.journal import Entries


TRAINING = "training"
"""Kind of a recording whose journal names no kind."""


class LocalRecording(NamedTuple):
    """Recording on this machine.

    Attributes
    ----------
    folder : Path
        Its folder.
    entries : Entries
        Entries of its journal.
    """

    folder: Path
    entries: Entries

    @property
    def run_id(self) -> str:
        """Id of its run."""
        return str(self.entries.header["run_id"])

    @property
    def kind(self) -> str:
        """Kind of the recording: "training" or "search"."""
        return str(self.entries.header.get("kind", TRAINING))

    @property
    def process(self) -> str | None:
        """Process that recorded it, in the form of the tag ``mlflow_hp.process``."""
        process = self.entries.header.get("process")
        return None if process is None else str(process)

    @property
    def is_done(self) -> bool:
        """Whether MLflow has all of it."""
        return any("done" in record for record in self.entries.records)

    @property
    def tracking_uri(self) -> str:
        """Tracking URI of the run."""
        return str(self.entries.header["tracking_uri"])


class RecoveryResult(NamedTuple):
    """Result of the recovery of a recording.

    Attributes
    ----------
    run_id : str
        Id of its run.
    n_steps : int
        Number of steps that MLflow has of the fit now.
    n_points : int
        Number of metric points that were sent.
    status : str
        Status of the run.
    problems : list of str
        What was lost, and why.
    """

    run_id: str
    n_steps: int
    n_points: int
    status: str
    problems: list[str]
