"""Roles of parameters by their names: rates, budgets, shares; and the limits that none of them crosses."""

from __future__ import annotations

import re
from typing import Any

RATE = re.compile(r"(learning_rate(_init)?|lr|eta0?)$")
"""Names of learning rates: the playbook's first nuisance hyperparameter."""
BUDGET = re.compile(r"(epochs|max_iter|n_epochs|n_estimators|max_epochs)$")
"""Names of lengths of a training."""
SHARE = re.compile(
    r"(dropout|momentum|beta_1|beta_2|subsample|l1_ratio|max_samples|validation_fraction|rho|rate_drop)$"
)
"""Names of shares, from 0 to 1."""
SCIENTIFIC = re.compile(r"(hidden\w*|units|activation|optimizer|batch_size|solver|initializer|kernel_initializer)$")
"""Names of parameters, other than categories, whose best value depends on the learning rate."""
OPTIMIZER = re.compile(r"optimizer$")
"""Names of the optimizer, whose learning rates are on scales of their own."""


def is_rate(name: str) -> bool:
    """Whether a parameter is a learning rate."""
    return bool(RATE.search(name))


def is_budget(name: str) -> bool:
    """Whether a parameter is the length of the training."""
    return bool(BUDGET.search(name))


def is_share(name: str) -> bool:
    """Whether a parameter lies between 0 and 1 by its meaning."""
    return bool(SHARE.search(name))


def is_limit(name: str, value: Any, *, upper: bool) -> bool:
    """Whether a value is one that nothing lies beyond: 0, 1 of whole numbers, and for shares 1.

    Parameters
    ----------
    name : str
        The parameter.
    value : int or float
        Its value at the edge.
    upper : bool
        Whether it is the largest.
    """
    if upper:
        return is_share(name) and value >= 1
    return value == 0 or (value == 1 and isinstance(value, int) and not isinstance(value, bool))
