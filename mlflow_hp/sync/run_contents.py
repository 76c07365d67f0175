"""Contents of a run or a logged model as values that can be compared between source and target.

A digest covers names and values of fields, and is stored as a tag of each copy: after a field is renamed, every copy
counts as incomplete and is compared in full once more.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from mlflow_hp.sync import points
from mlflow_hp.sync.id_map import IdMap, own_tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

    from mlflow_hp.sync.files import Artifacts


class Link(NamedTuple):
    """Point of a run's metric that belongs to a logged model; step, timestamp and bits as in ``points.POINT``."""

    model_id: str
    key: str
    step: int
    timestamp: int
    bits: int
    dataset_name: str | None
    dataset_digest: str | None


class RunContents(NamedTuple):
    """Contents of a run, with the ids of the target and without the tags that sync sets."""

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
        """SHA-256 of all contents."""
        sha = hashlib.sha256()
        for name, values in self._asdict().items():
            sha.update(repr((name, sorted(values.items()) if isinstance(values, dict) else sorted(values, key=repr)))
                       .encode() if name != "points" else b"points")  # fmt: skip
        for key in sorted(self.points):
            sha.update(repr((key, len(self.points[key]))).encode())
            sha.update(self.points[key].tobytes())
        return sha.hexdigest()


class ModelContents(NamedTuple):
    """Contents of a logged model; ids and tags as in `RunContents`."""

    facts: dict[str, object]
    params: dict[str, str]
    tags: dict[str, str]
    files: dict[str, str]

    def digest(self) -> str:
        """SHA-256 of all contents."""
        return hashlib.sha256(repr([sorted(values.items()) for values in self]).encode()).hexdigest()


def of_run(
    client: MlflowClient, run: Run, links: set[Link], artifacts: Artifacts | None, id_map: IdMap | None = None
) -> RunContents:
    """Read the contents of a run.

    Parameters
    ----------
    client : MlflowClient
        Client of the run's store.
    run : Run
        From ``client.get_run``.
    links : set of Link
        The run's links, as `links_of` returns them.
    artifacts : Artifacts or None
        Artifacts of the run; with None, they are left out.
    id_map : IdMap, optional
        Translates the ids of a source run. Defaults to no translation.
    """
    id_map = id_map or IdMap()
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
        tags={name: id_map.translate(value) for name, value in own_tags(run.data.tags).items()},
        points={key: points.read(client, info.run_id, key) for key in sorted(run.data.metrics)},
        datasets={
            (each.dataset.name, each.dataset.digest): tuple(sorted((tag.key, tag.value) for tag in each.tags))
            for each in (inputs.dataset_inputs if inputs else [])
        },
        model_inputs={id_map.get(each.model_id, each.model_id) for each in (inputs.model_inputs if inputs else [])},
        model_outputs={
            id_map.get(each.model_id, each.model_id): each.step for each in (outputs.model_outputs if outputs else [])
        },
        links=links,
        files=artifacts.digests() if artifacts else {},
    )


def of_model(model: LoggedModel, artifacts: Artifacts | None, id_map: IdMap | None = None) -> ModelContents:
    """Read the contents of a logged model; parameters as of `of_run`."""
    id_map = id_map or IdMap()
    run_id = model.source_run_id or ""
    return ModelContents(
        facts={
            "name": model.name,
            "type": model.model_type or "",
            "status": str(model.status),
            "run": id_map.get(run_id, run_id),
        },
        params=dict(model.params),
        tags={
            name: id_map.translate(value)
            for name, value in own_tags(model.tags).items()
            if name != MLFLOW_MODEL_VERSIONS  # each store has a registry of its own
        },
        files=artifacts.digests() if artifacts else {},
    )


def links_of(models: Iterable[LoggedModel], id_map: IdMap | None = None) -> dict[str, set[Link]]:
    """Find the metric points that belong to `models`, by run id; `id_map` translates the ids of source models."""
    id_map = id_map or IdMap()
    links: dict[str, set[Link]] = {}
    for model in models:
        metrics = model.metrics or []
        for metric, bits in zip(metrics, points.bits(metric.value for metric in metrics).tolist(), strict=True):
            link = Link(id_map.get(model.model_id, model.model_id), metric.key, metric.step, metric.timestamp, bits,
                        metric.dataset_name, metric.dataset_digest)  # fmt: skip
            links.setdefault(metric.run_id, set()).add(link)
    return links
