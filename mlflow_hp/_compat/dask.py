"""Random numbers of Dask, separated from those of the fits.

Dask measures a worker's heartbeats and its message that a task has ended before sending them: `dask.sizeof` samples
collections of more than ten items with Python's global generator, in a thread that runs during the fit. Seeded Keras
models draw their seeds from the same generator, and would get others.
"""

from __future__ import annotations

import contextlib
import random
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.patch import Patch
from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, warn_once

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERATOR = PrivateName(
    "dask",
    "dask.sizeof",
    "random",
    kind=(ModuleType, random.Random),
    fallback="models with a random_state may draw other numbers from run to run, as they do without a recording",
)
"""Python's `random`, which Dask samples with. Fallback: Dask draws from the generator of the fits, as without us."""


def _new_generator(_: Any) -> random.Random:
    return random.Random()  # noqa: S311 - it decides which items are measured


_patch = Patch(GENERATOR.name, _new_generator)


@contextlib.contextmanager
def separate_generator() -> Iterator[None]:
    """Give `dask.sizeof` a generator of its own, while any thread of this process is in such a block."""
    sizeof = sys.modules.get(GENERATOR.owner)
    if sizeof is None:
        yield
        return
    try:
        GENERATOR.of(sizeof)
    except UnsupportedVersionError as error:
        warn_once(error)
        yield
        return
    with _patch.on(sizeof):
        yield
