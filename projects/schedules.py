"""Learning-rate schedules: constant, time decay, exponential decay, restarts, and the growth of a range test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from projects.arguments import Settings


@keras.saving.register_keras_serializable("mlflow_hp")
class Restarts(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine annealing in periods, each of which begins with a learning rate of its own.

    Within a period of n steps the rate falls as ``rate (1 + cos(pi t / n)) / 2``, t = 0, ..., n - 1 (Loshchilov and
    Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, equation 5, with a lowest rate of 0). Keras'
    own ``CosineDecayRestarts`` restarts forever, and only at multiples of one rate.

    Parameters
    ----------
    rates : sequence of float
        Learning rate at the start of each period.
    lengths : sequence of int
        Lengths of the periods in steps; after them the last rate stays.
    """

    def __init__(self, rates: list[float], lengths: list[int]) -> None:
        super().__init__()
        self.rates, self.lengths = [float(rate) for rate in rates], [int(length) for length in lengths]

    def __call__(self, step: Any) -> Any:
        """Learning rate of `step` (0-based)."""
        ends = np.cumsum(self.lengths)
        step = keras.ops.minimum(keras.ops.cast(step, "float32"), float(ends[-1] - 1))
        period = keras.ops.sum(keras.ops.cast(step >= ends[:-1].astype("float32"), "int32"))
        rate, start, length = (
            keras.ops.take(keras.ops.convert_to_tensor(np.asarray(values, "float32")), period)
            for values in (self.rates, ends - self.lengths, self.lengths)
        )
        return rate * (1 + keras.ops.cos(math.pi * (step - start) / length)) / 2

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same schedule."""
        return {"rates": self.rates, "lengths": self.lengths}


def restarts(settings: Settings, steps_per_epoch: int) -> Restarts:
    """Make `restarts` restarts after periods of `restart_epochs`, each `restart_growth` times as long as the last.

    The rate of a restart is `learning_rate`, or drawn, with `seed`, from the logarithmic range `restart_low` to
    `restart_high`. The last period lasts to the end of the training, unless the growth makes it longer.
    """
    rng = np.random.default_rng(settings["seed"])
    low, high = settings["restart_low"], settings["restart_high"]
    n_steps = settings["epochs"] * steps_per_epoch
    rates: list[float] = []
    lengths: list[int] = []
    while sum(lengths) < n_steps and len(lengths) <= settings["restarts"]:  # none begins after the end of the training
        drawn_rate = math.exp(rng.uniform(math.log(low), math.log(high))) if rates and low is not None else None
        rates.append(settings["learning_rate"] if drawn_rate is None else drawn_rate)
        epochs = max(1, round(settings["restart_epochs"] * settings["restart_growth"] ** len(lengths)))
        lengths.append(epochs * steps_per_epoch)
    lengths[-1] = max(lengths[-1], n_steps - sum(lengths[:-1]))
    return Restarts(rates, lengths)


def learning_rate(settings: Settings, steps_per_epoch: int) -> tuple[Any, list[keras.callbacks.Callback]]:
    """Make the learning rate of the optimizer, and the callbacks that change it, for ``settings["schedule"]``.

    - constant: ``learning_rate``.
    - time_decay: ``learning_rate / (1 + decay t)``, t the step; Keras' ``InverseTimeDecay``.
    - exponential: ``learning_rate exp(-k t)``, t the epoch; Keras' ``LearningRateScheduler``.
    - restarts: see `restarts`.
    """
    rate = settings["learning_rate"]
    if settings["schedule"] == "time_decay":
        decay = rate / settings["epochs"] if settings["decay"] is None else settings["decay"]
        return keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay), []
    if settings["schedule"] == "exponential":
        k = settings["k"]
        return rate, [keras.callbacks.LearningRateScheduler(lambda epoch, _: rate * math.exp(-k * epoch))]
    if settings["schedule"] == "restarts":
        return restarts(settings, steps_per_epoch), []
    return rate, []


def growth(low: float, high: float, n_steps: int) -> keras.optimizers.schedules.ExponentialDecay:
    """Grow from `low` at step 0 to `high` at step ``n_steps - 1``, by the same factor at each step."""
    return keras.optimizers.schedules.ExponentialDecay(low, decay_steps=max(n_steps - 1, 1), decay_rate=high / low)
