"""Tools by which an assistant reads recorded runs, over the Model Context Protocol.

Public: nothing; ``mlflow-hp mcp`` serves them.
"""

from __future__ import annotations

__all__: list[str] = []
