"""Scores of vectorised trainings, by scikit-learn's own function and scorers."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.vectorised.network import assign_weights
from mlflow_hp.search.vectorised.training import outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.search.vectorised.members import TrainedMember
    from mlflow_hp.search.vectorised.preparation import PreparedFit


def score(prepared: PreparedFit, trained: TrainedMember) -> dict[str, Any]:
    """Return the result of scikit-learn's function for a fit whose model has been trained.

    The scorers see the fitted estimator, whose ``model_`` holds the member's weights.
    """
    model = prepared.keras_estimator.model_
    assign_weights(model, trained.weights)
    prepared.keras_estimator.history_ = {_name_in_history(name): list(each) for name, each in trained.epochs.items()}
    with _fitted(prepared.estimator), _predicting(model, prepared, trained):
        return prepared.call.function(**{**prepared.call.arguments, "estimator": prepared.estimator})


def epoch_logs(trained: TrainedMember) -> list[dict[str, float]]:
    """Keras' logs of each epoch."""
    n_epochs = len(trained.epochs["loss"])
    return [{name: float(values[epoch]) for name, values in trained.epochs.items()} for epoch in range(n_epochs)]


@functools.cache
def _name_in_history(name: str) -> str:
    """Name of one of Keras' logs in scikeras' ``history_``."""
    from scikeras.utils import metric_name

    if name != "loss" and not name.startswith("val_"):
        with contextlib.suppress(ValueError):
            return str(metric_name(name))
    return name


@contextlib.contextmanager
def _fitted(estimator: Any) -> Iterator[None]:
    """Let an estimator that has been fitted pass through a further fit."""
    estimator.fit = lambda *_, **__: estimator
    estimator.set_params = lambda **_: estimator
    try:
        yield
    finally:
        del estimator.fit, estimator.set_params


@contextlib.contextmanager
def _predicting(model: Any, prepared: PreparedFit, trained: TrainedMember) -> Iterator[None]:
    """Let a model predict by the compiled network; Keras would trace a function for each model."""

    def predict(x: Any, **_: Any) -> np.ndarray:
        return outputs(prepared.network, trained.weights, np.asarray(x))

    model.predict = predict
    try:
        yield
    finally:
        del model.predict
