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
    own ``CosineDecayRestarts`` restarts for ever, and never at another rate than it multiplies.

    Parameters
    ----------
    rates : sequence of float
        With which each period begins.
    lengths : sequence of int
        Of the periods, in steps; behind them the last rate stays.
    """

    def __init__(self, rates: list[float], lengths: list[int]) -> None:
        super().__init__()
        self.rates, self.lengths = [float(rate) for rate in rates], [int(length) for length in lengths]

    def __call__(self, step: Any) -> Any:
        """The learning rate of `step` (0-based)."""
        ends = np.cumsum(self.lengths)
        step = keras.ops.minimum(keras.ops.cast(step, "float32"), float(ends[-1] - 1))
        period = keras.ops.sum(keras.ops.cast(step >= ends[:-1].astype("float32"), "int32"))
        rate, start, length = (
            keras.ops.take(keras.ops.convert_to_tensor(np.asarray(values, "float32")), period)
            for values in (self.rates, ends - self.lengths, self.lengths)
        )
        return rate * (1 + keras.ops.cos(math.pi * (step - start) / length)) / 2

    def get_config(self) -> dict[str, Any]:
        """What makes it again."""
        return {"rates": self.rates, "lengths": self.lengths}


def restarts(settings: Settings, steps_per_epoch: int) -> Restarts:
    """Periods of `restart_epochs`, each `restart_growth` times the one before, and `restarts` times a new start.

    A new start is at `learning_rate`, or drawn, with `seed`, from the logarithmic range `restart_low` to
    `restart_high`. The last period lasts to the end of the training, where the growth doesn't make it longer.
    """
    rng = np.random.default_rng(settings["seed"])
    low, high = settings["restart_low"], settings["restart_high"]
    n_steps = settings["epochs"] * steps_per_epoch
    rates: list[float] = []
    lengths: list[int] = []
    while sum(lengths) < n_steps and len(lengths) <= settings["restarts"]:  # none begins behind the training
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if rates and low is not None else None
        rates.append(settings["learning_rate"] if drawn is None else drawn)
        epochs = max(1, round(settings["restart_epochs"] * settings["restart_growth"] ** len(lengths)))
        lengths.append(epochs * steps_per_epoch)
    lengths[-1] = max(lengths[-1], n_steps - sum(lengths[:-1]))
    return Restarts(rates, lengths)


def learning_rate(settings: Settings, steps_per_epoch: int) -> tuple[Any, list[keras.callbacks.Callback]]:
    """What the optimizer takes as its learning rate, and the callbacks that change it, for ``settings["schedule"]``.

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
    """From `low` at step 0 to `high` at step ``n_steps - 1``, by the same factor at each step."""
    return keras.optimizers.schedules.ExponentialDecay(low, decay_steps=max(n_steps - 1, 1), decay_rate=high / low)
