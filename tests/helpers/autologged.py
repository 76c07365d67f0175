"""Trainings without a recorder of their own, and the runs above them."""

from __future__ import annotations

from tests.helpers.fits import X, Y, regression


def fit(model=None, **named):
    model = model or regression()
    model.fit(X, Y, **({"batch_size": 8, "epochs": 2, "verbose": 0} | named))
    return model


def parent_of(run):
    return run.data.tags.get("mlflow.parentRunId")
