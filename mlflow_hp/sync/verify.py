"""Both sides compared: how much of each kind there is, and what differs."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mlflow_hp.sync import points, run_contents
from mlflow_hp.sync.copies import Places
from mlflow_hp.sync.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow.entities import LoggedModel, Run

    from mlflow_hp.sync.run_contents import ModelContents, RunContents
    from mlflow_hp.sync.selection import Scope
    from mlflow_hp.sync.stores import Stores

KINDS = ("runs", "params", "tags", "metric points", "artifacts", "models", "inputs")

_AT_ONCE = 2


class Comparison(NamedTuple):
    """What a comparison found.

    Attributes
    ----------
    counts : dict of str to tuple of int
        Each of KINDS -> how many there are at the source, and how many at the target. Tags that only the target has
        are not counted: people add them there. Artifacts are those of the runs and of the models.
    differences : list of str
        A line for each; none where both sides are the same.
    """

    counts: dict[str, tuple[int, int]]
    differences: list[str]


def compare(stores: Stores, scope: Scope) -> Comparison:
    """Read both sides anew, and compare them run by run and model by model, artifacts by their content."""
    comparing = _Comparing(stores, scope)
    runs = [run for run in scope.runs if run.info.run_id not in comparing.places.at_home]
    with ThreadPoolExecutor(_AT_ONCE) as pool, tqdm(total=len(runs), desc="compared", unit="run", disable=None) as bar:
        found = [*pool.map(functools.partial(_guarded, comparing.model), scope.models)]
        for one in pool.map(functools.partial(_guarded, comparing.run), runs):
            found.append(one)
            bar.update()
    counts = {kind: [one.counts[kind] for one in found if kind in one.counts] for kind in KINDS}
    return Comparison(
        {kind: (sum(here for here, _ in pairs), sum(there for _, there in pairs)) for kind, pairs in counts.items()},
        [line for one in found for line in one.differences],
    )


def _guarded(compare_one: Callable[[Any], Comparison], one: Any) -> Comparison:
    """A comparison; where one side can't be read, that is a difference."""
    try:
        return compare_one(one)
    except (MlflowException, OSError) as error:
        name = one.info.run_id if hasattr(one, "info") else one.model_id
        return Comparison({}, [f"{name} could not be compared: {(str(error).strip() or repr(error)).splitlines()[0]}"])


class _Comparing:
    def __init__(self, stores: Stores, scope: Scope) -> None:
        self._stores = stores
        self.places = Places(stores.target, scope)
        self._identities = self.places.identities
        self._copies = {
            model.model_id: stores.target.get_logged_model(self._identities[model.model_id])
            for model in scope.models
            if model.model_id in self._identities
        }
        self._links = run_contents.links_of(scope.models, self._identities)
        self._links_there = run_contents.links_of(self._copies.values())

    def run(self, chosen: Run) -> Comparison:
        """Compare one run."""
        run_id = chosen.info.run_id
        run = self._stores.source.get_run(run_id)
        files = Files(run.info.artifact_uri, self._stores.source_uri, self._identities)
        wanted = run_contents.of_run(self._stores.source, run, self._links.get(run_id, set()), files, self._identities)
        name = f"run {run.info.run_name} ({run_id})"
        if run_id not in self._identities:
            counts = {kind: (here, 0) for kind, here in _numbers(wanted).items()}
            return Comparison(counts, [f"{name} is not at the target"])
        copy = self._stores.target.get_run(self._identities[run_id])
        there = Files(copy.info.artifact_uri, self._stores.target_uri)
        present = run_contents.of_run(self._stores.target, copy, self._links_there.get(copy.info.run_id, set()), there)
        present = present._replace(tags={key: value for key, value in present.tags.items() if key in wanted.tags})
        here, at_target = _numbers(wanted), _numbers(present)
        differences = [f"{name}: {line}" for line in _run_differences(wanted, present)]
        if duplicates := self.places.duplicates.get(run_id, []):
            at_target["runs"] = len(duplicates)
            delete = "; ".join(f"`mlflow runs delete --run-id {copy}`" for copy in duplicates[1:])
            differences.append(
                f"{name} is at the target {len(duplicates)} times: {duplicates[0]} is kept complete; look at what was "
                f"added to the others, and delete these there: {delete}"
            )
        return Comparison({kind: (here[kind], at_target[kind]) for kind in here}, differences)

    def model(self, model: LoggedModel) -> Comparison:
        """Compare one logged model."""
        files = Files(model.artifact_location, self._stores.source_uri, self._identities)
        wanted = run_contents.of_model(model, files, self._identities)
        name = f"model {model.name} ({model.model_id})"
        copy = self._copies.get(model.model_id)
        if copy is None:
            counts = {"models": (1, 0), "artifacts": (len(wanted.files), 0)}
            return Comparison(counts, [f"{name} is not at the target"])
        present = run_contents.of_model(copy, Files(copy.artifact_location, self._stores.target_uri))
        duplicates = self.places.duplicates.get(model.model_id, [])
        counts = {"models": (1, max(len(duplicates), 1)), "artifacts": (len(wanted.files), len(present.files))}
        differences = [f"{name}: {line}" for line in _model_differences(wanted, present)]
        if duplicates:
            delete = "; ".join(f'`MlflowClient().delete_logged_model("{copy}")`' for copy in duplicates[1:])
            differences.append(
                f"{name} is at the target {len(duplicates)} times: {duplicates[0]} is kept complete; delete the "
                f"duplicates there, in Python: {delete}"
            )
        return Comparison(counts, differences)


def _numbers(held: RunContents) -> dict[str, int]:
    return {
        "runs": 1,
        "params": len(held.params),
        "tags": len(held.tags),
        "metric points": sum(len(history) for history in held.points.values()),
        "artifacts": len(held.files),
        "inputs": len(held.datasets) + len(held.model_inputs),
    }


def _run_differences(wanted: RunContents, present: RunContents) -> list[str]:
    lines = []
    for what in ("facts", "params", "tags", "datasets", "model_outputs", "files"):
        lines += _unlike(_SINGULAR[what], getattr(wanted, what), getattr(present, what))
    lines += _unlike("input model", dict.fromkeys(wanted.model_inputs, ""), dict.fromkeys(present.model_inputs, ""))
    for key in sorted(wanted.points.keys() | present.points.keys()):
        here, there = (side.points.get(key, points.NONE) for side in (wanted, present))
        for count, where in ((len(points.missing(here, there)), "missing"), (len(points.missing(there, here)), "more")):
            if count:
                lines.append(f"metric {key!r}: {count} points {where} at the target")
    for count, where in ((len(wanted.links - present.links), "missing"), (len(present.links - wanted.links), "more")):
        if count:
            lines.append(f"{count} points that tell of a model {where} at the target")
    return lines


def _model_differences(wanted: ModelContents, present: ModelContents) -> list[str]:
    tags = {name: value for name, value in present.tags.items() if name in wanted.tags}
    present = present._replace(tags=tags)
    return [
        line
        for what in present._fields
        for line in _unlike(_SINGULAR[what], getattr(wanted, what), getattr(present, what))
    ]


_SINGULAR = {
    "facts": "its",
    "params": "param",
    "tags": "tag",
    "datasets": "data set",
    "model_outputs": "model",
    "files": "artifact",
}


def _unlike(what: str, here: Mapping[Any, Any], there: Mapping[Any, Any]) -> list[str]:
    """A line for each entry that the two don't share; digests and long texts are not shown."""
    lines = []
    for name in sorted(here.keys() | there.keys(), key=str):
        if name not in there:
            lines.append(f"{what} {name!r} is missing at the target")
        elif name not in here:
            lines.append(f"{what} {name!r} is at the target alone")
        elif here[name] != there[name]:
            lines.append(f"{what} {name!r} differs{_shown(what, here[name], there[name])}")
    return lines


def _shown(what: str, here: object, there: object) -> str:
    if what == "artifact":
        return " in content"
    texts = [text if len(text) <= 60 else f"{text[:60]}..." for text in (repr(here), repr(there))]
    return f": {texts[0]} at the source, {texts[1]} at the target"
