"""Recordings on disk whose process has died."""

from __future__ import annotations

import json
import socket

import mlflow
import numpy as np
import pytest

from mlflow_hp.delivery.fit_recording import FitRecording
from mlflow_hp.delivery.metric_selection import MetricSelection
from mlflow_hp.history import Tensor
from mlflow_hp.history.step_record import STEP_COLUMNS, Layout, Rows
from mlflow_hp.tracking.home import local_folder

DEAD = json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": "long ago"})
TENSOR = Tensor("dense/kernel", (2,), "float32", True)
STEPS = 30


EVERYTHING = MetricSelection("all", max_points=None)


class Silent:
    """Sender that sends nothing."""

    tracking_uri = property(lambda _: mlflow.get_tracking_uri())
    n_submitted = n_sent = 0

    def __init__(self, run_id, **more):
        pass

    def submit(self, *arguments, **more):
        pass

    do = describe = submit


def rows(start, n):
    step = np.arange(start, start + n)
    whole = {"step": step, "epoch": step // 10, "batch": step % 10, "samples": np.full(n, 8)}
    numbers = {"time": 1e9 + step, "learning_rate": np.full(n, 0.1), "batch_loss": 1 / (1.0 + step)}
    return Rows(whole | numbers, {"dense/kernel": np.float32(step[:, None] + [0, 0.5])})


def leave(monkeypatch, tmp_path, process=DEAD, chunks=3, whole=None, epochs=True, selection=EVERYTHING, **shares):
    """Make a run whose data, with `shares` of units, is on disk and not in MLflow; return its id and the folder."""
    run_id = mlflow.MlflowClient().create_run(mlflow.get_experiment_by_name("tests").experiment_id).info.run_id
    folder = local_folder(run_id)
    meta = {"first_step": 0, "first_epoch": 0, "optimizer": {"name": "SGD", "learning_rate": 0.1}}
    with monkeypatch.context() as patched:
        patched.setattr("mlflow_hp.delivery.fit_recording.MetricSender", Silent)
        header = {"process": process, "fit": 0, "first_step": 0, "first_epoch": 0, "report": False}
        recording = FitRecording(run_id, lambda: folder, meta, selection, header, pytest.fail)
        recording.describe({"optimizer": "SGD"}, {"mlflow_hp.kind": "training"})
        initial = {"dense/kernel": np.zeros(2, np.float32)}
        recording.open(Layout(dict(STEP_COLUMNS), (TENSOR,), "values", initial))
        for i in range(chunks):
            recording.add(rows(10 * i, 10))
            if epochs:
                recording.add_epoch({"epoch": i, "loss": 0.5 / (i + 1), "seconds": 1.0, **shares})
        if whole is None:
            recording._writer._queue.put(None)
            recording._writer._thread.join()
            recording._writer._history._writer._sink.close()
        else:
            recording.finish_history(is_complete=whole)
        recording.close(all_sent=False)
    return run_id, folder
