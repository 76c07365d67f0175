"""What the page of one run shows: its training step by step, its descent, and both as a file of its own.

Public: nothing; users meet it as the page ``/hp/run/RUN_ID`` and as the artifact ``report.html``.
"""

from __future__ import annotations

__all__: list[str] = []
