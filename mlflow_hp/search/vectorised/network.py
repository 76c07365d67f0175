"""Network: the architecture that members of one vectorised training share, read from a compiled Keras model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp._compat.keras import compile_arguments, has_variable_learning_rate
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp.search.speedups.model_signature import NotShareableError, checked_parts, compiled_key, layer_key
from mlflow_hp.search.vectorised.layers import StepContext, rule_of
from mlflow_hp.search.vectorised.members import Member, NotVectorisableError
from mlflow_hp.search.vectorised.objectives import read_objectives
from mlflow_hp.search.vectorised.optimizers import optimizer_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.search.vectorised.layers import LayerRule
    from mlflow_hp.search.vectorised.objectives import Objectives
    from mlflow_hp.search.vectorised.optimizers import OptimizerRule

LAYER_SETTINGS = ("rate", "seed", "scale")
SHARED_SETTINGS = ("learning_rate", "weight_decay")


class VariableSpec(NamedTuple):
    """A variable of a network: its shape, the index of its layer (0-based), and whether it is trained."""

    shape: tuple[int, ...]
    layer: int
    is_trained: bool


class Network:
    """A chain of layers with loss, metrics and optimizer, without weights and without numbers that members vary.

    Attributes
    ----------
    key : hashable
        Equal for networks that compute the same.
    layers : list of LayerRule
    variables : list of VariableSpec
        Variables of all layers, in the order of the layers; without those of random generators.
    optimizer : OptimizerRule
    objectives : Objectives
    input_shape, target_shape : tuple of int
        Shapes of one row; targets of a single number have the shape (1,) where the outputs have.
    input_dtype : str
    """

    def __init__(
        self,
        key: Any,
        layers: Sequence[LayerRule],
        variables: Sequence[VariableSpec],
        optimizer: OptimizerRule,
        objectives: Objectives,
        input_shape: tuple[int, ...],
        target_shape: tuple[int, ...],
        input_dtype: str,
    ) -> None:
        self.key = key
        self.layers = list(layers)
        self.variables = list(variables)
        self.optimizer = optimizer
        self.objectives = objectives
        self.input_shape = input_shape
        self.target_shape = target_shape
        self.input_dtype = input_dtype

    def outputs(self, x: Any, weights: Sequence[Any], batch: StepContext) -> tuple[Any, dict[int, Any]]:
        """Compute the outputs of all members, and the new values of variables that layers change, by index."""
        changed: dict[int, Any] = {}
        for index, rule in enumerate(self.layers):
            own = [number for number, variable in enumerate(self.variables) if variable.layer == index]
            settings = {
                name.removesuffix(f"/{index}"): value
                for name, value in batch.settings.items()
                if name.endswith(f"/{index}") and name.partition("/")[0] in LAYER_SETTINGS
            }
            x, new = rule.apply(x, [weights[number] for number in own], batch._replace(settings=settings))
            changed |= {own[number]: value for number, value in new.items()}
        return x, changed


def read_network(model: Any, x: np.ndarray, y: np.ndarray) -> Network:
    """Read the network of a compiled and built Keras model.

    Parameters
    ----------
    model : keras.Model
        A chain of layers: Sequential, or functional without branches.
    x, y : ndarray
        Data as ``model.fit`` takes it; only their shapes matter.

    Raises
    ------
    NotVectorisableError
        If a part of the model has no rule; the message names it.
    """
    try:
        checked_parts(model)
        compiled = compile_arguments(model)
        compiled.pop("optimizer", None)
        compiled_as = compiled_key(compiled)
        layers = _chain(model)
        rules = [rule_of(layer, layer_key(layer)) for layer in layers]
        target_shape = (1,) if y.ndim == 1 and model.output_shape[1:] == (1,) else y.shape[1:]
        objectives = read_objectives(compiled, 1 + len(target_shape), model.output_shape)
    except (NotShareableError, UnsupportedVersionError) as error:
        raise NotVectorisableError(str(error)) from error
    if model.steps_per_execution != 1 and compiled.get("steps_per_execution") not in (None, 1, "auto"):
        raise NotVectorisableError(f"compile has steps_per_execution={model.steps_per_execution}")
    if x.shape[1:] != model.input_shape[1:]:
        raise NotVectorisableError(f"rows of shape {x.shape[1:]} are not the model's {model.input_shape[1:]}")
    variables = [
        VariableSpec(tuple(variable.shape), index, any(variable is each for each in layer.trainable_variables))
        for index, layer in enumerate(layers)
        for variable in _variables(layer)
    ]
    if not any(variable.is_trained for variable in variables):
        raise NotVectorisableError("the model has no variable to train")
    optimizer = optimizer_rule(model.optimizer)
    data = tuple(x.shape[1:]), tuple(target_shape), str(model.inputs[0].dtype)
    key = tuple(rule.key for rule in rules), tuple(variables), optimizer.key, compiled_as, data
    return Network(key, rules, variables, optimizer, objectives, *data)


def member_of(
    model: Any,
    network: Network,
    rows: np.ndarray,
    *,
    batch_size: int,
    epochs: int,
    order: np.ndarray | None = None,
    validation_rows: np.ndarray | None = None,
) -> Member:
    """Make the member that trains as a Keras model would: from its weights, with its optimizer's numbers.

    Parameters
    ----------
    model : keras.Model
        Untrained, with the architecture of `network`.
    network : Network
    rows, batch_size, epochs, order, validation_rows
        As in `Member`.

    Raises
    ------
    NotVectorisableError
        If the learning rate follows a schedule, or a regularizer has no rule.
    """
    settings: dict[str, Any] = {}
    if not has_variable_learning_rate(model.optimizer):
        raise NotVectorisableError("the learning rate follows a schedule")
    for name in (*SHARED_SETTINGS, *network.optimizer.settings):
        value = getattr(model.optimizer, name)
        settings[name] = 0.0 if value is None else float(value)
    weights: list[np.ndarray] = []
    for index, layer in enumerate(_chain(model)):
        rule = rule_of(layer, None)
        settings |= {f"{name}/{index}": value for name, value in rule.settings.items()}
        for variable in _variables(layer):
            settings |= _penalties(variable, len(weights))
            weights.append(variable.numpy())
    return Member(weights, settings, np.asarray(rows), int(batch_size), int(epochs), order, validation_rows)


def assign_weights(model: Any, weights: Sequence[np.ndarray]) -> None:
    """Set the variables of a model to the weights of a member."""
    variables = [variable for layer in _chain(model) for variable in _variables(layer)]
    for variable, value in zip(variables, weights, strict=True):
        variable.assign(value)


def _chain(model: Any) -> list[Any]:
    """Layers of a model that is a chain of them, without its input."""
    import keras

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or not layers:
        raise NotVectorisableError("the model has several inputs or outputs")
    tensor = model.inputs[0]
    for layer in layers:
        if isinstance(layer, keras.Model):
            raise NotVectorisableError("the model has a model as a layer")
        if layer.input is not tensor:
            raise NotVectorisableError("the layers are no chain")
        tensor = layer.output
    if tensor is not model.outputs[0]:
        raise NotVectorisableError("the layers are no chain")
    return layers


def _variables(layer: Any) -> list[Any]:
    """Variables of a layer without the state of a random generator."""
    generator = getattr(layer, "seed_generator", None)
    return [each for each in layer.variables if generator is None or each is not generator.state]


def _penalties(variable: Any, index: int) -> dict[str, float]:
    """Factors of a variable's regularizer."""
    regularizer = variable.regularizer
    if regularizer is None:
        return {}
    if type(regularizer).__name__ not in ("L1", "L2", "L1L2") or not type(regularizer).__module__.startswith("keras."):
        raise NotVectorisableError(f"the regularizer {type(regularizer).__name__} has no rule")
    return {f"{kind}/{index}": float(getattr(regularizer, kind, 0.0)) for kind in ("l1", "l2")}
