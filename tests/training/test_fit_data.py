"""The data of a fit in its run: those that were really trained on, unread, and comparable."""

from __future__ import annotations

import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.compare.comparability import group_runs
from mlflow_hp.tracking.datasets import describe
from mlflow_hp.training.fit_data import data_sets_of
from tests.helpers.fits import X, Y, bare, record, regression, same_weights
from tests.helpers.stored_runs import facts_of

pytestmark = pytest.mark.usefixtures("store")

Data = tf.data.Dataset


def inputs(run_id):
    """Context -> dataset of a run."""
    run = mlflow.get_run(run_id)
    assert "mlflow_hp.recording_error" not in run.data.tags
    return {
        next(tag.value for tag in used.tags if tag.key == "mlflow.data.context"): used.dataset
        for used in run.inputs.dataset_inputs
    }


def test_the_part_that_was_trained_on():
    split = inputs(record(regression(), validation_split=0.25).run_id)
    assert split["training"].digest == describe(X[:27], Y[:27]).digest
    assert split["validation"].digest == describe(X[27:], Y[27:]).digest
    whole = inputs(record(regression(), X[:27], Y[:27], validation_data=(X[27:], Y[27:])).run_id)
    assert {name: each.digest for name, each in split.items()} == {name: each.digest for name, each in whole.items()}
    assert '"num_rows": 27' in split["training"].profile


def test_training_is_not_changed_and_the_data_neither():
    fitted = record(regression(), x := X.copy(), y := pd.DataFrame({"y": Y}))
    assert same_weights(fitted.model, bare(regression(), X, pd.DataFrame({"y": Y})))
    assert (x == X).all()
    assert inputs(fitted.run_id)["training"].digest == describe(x, y).digest


def test_a_tf_data_is_neither_read_nor_drawn_from():
    drawn = tf.Variable(0, dtype=tf.int64)

    def of(x, y):
        drawn.assign_add(1)
        return x, y

    def make():
        return Data.from_tensor_slices((X, Y)).map(lambda x, y: (2 * x, y)).shuffle(8, seed=1).batch(8).prefetch(1)

    found = inputs(record(regression(), make(), None, shuffle=False, batch_size=None).run_id)["training"]
    assert '"num_elements": 5' in found.profile
    assert (
        found.digest
        == inputs(record(regression(), make(), None, shuffle=False, batch_size=None).run_id)["training"].digest
    )
    assert same_weights(
        record(regression(), make(), None, shuffle=False, batch_size=None).model,
        bare(regression(), make(), None, shuffle=False, batch_size=None),
    )
    counted = Data.from_tensor_slices((X, Y)).map(of).batch(8)  # it depends on a variable: of unknown content
    assert not inputs(record(regression(), counted, None, shuffle=False, batch_size=None, epochs=1).run_id)
    assert int(drawn) == len(X)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Data.from_tensor_slices((X, Y)).map(lambda x, y: (3 * x, y)).batch(8),
        lambda: Data.from_tensor_slices((X, Y)).batch(8),
        lambda: Data.from_tensor_slices((X, Y)).map(lambda x, y: (2 * x, y)).batch(7),
        lambda: Data.from_tensor_slices((X + 1, Y)).map(lambda x, y: (2 * x, y)).batch(8),
        lambda: Data.from_tensor_slices((X, Y)).take(9).map(lambda x, y: (2 * x, y)).batch(8),
    ],
)
def test_other_tf_data(other):
    class Model:
        def fit(self, x, validation_data=None):
            return data_sets_of(sys._getframe(), self)["training"].digest

    one = Data.from_tensor_slices((X, Y)).map(lambda x, y: (2 * x, y)).batch(8)
    assert Model().fit(other()) != Model().fit(one)


@pytest.mark.parametrize(
    "unknown",
    [
        lambda: Data.from_generator(
            lambda: zip(X, Y, strict=True), output_signature=(tf.TensorSpec((3,)), tf.TensorSpec(()))
        ).batch(8),
        lambda: ((X[start : start + 8], Y[start : start + 8]) for start in range(0, 32, 8)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_of_unknown_content_nothing_is_said(unknown):
    fitted = record(regression(), unknown(), None, shuffle=False, batch_size=None, epochs=1)
    assert not inputs(fitted.run_id)


def test_on_request_not_at_all():
    assert not inputs(
        record(regression(), recorder=mlflow_hp.TrainingRecorder(report=False, log_datasets=False)).run_id
    )


def test_what_the_program_logs_wins():
    data = mlflow.data.from_numpy(X, name="mine")
    with mlflow.start_run() as run:
        mlflow.log_input(data, "train")
        regression().fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert [each.name for each in inputs(run.info.run_id).values()] == ["mine"]


@pytest.mark.thorough
def test_further_fits_and_their_limit(monkeypatch):
    with mlflow.start_run() as run:
        for number in [0, 0, 1, *range(2, 14)]:
            x, recorder = X + np.float32(number), mlflow_hp.TrainingRecorder(report=False)
            regression().fit(x, Y, batch_size=37, verbose=0, callbacks=[recorder])
    used = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert len({each.dataset.digest for each in used}) == len(used) == 9


def test_an_error_ends_nothing(monkeypatch):
    monkeypatch.setattr("mlflow_hp.training.fit_data.describe", lambda *_: 1 / 0)
    with pytest.warns(RuntimeWarning, match=r"data sets are not logged.*ZeroDivisionError"):
        fitted = record(regression())
    assert fitted.history.n_steps == 10
    assert "data sets" in mlflow.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"]


def test_recorded_runs_can_be_compared(store):
    experiment = store.create_experiment("comparable data")
    for rate in (0.1, 0.2):
        with mlflow.start_run(experiment_id=experiment):
            model = regression()
            model.optimizer.learning_rate = rate
            model.fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    (group,) = group_runs(facts_of(store, experiment)).groups
    assert (len(group.runs), group.metric) == (2, "loss")
