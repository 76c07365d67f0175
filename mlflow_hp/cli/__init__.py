"""The command line ``mlflow-hp``, with a module for each command.

Public: nothing; users call the command line.
"""

from __future__ import annotations

__all__: list[str] = []
