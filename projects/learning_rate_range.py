"""Range test: a training with a growing learning rate, to choose the one for the next training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.errors import UserError
from projects import arguments, captions, models, network
from projects.arguments import Parameter
from projects.datasets import samples
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from mlflow_hp.analysis import Finding, diagnosis
    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.network import ReportExtension, Trained

POSITIVE = arguments.number(0, open_low=True)
PARAMETERS = [
    *samples.PARAMETERS,
    Parameter("learning_rate", "none", arguments.optional(POSITIVE),
              "none: one that grows from low to high, the range test; a number: train at that rate"),
    Parameter("low", "1e-5", POSITIVE, "learning rate of the first step"),
    Parameter("high", "10", POSITIVE, "learning rate of the last step"),
    Parameter("optimizer", "SGD", arguments.one_of(models.optimizer_names), "any of Keras' optimizers, by name"),
    Parameter("momentum", "0.8", arguments.number(0, 1, open_high=True), "momentum, for optimizers that have one"),
    Parameter("batch_size", "28", arguments.whole(1), "samples in a batch"),
    Parameter("epochs", "8", arguments.whole(1), "passes over the training part, in a test at a growing rate"),
    Parameter("hidden", "64-64", arguments.sizes, "units of the hidden layers, with dashes between them"),
    *network.RECORDING,
    arguments.IMPROVE,
]  # fmt: skip
QUESTION = "Up to which learning rate does the loss fall, and where does it fall fastest?"
PICTURE = "loss_by_learning_rate"
"""Name of the picture of a range test."""
RATE_QUESTION = "How well does the network learn at this learning rate?"


def train(settings: Settings, command: str) -> Outcome:
    """Train once into the active run, from the lowest learning rate to the highest or at a constant one, and report."""
    import keras

    from projects import schedules

    constant = settings["learning_rate"]
    if constant is None and settings["low"] >= settings["high"]:
        raise UserError(f"low={settings['low']:g} has to be less than high={settings['high']:g}")
    data = samples.load(settings)
    keras.utils.set_random_seed(settings["seed"])
    model = models.perceptron(data, settings["hidden"])
    n_steps = math.ceil(len(data.x_train) / settings["batch_size"]) * settings["epochs"]
    rate = schedules.growth(settings["low"], settings["high"], n_steps) if constant is None else constant
    momentum = settings["momentum"] if models.takes(settings["optimizer"], "momentum") else None
    optimizer = models.optimizer(settings["optimizer"], rate, momentum=momentum)
    model.compile(optimizer, loss=models.loss_for(data, "auto"), metrics=models.metrics_for(data))
    stop = keras.callbacks.TerminateOnNaN()
    if constant is not None:
        outcome = network.train(
            RATE_QUESTION, settings, command, data, model, callbacks=[stop], extend_report=_report_lowest
        )
        return outcome._replace(judged_by="")  # the lowest loss is of any epoch
    outcome = network.train(
        QUESTION, settings, command, data, model, callbacks=[stop], extend_report=_report_test, diagnosed=False,
        picture=PICTURE,
    )  # fmt: skip
    numbers = {name: outcome.numbers[name] for name in ("lowest_loss", "steepest_learning_rate", "seconds")}
    return outcome._replace(numbers=numbers, judged_by="")  # those of an epoch are of a growing rate


def compare_improved(run_id: str, outcomes: dict[str, Outcome]) -> list[str]:
    """Compare the trainings at constant rates, and draw the range test that came before them."""
    from mlflow_hp.training import Report

    is_test = {label: outcome.record.settings["learning_rate"] is None for label, outcome in outcomes.items()}
    test = next((outcome.record for label, outcome in outcomes.items() if is_test[label]), None)
    if test is not None:
        with Report(run_id, captions.caption([test.settings])) as report:
            _draw(test, report)
    at_constant_rates = {label: outcome for label, outcome in outcomes.items() if not is_test[label]}
    return network.compare(run_id, at_constant_rates) if at_constant_rates else []


def _report_lowest(trained: Trained, report: Report) -> ReportExtension:  # noqa: ARG001
    """Add the lowest loss to the numbers."""
    losses = trained.history.epochs["loss"]
    return [], {"lowest_loss": float(losses.min()) if len(losses) else math.nan}


def _report_test(trained: Trained, report: Report) -> ReportExtension:
    """Draw the loss against the learning rate, and suggest the learning rate of the next run."""
    test, finding = _draw(trained, report)
    steepest = finding.evidence["steepest_learning_rate"]
    lowest = float(test.smoothed.min()) if len(test.smoothed) else math.nan
    return [finding], {"steepest_learning_rate": math.nan if steepest is None else steepest, "lowest_loss": lowest}


def _draw(trained: Trained, report: Report) -> tuple[diagnosis.RangeTest, Finding]:
    """Draw the loss of a range test against the learning rate; return the evaluated test, and the finding."""
    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.plots import range_test

    test = diagnosis.range_test(trained.history)
    finding = diagnosis.range_finding(test, trained.history.steps["learning_rate"])
    info = range_test.range_test_info(test, finding.evidence["divergence_learning_rate"])
    report.picture(PICTURE, range_test.draw_range_test(info))
    return test, finding


EXPERIMENT = Experiment(
    "learning_rate_range",
    QUESTION,
    PARAMETERS,
    train,
    network.compare,
    "lowest_loss",
    compare_improved=compare_improved,
    improvement_objective="val_loss",
    check=network.check,
)

if __name__ == "__main__":
    main(EXPERIMENT)
