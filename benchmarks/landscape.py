"""What the picture of a descent costs: keeping the weights, and the loss on the plane.

    python -m benchmarks.landscape [--steps 100000] [--budget 250] [--resolution 51] [--samples 2000]

The network is 784-64-64-10 (relu, softmax) on random data of MNIST's shape. (1) Snapshots: so many steps of its
weights go through a Thinner of the given budget (MiB); the table gives the growth of resident memory at its highest
and at the end, the time per step, and that of the principal plane. (2) Loss: the net is trained for three epochs, and
the loss around its path computed at every point of the grid and coarse to fine, on the same plane, in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import psutil
from tqdm import tqdm

from mlflow_hp.analysis.surfaces.grid import coarse_to_fine
from mlflow_hp.analysis.surfaces.plane import WeightPlane, principal_plane, project, random_plane, window
from mlflow_hp.history.weight_snapshots import Snapshots, Thinner
from mlflow_hp.training import loss_landscape as room
from mlflow_hp.training.capture.step_layout import tensors_of
from mlflow_hp.training.plane_losses import losses_on_plane

MIB = 2**20


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, "relu") for units in (64, 64)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures, and labels that a network can learn: the largest of ten random projections."""
    rng = np.random.default_rng(0)
    x = rng.random((rows, 784), np.float32)
    return x, ((x - 0.5) @ rng.normal(size=(784, 10))).argmax(axis=1)


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {t.name: np.asarray(v) for t, v in zip(tensors_of(model), model.weights, strict=True) if t.trainable}


class Keep(keras.callbacks.Callback):
    """Hands the weights to a Thinner."""

    def __init__(self, thinner: Thinner) -> None:
        super().__init__()
        self.thinner, self.step = thinner, 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.thinner.add(0, weights_of(self.model))

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.step += 1
        if self.thinner.due(self.step):
            self.thinner.add(self.step, weights_of(self.model))


def peak() -> int:
    """Highest resident memory of the process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB


def snapshots(steps: int, budget: int) -> None:
    weights = {name: values.copy() for name, values in weights_of(network()).items()}
    process = psutil.Process()
    before = highest = process.memory_info().rss
    thinner, spent = Thinner(budget), 0.0
    for step in tqdm(range(steps), desc="snapshots", unit=" steps"):
        start = time.perf_counter()
        if thinner.due(step):
            thinner.add(step, weights)
            spent += time.perf_counter() - start
            for values in weights.values():
                np.multiply(
                    values, 1.0001, out=values
                )  # another state, in place: the training's own memory does not count
            highest = max(highest, process.memory_info().rss)
        else:
            spent += time.perf_counter() - start
    kept = thinner.snapshots(steps, weights)
    end = process.memory_info().rss
    start = time.perf_counter()
    principal_plane([kept])
    seconds = time.perf_counter() - start
    print(f"\n{steps:,} steps of {sum(v.size for v in weights.values()):,} weights, budget {budget / MIB:.0f} MiB")
    print(f"  kept {len(kept.steps):,} (one of {kept.every}); {1e6 * spent / steps:.1f} us a step")
    print(f"  resident growth: highest {(highest - before) / MIB:.0f} MiB, at the end {(end - before) / MIB:.0f} MiB")
    print(f"  principal plane {seconds:.2f} s, highest growth until its end {(peak() - before) / MIB:.0f} MiB")


def loss(resolution: int, samples: int) -> None:
    x, y = data(20_000)
    model, thinner = network(), Thinner(250 * MIB)
    keep = Keep(thinner)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0, callbacks=[keep])
    path: Snapshots = thinner.snapshots(keep.step, weights_of(model))
    print(
        f"\nloss at {resolution} x {resolution} points over {samples:,} samples, path of {len(path.steps):,} snapshots"
    )
    for plane in (principal_plane([path]), random_plane({n: v[-1] for n, v in path.tensors.items()}, 0)):
        ranges = window([project(plane, path)], room.MARGIN) if plane.kind == "principal" else ((-1, 1), (-1, 1))
        a, b = (np.linspace(low, high, resolution) for low, high in ranges)
        grid = np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2)

        def evaluate(points: np.ndarray, plane: WeightPlane = plane) -> np.ndarray:
            return losses_on_plane(model, plane, points, x, y, n_samples=samples)

        start = time.perf_counter()
        full = evaluate(grid).reshape(len(b), len(a))
        middle = time.perf_counter()
        few, evaluated = coarse_to_fine(evaluate, a, b, room.TOLERANCE)
        end = time.perf_counter()
        error = np.abs(few / full - 1)
        shares = plane.variance_shares
        explained = f", explaining {shares[0]:.0%} and {shares[1]:.0%} of the variance" if shares else ""
        print(f"  {plane.kind} plane{explained}; loss {full.min():.3g} to {full.max():.3g}")
        print(f"    every point    {middle - start:5.1f} s")
        print(f"    coarse to fine {end - middle:5.1f} s, {evaluated:,} of {full.size:,} points; relative error "
              f"at most {error.max():.2%}, in the mean {error.mean():.3%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--budget", type=int, default=250, help="of the snapshots, MiB")
    parser.add_argument("--resolution", type=int, default=51)
    parser.add_argument("--samples", type=int, default=2000)
    asked = parser.parse_args()
    snapshots(asked.steps, asked.budget * MIB)
    loss(asked.resolution, asked.samples)


if __name__ == "__main__":
    main()
