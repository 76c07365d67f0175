"""The tutorials' own data, where a folder beside the checkout has them: they may not be handed on with the project."""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared" / "data"
ADVERTISING = SHARED / "Advertising.csv"
