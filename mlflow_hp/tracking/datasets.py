"""Data sets in a run: digest, schema and shape of what a training is given, logged as MLflow's datasets."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import numpy as np
import tenacity
import xxhash
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.types.schema import Schema, TensorSpec

from mlflow_hp.tracking.array_digest import UnknownDataError, digest_of, parts_of
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import (
    DATASET_CONTEXT_TAG,
    DATASET_FIT_TAG,
    ENTRY_POINT_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TAG_PREFIX,
    USER_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.tracking.array_digest import Part

ROLES = ("features", "targets", "weights")
LONGEST_JSON = 60_000
"""Longest schema or profile that every store of MLflow accepts, in characters."""


_WRITTEN_MEANWHILE = re.compile("IntegrityError|UniqueViolation")


class DataSet(NamedTuple):
    """Description of a data set.

    Attributes
    ----------
    digest : str
        Equal for equal data, in any program.
    schema, profile : dict
        As of MLflow's datasets: types and shapes of its arrays, and its sizes.
    """

    digest: str
    schema: dict[str, Any]
    profile: dict[str, Any]


def describe(features: Any, targets: Any = None, weights: Any = None) -> DataSet | None:
    """Describe arrays, tables, or dicts and lists of them.

    Parameters
    ----------
    features, targets, weights : array, DataFrame, or dict or list of them
        What a model is trained on; all are of one length. `targets` and `weights` default to none.

    Returns
    -------
    DataSet or None
        None if something is neither of them, such as a generator.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.tracking.datasets import describe
    >>> describe(np.zeros((3, 2)), np.arange(3)).profile
    {'features_shape': [3, 2], 'targets_shape': [3], 'num_rows': 3}
    """
    try:
        parts = {
            role: parts_of(value)
            for role, value in zip(ROLES, (features, targets, weights), strict=True)
            if value is not None
        }
        digest = digest_of(parts)
    except UnknownDataError:
        return None
    shapes = {f"{role}_shape": _by_name(each, lambda part: list(part.shape)) for role, each in parts.items()}
    n_rows = next((part.shape[0] for each in parts.values() for part in each if part.shape), 0)
    specs = {role: [(part.name, part.dtype, part.shape) for part in each] for role, each in parts.items()}
    return DataSet(digest, schema_of(specs), {**shapes, "num_rows": n_rows})


def schema_of(specs: Mapping[str, Sequence[tuple[str, Any, Sequence[int | None]]]]) -> dict[str, Any]:
    """Make the schema of features and targets.

    Parameters
    ----------
    specs : mapping of str to sequence
        ``features`` or ``targets`` -> name, type and shape of each array; the first axis is that of the samples.

    Returns
    -------
    dict
        As of MLflow's datasets; empty without features.
    """

    def schema(role: str) -> Schema | None:
        tensors = [
            TensorSpec(np.dtype(dtype.type), (-1, *(size or -1 for size in shape[1:])), name or None)
            for name, dtype, shape in specs.get(role, ())
        ]
        return Schema(tensors) if tensors else None

    features = schema("features")
    return {} if features is None else TensorDatasetSchema(features, schema("targets")).to_dict()


def log(
    run_id: str,
    data_sets: Mapping[str, DataSet],
    fit: int | None = None,
    *,
    name: str = "",
    source: object = None,
) -> None:
    """Log data sets in a run.

    MLflow keeps one source for all data sets of one name and digest in an experiment. So if the source is the program
    of the run, the name ends with a hash of it.

    Parameters
    ----------
    run_id : str
        Id of the run.
    data_sets : mapping of str to DataSet
        Context -> data set: ``training``, ``validation``; lists of a data set's fields are accepted.
    fit : int, optional
        Number of the fit in its run (0-based), which becomes a tag of the data set. Nothing is logged if the program,
        or MLflow's autologging, has logged data sets of its own in the run. Defaults to None: the program logs its own.
    name : str
        Name of the data. Defaults to the program's.
    source : str or mlflow.data.dataset_source.DatasetSource, optional
        Where the data come from: a path, an address, or an object of MLflow. Defaults to the program of the run.
    """
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    logged = set()
    for used in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in used.tags}
        if fit is not None and DATASET_FIT_TAG not in tags:
            return
        logged.add((tags.get(DATASET_CONTEXT_TAG), used.dataset.digest))
    described = {context: DataSet(*fields) for context, fields in data_sets.items()}
    new = {context: each for context, each in described.items() if (context, each.digest) not in logged}
    if new:
        inputs = [
            DatasetInput(
                _entity(each, run.data.tags, name, source),
                [
                    InputTag(DATASET_CONTEXT_TAG, context),
                    *([] if fit is None else [InputTag(DATASET_FIT_TAG, str(fit))]),
                ],
            )
            for context, each in new.items()
        ]
        log_inputs(client, run_id, inputs)


@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: bool(_WRITTEN_MEANWHILE.search(str(error)))),
    stop=tenacity.stop_after_attempt(10),
    wait=tenacity.wait_random(0, 0.1),
    reraise=True,
)
def log_inputs(client: mlflow.MlflowClient, run_id: str, *inputs: Any) -> None:
    """Log inputs of a run, again if another process has written the same data set meanwhile.

    MLflow's database stores look for a data set and then write it, so that of several processes which begin together
    with the same data all but one fail.

    Parameters
    ----------
    client : mlflow.MlflowClient
        Client of the run's store.
    run_id : str
        Id of the run.
    *inputs
        Further arguments of ``client.log_inputs``.
    """
    client.log_inputs(run_id, *inputs)


def _entity(data_set: DataSet, tags: Mapping[str, str], name: str, source: object) -> Dataset:
    """Build MLflow's dataset for a run with these tags."""
    if source is None:
        program, source = _program(tags)
        name = f"{name}-{program}" if name else program
    as_logged = mlflow.data.from_numpy(np.zeros(1), source=source, digest=data_set.digest).to_dict()
    return Dataset(
        name=name,
        digest=data_set.digest,
        source_type=as_logged["source_type"],
        source=as_logged["source"],
        schema=_short_json(data_set.schema),
        profile=_short_json(data_set.profile),
    )


def _program(tags: Mapping[str, str]) -> tuple[str, CodeDatasetSource]:
    """Name of the program of a run, with a hash of its file, commit, entry point and user; and these as a source."""
    of_program = {
        key: masked(value)
        for key, value in sorted(tags.items())
        if key in (USER_TAG, ENTRY_POINT_TAG) or key.startswith(SOURCE_TAG_PREFIX)
    }
    source = CodeDatasetSource(of_program)
    name = of_program.get(ENTRY_POINT_TAG) or PurePath(of_program.get(SOURCE_NAME_TAG, "program")).name
    return f"{name}-{xxhash.xxh3_64_hexdigest(source.to_json().encode())[:6]}", source


def _short_json(value: Mapping[str, Any]) -> str | None:
    text = json.dumps(value)
    return text if value and len(text) <= LONGEST_JSON else None


def _by_name(parts: list[Part], of: Any) -> Any:
    """Return the value of the only part that has no name, else a dict by name."""
    return of(parts[0]) if len(parts) == 1 and not parts[0].name else {part.name: of(part) for part in parts}
