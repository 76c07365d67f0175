"""Time budgets: seconds, or texts such as ``"10min"``."""

from __future__ import annotations

import datetime as dt
import math
import re

from mlflow_hp.errors import UserError

UNITS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
"""Seconds of each unit."""
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")


def budget_seconds(budget: float | str | dt.timedelta | None) -> float:
    """Convert a time budget to seconds.

    Parameters
    ----------
    budget : float, str, timedelta or None
        Seconds, ``"90s"``, ``"10min"``, ``"1h 30min"``, ``"2d"``; None for no limit.

    Returns
    -------
    float
        Seconds; infinite for None.

    Raises
    ------
    UserError
        If it is not a positive time.

    Examples
    --------
    >>> from mlflow_hp.search import budget_seconds
    >>> budget_seconds("1h 30min")
    5400.0
    """
    seconds = math.nan
    if budget is None:
        return math.inf
    if isinstance(budget, dt.timedelta):
        seconds = budget.total_seconds()
    elif isinstance(budget, str):
        text = budget.strip().lower()
        parts = _PART.findall(text)
        if parts and not re.sub(r"\s", "", _PART.sub("", text)) and all(unit in UNITS for _, unit in parts):
            seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    elif isinstance(budget, (int, float)) and not isinstance(budget, bool):
        seconds = float(budget)
    if not seconds > 0:
        raise UserError(
            f"time_budget={budget!r} is no time: give seconds, or a text such as '90s', '10min' or '1h 30min'"
        )
    return seconds
