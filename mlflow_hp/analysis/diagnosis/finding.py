"""What a rule finds, and how findings are told: as JSON, as metrics, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.tracking.params_and_tags import plain

if TYPE_CHECKING:
    from collections.abc import Sequence


class Finding(NamedTuple):
    """One thing that a training tells.

    Attributes
    ----------
    name : str
        Which rule.
    verdict : str
        In a word or three.
    text : str
        In a sentence, with its numbers.
    evidence : dict of str to float, int, str, bool or None
        What the verdict rests on. Its numbers become metrics ``diagnosis/<name>``.
    suggestion : str or None
        What to try next.
    """

    name: str
    verdict: str
    text: str
    evidence: dict[str, Any]
    suggestion: str | None = None


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Findings by name, as strict JSON takes them: numbers that are not finite become strings."""

    def strict(value: Any) -> Any:
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)

    return {
        f.name: {**f._asdict(), "evidence": {key: strict(value) for key, value in f.evidence.items()}} for f in findings
    }


def to_metrics(findings: Sequence[Finding]) -> dict[str, float]:
    """The finite numbers of the evidence, as metrics ``diagnosis/<name>``."""
    numbers = {f"diagnosis/{key}": value for f in findings for key, value in f.evidence.items()}
    return {k: float(v) for k, v in numbers.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def to_markdown(findings: Sequence[Finding]) -> str:
    """A list of the findings, a line each."""
    return "\n".join(f"- **{f.verdict}**: {plain(f.text)}" for f in findings)


def two_digits(value: float) -> float:
    """Rounded to two significant digits: what to try need be no more exact."""
    return float(f"{value:.2g}")


def epochs(count: int) -> str:
    """``"epoch"`` or ``"3 epochs"``."""
    return "epoch" if count == 1 else f"{count} epochs"
