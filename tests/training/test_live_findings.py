"""Findings while a training runs: each once, in time, and they end the fit only where that is asked for."""

from __future__ import annotations

import json
import types
import warnings
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.analysis import Finding
from mlflow_hp.errors import RecordingWarning, TrainingWarning
from mlflow_hp.history.program import ArrayStatistics, DataStatistics, Layer, Output, Program
from mlflow_hp.training import live_findings
from mlflow_hp.training.live_findings import LiveFindings, LiveSettings
from tests.helpers.fits import X, Y, bare, record, regression, same_weights
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore::mlflow_hp.errors.RecordingWarning")
STOP = ("diverges", "not finite")
ROWS = np.random.default_rng(0).normal(size=(800, 3)).astype("float32")
TARGETS = (ROWS @ np.array([1.0, -2.0, 0.5], "float32")).astype("float32")


class Watched:
    """Live findings of a model that is none, and what they passed on."""

    def __init__(self, stop_on=(), on_finding=None, epochs=100, **meta):
        self.model = types.SimpleNamespace(stop_training=False, optimizer=None)
        self.passed_on = []
        meta = {"params": {"epochs": epochs}, "optimizer": {"name": "SGD", "learning_rate": 0.3}, **meta}
        self.live = LiveFindings(
            self.model, LiveSettings(on_finding, stop_on), meta=meta, first_step=1000,
            publish=lambda findings, ended_by: self.passed_on.append((findings, ended_by)),
        )  # fmt: skip

    def step(self, *losses, **columns):
        losses = np.array(losses, float)
        self.glance({"learning_rate": np.full(len(losses), 0.3), "batch_loss": losses, **columns})

    def glance(self, columns):
        self.live.glance(list(columns), np.column_stack([*columns.values(), np.zeros(len(columns["batch_loss"]))]))

    @property
    def verdicts(self):
        return [finding.verdict for finding in self.live.findings]


@pytest.fixture
def at_every_epoch(monkeypatch):
    """Rules have time after each epoch, however short it is."""
    monkeypatch.setattr(live_findings, "SHARE", float("inf"))


@pytest.fixture
def told():
    """Warnings of ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = (RecordingWarning, TrainingWarning)
        yield lambda: [str(w.message) for w in caught if issubclass(w.category, ours)]


def test_a_loss_that_is_nan_is_reported_once(told):
    seen = []
    watched = Watched(on_finding=seen.append)
    watched.live.begin_epoch(2)
    watched.step(1.0, 0.9, np.nan)
    watched.step(np.nan, np.nan)
    (finding,) = seen
    assert (finding.name, finding.verdict, finding.severity) == ("not_finite", "not finite", "problem")
    assert finding.where == {"step": 1002, "epoch": 2}
    assert "The loss is NaN at step 1002, in epoch 3" in finding.text
    assert watched.passed_on == [([finding], None)]
    assert not watched.model.stop_training
    assert len(told()) == 1
    assert told()[0].startswith("mlflow_hp: not finite: The loss is NaN at step 1002, in epoch 3. Next: check the data")


def test_a_loss_that_grew_before_it_became_infinite_diverges():
    watched = Watched(stop_on=("diverges",))
    watched.step(1.0, 30.0, 1e4, np.inf)
    assert watched.verdicts == ["diverges"]
    assert watched.live.findings[0].evidence["suggested_learning_rate"] == pytest.approx(0.033)
    assert watched.model.stop_training


def test_gradients_that_are_not_finite_though_the_loss_is():
    watched = Watched()
    watched.step(1.0, 0.9, gradient_norm=np.array([1.0, np.nan]))
    assert "The gradient is NaN at step 1001" in watched.live.findings[0].text
    scaled = Watched()
    scaled.model.optimizer = types.SimpleNamespace(inner_optimizer=object())
    scaled.step(1.0, 0.9, gradient_norm=np.array([np.inf, 1.0]))  # such a step is left out, and repeated
    assert scaled.verdicts == []


def test_divergence_within_an_epoch_ends_the_fit_where_it_is_to(told):
    watched, untouched = Watched(stop_on=STOP), Watched()
    for each in (watched, untouched):
        for first in range(0, 60, 10):
            each.step(*(1.3 ** np.arange(first, first + 10)))
    assert watched.verdicts == untouched.verdicts == ["diverges"]
    finding = watched.live.findings[0]
    assert finding.where["step"] < 1030
    assert [(c.parameter, c.old, c.new) for c in finding.change] == [("learning_rate", 0.3, 0.1)]
    assert watched.model.stop_training
    assert not untouched.model.stop_training
    assert watched.live.ended_by == f"diverges: {finding.text}"
    assert watched.passed_on == [([finding], watched.live.ended_by)]
    assert "The fit ends here" in told()[0]


def test_losses_of_several_optimizers_may_grow():
    watched = Watched()
    rates = {"learning_rate/a": np.full(60, 0.1), "learning_rate/b": np.full(60, 0.1)}
    watched.glance({**rates, "batch_loss": 1.3 ** np.arange(60.0)})
    assert watched.verdicts == []


def test_overfitting_is_reported_after_a_second_epoch_that_shows_it(at_every_epoch, told):
    watched = Watched(stop_on=("overfits",))
    after = None
    for epoch in range(60):
        row = {"epoch": epoch, "loss": np.exp(-epoch / 10), "val_loss": np.exp(-epoch / 5) + 0.3 + 0.01 * epoch}
        watched.live.end_epoch(row, 99 - epoch)
        if after is None and watched.model.stop_training:
            after = epoch
    assert 8 < after < 40
    assert watched.verdicts.count("overfits") == 1


def test_epochs_that_bring_nothing_more(at_every_epoch):
    watched = Watched(stop_on=("brings nothing more",))
    values = 0.5 + np.exp(-np.arange(100) / 4)
    for epoch in range(100):
        watched.live.end_epoch({"epoch": epoch, "loss": values[epoch]}, 99 - epoch)
        if watched.model.stop_training:
            break
    assert 20 < epoch < 80
    assert "brings nothing more" in watched.live.ended_by


def test_a_training_that_learns_has_no_finding(at_every_epoch, told):
    watched = Watched(epochs=30)
    noise = np.random.default_rng(0)
    for epoch in range(30):
        watched.live.begin_epoch(epoch)
        loss = (epoch + 1) ** -0.5
        watched.step(*(loss * np.exp(0.3 * noise.normal(size=40))))
        watched.live.end_epoch({"epoch": epoch, "loss": loss, "val_loss": 1.1 * loss}, 29 - epoch)
    assert [f for f in watched.live.findings if f.severity == "problem"] == []
    assert told() == []


def test_the_program_is_judged_before_the_first_step():
    watched = Watched()
    layers = (Layer("out", "Dense", activation="softmax", output_shape=(1,), n_weights=4),)
    output = Output("out", "out", "softmax", (1,), "BinaryCrossentropy", {"from_logits": False})
    program = Program(layers, (output,), {"name": "SGD", "learning_rate": 0.01}, {"epochs": 3})
    watched.live.note_program(program)
    n = len(watched.live.findings)
    assert n
    assert watched.live.findings[0].severity == "problem"
    numbers = ArrayStatistics(
        "", (3,), "float32", 32, 4, (0.0,) * 3, (1.0,) * 3, (-2.0,) * 3, (2.0,) * 3, (0.0,) * 3, False
    )
    watched.live.note_program(program._replace(training=DataStatistics((numbers,))))
    assert len({finding.name for finding in watched.live.findings}) == len(watched.live.findings) >= n


def test_rules_take_no_more_than_their_share_of_the_time(monkeypatch):
    calls = []
    monkeypatch.setattr(live_findings, "SHARE", 0.0)
    monkeypatch.setattr(LiveFindings, "_diagnose", lambda *_: calls.append(1))
    watched = Watched()
    watched.live._longest = 1e-9
    watched.live.end_epoch({"epoch": 0, "loss": 1.0}, 99)
    assert calls == []
    monkeypatch.setattr(live_findings, "SHARE", float("inf"))
    watched.live.end_epoch({"epoch": 1, "loss": 1.0}, 98)
    assert calls == [1]


def test_columns_of_long_trainings_are_not_all_kept():
    watched = Watched()
    for first in range(0, 5000, 10):
        watched.step(*np.linspace(1.0, 0.9, 10) - first * 1e-5)
    history = watched.live._history()
    n_last = 520  # of 512 or more, in groups of ten
    assert history.n_steps == 60 + n_last
    assert history.steps["step"][[0, 59, 60, -1]].tolist() == [1000, 1059, 6000 - n_last, 5999]
    assert history.steps["batch_loss"][-1] == pytest.approx(0.9 - 4990e-5)


def test_an_error_of_on_finding_is_a_warning(told):
    def fails(finding):
        raise ValueError("no mail server")

    watched = Watched(on_finding=fails, stop_on=STOP)
    watched.step(np.nan)
    assert watched.model.stop_training
    assert "on_finding failed at 'not finite': ValueError: no mail server" in told()[-1]


def test_an_error_of_the_rules_ends_them_with_a_warning(monkeypatch, told):
    watched = Watched()
    monkeypatch.setattr(LiveFindings, "_keep", lambda *_: 1 / 0)
    watched.step(np.nan)
    watched.step(np.nan)
    assert [message for message in told() if "only at the end of the training" in message] == told()
    assert len(told()) == 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("per_execution", [1, 50])
def test_a_fit_that_diverges_is_ended_within_its_epoch(store, per_execution):
    seen = []
    recorder = mlflow_hp.TrainingRecorder(on_finding=seen.append, stop_on=STOP)
    model = regression(keras.optimizers.SGD(1.5), steps_per_execution=per_execution)
    fitted = record(model, ROWS, TARGETS, recorder, batch_size=4)
    history = fitted.history
    assert history.n_epochs == 1
    assert history.n_steps <= 50
    assert history.complete
    finding = next(f for f in seen if f.verdict == "diverges")
    assert isinstance(finding, Finding)
    tags = store.get_run(fitted.run_id).data.tags
    assert "diverges" in tags["mlflow_hp.findings"]
    assert tags["mlflow_hp.ended_by"].startswith("diverges: ")
    assert store.get_run(fitted.run_id).info.status == "FINISHED"


def test_nothing_of_a_training_changes_where_it_goes_on(store):
    recorder = mlflow_hp.TrainingRecorder(on_finding=lambda _: None)
    fitted = record(regression(keras.optimizers.SGD(1.5)), ROWS, TARGETS, recorder, batch_size=4)
    assert fitted.history.n_steps == 400
    assert same_weights(fitted.model, bare(regression(keras.optimizers.SGD(1.5)), ROWS, TARGETS, batch_size=4))


def test_the_diagnosis_is_in_the_run_while_it_trains(store):
    found = []

    def look(epoch, logs):
        fit = recorder._fit
        done = []
        fit.recording.do("a mark", lambda: done.append(1))
        wait_for(lambda: done)
        path = mlflow.artifacts.download_artifacts(run_id=fit.run_id, artifact_path="diagnosis.json")
        found.append(json.loads(Path(path).read_text(encoding="utf-8")))

    recorder = mlflow_hp.TrainingRecorder()
    x = np.where(np.arange(37)[:, None] == 20, np.nan, X)
    record(regression(), x, Y, recorder, epochs=1, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look)])
    assert found[0]["not_finite"]["verdict"] == "not finite"


def test_the_reason_of_an_early_end_is_in_the_description(store):
    from mlflow_hp.training.report import TrainingReport

    history = mlflow_hp.TrainingHistory.from_arrays({"step": [0, 1], "batch_loss": [1.0, 1e9]})
    history.meta["ended_by"] = "diverges: it grew."
    with mlflow.start_run() as run:
        report = TrainingReport(run.info.run_id, history)
        report.upload()
        report.close()
    assert "ended by `stop_on`: diverges: it grew." in store.get_run(run.info.run_id).data.tags["mlflow.note.content"]


def test_a_loop_of_ones_own_sees_that_it_should_stop(store):
    model = regression()
    with mlflow.start_run(), mlflow_hp.record_steps(model, report=False, stop_on=STOP) as steps:
        done = 0
        for loss in 2.0 ** np.arange(200):
            steps.record(loss=loss)
            done += 1
            if steps.should_stop:
                break
    assert done < 40


def test_a_recorder_without_report_and_reaction_looks_at_nothing():
    assert live_findings.live_settings(mlflow_hp.TrainingRecorder(report=False)) is None
    assert live_findings.live_settings(mlflow_hp.TrainingRecorder()) == LiveSettings()
    stops = mlflow_hp.TrainingRecorder(report=False, stop_on=["diverges"])
    assert live_findings.live_settings(stops).stop_on == ("diverges",)
