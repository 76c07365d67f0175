"""Random names that MLflow draws for runs and models, apart from the random numbers of the program."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def names_drawn_apart() -> Iterator[None]:
    """Let MLflow draw names inside the block that do not repeat, and change no random number of the program.

    MLflow draws from Python's generator, from which Keras draws seeds; in a program that seeds each training alike, all
    its names would be one.
    """
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)
