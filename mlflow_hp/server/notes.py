"""Notes on comparisons, which teammates share: tags of an experiment, read here; the page writes by MLflow's API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlflow_hp.tracking.params_and_tags import storable
from mlflow_hp.tracking.tags import NOTE_TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NOTES = 500
"""Notes that are listed; of more, the last changed."""
TEXTS = ("name", "text", "view", "author")


def read(store: Any, experiment_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Read the notes of experiments, the last changed first.

    Parameters
    ----------
    store : mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore
    experiment_ids : sequence of str
        Experiments that the sender of the request may read.

    Returns
    -------
    list of dict
        Of each note ``id`` (the last part of its tag), ``experiment``, ``name``, ``text``, ``view`` (the state of the
        page behind ``#``), ``author``, and ``changed`` in milliseconds since the epoch, 0 if unknown.
    """
    from mlflow.store.tracking.dbmodels.models import SqlExperimentTag as T
    from sqlalchemy import select

    if not experiment_ids:
        return []
    query = select(T.experiment_id, T.key, T.value).where(
        T.experiment_id.in_([int(each) for each in experiment_ids]),
        T.key.startswith(NOTE_TAG_PREFIX, autoescape=True),
        T.value != "",  # a server that cannot delete tags keeps them empty
    )
    with store.ManagedSessionMaker() as session:
        rows = session.execute(query).all()
    notes = [
        {"id": key.removeprefix(NOTE_TAG_PREFIX), "experiment": str(experiment_id), **_contents(value or "")}
        for experiment_id, key, value in rows
    ]
    return sorted(notes, key=lambda note: (-note["changed"], note["id"]))[:MAX_NOTES]


def _contents(value: str) -> dict[str, Any]:
    """Parse a note; of one that another program wrote or that is damaged, the text is what is there."""
    try:
        note = json.loads(value)
    except (ValueError, RecursionError):
        note = None
    if not isinstance(note, dict):
        return {"name": "unreadable note", "text": value, "view": "", "author": "", "changed": 0}
    texts = {name: storable(note[name]) if isinstance(note.get(name), str) else "" for name in TEXTS}
    changed = note.get("changed")
    return {**texts, "changed": changed if type(changed) is int and 0 <= changed < 2**53 else 0}
