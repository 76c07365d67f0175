"""Variance components: against closed cases, a simulation, and sums of squares by hand."""

import numpy as np
import pytest

from mlflow_hp.analysis.seeds import seed_std, variance_components


def test_a_single_source_gets_all():
    values = np.array([0.0, 1.0, 4.0])
    for axis, name in enumerate(("candidate", "fold")):
        scores = np.broadcast_to(values.reshape([-1 if a == axis else 1 for a in range(3)]), (3, 3, 3))
        parts = variance_components(scores)._asdict()
        assert parts.pop(name) == pytest.approx(values.var(ddof=1))
        assert max(parts.values()) == pytest.approx(0)


def test_simulated_components_are_estimated_without_bias():
    rng, estimates = np.random.default_rng(0), []
    true = np.array([4.0, 1.0, 0.5, 2.0])
    for _ in range(1500):
        effects = [rng.normal(size=shape) for shape in ((6, 1, 1), (1, 5, 1), (6, 5, 1), (6, 5, 4))]
        estimates.append(variance_components(sum(s * e for s, e in zip(np.sqrt(true), effects, strict=True))))
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - true) < 4 * error + 0.02).all()  # negative ones are cut at 0


def test_the_spread_over_seeds_is_within_folds():
    scores = np.array([[0.0, 2.0], [10.0, 10.0]])
    assert seed_std(scores) == pytest.approx(np.sqrt((2.0 + 0.0) / 2))
