"""The gradient noise scale from recorded gradients: against its definition, and where they tell nothing."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlflow_hp.analysis import diagnosis
from mlflow_hp.history import TrainingHistory
from mlflow_hp.training import TrainingRecorder
from tests.helpers.fits import record


def noise_scale_by_definition(model, x, y):
    """tr(Sigma) / |G|^2 from the gradient of each sample."""
    with tf.GradientTape() as tape:
        losses = tf.reduce_sum(tf.square(model(x) - y), axis=1)
    parts = [part.numpy().reshape(len(x), -1) for part in tape.jacobian(losses, model.trainable_variables)]
    gradients = np.concatenate(parts, axis=1).astype(np.float64)
    return gradients.var(axis=0).sum() / np.square(gradients.mean(axis=0)).sum()


@pytest.mark.parametrize("seed", range(2))
def test_under_adam_it_is_that_of_the_definition(store, seed):
    keras.utils.set_random_seed(seed)
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(4000, 6)).astype("float32")
    y = (np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.5 * draw.normal(size=(4000, 1))).astype("float32")
    layers = [keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(1e-5), "mse")
    exact = noise_scale_by_definition(model, x, y)
    history = record(model, x, y, TrainingRecorder(weights="none"), batch_size=8, epochs=1).history
    estimate = diagnosis.noise_scale(history).evidence["noise_scale"]
    assert exact / 1.5 < estimate < exact * 1.5


class Gradients:
    """Gradients of batches of 4 independent samples, and the columns that are recorded of them."""

    def __init__(self, n_steps=2000, mean=1.0, noise=2.0, per_epoch=100, seed=0):
        g = mean + np.random.default_rng(seed).normal(size=(n_steps, 20)) * noise
        norm = np.linalg.norm(g, axis=1)
        cosine = np.r_[np.nan, (g[1:] * g[:-1]).sum(axis=1) / (norm[1:] * norm[:-1])]
        self.steps = {"step": np.arange(n_steps), "epoch": np.arange(n_steps) // per_epoch}
        self.steps |= {"samples": np.full(n_steps, 4), "gradient_norm": norm, "gradient_cosine": cosine}
        self.scale = 4 * noise**2 / mean**2 if mean else math.inf

    def history(self, **changed):
        return TrainingHistory.from_arrays(self.steps | changed, meta={"optimizer": {"name": "Adam"}})


def test_batches_of_another_size_and_the_boundaries_of_epochs_are_left_out():
    gradients = Gradients()
    samples, norm, cosine = (gradients.steps[name].copy() for name in ("samples", "gradient_norm", "gradient_cosine"))
    samples[99::100], norm[99::100] = 1, 1e6
    cosine[::100] = -1.0
    norm[7], cosine[8] = np.inf, np.nan
    found = diagnosis.noise_scale(gradients.history(samples=samples, gradient_norm=norm, gradient_cosine=cosine))
    assert found.evidence["noise_scale"] == pytest.approx(gradients.scale, rel=0.2)


def test_weak_gradients_are_averaged_over_longer_segments():
    weak = [Gradients(8000, mean=0.2, per_epoch=8000, seed=seed) for seed in range(9)]
    assert len(diagnosis.gradient_noise(Gradients().history())) == 10
    assert all(1 <= len(diagnosis.gradient_noise(each.history())) < 10 for each in weak)
    estimates = [diagnosis.noise_scale(each.history()).evidence["noise_scale"] for each in weak]
    assert np.median(estimates) == pytest.approx(weak[0].scale, rel=0.25)


def test_pure_noise_tells_no_scale():
    known = [diagnosis.noise_scale(Gradients(mean=0, seed=seed).history()).evidence for seed in range(20)]
    assert sum(bool(each) for each in known) <= 6  # by chance, one in six is a standard error above 0


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"samples": np.zeros(2000, int)}, "batch sizes of the steps were not recorded"),
        ({"samples": np.full(2000, 4), "epoch": np.arange(2000)}, "an epoch has fewer than 2 batches"),
        ({"gradient_norm": np.full(2000, np.nan)}, "against or across each other"),
    ],
)
def test_gradients_that_tell_nothing(changed, why):
    found = diagnosis.noise_scale(Gradients().history(**changed))
    assert (found.verdict, why in found.text) == ("noise scale unknown", True)
    assert "10 steps are too few" in diagnosis.noise_scale(Gradients(10).history()).text


def test_of_several_optimizers_there_is_none():
    steps = {f"{name}/{part}" if "gradient" in name else name: values
             for name, values in Gradients().steps.items() for part in ("a", "b")}  # fmt: skip
    assert diagnosis.noise_scale(TrainingHistory.from_arrays(steps)).verdict == "noise scale unknown"


def test_the_scale_by_step_follows_the_training():
    early, late = Gradients(1000), Gradients(1000, noise=6.0)
    steps = {name: np.concatenate([early.steps[name], late.steps[name]]) for name in early.steps}
    steps["step"], steps["epoch"] = np.arange(2000), np.arange(2000) // 100
    series = diagnosis.noise_scale_by_step(TrainingHistory.from_arrays(steps), window=300)
    assert (series.step[0], series.step[-1], series.batch) == (303, 1999, 4)  # three pairs cross an epoch's end
    assert np.nanmedian(series.scale[series.step < 1000]) == pytest.approx(early.scale, rel=0.2)
    assert np.nanmedian(series.scale[series.step >= 1300]) == pytest.approx(late.scale, rel=0.6)
    short = diagnosis.noise_scale_by_step(Gradients(50).history(), window=300)
    assert list(short.step) == [49]
    nothing = diagnosis.noise_scale_by_step(Gradients().history(gradient_norm=np.full(2000, np.nan)))
    assert len(nothing.step) == len(nothing.scale) == 0
