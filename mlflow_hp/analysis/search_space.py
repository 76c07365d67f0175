"""The parameters of a search: which vary, how their values are ordered and labelled."""

from __future__ import annotations

import math
import types
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import joblib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOG_FROM = 8.0
"""Least ratio of largest to smallest positive value for a logarithmic axis."""
WHOLE_BELOW = 1e6
"""Whole numbers below this are written with all digits."""
ABSENT = "(absent)"
"""Value of a parameter in candidates that do not set it, in a search over a list of grids."""


class Parameter(NamedTuple):
    """One parameter over all candidates.

    Attributes
    ----------
    name : str
        As in the search space, such as ``"svc__C"``.
    kind : {"linear", "log", "category"}
        Numbers, numbers better spread on a logarithmic axis, or anything else.
    levels : list
        The distinct values: numbers ascending, then the others in order of first appearance.
    labels : list of str
        A distinct text for each level.
    codes : ndarray of int, shape (n_candidates,)
        Each candidate's 0-based level.
    """

    name: str
    kind: Literal["linear", "log", "category"]
    levels: list[Any]
    labels: list[str]
    codes: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """Each candidate's value, shape (n_candidates,); its level's index for a category."""
        if self.kind == "category":
            return self.codes.astype(np.float64)
        return np.array(self.levels, np.float64)[self.codes]

    @property
    def is_drawn(self) -> bool:
        """Whether values look drawn from a range, as in a random search: not round, and few candidates share one."""
        if self.kind == "category" or 2 * len(self.levels) <= len(self.codes):
            return False
        return any(not math.isclose(level, float(f"{level:.2g}"), rel_tol=1e-9) for level in self.levels)


def value_text(value: Any) -> str:
    """Short text of a value: numbers to four digits, functions and classes by name, others on one line."""
    if isinstance(value, (np.number, np.bool_, np.str_, np.bytes_)) and not isinstance(value, np.timedelta64):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if abs(value) < WHOLE_BELOW and value == int(value) else f"{value:.4g}"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        return str(value.__name__)
    return " ".join(any_text(value).split())


def any_text(value: Any) -> str:
    """``str`` of a value, or the name of its type where that fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the user's own class, or an int with too many digits
        return f"<{type(value).__name__}>"


def candidate_text(candidate: Mapping[str, Any], names: Sequence[str]) -> str:
    """Text of a candidate, such as ``learning_rate=0.01 momentum=0.9``, of those of `names` that it sets."""
    return " ".join(f"{name}={value_text(candidate[name])}" for name in names if name in candidate)


def varying(candidates: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the parameters with more than one value, in order of first appearance."""
    names = dict.fromkeys(name for candidate in candidates for name in candidate)
    return tuple(name for name in names if len({identity(c.get(name, ABSENT)) for c in candidates}) > 1)


def parameter(candidates: Sequence[Mapping[str, Any]], name: str) -> Parameter:
    """Collect the parameter `name` over all candidates."""
    values = [candidate.get(name, ABSENT) for candidate in candidates]
    levels = list({identity(value): value for value in values}.values())
    numeric = [is_number(level) for level in levels]
    levels = sorted((v for v in levels if is_number(v)), key=float) + [v for v in levels if not is_number(v)]
    place = {identity(level): index for index, level in enumerate(levels)}
    codes = np.array([place[identity(value)] for value in values], np.int64)
    kind: Literal["linear", "log", "category"] = "category"
    if all(numeric):
        kind = "log" if _spread_over_decades(np.array(levels, np.float64)) else "linear"
    return Parameter(name, kind, levels, _distinct([value_text(level) for level in levels], levels), codes)


def identity(value: Any) -> str:
    """Key that is equal for equal values: 1, 1.0 and ``numpy.int64(1)`` share one; 1, True and "1" do not.

    Containers, arrays and objects are hashed by content, since the repr of a long array is abbreviated.
    """
    if is_number(value):
        return f"number {float(value)!r}"
    kind = type(value).__name__
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, type, types.FunctionType)):
        return f"{kind} {_repr(value)}"
    try:
        return f"{kind} {joblib.hash(value)}"
    except Exception:  # noqa: BLE001 - cannot be pickled
        return f"{kind} {_repr(value)}"


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the user's own class, or an int with too many digits
        return hex(value) if isinstance(value, int) else f"at {id(value)}"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; a bool is not."""
    if not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    if isinstance(value, (bool, np.bool_, np.timedelta64)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def _spread_over_decades(levels: np.ndarray) -> bool:
    """Whether the median of ascending levels lies nearer the middle of a logarithmic than of a linear axis."""
    low, high, middle = levels[0], levels[-1], float(np.median(levels))
    if low <= 0 or high < LOG_FROM * low:
        return False
    linear = (middle - low) / (high - low)
    log = np.log(middle / low) / np.log(high / low)
    return bool(abs(log - 0.5) < abs(linear - 0.5))


def _distinct(labels: list[str], levels: list[Any]) -> list[str]:
    """Make labels distinct: where two are equal, write numbers to all digits and number the others."""
    if len(set(labels)) == len(labels):
        return labels
    labels = [repr(float(level)) if is_number(level) else text for text, level in zip(labels, levels, strict=True)]
    seen: dict[str, int] = {}
    for index, text in enumerate(labels):
        seen[text] = seen.get(text, 0) + 1
        labels[index] = text if seen[text] == 1 else f"{text} #{seen[text]}"
    return labels
