"""Runs in MLflow: their tags, names and limits, redaction of secrets, and provenance.

Public: `runs` finds a run and writes its tags, params and description; `datasets` describes data and logs them;
`run_presentation` names a run in MLflow's UI, and `page_address` is the address of its page; `tags` and
`artifact_paths` hold the names of everything that is recorded; `masked` redacts the secrets in a text, and `plain`
escapes a text for markdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.tracking import artifact_paths as artifact_paths
    from mlflow_hp.tracking import datasets as datasets
    from mlflow_hp.tracking import run_presentation as run_presentation
    from mlflow_hp.tracking import runs as runs
    from mlflow_hp.tracking import tags as tags
    from mlflow_hp.tracking.params_and_tags import plain as plain
    from mlflow_hp.tracking.redaction import masked as masked
    from mlflow_hp.tracking.server_page import page_address as page_address

_MODULES = {
    "artifact_paths": "artifact_paths",
    "datasets": "datasets",
    "masked": "redaction",
    "page_address": "server_page",
    "plain": "params_and_tags",
    "run_presentation": "run_presentation",
    "runs": "runs",
    "tags": "tags",
}

__all__ = [
    "artifact_paths",
    "datasets",
    "masked",
    "page_address",
    "plain",
    "run_presentation",
    "runs",
    "tags",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
