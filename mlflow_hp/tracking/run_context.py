"""What MLflow loads by entry point when it is imported: it tells each run of a program that uses mlflow_hp its origin.

A program uses mlflow_hp once `mlflow_hp.tracking.runs` is loaded, as it is by `TrainingRecorder`, `record_search` and
all else that writes to MLflow: where the package is merely installed, runs are left alone. MLflow asks for tags when a
run is started with ``mlflow.start_run``, so that nothing is looked up before.

An exception here would break ``import mlflow`` for every program on the machine.
"""

from __future__ import annotations

import sys


class ProvenanceContext:
    """Run context provider, in the form of MLflow's ``RunContextProvider``."""

    def in_context(self) -> bool:
        """Whether this process uses mlflow_hp."""
        return "mlflow_hp.tracking.runs" in sys.modules

    def tags(self) -> dict[str, str]:
        """``mlflow_hp.author``, ``.command``, ...: those of `provenance.tags`; none if they are off."""
        from mlflow_hp.tracking import provenance

        return {f"mlflow_hp.{name}": value for name, value in provenance.tags().items()}
