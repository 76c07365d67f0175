"""Result and findings of a training in words, for the run's description and the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.probabilities import odds
from mlflow_hp.terminal import count
from mlflow_hp.tracking.params_and_tags import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.analysis.diagnosis.finding import Finding
    from mlflow_hp.history import TrainingHistory

HEADINGS = {"problem": "Problems", "hint": "Hints", "fine": "Also noticed"}
"""Severity -> heading."""


def result_in_words(history: TrainingHistory, further: Mapping[str, float] | None = None) -> str:
    """Describe the result of a training: the metrics of its last epoch, its length, and its number of parameters.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    further : mapping of str to float, optional
        Further numbers, such as test scores. Defaults to none.

    Returns
    -------
    str
        One sentence in Markdown.

    Examples
    --------
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.analysis.diagnosis import result_in_words
    >>> history = TrainingHistory.from_arrays({"batch_loss": [2.0, 1.0]}, {"epoch": [0], "loss": [1.5]})
    >>> result_in_words(history)
    '**loss 1.5** after 1 epoch (2 steps)'
    """
    last = {name: float(history.epochs[name][-1]) for name in history.epoch_metrics if history.n_epochs}
    numbers = ", ".join(f"{plain(name)} {value:.4g}" for name, value in {**last, **(further or {})}.items())
    n_weights = sum(math.prod(tensor.shape) for tensor in history.tensors)
    length = count(history.n_steps, "step")
    length = f"after {count(history.n_epochs, 'epoch')} ({length})" if history.n_epochs else length
    size = f"; {count(n_weights, 'parameter')}" if n_weights else ""
    return f"**{numbers}** {length}{size}" if numbers else f"No epoch was finished: {length}{size}"


def findings_in_words(findings: Sequence[Finding]) -> str:
    """Format findings as Markdown: what to try, problems, hints, and what else was noticed.

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first; ``next_try`` is what to try.

    Returns
    -------
    str
        Paragraphs and lists.
    """
    tries = (finding for finding in findings if finding.name == "next_try" and finding.suggestion)
    parts = [f"**What to try**: {plain(f'{each.suggestion}.{odds(each)}')}" for each in tries]
    for severity, heading in HEADINGS.items():
        lines = [_line(finding) for finding in findings if finding.severity == severity and finding.name != "next_try"]
        if lines:
            parts.append(f"**{heading}**\n\n" + "\n".join(lines))
    return "\n\n".join(parts) or "Nothing out of the ordinary."


def _line(finding: Finding) -> str:
    return f"- **{finding.verdict}**: {plain(finding.text)}"
