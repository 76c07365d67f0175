"""Study of an adaptive search: Optuna's, in memory, with a sampler by name or of the user."""

from __future__ import annotations

import importlib.util
import warnings
from copy import deepcopy
from typing import Any

import optuna

from mlflow_hp.errors import UserError

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "qmc": "QMCSampler",
}
"""Samplers of Optuna by name."""
NEEDS = {"cmaes": "cmaes", "gp": "torch"}
"""Library that a sampler needs, and Optuna does not require."""


def new_study(sampler: Any = "random", random_state: Any = None, n_at_once: int = 1) -> optuna.Study:
    """Make an empty study in memory that maximizes.

    Parameters
    ----------
    sampler : str or optuna.samplers.BaseSampler
        One of ``SAMPLERS``, or an object, which is copied. Defaults to ``"random"``.
    random_state : int, RandomState instance or None
        Seed of a sampler by name. Defaults to None.
    n_at_once : int
        Trials that are asked for before the score of the first is known. Defaults to 1.

    Returns
    -------
    optuna.Study
        The study.

    Raises
    ------
    UserError
        If the sampler is unknown, or needs a library that is not installed.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of each study that it makes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.create_study(direction="maximize", sampler=_sampler(sampler, random_state, n_at_once))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _sampler(sampler: Any, random_state: Any, n_at_once: int) -> optuna.samplers.BaseSampler:
    """Make a sampler by its name, or copy that of the user."""
    from sklearn.utils import check_random_state

    if isinstance(sampler, optuna.samplers.BaseSampler):
        return deepcopy(sampler)
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise UserError(
            f"sampler={sampler!r:.200} is unknown: use {', '.join(map(repr, SAMPLERS))}, or one of optuna.samplers"
        )
    library = NEEDS.get(sampler)
    if library is not None and importlib.util.find_spec(library) is None:
        raise UserError(f"sampler={sampler!r} needs {library}: pip install {library}")
    seed = None if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
    if sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=n_at_once > 1)
    by_name: optuna.samplers.BaseSampler = getattr(optuna.samplers, SAMPLERS[sampler])(seed=seed)
    return by_name
