"""Learning-rate schedules side by side: constant, time decay, exponential decay, restarts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.errors import UserError
from projects import arguments, models, network
from projects.arguments import Parameter
from projects.datasets import samples
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from projects.arguments import Settings

SCHEDULES = ["constant", "time_decay", "exponential", "restarts"]
POSITIVE = arguments.number(0, open_low=True)
PARAMETERS = [
    *samples.PARAMETERS,
    Parameter("schedule", ",".join(SCHEDULES), arguments.one_of(lambda: SCHEDULES), "how the learning rate changes"),
    Parameter("learning_rate", "0.1", POSITIVE, "learning rate at the start"),
    Parameter("momentum", "0.8", arguments.number(0, 1, open_high=True), "momentum of SGD"),
    Parameter("batch_size", "28", arguments.whole(1), "samples in a batch"),
    Parameter("epochs", "20", arguments.whole(1), "passes over the training part (the tutorial's value is 60)"),
    Parameter("decay", "none", arguments.optional(arguments.number(0)),
              "of time_decay, learning_rate / (1 + decay * step); none: learning_rate / epochs"),
    Parameter("k", "0.1", arguments.number(0), "of exponential, learning_rate * exp(-k * epoch)"),
    Parameter("restart_epochs", "5", arguments.whole(1), "of restarts: epochs of the first period of cosine annealing"),
    Parameter("restarts", "3", arguments.whole(0), "of restarts: number of restarts"),
    Parameter("restart_growth", "1", arguments.number(1), "of restarts: ratio of the lengths of successive periods"),
    Parameter("restart_low", "none", arguments.optional(POSITIVE),
              "of restarts: draw each start rate from restart_low to restart_high, log-uniformly; none: learning_rate"),
    Parameter("restart_high", "none", arguments.optional(POSITIVE), "of restarts: see restart_low"),
    Parameter("hidden", "64-64", arguments.sizes, "units of the hidden layers, with dashes between them"),
    network.JUDGE,
    *network.RECORDING,
    arguments.IMPROVE,
]  # fmt: skip
QUESTION = "Which learning-rate schedule descends fastest, and which most smoothly?"


def train(settings: Settings, command: str) -> Outcome:
    """Train with one schedule into the active run, and report."""
    import keras

    from projects import schedules

    low, high = settings["restart_low"], settings["restart_high"]
    if (low is None) != (high is None) or (low is not None and low >= high):
        raise UserError(
            f"restart_low={arguments.text_of(low)} and restart_high={arguments.text_of(high)}: give both, the lower "
            "first, to draw the rate of each restart between them, or neither"
        )
    data = samples.load(settings)
    keras.utils.set_random_seed(settings["seed"])
    model = models.perceptron(data, settings["hidden"])
    steps_per_epoch = math.ceil(len(data.x_train) / settings["batch_size"])
    rate, callbacks = schedules.learning_rate(settings, steps_per_epoch)
    optimizer = models.optimizer("SGD", rate, momentum=settings["momentum"])
    model.compile(optimizer, loss=models.loss_for(data, "auto"), metrics=models.metrics_for(data))
    return network.train(QUESTION, settings, command, data, model, callbacks=callbacks)


def compare(run_id: str, outcomes: dict[str, Outcome]) -> list[str]:
    """Compare several networks, and find the fastest, the smoothest, and the lowest."""
    network.compare(run_id, outcomes)
    losses = {label: outcome.record.history.epochs["val_loss"] for label, outcome in outcomes.items()}
    losses = {label: loss for label, loss in losses.items() if len(loss) > 2 and np.isfinite(loss).all()}
    if len(losses) < 2:
        return []
    lowest = {label: float(loss.min()) for label, loss in losses.items()}
    level = max(lowest.values())
    reached = {label: int(np.argmax(loss <= level)) for label, loss in losses.items()}
    roughnesses = {label: roughness(loss) for label, loss in losses.items()}
    best, fastest, smoothest = (min(values, key=values.__getitem__) for values in (lowest, reached, roughnesses))
    roughest = max(roughnesses, key=roughnesses.__getitem__)
    first = f"the first at a validation loss of {level:.4g}, which all reach"
    return [
        f"**{best}** has the lowest validation loss, {lowest[best]:.4g} at epoch {int(losses[best].argmin())}.",
        f"**{fastest}** is {first}: at epoch {reached[fastest]}.",
        f"**{smoothest}** is the smoothest: the loss bends by {roughnesses[smoothest]:.2%} of its range per epoch.",
        f"**{roughest}** is the least smooth: it bends by {roughnesses[roughest]:.2%}.",
    ]


def roughness(loss: np.ndarray) -> float:
    """Mean bend of a curve (n_epochs,), ``|l[i-1] - 2 l[i] + l[i+1]|``, as a share of its range; 0 for a line."""
    return float(np.abs(np.diff(loss, 2)).mean() / (np.ptp(loss) or 1.0))


EXPERIMENT = Experiment("learning_rate", QUESTION, PARAMETERS, train, compare, "val_loss", check=network.check)

if __name__ == "__main__":
    main(EXPERIMENT)
