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


class Fit:
    """One epoch of a network by Adam, and its noise scale by the definition before it."""

    def __init__(self, seed, batch=8, rate=1e-5, noise=0.5):
        keras.utils.set_random_seed(seed)
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(4000, 6)).astype("float32")
        y = (np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3] + noise * draw.normal(size=(4000, 1))).astype("float32")
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(rate), "mse")
        self.exact = noise_scale_by_definition(model, x, y)
        self.history = record(model, x, y, TrainingRecorder(weights="none"), batch_size=batch, epochs=1).history


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2))
def test_under_adam_it_is_that_of_the_definition(store, seed):
    fit = Fit(seed)
    estimate = diagnosis.noise_scale(fit.history).evidence["noise_scale"]
    assert fit.exact / 1.5 < estimate < fit.exact * 1.5


@pytest.mark.thorough
@pytest.mark.sampled(6)
@pytest.mark.parametrize("seed", [10, 11])
@pytest.mark.parametrize(
    ("batch", "rate", "noise", "verdict"),
    [(1, 1e-5, 1.0, "a larger batch pays"), (200, 1e-3, 0.5, "a smaller batch does"), (4000, 1e-3, 0.5, None)],
)
def test_the_batch_size_of_a_fit(store, seed, batch, rate, noise, verdict):
    fit = Fit(seed, batch, rate, noise)
    findings = [each.verdict for each in diagnosis.diagnose(fit.history) if each.name == "noise_scale"]
    assert findings == ([] if verdict is None else [verdict])
    assert (fit.exact > 5 * batch, fit.exact < batch / 5) == (batch == 1, batch > 1)


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
    assert "it has 10 steps" in diagnosis.noise_scale(Gradients(10).history()).text


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


class Verdict:
    """A training whose gradients are known with certainty, and the finding of it among all others."""

    def __init__(self, noise, samples=4, seed=0, loss=(3.0, 2.9, 2.8, 2.7), **changed):
        gradients = Gradients(noise=noise, seed=seed)
        self.scale = samples * noise**2
        steps = gradients.steps | {"samples": np.full(2000, samples)} | changed
        epochs = {"epoch": np.arange(len(loss)), "loss": np.array(loss)}
        history = TrainingHistory.from_arrays(steps, epochs, meta={"optimizer": {"name": "Adam"}})
        findings = {finding.name: finding for finding in diagnosis.diagnose(history)}
        self.finding = findings.get("noise_scale")
        self.names = list(findings)


@pytest.mark.parametrize("seed", range(3))
def test_any_training_has_a_finding_on_its_batch_size(seed):
    small, fine, large = (Verdict(noise, seed=seed) for noise in (4.5, 2.0, 0.3))
    assert [each.names for each in (small, fine, large)] == [["trend", "noise_scale", "next_try"]] * 3
    assert small.finding.verdict == "a larger batch pays"
    assert small.scale / 2 < small.finding.evidence["suggested_batch_size"] < small.scale * 2
    assert "Noise dominates" in small.finding.text
    assert (fine.finding.verdict, fine.finding.suggestion) == ("batch size is fine", None)
    assert (large.finding.verdict, "redundant" in large.finding.text) == ("a smaller batch does", True)


def test_pure_noise_of_the_same_batches_in_each_epoch_is_no_finding():
    findings = []
    for seed in range(40):
        epoch = Gradients(100, mean=0, seed=seed)
        steps = {name: np.tile(values, 20) for name, values in epoch.steps.items()}
        history = TrainingHistory.from_arrays(steps | {"step": np.arange(2000), "epoch": np.arange(2000) // 100})
        findings += [each for each in diagnosis.diagnose(history) if each.name == "noise_scale"]
    assert len(findings) <= 1


COSINE = Gradients(noise=4.5).steps["gradient_cosine"]


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        ({"learning_rate": np.geomspace(1e-4, 1e-1, 2000)}, "range test"),
        ({"learning_rate": np.linspace(1e-4, 1e-1, 2000)}, "range test"),
        ({"epoch": np.arange(2000) // 4}, "fewer than 5 pairs"),
        ({"gradient_cosine": np.r_[COSINE[:700], np.full(1300, -0.5)]}, "in most"),
        ({"gradient_cosine": COSINE - 0.045}, "little in common"),
    ],
)
def test_an_uncertain_noise_scale_is_no_finding(changed, doubt):
    assert Verdict(4.5, **changed).finding is None
    uncertain = diagnosis.noise_scale(Gradients(noise=4.5).history(**changed))
    assert (uncertain.verdict, uncertain.suggestion) == ("noise scale uncertain", None)
    assert doubt in uncertain.text


def test_a_warm_up_and_a_decay_are_no_range_test():
    warm_up = np.minimum(np.arange(2000) + 1, 200) * 1e-5
    for rates in (warm_up, warm_up[::-1], np.full(2000, 1e-3)):
        assert Verdict(4.5, learning_rate=rates).finding.verdict == "a larger batch pays"


def test_the_batch_size_is_no_subject_of_a_training_that_fails():
    broken = np.r_[np.ones(1990), np.full(10, np.nan)]
    assert Verdict(4.5, batch_loss=broken).names == ["not_finite", "trend", "next_try"]
    assert Verdict(0.3, loss=(3.0, 2.9, 3.2)).names == ["trend", "next_try"]  # which asks for a larger batch
    assert "noise_scale" not in Verdict(4.5, loss=3.0 * 2.0 ** np.arange(9)).names
