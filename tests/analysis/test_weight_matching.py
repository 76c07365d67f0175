"""Permutations of hidden units: a permuted copy is recognised, and the best of all permutations is found."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from mlflow_hp.analysis.surfaces.weight_matching import Axis, match_units, n_moved, permute_units

AXES = {
    "one/kernel": (None, Axis("one")),
    "one/bias": (Axis("one"),),
    "two/kernel": (Axis("one"), Axis("two")),
    "three/kernel": (Axis("two", positions=4), None),
}
SHAPES = {"one/kernel": (5, 7), "one/bias": (7,), "two/kernel": (7, 6), "three/kernel": (24, 3)}


def random_weights(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def permuted_by_hand(weights, one, two):
    flattened = weights["three/kernel"].reshape(4, 6, 3)[:, two].reshape(24, 3)
    return {
        "one/kernel": weights["one/kernel"][:, one],
        "one/bias": weights["one/bias"][one],
        "two/kernel": weights["two/kernel"][one][:, two],
        "three/kernel": flattened,
    }


def test_units_are_moved_in_each_tensor_that_has_them():
    weights, rng = random_weights(0), np.random.default_rng(1)
    one, two = rng.permutation(7), rng.permutation(6)
    moved, expected = permute_units(weights, AXES, {"one": one, "two": two}), permuted_by_hand(weights, one, two)
    for name in SHAPES:
        assert np.array_equal(moved[name], expected[name]), name


def test_a_permuted_copy_is_moved_back():
    weights, rng = random_weights(0), np.random.default_rng(1)
    one, two = rng.permutation(7), rng.permutation(6)
    found = match_units(weights, permuted_by_hand(weights, one, two), AXES, seed=0)
    assert np.array_equal(found["one"], np.argsort(one))
    assert np.array_equal(found["two"], np.argsort(two))
    assert n_moved({"one": np.array([1, 0, 2]), "two": np.array([0, 1])}) == (2, 5)


def test_the_best_of_all_permutations_of_one_layer():
    axes = {"one/kernel": (None, Axis("one")), "two/kernel": (Axis("one"), None)}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first, second = ({"one/kernel": rng.normal(size=(3, 5)), "two/kernel": rng.normal(size=(5, 2))} for _ in "ab")
        found = match_units(first, second, axes, seed=0)["one"]

        def similarity(order, first=first, second=second):
            kernels = second["one/kernel"][:, order], second["two/kernel"][list(order)]
            return (first["one/kernel"] * kernels[0]).sum() + (first["two/kernel"] * kernels[1]).sum()

        assert tuple(found) == max(permutations(range(5)), key=similarity)


def test_the_same_network_keeps_its_order_and_a_seed_gives_one_answer():
    weights = random_weights(0)
    assert n_moved(match_units(weights, weights, AXES, seed=0)) == (0, 13)
    one, other = (match_units(weights, random_weights(3), AXES, seed=5) for _ in range(2))
    assert all(np.array_equal(one[group], other[group]) for group in one)
