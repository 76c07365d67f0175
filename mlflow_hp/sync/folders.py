"""A store of files, as `./mlruns`, read folder by folder.

MLflow's own searches end at the first folder that is damaged, or leave it out in silence.
"""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities import PagedList
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.params_and_tags import storable
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run

    Found = TypeVar("Found")

_META = "meta.yaml"
_PARTS = {"run": ("metrics", "params", "tags", "artifacts"), "experiment": (), "model": ()}
"""Folders that MLflow makes in the folder of each."""
_RUN, _EXPERIMENT = re.compile("[0-9a-f]{32}"), re.compile(r"\d+")
_OTHERS = ("tags", "datasets", "traces", "models", "evaluations", "assessments")
"""Folders of an experiment that are no runs."""
_TRASH = ".trash"
_NOISE = re.compile(r"Malformed (experiment|run|model)|Wrong experiment ID")


def folder_of(uri: str) -> Path | None:
    """The folder of a store of files; None for other stores."""
    return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None


class FolderClient:
    """An MLflow client of a store of files, whose searches find all that is whole, and name the rest.

    All else is the client's own.

    Parameters
    ----------
    client : MlflowClient
    folder : Path

    Attributes
    ----------
    damaged : dict of Path to str
        Folders that could not be read so far, and why.
    """

    def __init__(self, client: MlflowClient, folder: Path) -> None:
        self._client, self._folder = client, folder
        self.damaged: dict[Path, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def search_experiments(self, view_type: int = ViewType.ACTIVE_ONLY, *_: object, **__: object) -> list[Experiment]:
        """Those that can be read, all on one page; they are not filtered or sorted."""
        stages = LifecycleStage.view_type_to_stages(view_type)
        found = [self._read("experiment", path, self._client.get_experiment) for path in self._experiments()]
        return PagedList(
            [experiment for experiment in found if experiment and experiment.lifecycle_stage in stages], None
        )

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment of a name, a deleted one too."""
        named = [experiment for experiment in self.search_experiments(ViewType.ALL) if experiment.name == name]
        return min(named, key=lambda experiment: experiment.lifecycle_stage != LifecycleStage.ACTIVE, default=None)

    def search_runs(
        self, experiment_ids: Sequence[str], filter_string: str = "", view_type: int = ViewType.ACTIVE_ONLY,
        *options: object, **named: object,
    ) -> list[Run]:  # fmt: skip
        """Without a filter those that can be read, all on one page; with one MLflow's own, of a store that is whole."""
        if filter_string:
            return self._client.search_runs(experiment_ids, filter_string, view_type, *options, **named)
        stages = LifecycleStage.view_type_to_stages(view_type)
        found = [
            self._read("run", path, self._client.get_run)
            for experiment_id in experiment_ids
            for path in self._below(experiment_id)
            if path.name not in _OTHERS and (_RUN.fullmatch(path.name) or (path / _META).exists())
        ]
        return PagedList([run for run in found if run and run.info.lifecycle_stage in stages], None)

    def get_run(self, run_id: str) -> Run:
        """A run. MlflowException where it can't be read, which is noted where its folder is there."""
        paths = [path for experiment in self._experiments() if (path := experiment / run_id).exists()]
        run = self._read("run", paths[0], self._client.get_run) if paths else None
        if run is None:
            why = f"{paths[0]}: {self.damaged[paths[0]]}" if paths else f"there is no run {run_id!r}"
            raise MlflowException(why, RESOURCE_DOES_NOT_EXIST)
        return run

    def search_logged_models(self, experiment_ids: Sequence[str], *_: object, **__: object) -> list[LoggedModel]:
        """Those that can be read, all on one page; they are not filtered."""
        paths = [path for key in experiment_ids for path in self._below(f"{key}/models") if path.name.startswith("m-")]
        found = [self._read("model", path, self._client.get_logged_model) for path in paths]
        return PagedList([model for model in found if model], None)

    def ensure_whole(self) -> None:
        """Raise UserError where a folder can't be read: what can't be found again would be brought again."""
        experiments = self.search_experiments(ViewType.ALL)
        self.search_runs([experiment.experiment_id for experiment in experiments], "", ViewType.ALL)
        for path, why in self.damaged.items():
            raise UserError(f"the target is damaged: {path}: {why}. Restore that folder, or move it out of the store")

    def _experiments(self) -> Iterator[Path]:
        for folder in (self._folder, self._folder / _TRASH):
            yield from (path for path in _sorted(folder) if _EXPERIMENT.fullmatch(path.name) or (path / _META).exists())

    def _below(self, path: str) -> list[Path]:
        return [found for root in (self._folder, self._folder / _TRASH) for found in _sorted(root / path)]

    def _read(self, kind: str, path: Path, read: Callable[[str], Found]) -> Found | None:
        """What MLflow reads of a folder; None where it can't, and the reason is noted."""
        self.damaged.pop(path, None)
        try:
            with _quiet():
                return read(path.name)
        except Exception as error:  # noqa: BLE001 - MLflow raises whatever its parsers do
            self.damaged[path] = _reason(kind, path, error)
            return None


def _reason(kind: str, path: Path, error: Exception) -> str:
    if not path.is_dir():
        return f"it is no folder, as that of a{'n' if kind == 'experiment' else ''} {kind} has to be"
    if not (path / _META).is_file():
        return f"it has no {_META}"
    if not (path / _META).stat().st_size:
        return f"its {_META} is empty"
    if missing := [part for part in _PARTS[kind] if not (path / part).is_dir()]:
        return f"it has no folder {missing[0]}"
    told = (str(error).strip() or "no reason given").splitlines()[0]
    return storable(f"MLflow can't read it ({type(error).__name__}: {masked(told)})")


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out of MLflow's log what is told in our words: it prints a traceback for each folder."""

    def wanted(record: logging.LogRecord) -> bool:
        return not _NOISE.match(record.getMessage())

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
