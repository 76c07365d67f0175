"""Findings of the rules, and their forms: JSON, metrics, Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.tags import DIAGNOSIS_METRIC_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence


class Finding(NamedTuple):
    """Result of one diagnosis rule.

    Attributes
    ----------
    name : str
        Name of the rule.
    verdict : str
        One to three words.
    text : str
        A sentence with the numbers.
    evidence : dict of str to float, int, str, bool or None
        The values behind the verdict. Numbers become metrics ``diagnosis/<name>``.
    suggestion : str or None
        What to try next. Defaults to None.

    Examples
    --------
    >>> from mlflow_hp.analysis import Finding, diagnosis
    >>> finding = Finding("speed", "too slow", "The loss still falls.", {"slope": -0.01}, "train for more epochs")
    >>> diagnosis.to_metrics([finding])
    {'diagnosis/slope': -0.01}
    """

    name: str
    verdict: str
    text: str
    evidence: dict[str, Any]
    suggestion: str | None = None


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Convert findings to a dict by name for strict JSON: numbers that are not finite become strings.

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first.

    Returns
    -------
    dict of str to object
        Findings by name.
    """

    def strict(value: Any) -> Any:
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)

    return {
        f.name: {**f._asdict(), "evidence": {key: strict(value) for key, value in f.evidence.items()}} for f in findings
    }


def to_metrics(findings: Sequence[Finding]) -> dict[str, float]:
    """Collect the finite numbers of the evidence as metrics ``diagnosis/<name>``.

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first.

    Returns
    -------
    dict of str to float
        Metrics ``diagnosis/<name>``.
    """
    numbers = {f"{DIAGNOSIS_METRIC_PREFIX}{key}": value for f in findings for key, value in f.evidence.items()}
    return {k: float(v) for k, v in numbers.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def to_markdown(findings: Sequence[Finding]) -> str:
    """Format findings as a Markdown list.

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first.

    Returns
    -------
    str
        A line each.
    """
    return "\n".join(f"- **{f.verdict}**: {plain(f.text)}" for f in findings)


def two_digits(value: float) -> float:
    """Round to two significant digits, exact enough for a suggestion."""
    return float(f"{value:.2g}")


def epochs(count: int) -> str:
    """``"epoch"`` or ``"3 epochs"``."""
    return "epoch" if count == 1 else f"{count} epochs"
