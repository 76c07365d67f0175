"""Private names of scikeras. If one is missing, models are trained without the speed-ups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.private_name import PrivateName, call

if TYPE_CHECKING:
    from collections.abc import Callable

NO_SPEED_UP = "the models are trained without the speed-up"

FIT_KERAS_MODEL = PrivateName("scikeras", "BaseWrapper", "_fit_keras_model", takes=call(
    None, None, None, sample_weight=None, warm_start=False, epochs=1, initial_epoch=0
), fallback=NO_SPEED_UP)  # fmt: skip
"""Method that trains the model of an estimator. Fallback: no speed-up."""

BUILD_KERAS_MODEL = PrivateName("scikeras", "BaseWrapper", "_build_keras_model", takes=call(None), fallback=(
    "the model function is called for each fold"
))  # fmt: skip
"""Method that calls the model function of an estimator. Fallback: in vectorised searches it is called for each fold."""

FIT_ARGUMENTS = PrivateName("scikeras", "BaseWrapper", "_fit_kwargs", fallback=NO_SPEED_UP)
"""Names of the parameters that an estimator passes to ``keras.Model.fit``. Fallback: as above."""

FIT_CALLBACKS = PrivateName("scikeras", "BaseWrapper", "_fit_callbacks", kind=list, fallback=NO_SPEED_UP)
"""Callbacks of a prepared training. Fallback: no training is shared."""

RANDOM_STATE = PrivateName("scikeras", "BaseWrapper", "_random_state", fallback=NO_SPEED_UP)
"""Seed of a prepared training. Fallback: no model is reused."""

ROUTE_PARAMS = PrivateName(
    "scikeras",
    "scikeras._utils",
    "route_params",
    takes=call({}, destination="fit", pass_filter=()),
    fallback=NO_SPEED_UP,
)
"""Function that selects the parameters of an estimator for one destination. Fallback: as above."""


def fit_arguments(estimator: Any) -> dict[str, Any]:
    """Return the arguments that an estimator passes to ``keras.Model.fit``, by name.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikeras passes them in another way.
    """
    names = FIT_ARGUMENTS.of(estimator)
    arguments = ROUTE_PARAMS.call(None, estimator.get_params(), destination="fit", pass_filter=names)
    if not isinstance(arguments, Mapping):
        raise ROUTE_PARAMS.unsupported(f"returned a {type(arguments).__name__}")
    return dict(arguments)


def is_seeded(estimator: Any) -> bool:
    """Return whether a prepared training has a seed.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikeras does not tell.
    """
    return RANDOM_STATE.of(estimator) is not None


def add_callback(estimator: Any, callback: Any) -> Callable[[], None]:
    """Add a callback to a prepared training, and return a function that removes it.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikeras keeps callbacks elsewhere.
    """
    setattr(estimator, FIT_CALLBACKS.name, [*FIT_CALLBACKS.of(estimator), callback])
    return lambda: FIT_CALLBACKS.of(estimator).remove(callback)


def has_callbacks(estimator: Any) -> bool:
    """Return whether a prepared training has callbacks.

    Raises
    ------
    UnsupportedVersionError
        If this version of scikeras does not tell.
    """
    return bool(FIT_CALLBACKS.of(estimator))
