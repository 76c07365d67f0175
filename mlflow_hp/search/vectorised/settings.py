"""Settings of many members as arrays, in single precision as Keras computes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OFTEN_ZERO = ("rate", "seed", "l1", "l2", "momentum", "weight_decay")
"""Settings that are left out where they are 0 for all members."""

DERIVED: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "beta_1": ("1 - beta_1", lambda value: 1 - value),
    "beta_2": ("1 - beta_2", lambda value: 1 - value),
    "rho": ("1 - rho", lambda value: 1 - value),
    "rate": ("scale", lambda value: 1 / (1 - value)),
}
"""Numbers that Keras computes from a setting in double precision: in single precision 1 - 0.999 is wrong by 1e-5."""


def stacked(settings: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Stack the settings of members, with those derived from them.

    Parameters
    ----------
    settings : sequence of mapping
        As `Member.settings`.

    Returns
    -------
    dict of str to ndarray
        Of float32, shape (n_members,); seeds of int64, shape (n_members, 2).
    """
    names = dict.fromkeys(name for each in settings for name in each)
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        kind, _, place = name.partition("/")
        if kind == "seed":
            arrays[name] = np.array([each.get(name, (0, 0)) for each in settings], np.int64)
            continue
        values = np.array([each.get(name, 0.0) for each in settings], np.float64)
        if kind in OFTEN_ZERO and not values.any():
            continue
        arrays[name] = values.astype(np.float32)
        if kind in DERIVED:
            derived, function = DERIVED[kind]
            arrays[f"{derived}/{place}" if place else derived] = function(values).astype(np.float32)
    return {
        name: values
        for name, values in arrays.items()
        if not name.startswith("seed/") or name.replace("seed", "rate") in arrays
    }
