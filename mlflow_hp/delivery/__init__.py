"""Delivery of recorded data to MLflow: spooled on this machine, sent in the background, retried after an outage.

Public: `held` defers Ctrl-C until the end of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.delivery.signals import held as held

_MODULES = {
    "held": "signals",
}

__all__ = [
    "held",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
