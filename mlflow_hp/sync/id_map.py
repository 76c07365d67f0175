"""Ids of runs and models in two stores: MLflow gives each copy a new id, so a tag of the copy names the original."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlflow.entities import ViewType

from mlflow_hp.tracking.tags import RUN_PAGE_TAG, SYNCED_FROM_TAG, SYNCED_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run


_DIGEST = re.compile("[0-9a-f]{64}")
_ID = re.compile(r"\b(?:m-)?[0-9a-f]{32}\b")


class IdMap(dict[str, str]):
    """Ids of runs and models: source id -> target id."""

    def translate(self, text: str) -> str:
        """Replace every known source id in `text` by its target id."""
        return _ID.sub(lambda match: self.get(match[0], match[0]), text)


def origin(tags: Mapping[str, str], own: str) -> str:
    """Get the id of the original: the first of a chain of copies of copies, or `own` for what is not a copy."""
    original = tags.get(SYNCED_FROM_TAG, "")
    return original if _ID.fullmatch(original) else own


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Drop the tags that sync sets, and the address of the page, which is that of one server."""
    return {name: value for name, value in tags.items() if name not in (SYNCED_FROM_TAG, SYNCED_TAG, RUN_PAGE_TAG)}


def ids_in(text: str) -> set[str]:
    """Find everything in `text` that looks like the id of a run or a model."""
    return set(_ID.findall(text))


def copies_of_run(client: MlflowClient, experiment_ids: list[str], original: str) -> list[Run]:
    """Find the copies of a run, the one to complete first; every sync sees the same order.

    Complete copies come before incomplete ones, and deleted ones last, since of duplicates people delete those that
    they do not want. Ties go by id.
    """
    is_copy = f"tags.`{SYNCED_FROM_TAG}` = '{original}'"
    copies = client.search_runs(experiment_ids, is_copy, ViewType.ALL, 1000)
    return sorted(copies, key=lambda run: (is_deleted(run), not _is_complete(run.data.tags), run.info.run_id))


def is_deleted(run: Run) -> bool:
    """Whether a run has been deleted."""
    return bool(run.info.lifecycle_stage == "deleted")


def copies_of_models(client: MlflowClient, experiment_ids: list[str]) -> dict[str, list[Any]]:
    """Find copied models, by the id of the original; the first of each list is the one to complete."""
    copies: dict[str, list[Any]] = {}
    token = None
    while experiment_ids:
        page = client.search_logged_models(experiment_ids, page_token=token)
        for model in page:
            if SYNCED_FROM_TAG in model.tags:
                copies.setdefault(model.tags[SYNCED_FROM_TAG], []).append(model)
        token = page.token
        if not token:
            break
    for models in copies.values():
        models.sort(key=lambda model: (not _is_complete(model.tags), model.model_id))
    return copies


def _is_complete(tags: Mapping[str, str]) -> bool:
    return bool(_DIGEST.fullmatch(tags.get(SYNCED_TAG, "")))
