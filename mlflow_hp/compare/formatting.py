"""Numbers, counts, durations and short texts for reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.terminal import count as count  # noqa: PLC0414 - of the texts of a comparison

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_hp.compare.run_summary import RunFacts


def number(value: float, digits: int = 4) -> str:
    """Format a number to `digits` significant digits, without an exponent from 0.001 up to a million."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Format a duration: ``1 h 02 min``, ``3 min 05 s``, ``4.2 s``."""
    if seconds < 60:
        return f"{number(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short(text: str, max_length: int = 60) -> str:
    """Put a text on one line, and cut its middle out if it has more than `max_length` characters."""
    text = " ".join(text.split())
    if len(text) <= max_length:
        return text
    head = (max_length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (max_length - 1 - head) :]}"


def has_several_authors(runs: Iterable[RunFacts]) -> bool:
    """Whether runs are of more than one author; else each text that names a run leaves the author out."""
    return len({run.author for run in runs}) > 1


def quoted(run: RunFacts, runs: Iterable[RunFacts]) -> str:
    """Name of a run in quotation marks, with "by" its author where the `runs` it is compared with have several."""
    return f"“{run.name}” by {run.author}" if has_several_authors(runs) else f"“{run.name}”"


def with_author(run: RunFacts, runs: Iterable[RunFacts], separator: str = " · ") -> str:
    """Name of a run, with its author where the `runs` it is shown with have several."""
    return f"{run.name}{separator}{run.author}" if has_several_authors(runs) else run.name
