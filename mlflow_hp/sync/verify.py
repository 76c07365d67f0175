"""Verification of source and target: numbers of each kind of content, and differences."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mlflow_hp.sync import points, run_contents
from mlflow_hp.sync.copies import Copies
from mlflow_hp.sync.files import Artifacts
from mlflow_hp.terminal import count, is_live

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow.entities import LoggedModel, Run

    from mlflow_hp.sync.run_contents import ModelContents, RunContents
    from mlflow_hp.sync.selection import Scope
    from mlflow_hp.sync.stores import Stores

KINDS = ("runs", "params", "tags", "metric points", "artifacts", "models", "inputs")

_AT_ONCE = 2


class Verification(NamedTuple):
    """Result of a comparison.

    Attributes
    ----------
    counts : dict of str to tuple of int
        Each of KINDS -> (number at the source, number at the target). Tags that only the target has are not counted:
        people add them there. Artifacts are those of the runs and of the models.
    differences : list of str
        A line for each difference.
    """

    counts: dict[str, tuple[int, int]]
    differences: list[str]


def compare(stores: Stores, scope: Scope) -> Verification:
    """Read both sides again and compare them run by run and model by model, artifacts by content."""
    comparer = _Comparer(stores, scope)
    runs = [run for run in scope.runs if run.info.run_id not in comparer.copies.copied_from_target]
    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        tqdm(total=len(runs), desc="compared", unit="run", disable=not is_live()) as bar,
    ):
        results = [*pool.map(functools.partial(_guarded, comparer.model), scope.models)]
        for result in pool.map(functools.partial(_guarded, comparer.run), runs):
            results.append(result)
            bar.update()
    counts = {kind: [result.counts[kind] for result in results if kind in result.counts] for kind in KINDS}
    return Verification(
        {kind: (sum(n for n, _ in pairs), sum(n for _, n in pairs)) for kind, pairs in counts.items()},
        [line for result in results for line in result.differences],
    )


def _guarded(compare_one: Callable[[Any], Verification], run_or_model: Any) -> Verification:
    """Compare one run or model; a side that cannot be read counts as a difference."""
    try:
        return compare_one(run_or_model)
    except (MlflowException, OSError) as error:
        name = run_or_model.info.run_id if hasattr(run_or_model, "info") else run_or_model.model_id
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        return Verification({}, [f"{name} could not be compared: {reason}"])


class _Comparer:
    def __init__(self, stores: Stores, scope: Scope) -> None:
        self._stores = stores
        self.copies = Copies(stores.target, scope)
        self._id_map = self.copies.id_map
        self._target_models = {
            model.model_id: stores.target.get_logged_model(self._id_map[model.model_id])
            for model in scope.models
            if model.model_id in self._id_map
        }
        self._links = run_contents.links_of(scope.models, self._id_map)
        self._target_links = run_contents.links_of(self._target_models.values())

    def run(self, selected: Run) -> Verification:
        run_id, (source, target) = selected.info.run_id, self._stores[:2]
        run = source.get_run(run_id)
        artifacts = Artifacts(run.info.artifact_uri, self._stores.source_uri, self._id_map)
        wanted = run_contents.of_run(source, run, self._links.get(run_id, set()), artifacts, self._id_map)
        name = f"run {run.info.run_name} ({run_id})"
        at_source = _numbers(wanted)
        if run_id not in self._id_map:
            return Verification({kind: (n, 0) for kind, n in at_source.items()}, [f"{name} is not at the target"])
        copy = target.get_run(self._id_map[run_id])
        artifacts = Artifacts(copy.info.artifact_uri, self._stores.target_uri)
        present = run_contents.of_run(target, copy, self._target_links.get(copy.info.run_id, set()), artifacts)
        present = present._replace(tags={key: value for key, value in present.tags.items() if key in wanted.tags})
        at_target = _numbers(present)
        differences = [f"{name}: {line}" for line in _run_differences(wanted, present)]
        if duplicates := self.copies.duplicates.get(run_id, []):
            at_target["runs"] = len(duplicates)
            delete = "; ".join(f"`mlflow runs delete --run-id {copy}`" for copy in duplicates[1:])
            differences.append(
                f"{name} is at the target {len(duplicates)} times: {duplicates[0]} is kept complete; check the others "
                f"for anything added there, and delete them: {delete}"
            )
        return Verification({kind: (at_source[kind], at_target[kind]) for kind in at_source}, differences)

    def model(self, model: LoggedModel) -> Verification:
        artifacts = Artifacts(model.artifact_location, self._stores.source_uri, self._id_map)
        wanted = run_contents.of_model(model, artifacts, self._id_map)
        name = f"model {model.name} ({model.model_id})"
        copy = self._target_models.get(model.model_id)
        if copy is None:
            counts = {"models": (1, 0), "artifacts": (len(wanted.files), 0)}
            return Verification(counts, [f"{name} is not at the target"])
        present = run_contents.of_model(copy, Artifacts(copy.artifact_location, self._stores.target_uri))
        duplicates = self.copies.duplicates.get(model.model_id, [])
        counts = {"models": (1, max(len(duplicates), 1)), "artifacts": (len(wanted.files), len(present.files))}
        differences = [f"{name}: {line}" for line in _model_differences(wanted, present)]
        if duplicates:
            delete = "; ".join(f'`MlflowClient().delete_logged_model("{copy}")`' for copy in duplicates[1:])
            differences.append(
                f"{name} is at the target {len(duplicates)} times: {duplicates[0]} is kept complete; delete the "
                f"duplicates there, in Python: {delete}"
            )
        return Verification(counts, differences)


def _numbers(contents: RunContents) -> dict[str, int]:
    return {
        "runs": 1,
        "params": len(contents.params),
        "tags": len(contents.tags),
        "metric points": sum(len(history) for history in contents.points.values()),
        "artifacts": len(contents.files),
        "inputs": len(contents.datasets) + len(contents.model_inputs),
    }


def _run_differences(wanted: RunContents, present: RunContents) -> list[str]:
    lines = []
    for field in ("facts", "params", "tags", "datasets", "model_outputs", "files"):
        lines += _dict_differences(_SINGULAR[field], getattr(wanted, field), getattr(present, field))
    model_inputs = (dict.fromkeys(side.model_inputs, "") for side in (wanted, present))
    lines += _dict_differences("input model", *model_inputs)
    for key in sorted(wanted.points.keys() | present.points.keys()):
        source, target = (side.points.get(key, points.NO_POINTS) for side in (wanted, present))
        numbers = {"missing": len(points.missing(source, target)), "more": len(points.missing(target, source))}
        lines += [f"metric {key!r}: {count(n, 'point')} {word} at the target" for word, n in numbers.items() if n]
    numbers = {"missing": len(wanted.links - present.links), "more": len(present.links - wanted.links)}
    return lines + [f"{n} metric points of models {word} at the target" for word, n in numbers.items() if n]


def _model_differences(wanted: ModelContents, present: ModelContents) -> list[str]:
    tags = {name: value for name, value in present.tags.items() if name in wanted.tags}
    present = present._replace(tags=tags)
    return [
        line
        for field in present._fields
        for line in _dict_differences(_SINGULAR[field], getattr(wanted, field), getattr(present, field))
    ]


_SINGULAR = {
    "facts": "its",
    "params": "param",
    "tags": "tag",
    "datasets": "dataset",
    "model_outputs": "model",
    "files": "artifact",
}


def _dict_differences(kind: str, source: Mapping[Any, Any], target: Mapping[Any, Any]) -> list[str]:
    """Describe each differing entry in a line; of artifacts the names alone, and long values are cut."""
    lines = []
    for name in sorted(source.keys() | target.keys(), key=str):
        if name not in target:
            lines.append(f"{kind} {name!r} is missing at the target")
        elif name not in source:
            lines.append(f"{kind} {name!r} is only at the target")
        elif source[name] != target[name]:
            lines.append(f"{kind} {name!r} differs{_values(kind, source[name], target[name])}")
    return lines


def _values(kind: str, source: object, target: object) -> str:
    if kind == "artifact":
        return " in content"
    texts = [text if len(text) <= 60 else f"{text[:60]}..." for text in (repr(source), repr(target))]
    return f": {texts[0]} at the source, {texts[1]} at the target"
