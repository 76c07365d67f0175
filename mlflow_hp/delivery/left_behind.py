"""A recording on this machine, of a process that lives or not, and what comes of it when it is recovered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_hp.delivery.journal import Entries


TRAINING = "training"
"""Kind of a recording whose journal names none."""


class Left(NamedTuple):
    """A recording that a process has left behind.

    Attributes
    ----------
    folder : Path
        Where it is on this machine.
    entries : Entries
        What its journal holds.
    """

    folder: Path
    entries: Entries

    @property
    def run_id(self) -> str:
        """The run that it belongs to."""
        return str(self.entries.head["run_id"])

    @property
    def kind(self) -> str:
        """What was recorded: "training" or "search"."""
        return str(self.entries.head.get("kind", TRAINING))

    @property
    def process(self) -> str | None:
        """Which process records it, as the tag ``mlflow_hp.process``."""
        process = self.entries.head.get("process")
        return None if process is None else str(process)

    @property
    def is_done(self) -> bool:
        """Whether MLflow has all of it."""
        return any("done" in record for record in self.entries.records)

    @property
    def tracking_uri(self) -> str:
        """Where that run is."""
        return str(self.entries.head["tracking_uri"])


class Recovered(NamedTuple):
    """What came of a recording that was left behind.

    Attributes
    ----------
    run_id : str
    n_steps : int
        Steps that MLflow has of this fit now.
    n_points : int
        Metric points that were sent for that.
    status : str
        How the run stands now.
    problems : list of str
        What was lost, and why.
    """

    run_id: str
    n_steps: int
    n_points: int
    status: str
    problems: list[str]
