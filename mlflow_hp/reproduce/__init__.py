"""Repeat a recorded run: find out what that needs, run its program again, and compare the results.

Public: nothing; users call the command ``mlflow-hp repeat``.
"""

from __future__ import annotations

__all__: list[str] = []
