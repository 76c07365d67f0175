"""Who is who in two stores: MLflow gives every copy an id of its own, so each copy says where it comes from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlflow.entities import ViewType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

SYNCED_FROM = "mlflow_hp.synced_from"
"""Tag of a copy: id of the run or model that it was copied from."""
SYNCED = "mlflow_hp.synced"
"""Tag of a complete copy: digest of all that the original held then. Before that, which synchronization made it."""

_DIGEST = re.compile("[0-9a-f]{64}")
_ID = re.compile(r"\b(?:m-)?[0-9a-f]{32}\b")


class Identities(dict[str, str]):
    """Ids of runs and models at the source -> at the target."""

    def translate(self, text: str) -> str:
        """The text with every known id of the source replaced by that of its copy."""
        return _ID.sub(lambda found: self.get(found[0], found[0]), text)


def origin(tags: Mapping[str, str], own: str) -> str:
    """The first of a chain of copies: a copy of a copy is known by the id of what was copied first."""
    tagged = tags.get(SYNCED_FROM, "")
    return tagged if _ID.fullmatch(tagged) else own


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags without those that synchronizing sets."""
    return {name: value for name, value in tags.items() if name not in (SYNCED_FROM, SYNCED)}


def mentioned(text: str) -> set[str]:
    """What looks like the id of a run or a model in a text."""
    return set(_ID.findall(text))


def copies_of_run(client: MlflowClient, experiment_ids: list[str], original: str) -> list[Run]:
    """The copies of a run in these experiments, in an order that is the same for all: the first is the one to complete.

    Those that were deleted come last: of duplicates, people delete the ones that they do not want. Then those that were
    never completed; the rest is the order of their ids.
    """
    is_copy = f"tags.`{SYNCED_FROM}` = '{original}'"
    copies = client.search_runs(experiment_ids, is_copy, ViewType.ALL, 1000)
    return sorted(copies, key=lambda run: (is_deleted(run), not _is_complete(run.data.tags), run.info.run_id))


def is_deleted(run: Run) -> bool:
    """Whether a run has been deleted."""
    return bool(run.info.lifecycle_stage == "deleted")


def copies_of_models(client: MlflowClient, experiment_ids: list[str]) -> dict[str, list[Any]]:
    """The copied models of these experiments, by what they were copied from; the first is the one to complete."""
    found: dict[str, list[Any]] = {}
    token = None
    while experiment_ids:
        page = client.search_logged_models(experiment_ids, page_token=token)
        for model in page:
            if SYNCED_FROM in model.tags:
                found.setdefault(model.tags[SYNCED_FROM], []).append(model)
        token = page.token
        if not token:
            break
    for models in found.values():
        models.sort(key=lambda model: (not _is_complete(model.tags), model.model_id))
    return found


def _is_complete(tags: Mapping[str, str]) -> bool:
    return bool(_DIGEST.fullmatch(tags.get(SYNCED, "")))
