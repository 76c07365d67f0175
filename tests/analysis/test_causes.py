"""What a training has reached, what went wrong in it, and which trait of its program is named as the cause."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.diagnosis.causes import explain
from mlflow_hp.analysis.diagnosis.generalization import does_not_generalize, moving_averages
from mlflow_hp.analysis.diagnosis.program import diagnose_program, suspicions
from mlflow_hp.analysis.diagnosis.result import best_guess, success
from mlflow_hp.analysis.diagnosis.stopping import few_epochs, missing_metric, stopped_early
from mlflow_hp.analysis.diagnosis.training import unbounded_loss
from mlflow_hp.history import TrainingHistory
from tests.helpers.programs_described import SGD, dense, features, labels, layer, program

E = np.arange(20)
X, Y = features(), labels()
FALLING = 1.1 * 0.8**E


def classifier(*hidden, **named):
    return program(*(hidden or (dense(32, "relu"),)), dense(3, "softmax"), metrics=("accuracy",), x=X, y=Y, **named)


def trained(described, loss=FALLING, steps=400, **columns):
    epochs = {"epoch": np.arange(len(loss)), "loss": loss, **columns}
    table = {"step": np.arange(steps), "batch_loss": np.linspace(loss[0], loss[-1], steps)}
    meta = {"optimizer": described.optimizer, "params": {"loss": "sparse_categorical_crossentropy"}}
    return TrainingHistory.from_arrays(table, epochs, meta=meta, program=described)


def accuracy(end, n=20):
    return np.linspace(1 / 3, end, n)


# The result


def test_success_of_a_classifier_is_measured_from_the_most_frequent_class():
    rare = np.where(np.arange(400) < 40, 1, 0)
    described = program(dense(8, "relu"), dense(1, "sigmoid"), loss="BinaryCrossentropy", metrics=("accuracy",), y=rare)
    assert best_guess(described).accuracy == 0.9
    history = trained(described, accuracy=np.full(20, 0.95))
    assert success(history) == pytest.approx(0.5)
    assert success(trained(classifier(), accuracy=np.full(20, 1.0))) == 1.0
    assert success(trained(classifier(fit={"has_class_weight": True}), accuracy=np.full(20, 1.0))) is None


def test_success_of_a_regression_is_its_share_of_the_variance():
    y = np.random.default_rng(0).normal(5, 3, 400)
    described = program(dense(8, "relu"), dense(1), loss="MeanSquaredError", x=X, y=y)
    assert success(trained(described, np.full(20, float(y.var()) / 4))) == pytest.approx(0.75)
    penalised = program(dense(8, "relu", kernel_regularizer={"name": "L2"}), dense(1), loss="MeanSquaredError", y=y)
    assert success(trained(penalised, np.full(20, 1.0))) is None
    assert success(trained(program(dense(1), loss="Huber", y=y), np.full(20, 1.0))) is None


def test_a_regression_that_explains_nothing():
    y = np.random.default_rng(0).normal(5, 3, 400)
    described = program(dense(8, "relu"), dense(1), loss="MeanSquaredError", x=X, y=y)
    (first, *_) = diagnosis.diagnose(trained(described, np.full(20, float(y.var()))))
    assert (first.name, first.verdict, first.severity) == ("chance", "explains nothing", "problem")
    good = diagnosis.diagnose(trained(described, float(y.var()) * 0.5**E))
    assert "chance" not in {finding.name for finding in good}


# Causes


def findings(described, **columns):
    return diagnosis.diagnose(trained(described, **columns))


@pytest.mark.parametrize(
    ("described", "name", "parameter"),
    [
        (classifier(dense(2, "relu"), dense(32, "relu")), "narrow_layer", "units"),
        (classifier(layer("LSTM", units=2, n_weights=9)), "narrow_layer", "units"),
        (classifier(layer("Flatten")), "no_hidden_layer", "layers"),
        (classifier(*[dense(8, "relu")] * 8), "deep_and_narrow", "layers"),
        (classifier(layer("GaussianNoise", stddev=2.0), dense(32, "relu")), "much_noise", "rate"),
        (
            classifier(
                layer("Flatten"),
                layer("Embedding", n_weights=9, trainable=False, embeddings_initializer={"name": "Zeros"}),
                dense(32, "relu"),
            ),
            "frozen_part",
            "trainable",
        ),
        (classifier(dense(32, "relu", trainable=False)), "frozen_part", "trainable"),
        (classifier(dense(32, "exponential")), "unusual_activation", "activation"),
        (classifier(batch=400), "one_batch", "batch_size"),
        (classifier(optimizer={**SGD, "learning_rate": 5e-4}), "small_learning_rate", "learning_rate"),
    ],
)
def test_a_suspicion_is_the_cause_where_the_training_fails_and_else_unsaid(described, name, parameter):
    failed = findings(described, loss=np.linspace(1.1, 1.0, 20), accuracy=accuracy(0.4))
    assert (failed[0].name, failed[0].severity, failed[0].change[0].parameter) == (name, "problem", parameter)
    learned = findings(described, accuracy=accuracy(0.99))
    assert name not in {finding.name for finding in learned}


def test_features_that_extreme_values_have_squeezed():
    x = np.random.default_rng(0).random((2000, 20)) / 100
    x[0] = 1.0
    for values, is_squeezed in ((x, True), (x * 100 % 1, False), (X / 10, False)):
        names = {each.name for each in suspicions(program(dense(32, "relu"), dense(3, "softmax"), x=values))}
        assert ("squeezed_inputs" in names) == is_squeezed


def test_a_learning_rate_that_a_callback_has_set_is_the_one_that_is_judged():
    history = trained(classifier(), loss=np.linspace(1.1, 1.09, 20), accuracy=accuracy(0.4))
    history.steps["learning_rate"] = np.full(400, 1e-5)
    (first, *_) = diagnosis.diagnose(history)
    assert (first.cause, first.change[0].old) == ("too small a learning rate", 1e-5)


def test_a_loss_without_a_lowest_value():
    falls = trained(classifier(), loss=0.5 - 3.0**E)
    (first, *_) = diagnosis.diagnose(falls)
    assert (first.name, first.severity, first.change[0].parameter) == ("unbounded_loss", "problem", "loss")
    for bounded in (FALLING, FALLING - 1.05, -1 + 0.9 * 0.5**E):
        assert unbounded_loss(trained(classifier(), loss=bounded)) is None


@pytest.mark.parametrize(
    "described",
    [
        classifier(dense(2, "relu"), dense(32, "relu")),
        classifier(layer("Flatten")),
        classifier(optimizer={**SGD, "learning_rate": 5e-4}),
        classifier(callbacks=[("EarlyStopping", {"monitor": "loss", "patience": 3})]),
        classifier(fit={"epochs": 3}),
    ],
    ids=["narrow", "linear", "small rate", "early stopping", "short"],
)
def test_a_poor_result_is_no_failure_as_long_as_the_training_goes_on(described):
    begun = trained(described, FALLING[:3], accuracy=accuracy(0.45, 3))
    told = diagnosis.diagnose(begun, so_far=True)
    assert "problem" not in {finding.severity for finding in told}


@pytest.mark.parametrize(("n_epochs", "planned", "is_told"), [(5, 20, False), (10, 20, True), (10, 100, False)])
def test_a_training_that_goes_on_may_be_at_chance_at_first(n_epochs, planned, is_told):
    level = np.full(n_epochs, 1.1)
    begun = trained(classifier(fit={"epochs": planned}), level, accuracy=np.full(n_epochs, 0.34))
    assert ("chance" in {each.name for each in diagnosis.diagnose(begun, so_far=True)}) == is_told


def test_a_problem_of_the_program_is_the_cause():
    problems = diagnose_program(classifier(layer("Dropout", rate=0.9), dense(2, "relu")))
    assert problems[0].severity == "problem"
    assert explain(problems, suspicions(classifier(dense(2, "relu"))), [], 0.1) == problems


def test_without_a_failure_nothing_becomes_a_problem():
    hints = [diagnosis.Finding("few_steps", "few steps", "Few.", {}, severity="hint")]
    assert explain(hints, [], [], 0.95) == hints
    assert explain(hints, [], [], None) == hints


def test_later_findings_do_not_contradict_earlier_ones():
    described = classifier(optimizer={**SGD, "learning_rate": 1e-6})
    told = findings(described, loss=np.linspace(1.1, 1.09, 20), accuracy=accuracy(0.35))
    new = {each.new for finding in told for each in finding.change if each.parameter == "learning_rate"}
    assert len(new) == 1


# Generalisation


def test_labels_that_do_not_belong():
    y_val = labels(100)
    described = classifier(x_val=X[:100], y_val=y_val)
    flat = np.full(20, 1.1)
    found = does_not_generalize(
        trained(described, accuracy=accuracy(0.9), val_accuracy=np.full(20, 0.33), val_loss=flat)
    )
    assert (found.severity, {each.parameter for each in found.change}) == (
        "problem",
        {"targets", "features", "shuffle"},
    )
    falls = {"val_loss": np.linspace(1.1, 0.9, 20), "val_accuracy": np.full(20, 0.33)}
    assert does_not_generalize(trained(described, accuracy=accuracy(0.9), **falls)) is None
    assert does_not_generalize(trained(described, accuracy=accuracy(0.34), val_accuracy=accuracy(0.34))) is None


def test_averages_of_batch_normalization_that_have_not_arrived():
    normalised = classifier(dense(32, "relu"), layer("BatchNormalization", n_weights=128, momentum=0.99))
    worse = {"accuracy": accuracy(0.99), "val_accuracy": accuracy(0.5), "val_loss": FALLING}
    found = moving_averages(trained(normalised, steps=40, **worse))
    assert (found.severity, found.change[0].parameter) == ("problem", "momentum")
    assert moving_averages(trained(normalised, steps=4000, **worse)) is None
    alike = {"accuracy": accuracy(0.99), "val_accuracy": accuracy(0.98)}
    assert moving_averages(trained(normalised, steps=40, **alike)) is None
    assert moving_averages(trained(classifier(), steps=40, **worse)) is None


# Callbacks


def test_a_metric_that_no_epoch_has():
    watching = classifier(callbacks=[("EarlyStopping", {"monitor": "val_acc"})])
    columns = {"val_accuracy": accuracy(0.9), "val_loss": FALLING, "accuracy": accuracy(0.9)}
    found = missing_metric(trained(watching, **columns))
    assert (found.change[0].old, found.change[0].new) == ("val_acc", "val_accuracy")
    right = classifier(callbacks=[("EarlyStopping", {"monitor": "val_accuracy"})])
    assert missing_metric(trained(right, **columns)) is None


def test_a_training_that_was_stopped_too_early():
    stops = [("EarlyStopping", {"monitor": "loss", "patience": 0, "min_delta": 0.5})]
    early = classifier(callbacks=stops, fit={"epochs": 50})
    found = stopped_early(trained(early, FALLING[:5], accuracy=accuracy(0.5, 5)))
    assert {each.parameter for each in found.change} == {"patience", "min_delta", "epochs"}
    assert "after 5 epochs of 50" in found.text
    assert stopped_early(trained(early, FALLING[:5], accuracy=accuracy(0.99, 5))) is None
    assert stopped_early(trained(classifier(callbacks=stops, fit={"epochs": 5}), FALLING[:5])) is None
    level = np.full(5, 0.4)
    assert stopped_early(trained(early, level, accuracy=accuracy(0.5, 5))) is None


def test_a_training_that_ends_while_it_still_falls_fast():
    planned = classifier(fit={"epochs": 3})
    fast = np.array([1.1, 0.8, 0.6])
    found = few_epochs(trained(planned, fast, accuracy=accuracy(0.7, 3)))
    assert (found.severity, found.change[0]) == ("problem", diagnosis.Change("epochs", 3, 15))
    told = findings(planned, loss=fast, accuracy=accuracy(0.7, 3))
    assert [each.name for each in told if each.severity == "problem"] == ["few_steps"]  # 39, which is the cause
    assert few_epochs(trained(planned, fast, accuracy=accuracy(0.99, 3))) is None
    assert few_epochs(trained(planned, fast, accuracy=accuracy(0.7, 3), val_loss=np.array([0.9, 0.8, 0.79]))) is None
    assert few_epochs(trained(classifier(fit={"epochs": 9}), fast, accuracy=accuracy(0.7, 3))) is None  # interrupted
    again = trained(planned, fast, accuracy=accuracy(0.7, 3))
    again.meta["fit"] = 1  # in a loop of fits
    assert not {"few_epochs", "few_steps"} & {each.name for each in diagnosis.diagnose(again)}
    one = trained(classifier(fit={"epochs": 1}), np.array([0.9]), steps=80)
    assert few_epochs(one) is None
    one.steps["batch_loss"] = np.linspace(1.1, 0.4, 80)
    assert few_epochs(one).change[0].new == 10


@pytest.mark.parametrize(("loss", "is_fault"), [("MeanAbsoluteError", True), ("MeanSquaredError", False)])
def test_an_absolute_error_for_classes_is_a_problem_with_any_optimizer(loss, is_fault):
    described = program(dense(32, "relu"), dense(3, "softmax"), loss=loss, x=X, y=np.eye(3)[Y], metrics=("accuracy",))
    (found,) = [each for each in diagnose_program(described) if each.name == "squared_error_for_classes"]
    assert found.severity == ("problem" if is_fault else "hint")


def test_an_uneven_classification_has_no_cause_for_an_accuracy_near_that_of_its_most_frequent_class():
    rare = np.where(np.arange(400) % 10 == 3, 1, 0)
    described = program(
        dense(2, "relu"), dense(1, "sigmoid"), loss="BinaryCrossentropy", metrics=("accuracy",), x=X, y=rare
    )
    told = diagnosis.diagnose(trained(described, 0.3 + 0.1 * 0.5**E, accuracy=np.full(20, 0.91)))
    assert "problem" not in {finding.severity for finding in told}


# Words


def test_the_result_comes_first_then_what_to_try_then_problems():
    history = trained(classifier(dense(2, "relu")), loss=np.linspace(1.1, 1.0, 20), accuracy=accuracy(0.4))
    assert diagnosis.result_in_words(history) == "**loss 1, accuracy 0.4** after 20 epochs (400 steps)"
    words = diagnosis.findings_in_words(diagnosis.diagnose(history))
    places = [words.index(heading) for heading in ("**Problems**", "**What to try**", "too few units")]
    assert places[1] < places[0] < places[2]
    assert diagnosis.findings_in_words([]) == "Nothing out of the ordinary."


def test_findings_survive_json():
    told = diagnosis.diagnose(trained(classifier(dense(2, "relu")), accuracy=accuracy(0.4)))
    assert [each._replace(change=()) for each in diagnosis.from_json(diagnosis.to_json(told))] == [
        each._replace(change=()) for each in told
    ]
    earlier = {"a": {"name": "a", "verdict": "odd", "text": "A.", "evidence": {}, "suggestion": None}}
    assert diagnosis.from_json(earlier)[0].severity == "fine"
