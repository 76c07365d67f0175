"""Random names that MLflow gives to runs and models: drawn apart from the program's random numbers, and recognised."""

from __future__ import annotations

import contextlib
import random
import re
from typing import TYPE_CHECKING

from mlflow_hp._compat.mlflow import words_of_random_names

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


def is_random(name: str | None) -> bool:
    """Return whether MLflow has drawn the name of a run, as in ``bold-ant-12``, so that no user has chosen it.

    Parameters
    ----------
    name : str or None
        Name of the run; one without a name counts as random.

    Returns
    -------
    bool
        Whether it is an adjective and a noun of MLflow's lists, and a number; False if these lists are unknown.

    Examples
    --------
    >>> from mlflow_hp.tracking.random_names import is_random
    >>> is_random("bold-ant-12"), is_random("baseline-run-12")
    (True, False)
    """
    if not name:
        return True
    parts = re.fullmatch(r"(.+?)-(.+)-([0-9]{1,4})", name)
    if parts is None:
        return False
    predicates, nouns = words_of_random_names()
    return parts[1] in predicates and parts[2] in nouns
