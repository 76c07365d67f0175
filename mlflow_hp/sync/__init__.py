"""Copies of runs in another MLflow store: idempotent, without duplicates.

Public: nothing; users call the command ``mlflow-hp sync``.
"""

from __future__ import annotations

__all__: list[str] = []
