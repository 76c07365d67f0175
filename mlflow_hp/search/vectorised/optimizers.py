"""Rules for optimizers: Keras' updates for many members at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.vectorised.members import NotVectorisableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class OptimizerRule(NamedTuple):
    """Update of an optimizer for many members.

    Attributes
    ----------
    key : tuple
        What it depends on besides its settings.
    settings : tuple of str
        Names of its numbers, in which members may differ.
    slots : callable
        ``slots(settings)`` names the arrays that it keeps next to the weights, given the names of settings that are not
        0 for all members.
    update : callable
        ``update(weights, gradient, slots, settings, step)`` returns the new weights and slots, all of shape
        (n_members, n_weights). Settings and `step`, the number of steps before, have the shape (n_members, 1).
    """

    key: tuple[Any, ...]
    settings: tuple[str, ...]
    slots: Callable[[Any], tuple[str, ...]]
    update: Callable[[Any, Any, dict[str, Any], Mapping[str, Any], Any], tuple[Any, dict[str, Any]]]


def optimizer_rule(optimizer: Any) -> OptimizerRule:
    """Return the rule for an optimizer of Keras.

    Raises
    ------
    NotVectorisableError
        If there is none.
    """
    name = type(optimizer).__name__
    if not type(optimizer).__module__.startswith("keras.") or name not in ("SGD", "Adam", "AdamW", "RMSprop"):
        raise NotVectorisableError(f"the optimizer {name} has no rule")
    for setting in ("clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps"):
        if getattr(optimizer, setting, None):
            raise NotVectorisableError(f"the optimizer has {setting}={getattr(optimizer, setting)!r}")
    if getattr(optimizer, "loss_scale_factor", None):
        raise NotVectorisableError("the optimizer scales the loss")
    if name == "SGD":
        nesterov = bool(optimizer.nesterov)
        return OptimizerRule(
            (name, nesterov),
            ("momentum",),
            lambda active: ("momentum",) if "momentum" in active else (),
            _sgd(nesterov),
        )
    if name == "RMSprop":
        if optimizer.centered:
            raise NotVectorisableError("the optimizer RMSprop is centered")
        return OptimizerRule(
            (name,),
            ("momentum", "rho", "epsilon"),
            lambda active: ("velocity", "momentum") if "momentum" in active else ("velocity",),
            _rmsprop,
        )
    if optimizer.amsgrad:
        raise NotVectorisableError(f"the optimizer {name} has amsgrad")
    return OptimizerRule(("Adam",), ("beta_1", "beta_2", "epsilon"), lambda _: ("momentum", "velocity"), _adam)


def _sgd(nesterov: bool) -> Any:
    def update(weight: Any, gradient: Any, slots: dict[str, Any], settings: Any, _: Any) -> tuple[Any, dict[str, Any]]:
        rate = settings["learning_rate"]
        if not slots:
            return weight - gradient * rate, {}
        momentum = settings["momentum"]
        velocity = slots["momentum"] * momentum - gradient * rate
        change = velocity * momentum - gradient * rate if nesterov else velocity
        return weight + change, {"momentum": velocity}

    return update


def _adam(weight: Any, gradient: Any, slots: dict[str, Any], settings: Any, step: Any) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    beta_1, beta_2 = settings["beta_1"], settings["beta_2"]
    alpha = settings["learning_rate"] * tf.sqrt(1 - beta_2 ** (step + 1)) / (1 - beta_1 ** (step + 1))
    momentum = slots["momentum"] + (gradient - slots["momentum"]) * settings["1 - beta_1"]
    velocity = slots["velocity"] + (tf.square(gradient) - slots["velocity"]) * settings["1 - beta_2"]
    new = weight - momentum * alpha / (tf.sqrt(velocity) + settings["epsilon"])
    return new, {"momentum": momentum, "velocity": velocity}


def _rmsprop(weight: Any, gradient: Any, slots: dict[str, Any], settings: Any, _: Any) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    rho = settings["rho"]
    velocity = rho * slots["velocity"] + settings["1 - rho"] * tf.square(gradient)
    increment = settings["learning_rate"] * gradient / tf.sqrt(velocity + settings["epsilon"])
    if "momentum" not in slots:
        return weight - increment, {"velocity": velocity}
    momentum = settings["momentum"] * slots["momentum"] + increment
    return weight - momentum, {"velocity": velocity, "momentum": momentum}
