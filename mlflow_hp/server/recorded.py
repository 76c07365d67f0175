"""Recorded trainings of runs as the page reads them: histories, weights and findings from artifacts, else metrics."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from mlflow_hp.analysis.diagnosis.own_regression import surface_of
from mlflow_hp.errors import UserError
from mlflow_hp.history import TrainingHistory, weight_snapshots
from mlflow_hp.history.schema import STEPS_FILE
from mlflow_hp.history.step_record import FEW_WEIGHTS
from mlflow_hp.run_page.barriers import barrier_from
from mlflow_hp.run_page.descent import BUDGET, descent
from mlflow_hp.run_page.from_metrics import from_metrics
from mlflow_hp.run_page.landscape_view import landscape_view
from mlflow_hp.run_page.microscope import microscope
from mlflow_hp.run_page.summary import findings_from, summary
from mlflow_hp.server.artifacts import files_in, local_path, text_of
from mlflow_hp.server.landscapes import landscape_of
from mlflow_hp.tracking.artifact_paths import (
    BARRIERS_FOLDER,
    DIAGNOSIS_FILE,
    LIVE_LAYERS_FILE,
    REVIEW_FILE,
    training_path,
)
from mlflow_hp.tracking.run_params import params_of
from mlflow_hp.tracking.tags import KIND_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlflow.entities import Run

    from mlflow_hp.analysis.downsampling import Points
    from mlflow_hp.history.weight_snapshots import Snapshots
    from mlflow_hp.server.source import ReadableSource

MAX_FILE_BYTES = 2**20
"""Longer files are not read as findings, or as a barrier."""
MAX_BARRIERS = 50
"""Barriers of a run that are shown."""
MAX_LAYERS_BYTES = 2**24
"""Longer files are not read as heatmaps."""
MAX_OPEN = 16
"""Histories that are kept open."""
PIXELS = 600


def run_summary(run: Run) -> dict[str, Any]:
    """Describe a run with the findings of its artifact."""
    path = local_path(run, REVIEW_FILE if run.data.tags.get(KIND_TAG) == "search" else DIAGNOSIS_FILE)
    is_text = path is not None and path.is_file() and path.stat().st_size <= MAX_FILE_BYTES
    text = path.read_text(encoding="utf-8", errors="replace") if path is not None and is_text else ""
    return summary(run, findings_from(text))


def training(run: Run, source: ReadableSource, fit: int, start: int | None, stop: int | None) -> dict[str, Any] | None:
    """Show a fit of a run, or a stretch of it; while it runs, from the metrics that MLflow has by now."""
    folder = None if run.info.status == "RUNNING" else history_folder(run, fit)
    if folder is not None and _opened(*folder) is not None:
        return _microscope(*folder, start or 0, stop)

    def read(metric: str) -> Points | None:
        last = None if stop is None else stop - 1
        return source.points([run.info.run_id], metric, PIXELS, start, last).get(run.info.run_id)

    params = params_of(run.data)
    of_epoch = params.get("steps_per_epoch", "")
    shown = from_metrics(run.data.metrics, read, int(of_epoch) if of_epoch.isdigit() else None)
    if shown is not None and (layers := _live_layers(run)) is not None:
        shown["heatmaps"], shown["note"] = layers["heatmaps"], layers["note"]
    if shown is not None and start is not None:
        shown["start"], shown["stop"] = start, stop if stop is not None else shown["n_steps"]
    return shown


@functools.lru_cache(maxsize=MAX_OPEN)
def _microscope(folder: Path, size: int, time: float, start: int, stop: int | None) -> dict[str, Any]:
    history = _opened(folder, size, time)
    assert history is not None
    return microscope(history, start, stop)


def _live_layers(run: Run) -> dict[str, Any] | None:
    """Heatmaps that a training has uploaded while it goes on."""
    path = local_path(run, LIVE_LAYERS_FILE)
    if path is None or path.stat().st_size > MAX_LAYERS_BYTES:
        return None
    try:
        layers = json.loads(path.read_text(encoding="utf-8"))
        return {"heatmaps": list(layers["heatmaps"]), "note": layers["note"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # it is being written, or is of another program
        return None


def descents(runs: Sequence[Run], source: ReadableSource) -> dict[str, Any] | None:
    """Show the descents of the first fits of runs that have ended: on an exact surface, else on a logged landscape."""
    history = history_of(runs[0], 0)
    if history is None or surface_of(history) is None:
        landscape = landscape_of(runs, source)
        if landscape is not None:
            return landscape_view(landscape)
    return _descents(tuple((each.info.run_id, history_folder(each, 0)) for each in runs))


def barriers(run: Run, source: ReadableSource) -> list[dict[str, Any]]:
    """Show the logged loss barriers between a run and others that may be read, with the names of these."""
    files = dict(list(files_in(run, BARRIERS_FOLDER).items())[:MAX_BARRIERS])
    texts = [text_of(run, path, size) for path, size in files.items() if size <= MAX_FILE_BYTES]
    shown = [barrier for text in texts if (barrier := barrier_from(text, run.info.run_id)) is not None]
    others = source.runs([barrier["other"] for barrier in shown])
    return [
        barrier | {"name": others[barrier["other"]].info.run_name or barrier["other"]}
        for barrier in shown
        if barrier["other"] in others
    ]


def weights_of(run: Run, fit: int) -> Snapshots | None:
    """Read the weights that a fit has kept; None if there are none, or so few that each has a curve of its own."""
    folder = history_folder(run, fit)
    snapshots = None if folder is None else _weights(*folder)
    n_weights = 0 if snapshots is None else sum(values[0].size for values in snapshots.tensors.values())
    return snapshots if n_weights > FEW_WEIGHTS else None


def history_of(run: Run, fit: int) -> TrainingHistory | None:
    """Open the history of a fit; None if the run has none, or what it has is damaged."""
    folder = history_folder(run, fit)
    return None if folder is None else _opened(*folder)


def history_folder(run: Run, fit: int) -> tuple[Path, int, float] | None:
    """Find the folder of a history, with size and time of its file, by which a changed one is recognised."""
    folder = local_path(run, training_path(fit))
    file = None if folder is None else folder / STEPS_FILE
    if folder is None or file is None or not file.is_file():
        return None
    status = file.stat()
    return folder, status.st_size, status.st_mtime


@functools.lru_cache(maxsize=MAX_OPEN)
def _opened(folder: Path, _size: int, _time: float) -> TrainingHistory | None:
    try:
        return TrainingHistory.open(folder)
    except (UserError, ValueError, OSError):
        return None


@functools.lru_cache(maxsize=MAX_OPEN)
def _descents(folders: tuple[tuple[str, tuple[Path, int, float] | None], ...]) -> dict[str, Any] | None:
    histories, snapshots = {}, dict[str, "Snapshots | None"]()
    for run_id, folder in folders:
        history = None if folder is None else _opened(*folder)
        if history is None or folder is None:
            continue
        histories[run_id], snapshots[run_id] = history, _snapshots(folder[0])
    return descent(histories, snapshots) if histories else None


@functools.lru_cache(maxsize=1)
def _weights(folder: Path, size: int, time: float) -> Snapshots | None:
    snapshots, history = _snapshots(folder), _opened(folder, size, time)
    if snapshots is None and history is not None and history.recorded == "values":
        snapshots = weight_snapshots.from_history(history, BUDGET)
    return snapshots


def _snapshots(folder: Path) -> Snapshots | None:
    try:
        return weight_snapshots.load(folder / weight_snapshots.FILE)
    except (UserError, OSError):
        return None
