"""One fit's record on its way: from the training loop to the history on disk, and from there to MLflow."""

from __future__ import annotations

import math
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.capture.layout import FEW_WEIGHTS, n_weights
from mlflow_hp.history import STATISTICS, HistoryWriter, TrainingHistory, statistics_of
from mlflow_hp.runs import distinct_metric_names, metric_name
from mlflow_hp.sender import MetricSender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_hp.capture.layout import Layout, Rows
    from mlflow_hp.sender import Points

CHUNKS_IN_MEMORY = 2
"""Chunks that may wait for the disk; then the training loop waits too, so that memory stays bounded."""


class Recording:
    """Takes the rows of one fit, keeps them in a history on disk, and has their metrics sent to MLflow.

    The metrics are made from the history when it is their turn, not kept in memory until then.

    Parameters
    ----------
    run_id : str
        The run.
    folder : Path
        Where the history is written.
    meta : mapping
        What is known of the training, for the history's head.
    metrics_every : int
        Every how many steps MLflow gets metrics.
    """

    def __init__(self, run_id: str, folder: Path, meta: Mapping[str, Any], metrics_every: int) -> None:
        self.folder = folder
        self.error: Exception | None = None
        self.batch_size = 0
        self._meta = meta
        self._every = metrics_every
        self._writer: HistoryWriter | None = None
        self._epochs: list[dict[str, float]] = []
        self._previous: dict[str, np.ndarray] = {}
        self._sender = MetricSender(run_id)
        self._queue: queue.Queue[Rows | dict[str, float] | None] = queue.Queue(CHUNKS_IN_MEMORY)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-recording", daemon=True)
        self._thread.start()

    def open(self, layout: Layout) -> None:
        """Begin the history; before any rows."""
        self._layout = layout
        self._names = _metric_names(layout)
        self._writer = HistoryWriter(
            self.folder,
            columns=layout.columns,
            tensors=layout.tensors,
            weights=layout.store,
            initial=layout.initial,
            meta=self._meta,
        )
        self._previous = layout.initial

    def add(self, rows: Rows) -> None:
        """Take the rows of consecutive steps; waits where the disk is behind."""
        self.batch_size = max(self.batch_size, int(rows.columns["samples"].max()))
        self._queue.put(rows)

    def add_epoch(self, row: Mapping[str, float]) -> None:
        """Take an epoch's values: ``epoch`` (0-based), Keras' logs, ``seconds``."""
        values = {k: v for k, v in row.items() if k not in ("epoch", "seconds")}
        now, epoch = round(time.time() * 1000), int(row["epoch"])
        points = [(metric_name(name), float(value), now, epoch) for name, value in values.items()]
        self._sender.submit(len(points), lambda: points)
        self._queue.put(dict(row))

    def finish_history(self) -> TrainingHistory | None:
        """Write what is left to disk and give the history; None where no step was recorded."""
        self._queue.put(None)
        self._thread.join()
        if self._writer is None:
            return None
        self._writer.close()
        return TrainingHistory.open(self.folder)

    def flush(self, on_progress: Callable[[], object] | None = None) -> None:
        """Send what is left to MLflow. Raises where MLflow didn't take all."""
        self._sender.flush(on_progress)

    @property
    def unsent(self) -> int:
        """Metric points that MLflow does not have yet."""
        return self._sender.submitted - self._sender.sent

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if self.error is None:
                    self._write(item)
            except Exception as error:  # noqa: BLE001 - the recorder tells it when the fit ends
                self.error = error

    def _write(self, item: Rows | dict[str, float]) -> None:
        """Append what was taken; epochs that ended before the first rows came wait for them."""
        if isinstance(item, dict):
            self._epochs.append(item)
        if self._writer is None:
            return
        while self._epochs:
            self._writer.append_epoch(self._epochs.pop(0))
        if not isinstance(item, dict):
            index = self._writer.append(item.columns, item.weights)
            steps = int(np.count_nonzero(item.columns["step"] % self._every == 0))
            self._sender.submit(steps * len(self._names), lambda: self._points(index))

    def _points(self, index: int) -> Points:
        """The metric points of the chunk `index`, in the order of their steps."""
        assert self._writer is not None
        columns, weights = self._writer.chunk(index)
        series = {name: columns[name] for name in columns}
        if self._layout.store == "values" and n_weights(self._layout.tensors) > FEW_WEIGHTS:
            weights, last = self._statistics(weights)
            self._previous = last
        for tensor in self._layout.tensors if weights else ():
            flat = weights[tensor.name].reshape(len(columns["step"]), -1)
            series |= {f"{tensor.name}\n{i}": flat[:, i] for i in range(flat.shape[1])}
        chosen = np.flatnonzero(columns["step"] % self._every == 0)
        steps = columns["step"][chosen].tolist()
        times = (columns["time"][chosen] * 1000).astype(np.int64).tolist()
        values = [(self._names[name], series[name][chosen].astype(float).tolist()) for name in self._names]
        return [
            (name, numbers[i], at, step)
            for i, (at, step) in enumerate(zip(times, steps, strict=True))
            for name, numbers in values
            if not (name.endswith("/update_ratio") and not math.isfinite(numbers[i]))  # of a tensor that was zero
        ]

    def _statistics(self, weights: Mapping[str, np.ndarray]) -> tuple[dict, dict]:
        """Statistics (k, 4) of each tensor's values (k, *shape), and the values of the last step."""
        result = {}
        for name, values in weights.items():
            result[name] = statistics_of(np.concatenate([self._previous[name][None], values]))[1:]
        return result, {name: values[-1].copy() for name, values in weights.items()}


def _metric_names(layout: Layout) -> dict[str, str]:
    r"""Series of a chunk (a step column, or ``tensor\nindex``) to the metric that MLflow gets of it."""
    wanted = {"batch_loss": "batch/loss", "learning_rate": "batch/learning_rate"}
    wanted |= {name: f"batch/{name}" for name in layout.columns if name.startswith("running_")}
    by_weight = layout.store == "values" and n_weights(layout.tensors) <= FEW_WEIGHTS
    for tensor in layout.tensors if layout.store != "none" else ():
        size = int(np.prod(tensor.shape))
        ends = [f"/{i}" for i in range(size)] if by_weight else [f"/{name}" for name in STATISTICS]
        if by_weight and size == 1:
            ends = [""]
        wanted |= {f"{tensor.name}\n{i}": f"weights/{tensor.name}{end}" for i, end in enumerate(ends)}
    names = distinct_metric_names(wanted.values())
    return {series: names[name] for series, name in wanted.items()}
