"""All that a run or a logged model holds, as values that compare: the same on both sides, or not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from mlflow_hp.sync import points
from mlflow_hp.sync.id_map import Identities, own_tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

    from mlflow_hp.sync.files import Files


class Link(NamedTuple):
    """A point of a run's metric that tells of a model: step, timestamp and bits are as in ``points.POINT``."""

    model_id: str
    key: str
    step: int
    timestamp: int
    bits: int
    dataset_name: str | None
    dataset_digest: str | None


class RunContents(NamedTuple):
    """What a run holds; the ids in it are those of the target, and tags of synchronizing are left out."""

    facts: dict[str, object]
    params: dict[str, str]
    tags: dict[str, str]
    points: dict[str, np.ndarray]
    datasets: dict[tuple[str, str], tuple[tuple[str, str], ...]]
    model_inputs: set[str]
    model_outputs: dict[str, int]
    links: set[Link]
    files: dict[str, str]

    def digest(self) -> str:
        """SHA-256 of all of it."""
        held = hashlib.sha256()
        for name, values in self._asdict().items():
            held.update(repr((name, sorted(values.items()) if isinstance(values, dict) else sorted(values, key=repr)))
                        .encode() if name != "points" else b"points")  # fmt: skip
        for key in sorted(self.points):
            held.update(repr((key, len(self.points[key]))).encode())
            held.update(self.points[key].tobytes())
        return held.hexdigest()


class ModelContents(NamedTuple):
    """What a logged model holds; ids and tags as of `RunContents`."""

    facts: dict[str, object]
    params: dict[str, str]
    tags: dict[str, str]
    files: dict[str, str]

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(repr([sorted(values.items()) for values in self]).encode()).hexdigest()


def of_run(
    client: MlflowClient, run: Run, links: set[Link], files: Files | None, identities: Identities | None = None
) -> RunContents:
    """Read what a run holds, its artifacts too where `files` are given.

    Parameters
    ----------
    client : MlflowClient
        Of the store that holds it.
    run : Run
        From ``client.get_run``.
    links : set of Link
        As of `links_of`.
    files : Files, optional
        Its artifacts.
    identities : Identities, optional
        For a run of the source.
    """
    known = identities or Identities()
    info, inputs, outputs = run.info, run.inputs, run.outputs
    return RunContents(
        facts={
            "name": info.run_name,
            "status": info.status,
            "start": info.start_time,
            "end": info.end_time,
            "lifecycle": info.lifecycle_stage,
        },
        params=dict(run.data.params),
        tags={name: known.translate(value) for name, value in own_tags(run.data.tags).items()},
        points={key: points.read(client, info.run_id, key) for key in sorted(run.data.metrics)},
        datasets={
            (given.dataset.name, given.dataset.digest): tuple(sorted((tag.key, tag.value) for tag in given.tags))
            for given in (inputs.dataset_inputs if inputs else [])
        },
        model_inputs={known.get(given.model_id, given.model_id) for given in (inputs.model_inputs if inputs else [])},
        model_outputs={
            known.get(made.model_id, made.model_id): made.step for made in (outputs.model_outputs if outputs else [])
        },
        links=links,
        files=files.digests() if files else {},
    )


def of_model(model: LoggedModel, files: Files | None, identities: Identities | None = None) -> ModelContents:
    """What a logged model holds, its artifacts too where `files` are given."""
    known = identities or Identities()
    run_id = model.source_run_id or ""
    return ModelContents(
        facts={
            "name": model.name,
            "type": model.model_type or "",
            "status": str(model.status),
            "run": known.get(run_id, run_id),
        },
        params=dict(model.params),
        tags={
            name: known.translate(value)
            for name, value in own_tags(model.tags).items()
            if name != MLFLOW_MODEL_VERSIONS  # of the store's own registry
        },
        files=files.digests() if files else {},
    )


def links_of(models: Iterable[LoggedModel], identities: Identities | None = None) -> dict[str, set[Link]]:
    """Run id -> which points of its metrics tell of `models`; with `identities`, models have the target's ids."""
    known = identities or Identities()
    found: dict[str, set[Link]] = {}
    for model in models:
        metrics = model.metrics or []
        for metric, bits in zip(metrics, points.bits(metric.value for metric in metrics).tolist(), strict=True):
            link = Link(known.get(model.model_id, model.model_id), metric.key, metric.step, metric.timestamp, bits,
                        metric.dataset_name, metric.dataset_digest)  # fmt: skip
            found.setdefault(metric.run_id, set()).add(link)
    return found
