"""What is known of runs in MLflow: their tags and names, MLflow's limits, secrets kept out, where a run comes from.

Public: `runs` finds a run and writes its tags, params and description; `masked` takes secrets out of a text,
`plain` keeps a text from being read as markdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import handed_on

if TYPE_CHECKING:
    from mlflow_hp.tracking import runs as runs
    from mlflow_hp.tracking.params_and_tags import plain as plain
    from mlflow_hp.tracking.redaction import masked as masked

_HOMES = {
    "masked": "redaction",
    "plain": "params_and_tags",
    "runs": "runs",
}

__all__ = [
    "masked",
    "plain",
    "runs",
]

__getattr__, __dir__ = handed_on(__name__, _HOMES)
