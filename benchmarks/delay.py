"""Delay of MLflow behind a training: how old its newest loss is while 50 steps a second are done, on a local server.

    python -m benchmarks.delay [TRACKING_URI]

Without a URI it starts `mlflow server` on a free port.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS, STEPS_PER_SECOND = 1500, 50
START_SECONDS = 120


@contextlib.contextmanager
def server() -> Iterator[str]:
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                uri, until = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
                while time.monotonic() < until:
                    with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health"):
                        break
                    time.sleep(0.5)
                yield uri
            finally:
                process.terminate()


def measure(uri: str) -> tuple[list[float], float]:
    """Train; return the age of the newest loss in MLflow, in seconds, several times a second, and the end's seconds."""
    import keras
    import mlflow
    import numpy as np
    import tensorflow as tf

    import mlflow_hp
    from mlflow_hp.tracking.tags import BATCH_LOSS_METRIC

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("delay")

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for step in range(STEPS):
            time.sleep(max(0.0, started + step / STEPS_PER_SECOND - time.monotonic()))
            yield np.ones((32, 64), "float32"), np.ones(32, "int32")

    layers = [keras.layers.Dense(64, "relu") for _ in range(8)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    spec = (tf.TensorSpec((32, 64)), tf.TensorSpec((32,), tf.int32))
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    model.train_on_batch(*next(iter(tf.data.Dataset.from_tensors((np.ones((32, 64)), np.ones(32))))))
    delays: list[float] = []
    is_over = threading.Event()

    def watch(run_id: str) -> None:
        client = mlflow.MlflowClient()
        while not is_over.wait(0.25):
            asked = time.time()
            points = client.get_metric_history(run_id, BATCH_LOSS_METRIC)
            if points:
                delays.append(asked - max(point.timestamp for point in points) / 1000)

    recorder = mlflow_hp.TrainingRecorder()
    with mlflow.start_run() as run:
        watcher = threading.Thread(target=watch, args=(run.info.run_id,))
        watcher.start()
        started = time.monotonic()

        class Ends(keras.callbacks.Callback):
            def on_train_end(self, logs: object = None) -> None:
                is_over.set()

        model.fit(data, epochs=1, verbose=0, callbacks=[Ends(), recorder])
        watcher.join()
    return delays, recorder.flush_seconds


def main() -> None:
    with contextlib.ExitStack() as stack:
        uri = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(server())
        delays, seconds = measure(uri)
    late = delays[len(delays) // 10 :]
    low, high = min(late), max(late)
    print(f"newest loss in MLflow: {statistics.median(late):.1f} s old ({low:.1f} to {high:.1f}); end: {seconds:.1f} s")


if __name__ == "__main__":
    main()
