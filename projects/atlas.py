"""Atlas: thousands of descents of one network by learning rate, batch size and seed, and how each ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from projects import arguments, captions, models, recorded
from projects.arguments import Parameter
from projects.datasets import samples
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    import keras

    from projects.arguments import Settings
    from projects.datasets.samples import Samples

POSITIVE = arguments.number(0, open_low=True)
PARAMETERS = [
    *(parameter._replace(several=False) for parameter in samples.PARAMETERS),
    Parameter("low", "0.001", POSITIVE, "lowest learning rate", several=False),
    Parameter("high", "10", POSITIVE, "highest learning rate", several=False),
    Parameter("n_rates", "40", arguments.whole(2, 1000), "learning rates, on a logarithmic scale", several=False),
    Parameter("batch_low", "8", arguments.whole(1), "samples in the smallest batches", several=False),
    Parameter("batch_high", "512", arguments.whole(1), "samples in the largest batches", several=False),
    Parameter("n_batch_sizes", "10", arguments.whole(2, 1000), "batch sizes, on a logarithmic scale", several=False),
    Parameter("seeds", "5", arguments.whole(1, 1000), "trainings of each combination", several=False),
    Parameter("epochs", "10", arguments.whole(1), "passes over the training part", several=False),
    Parameter("hidden", "64-64", arguments.sizes, "units of the hidden layers, with dashes between them",
              several=False),
    Parameter("activation", "relu", arguments.one_of(models.activation_names), "of the hidden layers", several=False),
    Parameter("optimizer", "SGD", arguments.one_of(lambda: ["SGD", "RMSprop", "Adam", "AdamW"]), "of Keras, by name",
              several=False),
    Parameter("momentum", "0", arguments.number(0, 1, open_high=True), "momentum, for optimizers that have one",
              several=False),
    Parameter("seed", "0", arguments.whole(0, 2**32 - 1), "seed of the split", several=False),
]  # fmt: skip
QUESTION = "At which learning rates does the network learn well, and how do they depend on the batch size?"


def train(settings: Settings, command: str) -> Outcome:
    """Train all descents, log the atlas into the active run, and describe it."""
    import mlflow

    import mlflow_hp
    from mlflow_hp.tracking import runs
    from mlflow_hp.training import Report

    axes = {"learning_rate": _rates(settings), "batch_size": batch_sizes(settings)}
    data, run_id = samples.load(settings), mlflow.active_run().info.run_id
    samples.log_input(data, settings["data"])
    with Report(run_id, captions.caption([settings])) as report:
        samples.picture(report, data)
    loss = "sparse_categorical_crossentropy" if data.classes else "mean_squared_error"
    mapped = mlflow_hp.atlas(
        lambda: _network(data, settings, loss),
        np.concatenate([data.x_train, data.x_validation]),
        models.labels_for(data, np.concatenate([data.y_train, data.y_validation]), loss),
        axes,
        seeds=settings["seeds"],
        epochs=settings["epochs"],
        validation_split=settings["validation_size"],
    )
    findings, lowest = mapped.sentences(), float(mapped.mean_loss.min())
    numbers = {
        f"lowest_{mapped.loss_name}": lowest,
        "share_good": mapped.shares["good"],
        "valley_exponent": mapped.valley.slope,
    }
    if np.isfinite(lowest):
        runs.log_numbers(run_id, {f"lowest_{mapped.loss_name}": lowest})  # the atlas has logged the others
    runs.set_description(run_id, _description(findings, settings, command, data))
    return Outcome(run_id, numbers, findings, mapped)


def _rates(settings: Settings) -> np.ndarray:
    if settings["low"] >= settings["high"]:
        raise UserError(f"low={settings['low']:g} has to be less than high={settings['high']:g}")
    return np.geomspace(settings["low"], settings["high"], settings["n_rates"])


def batch_sizes(settings: Settings) -> np.ndarray:
    """Whole batch sizes, fewer than asked for where several round to one."""
    low, high = settings["batch_low"], settings["batch_high"]
    if low >= high:
        raise UserError(f"batch_low={low} has to be less than batch_high={high}")
    return np.unique(np.geomspace(low, high, settings["n_batch_sizes"]).round().astype(int))


def _network(data: Samples, settings: Settings, loss: str) -> keras.Model:
    model = models.perceptron(data, settings["hidden"], activation=settings["activation"])
    momentum = settings["momentum"] if models.takes(settings["optimizer"], "momentum") else None
    model.compile(models.optimizer(settings["optimizer"], settings["low"], momentum=momentum), loss=loss)
    return model


def _description(findings: list[str], settings: Settings, command: str, data: Samples) -> str:
    used = ", ".join(f"{name} {arguments.text_of(value)}" for name, value in settings.items())
    n_validation = round((len(data.x_train) + len(data.x_validation)) * settings["validation_size"])
    n_train = len(data.x_train) + len(data.x_validation) - n_validation
    sizes = f"{count(n_train, 'sample')} to train on, {n_validation:,} to validate"
    sentences = "\n".join(f"- {finding}" for finding in findings[1:])
    return (
        f"**Result**: {findings[0]}\n\n**{QUESTION}**\n\n{sentences}\n\nEach descent: `atlas.html`.\n\n"
        f"**Data**: {data.source}, {sizes}.{recorded.noted(data.notes)}\n\n"
        f"**Settings**: {used}\n\n**To repeat it**: `{command}`\n"
    )


EXPERIMENT = Experiment("atlas", QUESTION, PARAMETERS, train, kind="atlas", check=samples.check)

if __name__ == "__main__":
    main(EXPERIMENT)
