"""atlas: thousands of descents of one network over two hyperparameters, trained at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mlflow_hp._notice import warn
from mlflow_hp.analysis.atlas import Atlas, in_row, outcome
from mlflow_hp.errors import UserError
from mlflow_hp.plots.atlas import atlas_info, draw_atlas
from mlflow_hp.run_page.atlas_document import atlas_document
from mlflow_hp.terminal import count, is_live
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.artifact_paths import ATLAS_DOCUMENT, ATLAS_FILE
from mlflow_hp.tracking.random_names import names_drawn_apart
from mlflow_hp.tracking.tags import DESCRIPTION_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import mlflow

    from mlflow_hp.search.vectorised import Member, Network, TrainedMember

DROPOUT = "dropout"
"""Axis for the rates of all dropout layers."""
OF_MEMBER = ("batch_size", "epochs")
"""Axes that are no settings of the optimizer or a layer."""
CURVE_POINTS = 60
"""Most points of a descent in the document."""


def atlas(
    build: Callable[[], Any],
    x: Any,
    y: Any,
    axes: Mapping[str, Any],
    *,
    seeds: int = 5,
    epochs: int = 10,
    batch_size: int = 32,
    validation_split: float = 0.2,
    log: bool = True,
    progress: bool = True,
) -> Atlas:
    """Map how trainings end over two hyperparameters: which crawl, are good, oscillate or diverge.

    All combinations are trained with each seed, thousands at once in one compiled program, each as Keras would train
    it alone up to the order of floating-point sums. The valley of the best learning rates is fitted as a power of the
    other hyperparameter: with the batch size, whether linear or square-root scaling holds.

    Parameters
    ----------
    build : callable
        Returns a compiled Keras model: a chain of layers that have a rule for many members, with SGD, RMSprop or
        Adam. It is called once for each seed, for the initial weights.
    x, y : array_like
        Inputs and targets as for ``model.fit``.
    axes : mapping of str to array_like
        Two hyperparameters and their values: ``"learning_rate"``, ``"batch_size"``, ``"epochs"``, ``"momentum"``,
        ``"weight_decay"``, ``"dropout"``, or another number of the optimizer. The first is the horizontal axis.
    seeds : int
        Trainings of each combination, with other initial weights and other orders of the rows. Defaults to 5.
    epochs, batch_size : int
        Of all trainings, unless they are an axis. Default to 10 and 32.
    validation_split : float
        Share of the rows, drawn at random once, whose loss judges the trainings; 0 to judge by the training loss.
        Defaults to 0.2.
    log : bool
        Whether to log picture, document and numbers into the active run, or a new one. Defaults to True.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Returns
    -------
    Atlas
        Losses, outcomes, ``valley`` and ``sentences()``.

    Raises
    ------
    UserError
        If there are not two axes, one is unknown or has a value that cannot be, or the model has a part without a rule.

    Examples
    --------
    >>> import keras, mlflow_hp, numpy as np
    >>> def build():
    ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    ...     model.compile(keras.optimizers.SGD(), "sparse_categorical_crossentropy")
    ...     return model
    >>> x, y = np.random.default_rng(0).random((60, 3)), np.arange(60) % 2
    >>> axes = {"learning_rate": [0.01, 0.1, 1.0], "batch_size": [10, 20]}
    >>> mlflow_hp.atlas(build, x, y, axes, seeds=2, epochs=2, log=False, progress=False).loss.shape
    (2, 3, 2)
    """
    (x_name, x_values), (y_name, y_values) = _axes(axes)
    for name, value in (("seeds", seeds), ("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name}={value!r} is no number of them: give a whole number from 1 on")
    if not 0 <= validation_split < 1:
        raise UserError(f"validation_split={validation_split!r} is no share of the rows: give 0 to below 1")
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise UserError(f"x has {count(len(x), 'row')} and y {len(y)}: pass a target for each row")
    rows = np.random.default_rng(0).permutation(len(x))
    n_valid = round(len(x) * validation_split)
    if n_valid == len(x) or not len(x):
        raise UserError(f"{count(len(x), 'row')} leave none to train on with validation_split={validation_split}")
    network, starts = _starts(build, x, y, rows[n_valid:], rows[:n_valid], seeds, batch_size, epochs)
    settings = _settings_of(starts[0], (x_name, y_name))
    with _run(log) as run:
        n = len(y_values) * len(x_values) * seeds
        with tqdm(total=n, desc="atlas", unit=" descents", disable=not (progress and is_live())) as bar:
            rows_of_descents = []
            for y_value in y_values:
                members = [
                    _member(start, {x_name: x_value, y_name: y_value}, settings)
                    for x_value in x_values
                    for start in starts
                ]
                rows_of_descents.append(_descents(network, members, x, y, bar.update))
        mapped, curves = _mapped(x_name, x_values, y_name, y_values, seeds, rows_of_descents)
        if run is not None:
            params = {"seeds": seeds, "epochs": epochs, "batch_size": batch_size, "validation_split": validation_split}
            try:
                _log(run.info.run_id, mapped, curves, {name: v for name, v in params.items() if name not in axes})
            except Exception as error:  # noqa: BLE001 - what was computed is returned
                warn(f"the atlas is not logged in full into run {run.info.run_id}: {type(error).__name__}: {error}")
    return mapped


def _axes(axes: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    if not hasattr(axes, "items") or len(axes) != 2:
        raise UserError(f"axes={axes!r:.200} has to name two hyperparameters, each with its values")
    checked = []
    for name, values in axes.items():
        try:
            numbers = np.unique(np.asarray(list(values), np.float64))
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if len(numbers) < 2 or not np.isfinite(numbers).all():
            raise UserError(f"axes: {name}={values!r:.100} has to be two or more different numbers")
        kind, is_allowed = _allowed(name)
        if not is_allowed(numbers).all():
            raise UserError(f"axes: {name}={values!r:.100}: all values have to be {kind}")
        checked.append((str(name), numbers))
    return checked


def _allowed(name: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Say which values an axis may have: in words, and as a function that tells for each value.

    A number that single precision does not hold would be another one in the training: 0, or infinite.
    """
    smallest, largest = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    if name in OF_MEMBER:
        return "whole numbers from 1 to 2**31 - 1", lambda n: (n >= 1) & (n % 1 == 0) & (n < 2**31)
    if name == DROPOUT:
        return "from 0 to below 1", lambda n: (n >= 0) & (n < 1) & ((n == 0) | (n >= smallest))
    if name == "learning_rate":
        return f"from {smallest:.2g} to {largest:.2g}; with 0 nothing is trained", (
            lambda n: (n >= smallest) & (n <= largest)
        )
    return f"0, or from {smallest:.2g} to {largest:.2g}", (lambda n: (n == 0) | ((n >= smallest) & (n <= largest)))


def _starts(
    build: Callable[[], Any],
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    validation_rows: np.ndarray,
    seeds: int,
    batch_size: int,
    epochs: int,
) -> tuple[Network, list[Member]]:
    """Network, and the start of a training with each seed."""
    import keras

    from mlflow_hp.search.vectorised import NotVectorisableError, member_of, read_network

    starts: list[Member] = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model = build()
        if not isinstance(model, keras.Model) or model.optimizer is None:
            raise UserError(f"build returned {model!r:.100}, not a compiled Keras model")
        try:
            network = read_network(model, x, y)
            start = member_of(model, network, rows, batch_size=batch_size, epochs=epochs)
        except NotVectorisableError as error:
            raise UserError(f"an atlas of this model cannot be trained: {error}") from error
        rng = np.random.default_rng(seed)
        order = np.stack([rng.permutation(len(rows)) for _ in range(max(epochs, 32))])
        starts.append(start._replace(order=order, validation_rows=validation_rows if len(validation_rows) else None))
    return network, starts


def _settings_of(start: Member, names: tuple[str, str]) -> dict[str, list[str]]:
    """Settings of a member that each axis sets."""
    settings: dict[str, list[str]] = {}
    for name in names:
        prefix = "rate/" if name == DROPOUT else None
        own = [each for each in start.settings if each == name or (prefix and each.startswith(prefix))]
        if not own and name not in OF_MEMBER:
            known = sorted({*OF_MEMBER, *(each for each in start.settings if "/" not in each)})
            known += [DROPOUT] if any(each.startswith("rate/") for each in start.settings) else []
            raise UserError(f"axes: the model has no {name}; it has {', '.join(known)}")
        settings[name] = own
    return settings


def _member(start: Member, values: Mapping[str, float], settings: Mapping[str, list[str]]) -> Member:
    whole: dict[str, Any] = {name: int(value) for name, value in values.items() if name in OF_MEMBER}
    own = {each: float(value) for name, value in values.items() for each in settings[name]}
    return start._replace(settings={**start.settings, **own}, **whole)


Descent = tuple[np.ndarray, np.ndarray, float]
"""Loss by step and by epoch, and the last validation loss (nan without one)."""


def _descents(
    network: Network, members: list[Member], x: np.ndarray, y: np.ndarray, on_trained: Callable[[], object]
) -> list[Descent]:
    from mlflow_hp.search.vectorised import train

    def count_one(_: int, __: TrainedMember) -> None:
        on_trained()

    trained = train(network, members, x, y, on_trained=count_one)
    return [
        (each.losses, each.epochs["loss"], float(each.epochs["val_loss"][-1]) if "val_loss" in each.epochs else np.nan)
        for each in trained
    ]


def _mapped(
    x_name: str, x: np.ndarray, y_name: str, y: np.ndarray, seeds: int, rows_of_descents: list[list[Descent]]
) -> tuple[Atlas, np.ndarray]:
    """Atlas of descents, and their shortened curves, shape (n_y, n_x, n_seeds, n_points)."""
    shape = len(y), len(x), seeds
    descents = [descent for row in rows_of_descents for descent in row]
    n_epochs = max(len(epochs) for _, epochs, _ in descents)
    by_epoch = np.stack([np.pad(e, (0, n_epochs - len(e)), constant_values=np.nan) for _, e, _ in descents])
    with np.errstate(all="ignore"):
        outcomes = np.array([outcome(losses, epochs) for losses, epochs, _ in descents], np.int8).reshape(shape)
    last = np.array([epochs[-1] for _, epochs, _ in descents]).reshape(shape)
    validated = np.array([value for _, _, value in descents]).reshape(shape)
    has_validation = bool(np.isfinite(validated).any())
    curves = np.stack([_shortened(losses) for losses, _, _ in descents])
    return (
        Atlas(
            x_name, y_name, x, y, by_epoch.reshape(*shape, n_epochs), validated if has_validation else last,
            in_row(outcomes, last, x_is_rate=x_name == "learning_rate"), "val_loss" if has_validation else "loss",
        ),
        curves.reshape(*shape, -1),
    )  # fmt: skip


def _shortened(losses: np.ndarray) -> np.ndarray:
    """Means over ``CURVE_POINTS`` parts of a curve of about equal length."""
    edges = np.linspace(0, len(losses), CURVE_POINTS + 1)
    lows = np.minimum(edges[:-1].astype(int), len(losses) - 1)
    highs = np.maximum(edges[1:].astype(int), lows + 1)
    return np.array([losses[low:high].mean() for low, high in zip(lows, highs, strict=True)], np.float32)


@contextlib.contextmanager
def _run(log: bool) -> Iterator[mlflow.entities.Run | None]:
    """Yield the run to log into: the active one, or one that is started for the block; None without logging."""
    import mlflow

    if not log:
        yield None
    elif (active := mlflow.active_run()) is not None:
        yield active
    else:
        runs.ensure_reachable()
        with names_drawn_apart():
            run = mlflow.start_run(tags=runs.run_tags("atlas"))
        with run:
            try:
                yield run
            except KeyboardInterrupt:
                mlflow.end_run("KILLED")
                raise


def _log(run_id: str, mapped: Atlas, curves: np.ndarray, params: Mapping[str, Any]) -> None:
    """Log the atlas: numbers, picture, document, and a description if there is none."""
    import mlflow

    from mlflow_hp.training.report import Report

    lowest, sentences = mapped.valley, mapped.sentences()
    client = mlflow.MlflowClient()
    axes = {mapped.x_name: _axis_text(mapped.x), mapped.y_name: _axis_text(mapped.y)}
    runs.log_once(client.get_run(run_id), {**axes, **params})
    metrics = {f"share_{name}": share for name, share in mapped.shares.items()}
    metrics |= {"valley_exponent": lowest.slope, "valley_exponent_low": lowest.low, "valley_exponent_high": lowest.high}
    for name, value in metrics.items():
        if np.isfinite(value):
            client.log_metric(run_id, name, value)
    if DESCRIPTION_TAG not in client.get_run(run_id).data.tags:
        client.set_tag(run_id, DESCRIPTION_TAG, "\n".join(f"- {sentence}" for sentence in sentences))
    with Report(run_id) as report:
        report.picture("atlas", draw_atlas(atlas_info(mapped, lowest)))
        report.file(ATLAS_DOCUMENT).write_text(atlas_document(mapped, lowest, curves, sentences), encoding="utf-8")
        np.savez_compressed(report.file(ATLAS_FILE), curves=curves, **mapped._asdict())


def _axis_text(values: np.ndarray) -> str:
    return f"{count(len(values), 'value')} from {values[0]:.4g} to {values[-1]:.4g}"
