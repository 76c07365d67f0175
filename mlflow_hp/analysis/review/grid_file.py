"""The next space as a file, and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from mlflow_hp.analysis.review.next_space import n_combinations
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Mapping


def to_yaml(space: Mapping[str, Any]) -> str:
    """Write a space as YAML, with a comment about its size and use.

    Parameters
    ----------
    space : mapping of str to list or mapping
        As in `Review`.

    Returns
    -------
    str
        Text of the file.
    """
    n = n_combinations(space)
    size = count(int(n), "combination") if n < float("inf") else "ranges to draw from"
    name = "grid" if n < float("inf") else "space"
    head = (
        f"# The next search space, by the review of a search: {size}.\n"
        f"# Entry points: -P {name}=THIS_FILE; in Python: mlflow_hp.search.read_space(THIS_FILE) for any search.\n"
    )
    return head + yaml.safe_dump(dict(space), sort_keys=False, default_flow_style=None)
