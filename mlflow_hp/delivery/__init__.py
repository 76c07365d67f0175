"""Delivery of recorded data to MLflow: spooled on this machine, sent in the background, retried after an outage.

Public: `held` defers Ctrl-C until the end of a block, `raise_on_signals` raises an error where no library loses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.delivery.signals import held as held
    from mlflow_hp.delivery.signals import raise_on_signals as raise_on_signals

_MODULES = {
    "held": "signals",
    "raise_on_signals": "signals",
}

__all__ = [
    "held",
    "raise_on_signals",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
