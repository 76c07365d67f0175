"""Layers by steps of a training that goes on, as an artifact that the page of its run shows."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING

import mlflow

from mlflow_hp.history import TrainingHistory
from mlflow_hp.run_page.microscope import microscope
from mlflow_hp.tracking.artifact_paths import LIVE_LAYERS_FILE
from mlflow_hp.tracking.server_health import ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 10.0
"""Seconds from one version to the next, at least; a shorter training has none."""
SHARE = 0.02
"""Share of the time that the versions take at most."""
COLUMNS = 150
"""Columns of a heatmap."""


class LiveLayers:
    """Uploads the heatmaps of a training from time to time, in a thread of its own, until `stop`.

    What fails is left out: the history that is uploaded at the end has all of it.

    Parameters
    ----------
    run_id : str
        Id of the run.
    tracking_uri : str
        Tracking URI of the run.
    folder : callable
        Returns the folder of the history that is being written, or None.
    """

    def __init__(self, run_id: str, tracking_uri: str, folder: Callable[[], Path | None]) -> None:
        self._run_id, self._uri, self._folder = run_id, tracking_uri, folder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-live-layers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Upload no further version."""
        self._stopped.set()

    def _work(self) -> None:
        pause = SECONDS
        while not self._stopped.wait(pause):
            started = time.monotonic()
            with contextlib.suppress(Exception):
                self._upload()
            pause = max(SECONDS, (time.monotonic() - started) / SHARE)

    def _upload(self) -> None:
        folder = self._folder()
        if folder is None:
            return
        history = TrainingHistory.open(folder)
        if history.recorded == "none" or not history.n_steps:
            return
        shown = microscope(history, columns=COLUMNS)
        content = {"n_steps": shown["n_steps"], "heatmaps": shown["heatmaps"], "note": shown["note"]}
        ensure_reachable(self._uri)
        if not self._stopped.is_set():
            text = json.dumps(content, separators=(",", ":"), allow_nan=False)
            mlflow.MlflowClient(self._uri).log_text(self._run_id, text, LIVE_LAYERS_FILE)
