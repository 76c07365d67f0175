"""MLflow plugin that tags each run of a program that uses mlflow_hp with its provenance.

A program uses mlflow_hp once `mlflow_hp.tracking.runs` is loaded, as by `TrainingRecorder`, `record_search` and all
other parts that write to MLflow; runs of other programs are not tagged, even if the package is installed. MLflow asks
for the tags in ``mlflow.start_run``; they are not computed before.

MLflow loads this module by its entry point during ``import mlflow``: an exception here would break that import for
every program on the machine.
"""

from __future__ import annotations

import sys


class ProvenanceContext:
    """Run context provider, with the interface of MLflow's ``RunContextProvider``."""

    def in_context(self) -> bool:
        """Whether this process uses mlflow_hp."""
        return "mlflow_hp.tracking.runs" in sys.modules

    def tags(self) -> dict[str, str]:
        """Tags of `provenance.tags`: ``mlflow_hp.author``, ``.command``, ...; none if they are turned off."""
        from mlflow_hp.tracking import provenance

        return provenance.tags()
