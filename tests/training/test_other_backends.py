"""Keras on JAX and torch: losses, rates and weights of each step, against a regression computed by hand in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.needs import needed

PROGRAM = """
import json, sys, warnings
import keras, mlflow, numpy as np
import mlflow_hp

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 3)).astype("float32")
Y = (X @ np.array([1.0, -2.0, 0.5], "float32") + 0.1 * RNG.normal(size=37)).astype("float32")[:, None]


class Own(keras.Model):
    if BACKEND == "torch":
        def train_step(self, data):
            import torch
            x, y = data
            self.zero_grad()
            loss = ((self(x, training=True) - y) ** 2).mean()
            loss.backward()
            kernel, bias = self.trainable_weights
            second = getattr(self, "second", None)
            parts = {self.optimizer: [kernel], second: [bias]} if second else {self.optimizer: [kernel, bias]}
            with torch.no_grad():
                for optimizer, weights in parts.items():
                    optimizer.apply([weight.value.grad for weight in weights], weights)
            return {"mine": loss}
    else:
        def train_step(self, state, data):
            import jax
            weights, others, optimizer, metrics = state
            x, y = data
            loss = lambda weights: ((self.stateless_call(weights, others, x, training=True)[0] - y) ** 2).mean()
            value, gradients = jax.value_and_grad(loss)(weights)
            weights, optimizer = self.optimizer.stateless_apply(optimizer, gradients, weights)
            return {"mine": value}, (weights, others, optimizer, metrics)


def model(kind):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3,))
    made = (keras.Model if kind in ("plain", "several") else Own)(inputs, keras.layers.Dense(1, name="out")(inputs))
    rate = keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 0.2)
    if kind == "two":
        made.second = keras.optimizers.SGD(rate)
    made.compile(keras.optimizers.SGD(rate), "mse", steps_per_execution=3 if kind == "several" else 1)
    return made


def fit(made, *callbacks):
    made.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[*callbacks])


results = {}
for kind in sys.argv[1].split(","):
    recorder = mlflow_hp.TrainingRecorder(weights="all", report=False)
    monitor = "mine" if kind in ("own", "two") else "loss"
    restoring = lambda: keras.callbacks.EarlyStopping(monitor, mode="min", min_delta=1e9, patience=9,
                                                      restore_best_weights=True)
    recorded, bare = model(kind), model(kind)
    with warnings.catch_warnings(), mlflow.start_run():
        warnings.simplefilter("ignore")
        fit(recorded, restoring(), recorder)
        fit(bare, restoring())
    history = recorder.history
    results[kind] = {
        "columns": {name: column.tolist() for name, column in history.steps.items()},
        "kernel": history.weights("out/kernel").tolist(),
        "bias": history.weights("out/bias").tolist(),
        "final": recorded.get_weights()[0].tolist(),
        "same": all(a.tobytes() == b.tobytes() for a, b in zip(recorded.get_weights(), bare.get_weights())),
        "restored": recorder.restored_epoch,
    }
print(json.dumps({"backend": BACKEND, "x": X.tolist(), "y": Y.tolist(), "results": results}))
"""
KINDS = {"jax": "plain,several,own", "torch": "plain,own,two"}
"""Keras on torch refuses steps_per_execution > 1; on JAX, a model's state is that of one optimizer."""


def by_hand(x, y, kernel, bias):
    """Losses, rates and weights after each step of three epochs of SGD with inverse time decay."""
    losses, rates, kernels, biases = [], [], [kernel], [bias]
    for step in range(15):
        start = 8 * (step % 5)
        batch, rate = x[start : start + 8], 0.1 / (1 + 0.2 * step)
        error = batch @ kernel + bias - y[start : start + 8]
        losses.append((error**2).mean())
        rates.append(rate)
        kernel = kernel - rate * 2 * batch.T @ error / len(batch)
        bias = bias - rate * 2 * error.mean(axis=0)
        kernels.append(kernel)
        biases.append(bias)
    return np.array(losses), np.array(rates), np.array(kernels), np.array(biases)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_each_step_is_that_of_a_regression_by_hand(backend, tracking_uri, tmp_path):
    needed(backend, backend)
    environment = os.environ | {
        "KERAS_BACKEND": backend, "MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_HP_FOLDER": str(tmp_path),
        "MLFLOW_EXPERIMENT_NAME": "tests",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, KINDS[backend]], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    program = json.loads(done.stdout.splitlines()[-1])
    assert program["backend"] == backend
    x, y = np.array(program["x"]), np.array(program["y"])
    for kind, result in program["results"].items():
        columns = {name: np.array(column) for name, column in result["columns"].items()}
        kernel, bias = np.array(result["kernel"]), np.array(result["bias"])
        losses, rates, kernels, biases = by_hand(x, y, kernel[0], bias[0])
        sizes = np.array([8, 8, 8, 8, 5] * 3)
        after, first = np.arange(15), np.arange(15)
        if kind == "several":  # a record for each execution: of three steps, and of two
            after, first = np.array([2, 4, 7, 9, 12, 14]), np.array([0, 3, 5, 8, 10, 13])
            losses = np.add.reduceat(losses * sizes, first) / np.add.reduceat(sizes, first)
            sizes = np.add.reduceat(sizes, first)
        name = "batch_loss" if kind in ("plain", "several") else "batch_mine"
        np.testing.assert_allclose(columns[name], losses, rtol=1e-5, err_msg=kind)
        rate_columns = [name for name in columns if name.startswith("learning_rate")]
        assert sorted(rate_columns) == (
            ["learning_rate/optimizer", "learning_rate/second"] if kind == "two" else ["learning_rate"]
        )
        for name in rate_columns:
            np.testing.assert_allclose(columns[name], rates[first], rtol=1e-6, err_msg=kind)
        np.testing.assert_allclose(kernel[1:], kernels[1:][after], atol=1e-6, err_msg=kind)
        np.testing.assert_allclose(bias[1:], biases[1:][after], atol=1e-6, err_msg=kind)
        assert columns["epoch"].tolist() == (first // 5).tolist()
        if kind in ("plain", "several"):
            assert columns["samples"].tolist() == sizes.tolist()
        assert result["same"]
        assert result["restored"] == 0
        end_of_first_epoch = np.flatnonzero(columns["epoch"] == 0)[-1] + 1
        np.testing.assert_array_equal(result["final"], kernel[end_of_first_epoch])
