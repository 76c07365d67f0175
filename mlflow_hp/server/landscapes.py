"""Logged loss landscapes of a run, and the one that shows the trainings that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.surfaces.landscape_file import MAX_BYTES, StoredLandscape, from_json
from mlflow_hp.server.artifacts import files_in, text_of
from mlflow_hp.tracking.artifact_paths import LANDSCAPE_NAME, PLOTS_FOLDER
from mlflow_hp.tracking.tags import PARENT_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow.entities import Run

    from mlflow_hp.server.source import ReadableSource

MAX_FILES = 20
"""Landscapes of a run that are looked at."""


def landscape_of(runs: Sequence[Run], source: ReadableSource) -> StoredLandscape | None:
    """Find the landscape that has the paths of some runs: one of the first run, or of its parent.

    Parameters
    ----------
    runs : sequence of mlflow.entities.Run
        Runs that the sender may read.
    source : ReadableSource
        Runs that the sender may read.

    Returns
    -------
    StoredLandscape or None
        With the paths of these runs only, that of the first run first; a landscape of the first run in which that has
        no path itself, as of a sweep, keeps the paths of all runs that may be read. None if there is none.
    """
    first, ids = runs[0], [run.info.run_id for run in runs]
    owners = [first, *source.runs([parent]).values()] if (parent := first.data.tags.get(PARENT_TAG)) else [first]
    fitting = []
    for owner in owners:
        for landscape in _logged(owner):
            of_runs = {path.run_id: path for path in landscape.paths}
            if owner is first and first.info.run_id not in of_runs:
                readable = source.runs([run_id for run_id in of_runs if run_id])
                paths = [path for path in landscape.paths if path.run_id in readable]
                if paths and all(run_id in readable for run_id in ids[1:]):
                    fitting.append((len(landscape.paths), landscape._replace(paths=tuple(paths))))
            elif all(run_id in of_runs for run_id in ids):
                paths = [of_runs[run_id] for run_id in ids]
                fitting.append((len(landscape.paths), landscape._replace(paths=tuple(paths))))
    return min(fitting, key=lambda each: each[0])[1] if fitting else None


def _logged(run: Run) -> Iterator[StoredLandscape]:
    files = files_in(run, PLOTS_FOLDER)
    named = [path for path in files if path.startswith(f"{PLOTS_FOLDER}/{LANDSCAPE_NAME}") and path.endswith(".json")]
    for path in sorted(named)[:MAX_FILES]:
        if files[path] <= MAX_BYTES and (landscape := from_json(text_of(run, path, files[path]))) is not None:
            yield landscape
