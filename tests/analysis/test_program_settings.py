"""Settings of the optimizer, the fit and its callbacks, and findings put together."""

from __future__ import annotations

import pytest

from mlflow_hp.analysis.diagnosis import Change, to_json
from mlflow_hp.analysis.diagnosis.program import diagnose_program, schedules, settings
from mlflow_hp.errors import RecordingWarning
from mlflow_hp.history.program import Program
from tests.helpers.programs_described import ADAM, dense, features, heights, labels, layer, program

X, Y = features(), labels()
STEPS = 13  # of an epoch of 400 samples in batches of 32


def classifier(optimizer=ADAM, n=400, **fields):
    return program(dense(32, "relu"), dense(3, "softmax"), x=X[:n], y=Y[:n], optimizer=optimizer, **fields)


def optimizer(name, rate, **config):
    return {"name": name, "learning_rate": rate, **config}


def schedule(kind, first=0.01, **config):
    return optimizer("SGD", kind, **{f"learning_rate.{key}": value for key, value in config.items()}) | {
        "learning_rate.initial_learning_rate": first
    }


def watching(kind, monitor, mode="auto", **fields):
    config = {"monitor": monitor, "mode": mode, "save_best_only": True}
    fit = {"has_validation": True} | fields.pop("fit", {})
    callbacks = [(kind, config), *fields.pop("others", ())]
    return classifier(callbacks=callbacks, fit=fit, **{"metrics": ["SparseCategoricalAccuracy"], **fields})


FAULTS = {
    "Adam(1)": (
        classifier(optimizer("Adam", 1.0)), ("unusual_learning_rate", "problem", "Adam(learning_rate=0.001)"),
        Change("learning_rate", 1.0, 0.001),
    ),
    "Adam(0.05)": (
        classifier(optimizer("Adam", 0.05)), ("unusual_learning_rate", "hint", "Adam(learning_rate=0.001)"),
        Change("learning_rate", 0.05, 0.001),
    ),
    "Adam(1e-7)": (
        classifier(optimizer("Adam", 1e-7)), ("unusual_learning_rate", "problem", "Adam(learning_rate=0.001)"),
        Change("learning_rate", 1e-7, 0.001),
    ),
    "SGD(10)": (
        classifier(optimizer("SGD", 10.0)), ("unusual_learning_rate", "problem", "SGD(learning_rate=0.01)"),
        Change("learning_rate", 10.0, 0.01),
    ),
    "SGD(1e-6)": (
        classifier(optimizer("SGD", 1e-6, momentum=0.9)),
        ("unusual_learning_rate", "problem", "SGD(learning_rate=0.01)"), Change("learning_rate", 1e-6, 0.01),
    ),
    "Adam(1e-5) of few steps": (
        classifier(optimizer("Adam", 1e-5)), ("unusual_learning_rate", "problem", "Adam(learning_rate=0.001)"),
        Change("learning_rate", 1e-5, 0.001),
    ),
    "SGD(1)": (
        classifier(optimizer("SGD", 1.0)), ("unusual_learning_rate", "problem", "SGD(learning_rate=0.01)"),
        Change("learning_rate", 1.0, 0.01),
    ),
    "Adadelta(0.001)": (
        classifier(optimizer("Adadelta", 0.001)), ("unusual_learning_rate", "problem", "Adadelta(learning_rate=1)"),
        Change("learning_rate", 0.001, 1.0),
    ),
    "decay_steps in epochs": (
        classifier(schedule("CosineDecay", decay_steps=10)),
        ("schedule_ends_early", "problem", "decay_steps=650"), Change("schedule", 10, 650),
    ),
    "decay that ends after a third": (
        classifier(schedule("PolynomialDecay", decay_steps=200, end_learning_rate=0.0)),
        ("schedule_ends_early", "hint", "decay_steps=650"), Change("schedule", 200, 650),
    ),
    "exponential decay that is too fast": (
        classifier(schedule("ExponentialDecay", decay_steps=1, decay_rate=0.5)),
        ("schedule_ends_early", "problem", "decay_steps=650"), Change("schedule", 1, 650),
    ),
    "momentum 0.999": (
        classifier(optimizer("SGD", 0.01, momentum=0.999)), ("momentum_near_one", "problem", "momentum=0.9"),
        Change("momentum", 0.999, 0.9),
    ),
    "steps of almost no length": (
        classifier(optimizer("SGD", 0.01, clipnorm=1e-3)), ("clipped_every_step", "problem", "clipnorm=1"),
        Change("clipnorm", 1e-3, 1.0),
    ),
    "a batch of more than all": (
        classifier(n=100, batch=512), ("batch_larger_than_data", "hint", "batch_size=12"),
        Change("batch_size", 512, 12),
    ),
    "one epoch": (
        classifier(fit={"epochs": 1}), ("few_steps", "hint", "epochs=77"), Change("epochs", 1, 77),
    ),
    "few steps": (
        classifier(fit={"epochs": 5}), ("few_steps", "hint", "epochs=77"), Change("epochs", 5, 77),
    ),
    "accuracy that falls": (
        watching("EarlyStopping", "val_accuracy", "min"), ("metric_the_other_way", "problem", 'mode="max"'),
        Change("mode", "min", "max"),
    ),
    "loss that rises": (
        watching("ModelCheckpoint", "val_loss", "max"), ("metric_the_other_way", "problem", 'mode="min"'),
        Change("mode", "max", "min"),
    ),
    "no validation": (
        watching("EarlyStopping", "val_loss", fit={"has_validation": False}),
        ("metric_that_is_missing", "problem", "validation_split=0.2"), Change("monitor", "val_loss", "loss"),
    ),
    "no accuracy": (
        watching("ReduceLROnPlateau", "val_accuracy", metrics=["AUC"]),
        ("metric_that_is_missing", "problem", "accuracy"),
        Change("monitor", "val_accuracy", "val_loss"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_the_settings(case):
    faulty, (name, severity, code), change = FAULTS[case]
    (finding,) = diagnose_program(faulty)
    assert (finding.name, finding.severity) == (name, severity)
    assert code in finding.suggestion
    assert finding.change == (change,)


HEALTHY = {
    "Adam": classifier(),
    "fine-tuning": program(
        layer("Embedding", n_weights=10**7), layer("LSTM", activation="tanh", n_weights=10**5), dense(3, "softmax"),
        optimizer=optimizer("AdamW", 2e-5), fit={"steps": 50},
    ),
    "small rate of normal length": classifier(optimizer("Adam", 1e-4)),
    "SGD with momentum": classifier(optimizer("SGD", 0.1, momentum=0.9)),
    "SGD with a momentum of 0.99 and a small rate": classifier(optimizer("SGD", 0.001, momentum=0.99)),
    "Adagrad": classifier(optimizer("Adagrad", 0.01)),
    "Adadelta": classifier(optimizer("Adadelta", 1.0)),
    "an optimizer that is not known": classifier(optimizer("Sophia", 100.0)),
    "small rate of many steps": classifier(optimizer("SGD", 2e-4), fit={"epochs": 10**6}),
    "rate of a callback": classifier(
        optimizer("SGD", 1e-9), callbacks=[("LearningRateScheduler", {})], fit={"has_validation": True}
    ),
    "warm-up from 0": classifier(
        schedule("CosineDecay", 0.0, decay_steps=500, warmup_steps=100, warmup_target=0.01)
    ),
    "cosine over the training": classifier(schedule("CosineDecay", decay_steps=50 * STEPS)),
    "slow exponential decay": classifier(schedule("ExponentialDecay", decay_steps=100, decay_rate=0.9)),
    "steps by hand": classifier(optimizer("SGD", "PiecewiseConstantDecay")),
    "clipnorm=1": classifier(optimizer("SGD", 0.01, clipnorm=1.0)),
    "Adam with a small clipnorm": classifier(optimizer("Adam", 0.001, clipnorm=1e-3)),
    "full batch of few samples": classifier(n=60, batch=60, fit={"epochs": 500}),
    "one large epoch": classifier(fit={"epochs": 1, "steps": 50_000}),
    "early stopping": watching("EarlyStopping", "val_loss"),
    "best accuracy": watching("ModelCheckpoint", "val_accuracy", "max"),
    "a metric that is not known": watching("EarlyStopping", "val_score", "min"),
    "a metric of the user's callback": watching(
        "EarlyStopping", "val_f1", "max", others=[("F1Callback", {})], fit={"has_validation": False}
    ),
    "checkpoints of all epochs": classifier(
        callbacks=[("ModelCheckpoint", {"monitor": "val_loss", "save_best_only": False})], fit={"has_validation": False}
    ),
    "nothing is known": Program(),
}  # fmt: skip


@pytest.mark.parametrize("case", HEALTHY)
def test_nothing_is_said_of_healthy_settings(case):
    assert diagnose_program(HEALTHY[case]) == []


def test_large_rates_of_linear_models_are_a_hint():
    linear = program(dense(1), loss="mse", x=X, y=heights(), optimizer=optimizer("Adam", 0.5))
    assert settings.unusual_learning_rate(linear).severity == "hint"
    assert settings.unusual_learning_rate(linear._replace(optimizer=optimizer("Adam", 0.1))) is None


def test_large_rates_of_normalised_networks_are_a_hint():
    normalised = program(
        dense(32, "relu"), layer("BatchNormalization", n_weights=128), dense(3, "softmax"), x=X, y=Y,
        optimizer=optimizer("SGD", 1.5),
    )  # fmt: skip
    assert settings.unusual_learning_rate(normalised).severity == "hint"


def test_recurrent_networks_are_not_linear():
    recurrent = program(layer("LSTM", activation="tanh", n_weights=99), dense(1), loss="mse",
                        optimizer=optimizer("Adam", 0.1))  # fmt: skip
    assert settings.unusual_learning_rate(recurrent).severity == "problem"


def test_small_rates_of_a_frozen_base_are_a_hint():
    base = layer("Functional", n_weights=999, trainable=False)
    tuned = program(base, dense(3, "softmax"), x=X, y=Y, optimizer=optimizer("Adam", 1e-6))
    assert settings.unusual_learning_rate(tuned).severity == "hint"


def test_steps_that_are_clipped_by_the_recorded_gradients():
    clipped = classifier(optimizer("Adam", 0.001, clipnorm=1.0))
    assert settings.clipped_every_step(clipped, 1.5) is None
    (finding,) = diagnose_program(clipped, gradient_norm=12.34)
    assert (finding.name, finding.severity, finding.suggestion) == ("clipped_every_step", "hint", "clipnorm=12")
    assert finding.change == (Change("clipnorm", 1.0, 12.0),)


@pytest.mark.parametrize(
    ("config", "step", "rate"),
    [
        (schedule("CosineDecay", 0.1, decay_steps=100), 50, 0.05),
        (schedule("CosineDecay", 0.1, decay_steps=100, alpha=0.1), 200, 0.01),
        (schedule("CosineDecay", 0.0, decay_steps=100, warmup_steps=10, warmup_target=0.1), 5, 0.05),
        (schedule("CosineDecay", 0.0, decay_steps=100, warmup_steps=10, warmup_target=0.1), 60, 0.05),
        (schedule("PolynomialDecay", 0.1, decay_steps=100, end_learning_rate=0.0, power=2.0), 50, 0.025),
        (schedule("ExponentialDecay", 0.1, decay_steps=10, decay_rate=0.5), 15, 0.1 * 0.5**1.5),
        (schedule("ExponentialDecay", 0.1, decay_steps=10, decay_rate=0.5, staircase=True), 15, 0.05),
        (schedule("InverseTimeDecay", 0.1, decay_steps=10, decay_rate=1.0), 10, 0.05),
        (schedule("PolynomialDecay", 0.1, decay_steps=100, cycle=True), 50, None),
        (schedule("CosineDecayRestarts", 0.1), 50, None),
    ],
)
def test_rates_of_schedules(config, step, rate):
    assert schedules.rate_at(config, step) == (rate if rate is None else pytest.approx(rate))


def test_problems_come_before_hints_and_are_told_apart():
    faulty = program(dense(32), dense(1, "sigmoid"), loss="MeanSquaredError", x=50 * X, y=25 + heights(),
                     optimizer=optimizer("Adam", 0.05), fit={"epochs": 2})  # fmt: skip
    findings = diagnose_program(faulty)
    assert [(finding.name, finding.severity) for finding in findings] == [
        ("output_range", "problem"),
        ("unscaled_inputs", "problem"),
        ("no_nonlinearity", "problem"),
        ("unusual_learning_rate", "hint"),
        ("few_steps", "hint"),
    ]
    assert len(to_json(findings)) == len(findings)


def test_a_rule_that_fails_costs_its_finding_only():
    broken = classifier(optimizer("Adam", 1.0), callbacks=[("EarlyStopping", None)])
    with pytest.warns(RecordingWarning, match="a rule of the diagnosis failed: AttributeError"):
        assert [finding.name for finding in diagnose_program(broken)] == ["unusual_learning_rate"]


@pytest.mark.parametrize(("decay", "severity"), [(20.0, "problem"), (5.0, "hint"), (0.1, None), (None, None)])
def test_a_weight_decay_that_forgets(decay, severity):
    finding = settings.strong_weight_decay(classifier({**optimizer("AdamW", 0.001), "weight_decay": decay}))
    assert (finding.severity if finding else None) == severity
    if finding:
        assert finding.change == (Change("weight_decay", decay, 0.004),)


@pytest.mark.parametrize(
    ("described", "is_fault"),
    [
        (classifier(optimizer("Adam", 0.0)), True),
        (classifier(optimizer("Adam", 0.0), callbacks=[("LearningRateScheduler", {})]), False),
        (classifier(schedule("CosineDecay", 0.0, decay_steps=100, warmup_steps=10, warmup_target=0.1)), False),
        (classifier(optimizer("Adam", 0.001)), False),
    ],
    ids=["zero", "set by a callback", "warmed up", "usual"],
)
def test_a_learning_rate_of_0(described, is_fault):
    assert (settings.no_learning_rate(described) is not None) == is_fault
