"""Active run that is looked up only when its id or data are asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import mlflow

if TYPE_CHECKING:
    from collections.abc import Callable


class LateRun(mlflow.ActiveRun):
    """Active run of a computation of which it is not known yet whether it logs anything.

    Parameters
    ----------
    find : callable
        Returns the run; called once, when its id or its data are asked for.
    """

    def __init__(self, find: Callable[[], mlflow.entities.Run]) -> None:
        self.find = find

    @functools.cached_property
    def run(self) -> mlflow.entities.Run:
        """The run."""
        return self.find()

    @property
    def info(self) -> Any:
        """As of a run."""
        return self.run.info

    @property
    def data(self) -> Any:
        """As of a run."""
        return self.run.data

    @property
    def inputs(self) -> Any:
        """As of a run."""
        return self.run.inputs

    @property
    def outputs(self) -> Any:
        """As of a run."""
        return self.run.outputs
