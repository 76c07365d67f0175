"""Description of the program that was trained: its layers, losses, optimizer, callbacks, and the data that it saw.

It is read from the compiled Keras model before the first step, and from the batches of the first epoch, and stored next
to the history as ``program.json``. The rules of the diagnosis read it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROGRAM_FILE = "program.json"
"""Name of the file in the folder of the history."""
OF_FEATURES = ("mean", "std", "min", "max", "not_finite")
"""Fields of `ArrayStatistics` with a number for each feature."""


class Layer(NamedTuple):
    """Layer of the model.

    Attributes
    ----------
    name : str
        Distinct name, as in the names of its tensors.
    kind : str
        Name of its class, such as ``"Dense"``.
    inputs : tuple of str
        Names of the layers that it gets its inputs from; empty for inputs of the model, and where that is unknown.
    activation : str
        Name of its activation: ``"linear"``, ``"relu"``, ...; empty for a layer without one.
    config : dict of str to object
        Its Keras configuration: plain values, and initialisers and regularisers as ``{"name": class, ...}``.
    output_shape : tuple of int or None, or None
        Shape of its output without the axis of the batch; None if unknown.
    n_weights : int
        Number of its weights, 0 for those in layers inside it.
    trainable : bool
        Whether its weights are trained.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    activation: str = ""
    config: dict[str, Any] = {}  # noqa: RUF012
    output_shape: tuple[int | None, ...] | None = None
    n_weights: int = 0
    trainable: bool = True


class Output(NamedTuple):
    """Output of the model, with its loss and metrics.

    Attributes
    ----------
    name : str
        Name of the output.
    layer : str
        Name of the layer whose weights it comes from; empty if unknown.
    activation : str
        Activation of its values, also of an ``Activation`` layer after that layer: ``"linear"``, ``"softmax"``, ...;
        empty if unknown.
    shape : tuple of int or None, or None
        Its shape without the axis of the batch; None if unknown.
    loss : str
        Name of its loss's class, such as ``"MeanSquaredError"``, or of the function; empty if it has none.
    loss_config : dict of str to object
        Plain values of the loss's configuration, such as ``from_logits``.
    metrics : tuple of str
        Names of its metrics' classes or functions, such as ``"SparseCategoricalAccuracy"``; as resolved by Keras.
    """

    name: str
    layer: str = ""
    activation: str = ""
    shape: tuple[int | None, ...] | None = None
    loss: str = ""
    loss_config: dict[str, Any] = {}  # noqa: RUF012
    metrics: tuple[str, ...] = ()

    @property
    def units(self) -> int | None:
        """Size of its last axis; None if unknown."""
        return self.shape[-1] if self.shape else None


class Callback(NamedTuple):
    """Callback of the fit: name of its class, and the plain values among its attributes (``monitor``, ``mode``, ...).

    Attributes
    ----------
    kind : str
        Name of its class.
    config : dict of str to object
        Its plain public attributes.
    """

    kind: str
    config: dict[str, Any] = {}  # noqa: RUF012


class ArrayStatistics(NamedTuple):
    """Statistics of one array of inputs or targets over the first epoch.

    Attributes
    ----------
    name : str
        Name of the input or output; empty for the only one.
    shape : tuple of int or None
        Shape of one sample.
    dtype : str
        As the training step gets it.
    n_samples, n_batches : int
        Number of samples and batches seen.
    mean, std, min, max : tuple of float
        Of each feature, over all values that are finite; a feature is an index of the last axis, or all values together
        if the last axis has more than 4,096 or a sample is a single number.
    not_finite : tuple of float
        Share of the values of each feature that are NaN or infinite.
    is_integer : bool
        Whether all finite values are whole numbers.
    counts : dict of int to int, or None
        Of targets with one number or one-hot row for each sample: class -> number of samples; None for numbers that are
        no whole numbers from -1 to 1,023.
    is_one_hot : bool
        Whether every row has a single 1, else 0; False for an array of one column.
    is_binary : bool
        Whether all values are 0 or 1.
    one_class_batches : float or None
        Share of the batches of at least 8 samples whose samples are all of one class; None without `counts`.
    target_products : tuple of float, or None
        Of an input of at most 32 features: mean of the product of each with the target, over all samples; None unless
        there is one target with one number for each sample, and all values are finite.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    n_samples: int
    n_batches: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    not_finite: tuple[float, ...]
    is_integer: bool
    counts: dict[int, int] | None = None
    is_one_hot: bool = False
    is_binary: bool = False
    one_class_batches: float | None = None
    target_products: tuple[float, ...] | None = None


class DataStatistics(NamedTuple):
    """Statistics of training or validation data.

    Attributes
    ----------
    inputs, targets : tuple of ArrayStatistics
        In the order of the model's inputs and outputs.
    """

    inputs: tuple[ArrayStatistics, ...] = ()
    targets: tuple[ArrayStatistics, ...] = ()


class Program(NamedTuple):
    """The program that was trained. What is unknown is empty or None.

    Attributes
    ----------
    layers : tuple of Layer
        All layers with their order of computation, those in layers too; without ``InputLayer``.
    outputs : tuple of Output
        Outputs of the model.
    optimizer : dict of str to object
        Name and settings, as in the metadata of the history: ``name``, ``learning_rate``, ``momentum``, ...
    fit : dict of str to object
        ``epochs``, ``steps`` (per epoch), ``batch_size``, ``shuffle`` and ``has_validation``, as far as known.
    callbacks : tuple of Callback
        Callbacks of the user's.
    is_own_step : bool
        Whether the model has a ``train_step`` of its own, so that its loss may be any.
    training, validation : DataStatistics or None
        Statistics of the data of the first epoch.
    """

    layers: tuple[Layer, ...] = ()
    outputs: tuple[Output, ...] = ()
    optimizer: dict[str, Any] = {}  # noqa: RUF012
    fit: dict[str, Any] = {}  # noqa: RUF012
    callbacks: tuple[Callback, ...] = ()
    is_own_step: bool = False
    training: DataStatistics | None = None
    validation: DataStatistics | None = None


def to_json(program: Program) -> dict[str, Any]:
    """Convert a program to values of strict JSON; numbers that are not finite become strings.

    Parameters
    ----------
    program : Program
        Description of a program.

    Returns
    -------
    dict of str to object
        Its fields by name.
    """
    converted: dict[str, Any] = _plain(program)
    return converted


def from_json(values: Mapping[str, Any]) -> Program:
    """Convert what `to_json` returned back to a program; unknown fields are ignored.

    Parameters
    ----------
    values : mapping of str to object
        Fields by name.

    Returns
    -------
    Program
        Description of a program.
    """
    layers = tuple(_make(Layer, each) for each in values.get("layers", ()))
    outputs = tuple(_make(Output, each) for each in values.get("outputs", ()))
    callbacks = tuple(_make(Callback, each) for each in values.get("callbacks", ()))
    data = {name: _data(values[name]) for name in ("training", "validation") if values.get(name)}
    program: Program = _make(Program, {**values, "layers": (), "outputs": (), "callbacks": (), **data})
    return program._replace(layers=layers, outputs=outputs, callbacks=callbacks)


def write_program(folder: Path, program: Program) -> None:
    """Write a program next to a history, in place of an earlier one.

    Parameters
    ----------
    folder : Path
        Folder of the history.
    program : Program
        Description of a program.
    """
    temporary = folder / f"{PROGRAM_FILE}.part"
    temporary.write_text(json.dumps(to_json(program), allow_nan=False), encoding="utf-8")
    temporary.replace(folder / PROGRAM_FILE)


def read_program(folder: Path) -> Program | None:
    """Read the program next to a history; None if there is none, or it is damaged.

    Parameters
    ----------
    folder : Path
        Folder of the history.

    Returns
    -------
    Program or None
        Description of a program.
    """
    try:
        return from_json(json.loads((folder / PROGRAM_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _make(kind: Any, values: Mapping[str, Any]) -> Any:
    """Make a named tuple from its fields; lists become tuples."""
    fields = {name: value for name, value in values.items() if name in kind._fields}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def _data(values: Mapping[str, Any]) -> DataStatistics:
    return DataStatistics(*(tuple(map(_array, values.get(role, ()))) for role in DataStatistics._fields))


def _array(values: Mapping[str, Any]) -> ArrayStatistics:
    floats = {name: [float(each) for each in values[name]] for name in OF_FEATURES}  # "nan" and "inf" are strings
    array: ArrayStatistics = _make(ArrayStatistics, {**values, **floats})
    counts = array.counts
    return array if counts is None else array._replace(counts={int(key): n for key, n in counts.items()})
