"""Points that are drawn of a long history: each stretch keeps its extremes, and what is not finite stays visible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_hp.analysis import downsample

NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf]))


@st.composite
def histories(draw, n_series=1):
    """Ascending steps, each once or more often, and series over them."""
    steps = sorted(draw(st.lists(st.integers(-50, 10**12), min_size=1, max_size=200)))
    series = [draw(st.lists(NUMBERS, min_size=len(steps), max_size=len(steps))) for _ in range(n_series)]
    return np.array(steps), *map(np.array, series)


def chosen_one_by_one(steps, values, buckets, low, high):
    """The same by its definition."""
    kept = {0, len(steps) - 1}
    width = (float(high) - float(low) + 1) / buckets
    kinds = {}
    for index, (step, value) in enumerate(zip(steps.tolist(), values.tolist(), strict=True)):
        kind = "finite" if math.isfinite(value) else str(value)
        kinds.setdefault((math.floor((step - float(low)) // width), kind), []).append(index)
    for (_, kind), own in kinds.items():
        kept |= {min(own, key=lambda i: values[i]), max(own, key=lambda i: values[i])} if kind == "finite" else {own[0]}
    return sorted(kept)


@given(histories(), st.integers(1, 20), st.integers(0, 100))
def test_it_is_what_its_definition_says(history, buckets, more):
    steps, values = history
    low, high = int(steps[0]) - more, int(steps[-1]) + more
    kept = downsample(steps, values, buckets=buckets, low=low, high=high)
    if len(steps) <= 2 * buckets:
        assert kept.tolist() == list(range(len(steps)))
    else:
        assert kept.tolist() == chosen_one_by_one(steps, values, buckets, low, high)


@given(histories(n_series=2), st.integers(1, 20))
def test_a_path_keeps_the_extremes_of_both_coordinates(history, buckets):
    steps, *series = history
    kept = downsample(steps, *series, buckets=buckets)
    if len(steps) > 4 * buckets:
        apart = [chosen_one_by_one(steps, values, buckets, steps[0], steps[-1]) for values in series]
        assert kept.tolist() == sorted({*apart[0], *apart[1]})


@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_few_points_stay_as_they_are(n):
    assert downsample(np.arange(n), np.zeros(n), buckets=10).tolist() == list(range(n))


def test_there_are_two_points_for_each_pixel_and_the_ends():
    rng = np.random.default_rng(0)
    values = rng.normal(size=10_000)
    kept = downsample(np.arange(10_000), values, buckets=100)
    assert (kept[0], kept[-1], len(kept) <= 202) == (0, 9_999, True)
    for pixel in range(100):
        own = values[100 * pixel : 100 * (pixel + 1)]
        drawn = values[kept[(kept >= 100 * pixel) & (kept < 100 * (pixel + 1))]]
        assert (drawn.min(), drawn.max()) == (own.min(), own.max())


def test_what_is_not_finite_hides_nothing_and_is_not_hidden():
    values = np.sin(np.arange(1000.0))
    values[[55, 56, 57]] = math.nan, math.inf, -math.inf
    kept = set(downsample(np.arange(1000), values, buckets=10).tolist())
    finite = np.where(np.isfinite(values[:100]), values[:100], 0.0)
    assert {55, 56, 57, int(finite.argmin()), int(finite.argmax())} <= kept


def test_a_constant_stays_short():
    assert len(downsample(np.arange(100_000), np.full(100_000, 0.1), buckets=100)) == 101


def test_floats_and_huge_steps():
    steps = np.array([-(2**62), 0, *range(2**62, 2**62 + 50)])
    assert downsample(steps, np.arange(52.0), buckets=4).tolist() == [0, 1, 2, 51]
    assert downsample(np.arange(100.0), np.arange(100.0), buckets=2).tolist() == [0, 49, 50, 99]
