"""Range test: a training with a growing learning rate, to choose the one for the next training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.errors import UserError
from projects import arguments, models, network
from projects.arguments import Parameter
from projects.datasets import samples
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.network import ReportExtension, Trained

POSITIVE = arguments.number(0, open_low=True)
PARAMETERS = [
    *samples.PARAMETERS,
    Parameter("low", "1e-5", POSITIVE, "learning rate of the first step"),
    Parameter("high", "10", POSITIVE, "learning rate of the last step"),
    Parameter("optimizer", "SGD", arguments.one_of(models.optimizer_names), "any of Keras' optimizers, by name"),
    Parameter("momentum", "0.8", arguments.number(0, 1, open_high=True), "momentum, for optimizers that have one"),
    Parameter("batch_size", "28", arguments.whole(1), "samples in a batch"),
    Parameter("epochs", "8", arguments.whole(1), "passes over the training part while the learning rate grows"),
    Parameter("hidden", "64-64", arguments.sizes, "units of the hidden layers, with dashes between them"),
    *network.RECORDING,
]
QUESTION = "Up to which learning rate does the loss fall, and where does it fall fastest?"


def train(settings: Settings, command: str) -> Outcome:
    """Train once, from the lowest learning rate to the highest, into the active run, and report."""
    import keras

    from projects import schedules

    if settings["low"] >= settings["high"]:
        raise UserError(f"low={settings['low']:g} has to be less than high={settings['high']:g}")
    data = samples.load(settings)
    keras.utils.set_random_seed(settings["seed"])
    model = models.perceptron(data, settings["hidden"])
    n_steps = math.ceil(len(data.x_train) / settings["batch_size"]) * settings["epochs"]
    rate = schedules.growth(settings["low"], settings["high"], n_steps)
    momentum = settings["momentum"] if models.takes(settings["optimizer"], "momentum") else None
    optimizer = models.optimizer(settings["optimizer"], rate, momentum=momentum)
    model.compile(optimizer, loss=models.loss_for(data, "auto"), metrics=models.metrics_for(data))
    stop = keras.callbacks.TerminateOnNaN()
    return network.train(
        QUESTION, settings, command, data, model, callbacks=[stop], extend_report=_extend_report, diagnosed=False
    )


def _extend_report(trained: Trained, report: Report) -> ReportExtension:
    """Draw the loss against the learning rate, and suggest the learning rate of the next run."""
    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.plots import range_test

    test = diagnosis.range_test(trained.history)
    finding = diagnosis.range_finding(test, trained.history.steps["learning_rate"])
    info = range_test.range_test_info(test, finding.evidence["divergence_learning_rate"])
    report.picture("loss_by_learning_rate", range_test.draw_range_test(info))
    steepest = finding.evidence["steepest_learning_rate"]
    lowest = float(test.smoothed.min()) if len(test.smoothed) else math.nan
    return [finding], {"steepest_learning_rate": math.nan if steepest is None else steepest, "lowest_loss": lowest}


EXPERIMENT = Experiment("learning_rate_range", QUESTION, PARAMETERS, train, network.compare, "lowest_loss")

if __name__ == "__main__":
    main(EXPERIMENT)
