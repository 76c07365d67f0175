"""What the recorded weights tell: layers that don't learn, and the gradient noise scale against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlflow_hp.analysis import diagnosis
from mlflow_hp.history import Tensor, TrainingHistory

SGD = {"optimizer": {"name": "SGD", "learning_rate": 0.1, "momentum": 0.0}}
UNRECORDED = TrainingHistory.from_arrays({"step": np.arange(100), "batch_loss": np.ones(100)}, meta=SGD)


def test_dead_units():
    found = diagnosis.dead_units({"a": 0.9, "b": 0.1, "c": 1.0})
    assert found.evidence == {"largest_dead_share": 1.0, "layers_dying": 2}
    assert "90% of a, 100% of c" in found.text
    assert diagnosis.dead_units({"a": 0.1, "b": 0.0}) is None
    assert diagnosis.dead_units({}) is None


def test_saturated_units():
    found = diagnosis.saturated_units({"a": 0.6, "b": 0.5, "c": 0.8})
    assert found.evidence == {"largest_saturated_share": 0.8, "layers_saturated": 2}
    assert "60% of a, 80% of c" in found.text
    assert diagnosis.saturated_units({"a": 0.5}) is None
    assert diagnosis.saturated_units({}) is None


def layered(**ratios):
    """Statistics over 100 steps with these update ratios, beside a bias that begins at 0."""
    rows = np.ones(101)
    statistics = {
        name: {"norm": rows, "mean": rows, "std": rows, "update_ratio": np.r_[np.nan, np.full(100, ratio)]}
        for name, ratio in {**ratios, "bias": np.inf}.items()
    }
    tensors = [Tensor(name, (9,) if name == "bias" else (9, 9), "float32", True) for name in statistics]
    steps = {"step": np.arange(100), "batch_loss": np.ones(100)}
    return TrainingHistory.from_arrays(steps, tensors=tensors, statistics=statistics, meta=SGD)


def test_layers():
    assert diagnosis.layers(layered(a=1e-3, b=5e-4, c=2e-3)) is None
    assert diagnosis.layers(layered(a=6e-6, b=6e-6, c=8e-6)) is None  # a small learning rate, in all alike
    vanishing = diagnosis.layers(layered(a=1e-8, b=2e-7, c=1e-3))
    assert vanishing.verdict == "vanishing updates"
    assert vanishing.text.startswith("a, b hardly learns")
    exploding = diagnosis.layers(layered(a=1e-3, b=0.5))
    assert (exploding.verdict, exploding.suggestion) == ("exploding updates", "learning_rate=0.033, or clipnorm=1")
    assert exploding.evidence["largest_update_ratio"] == 0.5
    assert diagnosis.layers(layered(a=0.0, b=0.0)).change[0].new == "he_normal"  # the loss has never jumped


def weighted(path, **more):
    """A history of these weights, (n_steps + 1, ...) by tensor."""
    n = len(next(iter(path.values()))) - 1
    steps = {"step": np.arange(n), "batch_loss": np.ones(n)} | more.pop("steps", {})
    return TrainingHistory.from_arrays(steps, weights=path, meta=more.pop("meta", SGD))


def test_update_ratios_of_recorded_weights():
    growing = 1.01 ** np.arange(41)[:, None, None] * np.ones((2, 3))
    found = diagnosis.update_ratios(weighted({"a": growing, "zero": 0 * growing, "bias": growing[:, 0]}))
    assert found["a"] == pytest.approx(0.01)
    assert math.isnan(found["zero"])
    assert set(found) == {"a", "zero"}
    assert diagnosis.layers(weighted({"a": 0 * growing})).verdict == "layers stay 0"
    assert diagnosis.update_ratios(UNRECORDED) == {}


class Regression:
    """SGD of a linear regression on many features, near a point, and its noise scale there by the definition."""

    def __init__(self, rate, n_steps=6000, batch=8, seed=0):
        draw = np.random.default_rng(seed)
        x, start = draw.normal(size=(4000, 10)), draw.normal(size=10) * 0.4
        y = x @ draw.normal(size=10) * 0.1 + draw.normal(size=4000)
        per_epoch = len(x) // batch
        path = [start]
        for step in range(n_steps):
            if step % per_epoch == 0:
                order = draw.permutation(len(x))
            rows = order[step % per_epoch * batch :][:batch]
            path.append(path[-1] - rate * 2 * x[rows].T @ (x[rows] @ path[-1] - y[rows]) / batch)
        of_samples = 2 * x * (x @ start - y)[:, None]
        self.square = float(np.sum(of_samples.mean(axis=0) ** 2))
        self.variance = float(of_samples.var(axis=0).sum())
        steps = {
            "samples": np.full(n_steps, batch),
            "learning_rate": np.full(n_steps, rate),
            "epoch": np.arange(n_steps) // per_epoch,
        }
        self.history = weighted({"w": np.array(path)}, steps=steps)


@pytest.mark.parametrize("seed", range(3))
def test_the_noise_scale_is_that_of_the_definition(seed):
    regression = Regression(1e-7, seed=seed)
    found = diagnosis.gradient_noise(regression.history)
    assert len(found) == 10
    assert np.mean([noise.variance for noise in found]) == pytest.approx(regression.variance, rel=0.02)
    assert np.mean([noise.square for noise in found]) == pytest.approx(regression.square, rel=0.05)
    told = diagnosis.noise_scale(regression.history)
    assert told.evidence["noise_scale"] == pytest.approx(regression.variance / regression.square, rel=0.1)


def test_a_batch_far_below_the_noise_scale():
    found = diagnosis.noise_scale(Regression(1e-7, batch=1, n_steps=20_000).history)
    scale = found.evidence["noise_scale"]
    better = found.evidence["suggested_batch_size"]
    assert found.verdict == "a larger batch pays"
    assert scale / 2**0.5 <= better <= scale * 2**0.5
    assert f"take {1 + scale:.3g} times the fewest possible steps" in found.text


def test_a_batch_far_above_the_noise_scale():
    found = diagnosis.noise_scale(Regression(1e-7, batch=400, n_steps=1000).history)
    assert (found.verdict, found.evidence["suggested_batch_size"] <= 100) == ("a smaller batch does", True)


def test_batches_of_all_samples_tell_no_noise_scale():
    full = Regression(0.01, batch=4000, n_steps=50)
    assert "an epoch has fewer than 4 batches" in diagnosis.noise_scale(full.history).text


def test_weights_that_drift_within_few_steps_tell_no_noise_scale():
    found = diagnosis.noise_scale(Regression(0.05).history)
    assert found.verdict == "noise scale unknown"
    assert "against or across each other" in found.text


def test_a_stretch_that_drifts_is_left_out():
    quiet, drifting = Regression(1e-7, n_steps=3000), Regression(0.05, n_steps=3000)
    parts = [training.history for training in (quiet, drifting)]
    path = [history.weights("w") for history in parts]
    both = np.r_[path[0], path[0][-1] + np.cumsum(np.diff(path[1], axis=0), axis=0)]
    steps = {name: np.concatenate([h.steps[name] for h in parts]) for name in ("samples", "learning_rate", "epoch")}
    steps["epoch"][3000:] += 6
    history = weighted({"w": both}, steps=steps)
    found = diagnosis.gradient_noise(history)
    assert [noise is None for noise in found[1:4] + found[7:]] == [False] * 3 + [True] * 3
    told = diagnosis.noise_scale(history)
    assert told.evidence["noise_scale"] == pytest.approx(quiet.variance / quiet.square, rel=0.3)
    assert "of 10 parts of the training, unknown in the others" in told.text


def test_a_wide_tensor_is_read_in_parts():
    draw = np.random.default_rng(0)
    gradients = draw.normal(size=(400, 2000)) + 0.1
    path = np.r_[np.zeros((1, 2000)), -np.cumsum(0.1 * gradients, axis=0)]
    steps = {"samples": np.full(400, 4), "learning_rate": np.full(400, 0.1)}
    found = diagnosis.gradient_noise(weighted({"w": path}, steps=steps))
    assert np.mean([noise.square for noise in found]) == pytest.approx(2000 * 0.1**2, rel=0.1)
    assert np.mean([noise.variance for noise in found]) == pytest.approx(4 * 2000, rel=0.02)


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [
        ({"name": "Adam"}, "only the updates of SGD are gradients, not those of Adam"),
        ({"name": "SGD", "momentum": 0.9}, "with momentum, the updates of SGD are not its gradients"),
        ({"name": "SGD", "clipnorm": 1.0}, "with clipnorm"),
        ({"name": "SGD", "learning_rate": 0.1}, "it has 10 steps"),
    ],
)
def test_where_the_noise_scale_is_unknown_it_says_why(optimizer, why):
    steps = {"samples": np.full(10, 4), "learning_rate": np.full(10, 0.1)}
    found = diagnosis.noise_scale(weighted({"w": np.ones((11, 3))}, steps=steps, meta={"optimizer": optimizer}))
    assert (found.verdict, why in found.text, found.suggestion) == ("noise scale unknown", True, None)
    assert "not recorded" in diagnosis.noise_scale(UNRECORDED).text
    unknown_sizes = weighted(
        {"w": np.ones((51, 3))}, steps={"samples": np.zeros(50, int), "learning_rate": np.ones(50)}
    )
    assert "batch sizes of the steps were not recorded" in diagnosis.noise_scale(unknown_sizes).text


def test_each_tensor_is_read_three_times_at_most(monkeypatch):
    training, read = Regression(1e-7, n_steps=400).history, []
    weights = training.weights
    monkeypatch.setattr(training, "weights", lambda tensor: read.append(tensor) or weights(tensor))
    diagnosis.diagnose(training, n_classes=10)
    assert read.count("w") <= 3
