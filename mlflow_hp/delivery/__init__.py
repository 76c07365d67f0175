"""Everything on its way to MLflow: kept on this machine first, sent in the background, sent again after an outage.

Public: `held` has Ctrl-C wait until a block is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import handed_on

if TYPE_CHECKING:
    from mlflow_hp.delivery.signals import held as held

_HOMES = {
    "held": "signals",
}

__all__ = [
    "held",
]

__getattr__, __dir__ = handed_on(__name__, _HOMES)
