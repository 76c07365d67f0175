"""Histograms of kept weights."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.history import Snapshots
from mlflow_hp.run_page.weights import histogram

RNG = np.random.default_rng(0)
KEPT = Snapshots(
    np.array([0, 10, 20]),
    {"a/kernel": RNG.normal(size=(3, 30, 4)).astype(np.float32), "b/bias": np.zeros((3, 5), np.float32)},
    every=10,
    n_steps=20,
)


@pytest.mark.parametrize(("step", "index"), [(None, 2), (0, 0), (13, 1), (99, 2)])
def test_counts_are_those_of_the_nearest_kept_step(step, index):
    shown = histogram(KEPT, "a/kernel", step)
    assert shown["step"] == KEPT.steps[index]
    values = KEPT.tensors["a/kernel"][index].ravel()
    for low, high, count in zip(shown["edges"], shown["edges"][1:], shown["counts"], strict=False):
        assert abs(((values >= low) & (values < high)).sum() - count) <= 1
    assert (sum(shown["counts"]), sum(shown["first"]), shown["n"]) == (120, 120, 120)


def test_zeros_have_bins_too():
    shown = histogram(KEPT, "b/bias")
    assert (sum(shown["counts"]), shown["n_not_finite"]) == (5, 0)


def test_what_is_not_finite_is_counted_apart():
    broken = KEPT._replace(tensors={"a/kernel": np.where(KEPT.tensors["a/kernel"] > 2, np.nan, 1).astype(np.float32)})
    shown = histogram(broken, "no such tensor")
    assert (shown["tensor"], sum(shown["counts"]) + shown["n_not_finite"]) == ("a/kernel", 120)
