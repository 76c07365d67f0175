"""Permutation of the hidden units of one network that makes its weights most similar to another's.

Weight matching, after Ainsworth, Hayase and Srinivasa 2022, "Git Re-Basin: Merging models modulo permutation
symmetries", section 3.2 and algorithm 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDERS = 5
"""Random orders of the layers that the matching is tried in: each ends in a maximum, and the highest is taken."""
LEAST_GAIN = 1e-9
"""Least relative gain of similarity that a permutation is changed for."""


class Axis(NamedTuple):
    """Axis of a tensor whose entries belong to the units of a layer.

    Attributes
    ----------
    group : str
        Name of the layer.
    positions : int
        How often its units are repeated, the units last: the positions of a picture that was flattened. Defaults to 1.
    """

    group: str
    positions: int = 1


Axes = dict[str, tuple[Axis | None, ...]]
"""Name of a tensor -> for each of its axes, the units that it belongs to; None if they stay in their order."""
Permutations = dict[str, np.ndarray]
"""Name of a layer -> int64 (n_units,): the unit of the other network that takes each place."""


def match_units(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], axes: Axes, seed: int
) -> Permutations:
    """Permute the hidden units of `second`, so that the inner product of its weights with `first` is large.

    Layer after layer, the best permutation given those of the other layers is a linear assignment problem, until none
    gets better: a local maximum. Of those from ``ORDERS`` random orders of the layers, the highest is returned.

    Parameters
    ----------
    first, second : mapping of str to ndarray
        Tensors of equal names and shapes.
    axes : dict of str to tuple of Axis or None
        Which axes of the tensors are permuted together; at most one axis of a tensor belongs to one layer.
    seed : int
        Seed for the orders.

    Returns
    -------
    dict of str to ndarray of shape (n_units,)
        For `permute_units`.
    """
    first, second = ({name: np.asarray(side[name], np.float64) for name in axes} for side in (first, second))
    places = _places(axes)
    identity = {
        group: np.arange(first[name].shape[axis] // positions)
        for group, ((name, axis, positions), *_) in places.items()
    }
    rng = np.random.default_rng(seed)
    best, highest = identity, _similarity(first, second)
    for _ in range(ORDERS if len(places) > 1 else 1):
        permutations = _climb(first, second, axes, places, dict(identity), rng)
        similarity = _similarity(first, permute_units(second, axes, permutations))
        if similarity > highest:
            best, highest = permutations, similarity
    return best


def permute_units(
    weights: Mapping[str, np.ndarray], axes: Axes, permutations: Permutations, but: str | None = None
) -> dict[str, np.ndarray]:
    """Return the weights with the units of each layer in the order of its permutation, except those of layer `but`."""
    result = dict(weights)
    for name, of_tensor in axes.items():
        for axis, belongs in enumerate(of_tensor):
            if belongs is not None and belongs.group != but:
                order = permutations[belongs.group]
                starts = np.arange(belongs.positions)[:, None] * len(order)
                result[name] = np.take(result[name], (starts + order).reshape(-1), axis=axis)
    return result


def _places(axes: Axes) -> dict[str, list[tuple[str, int, int]]]:
    """Layer -> the tensors, axes and positions that its units are found at."""
    places: dict[str, list[tuple[str, int, int]]] = {}
    for name, of_tensor in axes.items():
        for axis, belongs in enumerate(of_tensor):
            if belongs is not None:
                places.setdefault(belongs.group, []).append((name, axis, belongs.positions))
    return places


def _climb(
    first: dict[str, np.ndarray],
    second: dict[str, np.ndarray],
    axes: Axes,
    places: dict[str, list[tuple[str, int, int]]],
    permutations: Permutations,
    rng: np.random.Generator,
) -> Permutations:
    from scipy.optimize import linear_sum_assignment

    groups = list(places)
    improved = True
    while improved:
        improved = False
        for i in rng.permutation(len(groups)):
            group = groups[i]
            own = {name: axes[name] for name, _, _ in places[group]}
            others = permute_units(second, own, permutations, but=group)
            products = sum(
                _by_unit(first[name], axis, positions) @ _by_unit(others[name], axis, positions).T
                for name, axis, positions in places[group]
            )
            _, order = linear_sum_assignment(products, maximize=True)
            rows = np.arange(len(order))
            gain = products[rows, order].sum() - products[rows, permutations[group]].sum()
            if gain > LEAST_GAIN * np.abs(products).max():
                permutations[group], improved = order.astype(np.int64), True
    return permutations


def _by_unit(values: np.ndarray, axis: int, positions: int) -> np.ndarray:
    """All entries that belong to each unit: (n_units, others)."""
    rows = np.moveaxis(values, axis, 0)
    rows = rows.reshape(positions, rows.shape[0] // positions, -1)
    return np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1)


def _similarity(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    return float(sum(np.vdot(values, second[name]) for name, values in first.items()))


def n_moved(permutations: Permutations) -> tuple[int, int]:
    """Number of units that change their place, and of all."""
    moved = [int((order != np.arange(len(order))).sum()) for order in permutations.values()]
    return sum(moved), sum(map(len, permutations.values()))
