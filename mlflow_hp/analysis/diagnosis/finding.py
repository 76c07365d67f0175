"""Findings of the rules, and their forms: JSON, metrics, Markdown."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mlflow_hp.terminal import printable
from mlflow_hp.tracking.tags import DIAGNOSIS_METRIC_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Change(NamedTuple):
    """Change of a program or of its settings that a finding proposes.

    Attributes
    ----------
    parameter : str
        What to change: a setting by its name in Keras (``learning_rate``, ``batch_size``, ``epochs``, ``optimizer``,
        ``momentum``, ``clipnorm``, ``loss``, ``metrics``, ``activation``, ``units``, ``kernel_initializer``, ``rate``,
        ``trainable``, ``monitor``, ``mode``, ``shuffle``), or of the data: ``standardize``, ``targets``, ``features``.
    old : object
        Value that it has now; None if unknown.
    new : object
        Value to try; None for one that only the user knows.
    layer : str or None
        The layer whose setting it is. Defaults to None: a setting of the training or of the data.
    """

    parameter: str
    old: Any
    new: Any
    layer: str | None = None


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
        What to try next, in words and code of the user's. Defaults to None.
    severity : {"problem", "hint", "fine"}
        A problem keeps the training from working as it could, or makes its result meaningless; a hint is worth a try;
        what is fine is listed for completeness. Defaults to ``"fine"``.
    cause : str or None
        Why, in a few words, where it is known. Defaults to None.
    where : dict of str to object
        The place, by ``layer``, ``epoch``, ``step``, ``feature``, ``input``, ``output`` or ``target``. Defaults to
        none.
    change : tuple of Change
        The same as `suggestion`, for programs: to be done together. Defaults to none.
    probability : float or None
        Probability that the change improves the held-out loss, as calibrated on made faults: see docs/diagnosis.md.
        Defaults to None: unknown.

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
    severity: Literal["problem", "hint", "fine"] = "fine"
    cause: str | None = None
    where: dict[str, Any] = {}  # noqa: RUF012
    change: tuple[Change, ...] = ()
    probability: float | None = None

    def __repr__(self) -> str:
        tries = f" Try: {self.suggestion}" if self.suggestion else ""
        return printable(f"<{self.severity}: {self.verdict}: {self.text}{tries}>")

    def _repr_html_(self) -> str:
        """Write it as HTML for a notebook."""
        return _as_html(self)


class Findings(list[Finding]):
    """List of findings, the most important first, that shows one on a line.

    Parameters
    ----------
    iterable : iterable of Finding
        The findings. Defaults to none.

    Examples
    --------
    >>> from mlflow_hp.analysis import Finding
    >>> from mlflow_hp.analysis.diagnosis import Findings
    >>> Findings([Finding("speed", "too slow", "The loss still falls.", {}, "train for more epochs", "hint")])
    <hint: too slow: The loss still falls. Try: train for more epochs>
    """

    def __init__(self, iterable: Iterable[Finding] = ()) -> None:
        super().__init__(iterable)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no findings"

    def _repr_html_(self) -> str:
        """Write them as HTML for a notebook."""
        return "".join(map(_as_html, self)) or "<div>no findings</div>"


def _as_html(finding: Finding) -> str:
    tries = f"<div>Try: {html.escape(str(finding.suggestion))}</div>" if finding.suggestion else ""
    verdict, text = html.escape(str(finding.verdict)), html.escape(str(finding.text))
    return f"<div><b>{html.escape(str(finding.severity))}: {verdict}</b><div>{text}</div>{tries}</div>"


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

    def as_dict(finding: Finding) -> dict[str, Any]:
        fields = finding._asdict()
        for name in ("evidence", "where"):
            fields[name] = {key: strict(value) for key, value in fields[name].items()}
        fields["change"] = [{key: strict(value) for key, value in each._asdict().items()} for each in finding.change]
        return fields

    return {finding.name: as_dict(finding) for finding in findings}


def from_json(values: Mapping[str, Any]) -> list[Finding]:
    """Convert what `to_json` returned back to findings; those of earlier versions have fewer fields.

    Parameters
    ----------
    values : mapping of str to mapping
        Findings by name.

    Returns
    -------
    list of Finding
        In the same order.
    """
    findings = []
    for each in values.values():
        known = {name: value for name, value in each.items() if name in Finding._fields}
        changes = tuple(Change(**change) for change in known.pop("change", ()))
        findings.append(Finding(**known, change=changes))
    return findings


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


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings: problems first, then hints, then what is fine; each in the order in which they are."""
    ranks = ("problem", "hint", "fine")
    return sorted(findings, key=lambda finding: ranks.index(finding.severity))


def two_digits(value: float) -> float:
    """Round to two significant digits, exact enough for a suggestion."""
    return float(f"{value:.2g}")


def epochs(count: int) -> str:
    """``"epoch"`` or ``"3 epochs"``."""
    return "epoch" if count == 1 else f"{count} epochs"
