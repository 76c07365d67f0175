"""Private names of TensorFlow."""

from __future__ import annotations

import sys

from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, call, warn_once

DETERMINISM = PrivateName(
    "tensorflow",
    "tensorflow.python.framework.config",
    "is_op_determinism_enabled",
    takes=call(),
    fallback="TensorFlow counts as deterministic",
)
"""Whether op determinism is enabled, so that TensorFlow refuses nondeterministic operations. Fallback: it counts as
enabled: times of steps are measured outside of the graph, and models are not reused."""

CONTEXT = PrivateName(
    "tensorflow",
    "tensorflow.python.eager.context",
    "context",
    takes=call(),
    fallback="the GPUs of the driver are recorded, whether TensorFlow uses them or not",
)
"""State of TensorFlow. Fallback: TensorFlow is not asked which GPUs it uses."""

INITIALIZED = PrivateName("tensorflow", "Context", "_initialized", fallback=CONTEXT.fallback, kind=bool)
"""Whether TensorFlow is initialized. Fallback: as for `CONTEXT`."""


def is_deterministic() -> bool:
    """Return whether TensorFlow refuses nondeterministic operations, such as reading its clock.

    Raises
    ------
    UnsupportedVersionError
        If this version of TensorFlow does not tell.
    """
    return bool(DETERMINISM.call(None))


def refuses_its_clock() -> bool:
    """Return whether a compiled step cannot read TensorFlow's clock; True also if that is unknown."""
    try:
        return is_deterministic()
    except UnsupportedVersionError as error:
        warn_once(error)
        return True


def is_initialized() -> bool:
    """Return whether TensorFlow is loaded and initialized; asking for its devices would initialize it."""
    module = sys.modules.get(CONTEXT.owner)
    if module is None or not hasattr(sys.modules.get("tensorflow"), "config"):  # or it is being imported
        return False
    try:
        return bool(INITIALIZED.of(CONTEXT.call(module)))
    except UnsupportedVersionError as error:
        warn_once(error)
        return False
