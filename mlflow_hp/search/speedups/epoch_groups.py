"""Candidates of a search that differ only in the number of epochs, and can share a training."""

from __future__ import annotations

import inspect
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_hp.search.live.events import Call


class EpochGroup(NamedTuple):
    """Candidates that share a training, or a single one that does not.

    Attributes
    ----------
    indices : tuple of int
        Indices of the candidates (0-based), the one with the fewest epochs first.
    name : str or None
        The parameter in which they differ (``clf__epochs``). Defaults to None, for a single candidate.
    reason : str or None
        Why a candidate is trained alone although others differ from it only in epochs. Defaults to None.
    """

    indices: tuple[int, ...]
    name: str | None = None
    reason: str | None = None


def sharing_groups(candidate_params: Sequence[Mapping[str, Any]], estimator: Any) -> list[EpochGroup]:
    """Group the candidates of a search that can share a training.

    Parameters
    ----------
    candidate_params : sequence of mapping
        Parameters of each candidate, by the search's names.
    estimator : estimator
        Estimator of the search: of scikeras, or a pipeline or other composition with one.

    Returns
    -------
    list of EpochGroup
        Every candidate is in one group; groups are in the order of their first candidate.
    """
    by_other_params: dict[Any, list[int]] = {}
    for index, params in enumerate(candidate_params):
        name = _epochs_name(params)
        other_params = frozenset((key, identity_of(value)) for key, value in params.items() if key != name)
        by_other_params.setdefault((name, other_params) if name else index, []).append(index)
    groups = []
    for key, indices in by_other_params.items():
        if len(indices) < 2:
            groups.append(EpochGroup(tuple(indices)))
            continue
        name = key[0]
        reasons = (reason_to_train_alone(estimator, candidate_params[index], name) for index in indices)
        reason = next(filter(None, reasons), None)
        if reason is None:
            groups.append(EpochGroup(tuple(sorted(indices, key=lambda i: candidate_params[i][name])), name))
        else:
            groups.extend(EpochGroup((i,), None, reason) for i in indices)
    return sorted(groups, key=lambda group: min(group.indices))


def group_calls(calls: Sequence[Call], estimator: Any) -> Iterator[tuple[list[Call], str | None]]:
    """Group the fits of one round of a search that share a training.

    Parameters
    ----------
    calls : sequence of Call
    estimator : estimator
        Estimator of the search.

    Yields
    ------
    list of Call, str or None
        A single fit and None, or several fits on one split and the parameter in which they differ.
    """
    calls_by_candidate: dict[int, dict[int, Call]] = {}
    for call in calls:
        calls_by_candidate.setdefault(call.fit.candidate, {})[call.fit.split] = call
    calls_by_split = list(calls_by_candidate.values())
    candidate_params = [next(iter(each.values())).fit.params for each in calls_by_split]
    for group in sharing_groups(candidate_params, estimator):
        members = [calls_by_split[index] for index in group.indices]
        for split in sorted({split for each in members for split in each}):
            sharing = [each[split] for each in members if split in each]
            yield sharing, group.name if len(sharing) > 1 else None


def reason_to_train_alone(estimator: Any, params: Mapping[str, Any], name: str) -> str | None:
    """Reason why a candidate's training is not the beginning of a longer one; None if it is."""
    import keras
    from scikeras.wrappers import BaseWrapper, KerasClassifier, KerasRegressor
    from sklearn.base import clone

    epochs = params[name]
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        return f"{name}={epochs!r} is not a number of epochs"
    try:
        candidate_estimator = clone(estimator).set_params(**params)
    except (ValueError, TypeError) as error:  # the fit will raise it
        return f"the parameters cannot be set: {error}"
    prefix = name.removesuffix("epochs").removesuffix("fit__").removesuffix("__")
    parts = candidate_estimator.get_params()
    keras_estimator = parts[prefix] if prefix else candidate_estimator
    if type(keras_estimator) not in (KerasClassifier, KerasRegressor):
        return f"{type(keras_estimator).__name__} is not one of scikeras' own estimators"
    if sum(isinstance(part, BaseWrapper) for part in (candidate_estimator, *parts.values())) > 1:
        return "the estimator trains several models"
    if not name.endswith("fit__epochs") and hasattr(keras_estimator, "fit__epochs"):
        return "fit__epochs is set, too"
    if not isinstance(keras_estimator.random_state, (int, np.integer)):
        return f"random_state={keras_estimator.random_state!r} is not a number: each training draws its own seed"
    if keras_estimator.warm_start:
        return "warm_start continues an earlier training"
    if callbacks := [key for key, value in keras_estimator.get_params().items() if "callbacks" in key and value]:
        return f"{callbacks[0]} may depend on the number of epochs, or end the training"
    build = keras_estimator.model if keras_estimator.model is not None else keras_estimator.build_fn
    if isinstance(build, keras.Model) or build is None:
        return "the estimator has no function that builds its model"
    parameters = inspect.signature(build).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if takes_any or not parameters.keys().isdisjoint({"params", "epochs"}):
        return "the function that builds the model gets the number of epochs"
    return None


def _epochs_name(params: Mapping[str, Any]) -> str | None:
    """The parameter of a candidate that is a number of epochs; None if there is none or several."""
    names = [key for key in params if key == "epochs" or key.endswith("__epochs")]
    return names[0] if len(names) == 1 else None


def identity_of(value: Any) -> Any:
    """Key by which to compare two values of a parameter."""
    try:
        return joblib.hash(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return id(value)
