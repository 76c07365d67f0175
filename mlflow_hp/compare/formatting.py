"""Numbers, counts, durations and short texts for reports."""

from __future__ import annotations

import math

from mlflow_hp.terminal import count as count  # noqa: PLC0414 - of the texts of a comparison


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
