"""Read a file store (`./mlruns`) folder by folder, so that damaged folders are reported.

MLflow's own searches stop at the first damaged folder, or skip it silently.
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

    Entity = TypeVar("Entity")

_META = "meta.yaml"
_SUBFOLDERS = {"run": ("metrics", "params", "tags", "artifacts"), "experiment": (), "model": ()}
"""Subfolders that MLflow creates for each kind."""
_RUN, _EXPERIMENT = re.compile("[0-9a-f]{32}"), re.compile(r"\d+")
_NOT_RUNS = ("tags", "datasets", "traces", "models", "evaluations", "assessments")
"""Subfolders of an experiment that are not runs."""
_TRASH = ".trash"
_NOISE = re.compile(r"Malformed (experiment|run|model)|Wrong experiment ID")


def folder_of(uri: str) -> Path | None:
    """Get the folder of a file store; None for other stores."""
    return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None


class FolderClient:
    """MLflow client of a file store whose searches return everything readable and collect the damaged folders.

    All other methods are those of `client`.

    Parameters
    ----------
    client : MlflowClient
    folder : Path

    Attributes
    ----------
    damaged : dict of Path to str
        Folder that could not be read so far -> reason.
    """

    def __init__(self, client: MlflowClient, folder: Path) -> None:
        self._client, self._folder = client, folder
        self.damaged: dict[Path, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def search_experiments(self, view_type: int = ViewType.ACTIVE_ONLY, *_: object, **__: object) -> list[Experiment]:
        """List all readable experiments on one page, neither filtered nor sorted."""
        stages = LifecycleStage.view_type_to_stages(view_type)
        experiments = [self._read("experiment", path, self._client.get_experiment) for path in self._experiments()]
        return PagedList([each for each in experiments if each and each.lifecycle_stage in stages], None)

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Find an experiment by name, deleted ones included."""
        named = [experiment for experiment in self.search_experiments(ViewType.ALL) if experiment.name == name]
        return min(named, key=lambda experiment: experiment.lifecycle_stage != LifecycleStage.ACTIVE, default=None)

    def search_runs(
        self, experiment_ids: Sequence[str], filter_string: str = "", view_type: int = ViewType.ACTIVE_ONLY,
        *arguments: object, **options: object,
    ) -> list[Run]:  # fmt: skip
        """List all readable runs on one page; with a filter, call MLflow's search, which needs an undamaged store."""
        if filter_string:
            return self._client.search_runs(experiment_ids, filter_string, view_type, *arguments, **options)
        stages = LifecycleStage.view_type_to_stages(view_type)
        runs = [
            self._read("run", path, self._client.get_run)
            for experiment_id in experiment_ids
            for path in self._below(experiment_id)
            if path.name not in _NOT_RUNS and (_RUN.fullmatch(path.name) or (path / _META).exists())
        ]
        return PagedList([run for run in runs if run and run.info.lifecycle_stage in stages], None)

    def get_run(self, run_id: str) -> Run:
        """Get a run; raise MlflowException if it cannot be read, and note a damaged folder in `damaged`."""
        paths = [path for experiment in self._experiments() if (path := experiment / run_id).exists()]
        run = self._read("run", paths[0], self._client.get_run) if paths else None
        if run is None:
            why = f"{paths[0]}: {self.damaged[paths[0]]}" if paths else f"there is no run {run_id!r}"
            raise MlflowException(why, RESOURCE_DOES_NOT_EXIST)
        return run

    def search_logged_models(self, experiment_ids: Sequence[str], *_: object, **__: object) -> list[LoggedModel]:
        """List all readable models on one page, not filtered."""
        paths = [path for key in experiment_ids for path in self._below(f"{key}/models") if path.name.startswith("m-")]
        models = [self._read("model", path, self._client.get_logged_model) for path in paths]
        return PagedList([model for model in models if model], None)

    def ensure_undamaged(self) -> None:
        """Raise UserError if a folder cannot be read: a copy that is not found would be made a second time."""
        experiments = self.search_experiments(ViewType.ALL)
        self.search_runs([experiment.experiment_id for experiment in experiments], "", ViewType.ALL)
        for path, why in self.damaged.items():
            raise UserError(f"the target is damaged: {path}: {why}. Restore that folder, or move it out of the store")

    def _experiments(self) -> Iterator[Path]:
        for folder in (self._folder, self._folder / _TRASH):
            yield from (path for path in _sorted(folder) if _EXPERIMENT.fullmatch(path.name) or (path / _META).exists())

    def _below(self, path: str) -> list[Path]:
        return [entry for root in (self._folder, self._folder / _TRASH) for entry in _sorted(root / path)]

    def _read(self, kind: str, path: Path, read: Callable[[str], Entity]) -> Entity | None:
        """Read a folder by MLflow's `read`; if that fails, note the reason in `damaged` and return None."""
        self.damaged.pop(path, None)
        try:
            with _quiet():
                return read(path.name)
        except Exception as error:  # noqa: BLE001 - MLflow raises whatever its parsers raise
            self.damaged[path] = _reason(kind, path, error)
            return None


def _reason(kind: str, path: Path, error: Exception) -> str:
    if not path.is_dir():
        return f"it is not a folder, as a{'n' if kind == 'experiment' else ''} {kind} has to be"
    if not (path / _META).is_file():
        return f"it has no {_META}"
    if not (path / _META).stat().st_size:
        return f"its {_META} is empty"
    if missing := [name for name in _SUBFOLDERS[kind] if not (path / name).is_dir()]:
        return f"it has no folder {missing[0]}"
    message = (str(error).strip() or "no reason given").splitlines()[0]
    return storable(f"MLflow cannot read it ({type(error).__name__}: {masked(message)})")


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow's traceback for each damaged folder: ours is a line in `damaged`."""

    def allowed(record: logging.LogRecord) -> bool:
        return not _NOISE.match(record.getMessage())

    root = logging.getLogger()
    root.addFilter(allowed)
    try:
        yield
    finally:
        root.removeFilter(allowed)
