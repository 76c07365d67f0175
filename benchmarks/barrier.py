"""What the way between two trainings costs, and what it finds: `mlflow_hp.barrier` and `hessian_spectrum`.

    python -m benchmarks.barrier --data mnist_10k.npz [--epochs 10] [--curve-steps 2000] [--picture barrier.png]

The network is 784-64-64-10 (relu, softmax; 55,050 weights) on the training rows of a file in the layout of Keras'
mnist.npz, recorded twice, with two seeds, with snapshots. The table gives the heights of the barriers and the seconds;
then the spectrum of the Hessian at the end of the second training.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import mlflow
import numpy as np

import mlflow_hp
from mlflow_hp.plots import barrier_info, draw_barrier
from mlflow_hp.plots.figure import save
from mlflow_hp.training import hessian_spectrum


def trained(seed: int, x: np.ndarray, y: np.ndarray, epochs: int) -> tuple[keras.Model, str]:
    """Train with a seed, and return the model and the id of its run."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(units, "relu") for units in (64, 64)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    recorder = mlflow_hp.TrainingRecorder(report=False, snapshot_megabytes=16)
    with mlflow.start_run(run_name=f"seed {seed}") as run:
        model.fit(x, y, batch_size=128, epochs=epochs, verbose=0, callbacks=[recorder])
    return model, run.info.run_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file in the layout of Keras' mnist.npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--curve-steps", type=int, default=2000)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    with np.load(asked.data) as arrays:
        x, y = arrays["x_train"].reshape(-1, 784).astype("float32") / 255, arrays["y_train"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_HP_FOLDER"] = folder
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.create_experiment("barrier", artifact_location=Path(folder, "artifacts").as_uri())
        mlflow.set_experiment("barrier")
        (_, first), (model, second) = (trained(seed, x, y, asked.epochs) for seed in (1, 2))
        start = time.perf_counter()
        between = mlflow_hp.barrier(first, second, model, x, y, curve_steps=asked.curve_steps)
        seconds = time.perf_counter() - start
    print(f"{model.count_params():,} weights, {len(x):,} rows, {asked.epochs} epochs: {seconds:.1f} s")
    print(f"  losses of the ends {between.line[0]:.4f} and {between.line[-1]:.4f}; {between.alignment}")
    for name, height in between.metrics().items():
        print(f"  {name:16} {height:.4f}")
    if asked.picture:
        save(draw_barrier(barrier_info(between)), asked.picture)
    start = time.perf_counter()
    spectrum = hessian_spectrum(model, x, y)
    print(f"Hessian: {spectrum.n_products:,} products, {time.perf_counter() - start:.1f} s")
    for name, value in spectrum.metrics().items():
        print(f"  {name:22} {value:.4f}")


if __name__ == "__main__":
    main()
