"""Summary of one run for its page: who trained what, with which result, and what to try next."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from mlflow_hp.analysis import diagnosis
from mlflow_hp.tracking.run_params import params_of
from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    BEST_RUN_ID_TAG,
    BEST_TAG,
    COMMAND_TAG,
    DESCRIPTION_TAG,
    DONE_TAG,
    EXPERIMENT_TAG,
    FAILED_TAG,
    FITS_TAG,
    KIND_TAG,
    PARENT_TAG,
    PLANNED_TAG,
    RECORDING_ERROR_TAG,
    RUNNING_TAG,
    SPACE_PARAM_PREFIX,
    USER_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow.entities import Run

    from mlflow_hp.analysis import Finding

SETTINGS = ("optimizer", "learning_rate", "batch_size", "epochs", "loss", "momentum")
"""Params that come first."""
COUNTS = {"planned": PLANNED_TAG, "running": RUNNING_TAG, "done": DONE_TAG, "failed": FAILED_TAG}
"""Counts of the candidates of a search."""
SPACE_PARAM = re.compile(rf"{re.escape(SPACE_PARAM_PREFIX)}(_\d+)?/")
"""Start of the params with the values of a search: what has several has none that is a setting."""
NO_PROGRAM = ("search", "comparison", "candidate", "fold")
"""Kinds of runs that `mlflow-hp improve` does not take."""


def summary(run: Run, findings: Sequence[Finding]) -> dict[str, Any]:
    """Describe a run for its page.

    Parameters
    ----------
    run : mlflow.entities.Run
        The run.
    findings : sequence of Finding
        Findings of its diagnosis, the most important first.

    Returns
    -------
    dict of str to object
        For strict JSON: ``run`` (id, name, experiment_id, status, kind, author, started and ended in ms, parent, fits);
        ``result``, the first paragraph of the description that is no question; ``settings`` and ``params``;
        ``findings``; ``command`` that follows the advice, or None; ``counts`` of a search; ``best``; ``trouble``.
    """
    info, tags = run.info, run.data.tags
    params = params_of(run.data)
    searched = {name.rpartition("/")[2].rpartition("__")[2] for name in params if SPACE_PARAM.match(name)}
    ordered = [name for name in SETTINGS if name in params] + sorted(set(params) - set(SETTINGS))
    follows = EXPERIMENT_TAG in tags and COMMAND_TAG in tags and tags.get(KIND_TAG, "") not in NO_PROGRAM
    return {
        "run": {
            "id": info.run_id,
            "name": info.run_name or info.run_id,
            "experiment_id": info.experiment_id,
            "status": info.status,
            "kind": tags.get(KIND_TAG, ""),
            "author": tags.get(AUTHOR_TAG) or tags.get(USER_TAG) or "unknown",
            "started": info.start_time,
            "ended": info.end_time,
            "parent": tags.get(PARENT_TAG),
            "fits": _integer(tags.get(FITS_TAG)) or 1,
        },
        "result": _result(tags.get(DESCRIPTION_TAG, "")),
        "params": [[name, params[name]] for name in ordered],
        "settings": [
            [name, params[name]] for name in SETTINGS if params.get(name, "None") != "None" and name not in searched
        ],
        "findings": [as_shown(finding) for finding in findings],
        "command": f"mlflow-hp improve {info.run_id}" if follows else None,
        "counts": {name: _integer(tags[tag]) for name, tag in COUNTS.items() if tag in tags},
        "best": {"id": tags[BEST_RUN_ID_TAG], "name": tags.get(BEST_TAG, "")} if BEST_RUN_ID_TAG in tags else None,
        "trouble": tags.get(RECORDING_ERROR_TAG),
    }


def as_shown(finding: Finding) -> dict[str, Any]:
    """Convert a finding for the page: its words, its severity, and its change as ``name=value``.

    Parameters
    ----------
    finding : Finding
        A finding.

    Returns
    -------
    dict of str to str
        ``name``, ``verdict``, ``severity``, ``text``, ``suggestion`` and ``change``; the last two may be empty.

    Examples
    --------
    >>> from mlflow_hp.analysis import Change, Finding
    >>> from mlflow_hp.run_page.summary import as_shown
    >>> change = (Change("learning_rate", 0.1, 0.01),)
    >>> as_shown(Finding("speed", "too slow", "It crawls.", {}, "try 0.01", "hint", change=change))["change"]
    'learning_rate=0.01'
    """
    known = [each for each in finding.change if each.new is not None]
    return {
        "name": finding.name,
        "verdict": finding.verdict,
        "severity": finding.severity,
        "text": finding.text,
        "suggestion": finding.suggestion or "",
        "change": ", ".join(f"{f'{each.layer}.' if each.layer else ''}{each.parameter}={each.new!r}" for each in known),
    }


def findings_from(text: str) -> list[Finding]:
    """Read the findings of the artifact ``diagnosis.json``, or ``review.json`` of a search; none from another text.

    Parameters
    ----------
    text : str
        Content of the file.

    Returns
    -------
    list of Finding
        The most important first.
    """
    try:
        values: Mapping[str, Any] = json.loads(text)
        reviewed = values.get("findings") if "next_space" in values else None
        return diagnosis.from_json(values if reviewed is None else reviewed)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []


def _result(description: str) -> str:
    """First paragraph of a description that is neither a question nor a heading."""
    paragraphs = [each.strip() for each in description.strip().split("\n\n")]
    return next((each for each in paragraphs if each and not each.endswith("?") and each[0] not in "#|!"), "")


def _integer(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
