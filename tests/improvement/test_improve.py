"""`improve` with a store: runs, failures, Ctrl-C, resume; findings made up, and those of a real training."""

from __future__ import annotations

import json

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.analysis.diagnosis import Change, Finding
from mlflow_hp.errors import RecordingWarning, UserError
from mlflow_hp.improvement import nested_training
from mlflow_hp.improvement.nested_training import Record
from mlflow_hp.tracking import tags

RATE = Finding("speed", "too slow", "The loss | still falls.", {}, severity="problem",
               change=(Change("learning_rate", 0.01, 0.1),))  # fmt: skip
BATCH = Finding("noise", "too few steps", "Few.", {}, severity="problem", change=(Change("batch_size", 256, 32),))
START = {"lr": 0.01, "batch": 256}


class Function:
    """A function that trains nothing: its score by lr and batch, and what it is called with."""

    __qualname__ = "Function"

    def __init__(self, losses, after=lambda: None):
        self.losses, self.calls, self.after = losses, [], after

    def __call__(self, lr, batch=256):
        self.calls.append((lr, batch))
        loss = self.losses[lr, batch]
        if isinstance(loss, BaseException):
            raise loss
        return {"val_loss": loss}


@pytest.fixture
def findings(monkeypatch):
    """Every training has the same two findings."""
    monkeypatch.setattr(nested_training, "read_record", lambda run_id: Record((RATE, BATCH)))


def children(store, parent_id):
    parent = store.get_run(parent_id)
    runs = store.search_runs([parent.info.experiment_id], f"tags.`{tags.PARENT_TAG}` = '{parent_id}'")
    return sorted(runs, key=lambda run: run.info.start_time)


def last_parent(store):
    experiment = store.get_experiment_by_name("tests").experiment_id
    return store.search_runs([experiment], "tags.`mlflow_hp.kind` = 'improvement'")[0]


def test_parent_and_nested_runs_say_what_was_tried_and_why(store, findings):
    train = Function({(0.01, 256): 1.0, (0.1, 256): 0.5, (0.1, 32): 0.7})
    result = mlflow_hp.improve(train, START, trainings=2)
    assert train.calls == [(0.01, 256), (0.1, 256), (0.1, 32)]
    assert result.hyperparameters == {"lr": 0.1, "batch": 256}
    assert result.returned == {"val_loss": 0.5}
    assert [training.verdict for training in result.trainings] == ["start", "better", "worse"]
    assert "training 1 (lr=0.1), val_loss 1 -> 0.5, after 2 further trainings" in result.text
    parent, runs = store.get_run(result.parent_run_id), children(store, result.parent_run_id)
    assert [run.info.status for run in (parent, *runs)] == ["FINISHED"] * 4
    assert [run.info.run_name for run in runs] == ["0 start", "1 lr=0.1", "2 batch=32"]
    assert [run.data.params for run in runs][1] == {"lr": "0.1", "batch": "256"}
    assert runs[1].data.tags["mlflow_hp.finding"] == "speed: too slow"
    assert runs[1].data.tags["mlflow_hp.change"] == "lr 0.01 -> 0.1"
    assert "lr 0.01 -> 0.1" in runs[1].data.tags[tags.DESCRIPTION_TAG]
    assert "The loss \\| still falls." in runs[1].data.tags[tags.DESCRIPTION_TAG]
    assert parent.data.tags["mlflow_hp.best_run_id"] == result.run_id == runs[1].info.run_id
    assert json.loads(parent.data.tags["mlflow_hp.best_params"]) == {"lr": 0.1, "batch": 256}
    assert parent.data.params == {"start/lr": "0.01", "start/batch": "256"}
    assert parent.data.metrics["best/val_loss"] == 0.5
    note = parent.data.tags[tags.DESCRIPTION_TAG]
    assert "| 1 | lr 0.01 -> 0.1 | too slow: The loss \\| still falls. | 0.5 | better **(the best)** |" in note
    assert mlflow.active_run() is None


def test_the_active_run_is_the_parent_and_stays_open(store, findings):
    with mlflow.start_run() as run:
        result = mlflow_hp.improve(Function({(0.01, 256): 1.0}), START, trainings=0)
        assert mlflow.active_run().info.run_id == run.info.run_id == result.parent_run_id
    assert result.trainings[0].verdict == "start"


def test_nothing_to_try(store, monkeypatch):
    monkeypatch.setattr(nested_training, "read_record", lambda run_id: Record())
    result = mlflow_hp.improve(Function({(0.01, 256): 1.0}), START)
    assert result.text.startswith("Nothing to try")
    assert result.hyperparameters == START


def test_a_training_that_fails_is_left_out(store, findings):
    train = Function({(0.01, 256): 1.0, (0.1, 256): ValueError("too fast"), (0.01, 32): 0.5})
    with pytest.warns(mlflow_hp.RecordingWarning, match="training 1 of the improvement failed .*too fast"):
        result = mlflow_hp.improve(train, START, trainings=2)
    assert result.hyperparameters == {"lr": 0.01, "batch": 32}
    runs = children(store, result.parent_run_id)
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED", "FINISHED"]
    assert runs[1].data.tags["mlflow_hp.error"] == "ValueError: too fast"
    assert "ValueError: too fast" in store.get_run(result.parent_run_id).data.tags[tags.DESCRIPTION_TAG]


def test_a_start_that_fails_is_the_users_error(store, findings):
    with pytest.raises(ValueError, match="no data"):
        mlflow_hp.improve(Function({(0.01, 256): ValueError("no data")}), START)
    parent = last_parent(store)
    assert [run.info.status for run in (parent, *children(store, parent.info.run_id))] == ["FAILED"] * 2
    assert mlflow.active_run() is None


@pytest.mark.parametrize("resume", [True, "id"])
def test_what_ctrl_c_interrupted_is_resumed(store, findings, resume):
    losses = {(0.01, 256): 1.0, (0.1, 256): KeyboardInterrupt(), (0.1, 32): 0.2}
    with pytest.raises(KeyboardInterrupt):
        mlflow_hp.improve(Function(losses), START, trainings=2)
    parent = last_parent(store)
    assert [run.info.status for run in (parent, *children(store, parent.info.run_id))] == [
        "KILLED", "FINISHED", "KILLED",
    ]  # fmt: skip
    assert "It was interrupted" in parent.data.tags[tags.DESCRIPTION_TAG]
    assert mlflow.active_run() is None

    train = Function({**losses, (0.1, 256): 0.5})
    result = mlflow_hp.improve(train, START, trainings=2, resume=parent.info.run_id if resume == "id" else True)
    assert train.calls == [(0.1, 256), (0.1, 32)]
    assert result.parent_run_id == parent.info.run_id
    assert [training.scores.values["val_loss"] for training in result.trainings] == [1.0, 0.5, 0.2]
    assert store.get_run(parent.info.run_id).info.status == "FINISHED"
    assert len(children(store, parent.info.run_id)) == 4


def test_edited_code_is_not_resumed(store, findings):
    def train(lr, batch):
        return {"val_loss": lr} if lr < 0.1 else (_ for _ in ()).throw(KeyboardInterrupt)

    interrupted = train
    with pytest.raises(KeyboardInterrupt):
        mlflow_hp.improve(interrupted, START, trainings=2)
    parent = last_parent(store)

    def train(lr, batch):
        return {"val_loss": 2 * lr}

    with pytest.raises(UserError, match="has changed since it began; leave resume out"):
        mlflow_hp.improve(train, START, trainings=1, resume=parent.info.run_id)
    with pytest.warns(RecordingWarning, match="is not resumed, and a new one begins: the code of"):
        result = mlflow_hp.improve(train, START, trainings=0, resume=True)
    assert result.parent_run_id != parent.info.run_id
    assert store.get_run(parent.info.run_id).info.status == "KILLED"


def test_nothing_to_resume_begins_a_new_one_and_another_start_is_refused(store, findings):
    train = Function({(0.01, 256): 1.0, (0.5, 256): 1.0})
    result = mlflow_hp.improve(train, START, trainings=0, resume=True)
    with pytest.raises(UserError, match=r"started with lr=0\.01, and start has 0\.5"):
        mlflow_hp.improve(train, {"lr": 0.5, "batch": 256}, resume=result.parent_run_id)
    with pytest.raises(UserError, match="is no run of an improvement"):
        mlflow_hp.improve(train, START, resume=result.run_id)
    with pytest.raises(UserError, match="resume='x'"):
        mlflow_hp.improve(train, START, resume="x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"trainings": -1}, "trainings=-1"), ({"trainings": True}, "trainings=True"), ({"goal": "up"}, "goal='up'"),
     ({"resume": 3}, "resume=3")],
)  # fmt: skip
def test_settings_that_are_refused(store, settings, message):
    with pytest.raises(UserError, match=message):
        mlflow_hp.improve(Function({}), START, **settings)


def test_a_number_is_a_score_where_it_is_asked_for(store, findings):
    def train(lr, batch):
        return 0.5 + lr

    result = mlflow_hp.improve(train, START, trainings=1, metric="score")
    assert [training.scores.values["score"] for training in result.trainings] == [0.51, 0.6]
    assert result.hyperparameters["lr"] == 0.1


def test_a_real_training_is_recorded_and_improved_without_a_callback(store, monkeypatch):
    import keras
    import numpy as np

    from mlflow_hp.autologging.patches import patches

    monkeypatch.setattr(nested_training, "diagnose", lambda history: [RATE] if history.n_steps == 12 else [])
    x = np.linspace(-1, 1, 32)[:, None]

    def train(lr):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(lr), "mse")
        return model.fit(x, 2 * x, epochs=3, batch_size=8, verbose=0, validation_data=(x, 2 * x))

    result = mlflow_hp.improve(train, {"lr": 0.01})
    assert [training.verdict for training in result.trainings] == ["start", "better"]
    assert result.trainings[1].compared_by == "val_loss"
    assert result.trainings[1].scores.values["val_loss"] == result.returned.history["val_loss"][-1]
    assert mlflow_hp.load_history(result.run_id).n_epochs == 3
    plots = {file.path for file in store.list_artifacts(result.parent_run_id, "plots")}
    assert plots == {"plots/loss_by_epoch.png", "plots/val_loss_by_epoch.png"}
    assert patches.settings is None
    note = store.get_run(result.run_id).data.tags[tags.DESCRIPTION_TAG]
    assert note.startswith("**loss ")
    assert note.split("\n\n")[1] == "**Training 1 of an improvement**: lr 0.01 -> 0.1"
    assert len(note) > 200  # the report of the training follows
