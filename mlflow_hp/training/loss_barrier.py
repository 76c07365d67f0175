"""The loss between the ends of two recorded trainings: on the straight line, with hidden units aligned, on a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from mlflow_hp.analysis.diagnosis.program.graph import NOISE, applied_activation
from mlflow_hp.analysis.surfaces.barrier import Barrier
from mlflow_hp.analysis.surfaces.plane import WeightPlane, match_tensors
from mlflow_hp.analysis.surfaces.weight_matching import match_units, n_moved, permute_units
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.training.barrier_log import ensure_loggable, log_barrier
from mlflow_hp.training.capture.step_layout import tensors_of, to_numpy
from mlflow_hp.training.connecting_curve import train_bend
from mlflow_hp.training.permutable_units import UnknownArchitectureError, permutable_axes
from mlflow_hp.training.plane_losses import PlaneLosses, variables_like
from mlflow_hp.training.program_description import describe_program
from mlflow_hp.training.run_weights import RunEnd, logged_model, run_end
from mlflow_hp.training.stateless_loss import batch_normalizations, draw_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.surfaces.plane import Weights
    from mlflow_hp.analysis.surfaces.weight_matching import Permutations
    from mlflow_hp.history import Snapshots

SAME_LOSS = 1e-3
"""Relative difference of the losses of a network and of its permuted copy that is rounding."""


def barrier(
    run_a: str | Snapshots,
    run_b: str | Snapshots,
    model: Any = None,
    x: Any = None,
    y: Any = None,
    *,
    align: bool = True,
    curve_steps: int = 2000,
    n_points: int = 31,
    n_samples: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    log: bool = False,
    tracking_uri: str | None = None,
    progress: bool = True,
) -> Barrier:
    """Compute the loss between the ends of two trainings of one architecture.

    On the straight line between the recorded weights; on the line after the hidden units of the second network were
    permuted to match those of the first (weight matching, Ainsworth et al. 2022, algorithm 1), which keeps its
    function; and on a quadratic Bezier curve between the recorded weights, whose one control point is trained (Garipov
    et al. 2018, section 3). The loss is that of ``model.evaluate``; layers of batch normalisation use the statistics of
    the drawn rows at each point, since those of the runs do not fit to weights between them.

    Parameters
    ----------
    run_a, run_b : str or Snapshots
        Ids of two runs, whose last fit was recorded with ``snapshot_megabytes``, with ``weights="all"`` or with
        ``autolog(log_models=True)``; or snapshots, such as from `load_snapshots` with another tracking URI.
    model : keras.Model, optional
        Compiled, of the runs' architecture; it is not modified, and its trainable weights do not matter. Weights that
        are not trained are used as they are. Defaults to the model that was logged to one of the runs.
    x, y : array_like, or nested structures of them
        Inputs and targets, as for ``model.evaluate``: those of the training, since the curve is trained on them.
        Needed; they default to None, as no run records its data.
    align : bool
        Whether to permute hidden units. Defaults to True.
    curve_steps : int
        Steps of Adam that the curve is trained for, on TensorFlow; 0 leaves the curve out. Defaults to 2000.
    n_points : int
        Positions from end to end, both included. Defaults to 31.
    n_samples : int
        Number of rows, drawn by `seed`, that the loss is the mean of; all if there are no more. Defaults to 2000.
    batch_size : int
        Rows of each step of the curve's training, from all rows. Defaults to 128.
    seed : int
        Seed for drawing rows and positions, and for the order of layers in alignment. Defaults to 0.
    log : bool
        Whether to log the result to both runs, as ``barriers/<id of the other run>.json``: the page of either shows it
        then. Needs their ids. Defaults to False.
    tracking_uri : str, optional
        Tracking store of the runs. Defaults to the current tracking URI.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Returns
    -------
    Barrier
        Losses and heights of the barriers, for `mlflow_hp.plots.barrier_info`; `alignment` says why alignment was left
        out, as for networks that are no chain of known layers.

    Raises
    ------
    UserError
        If a run does not exist or holds no weights, the architectures differ, weights or losses of an end are not
        finite, there is no model or no data, the model is not compiled, an argument is out of range, a curve is
        wanted on another backend, or the result is to be logged to snapshots.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> def trained(seed):
    ...     keras.utils.set_random_seed(seed)
    ...     model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.Adam(0.05), "mse")
    ...     recorder = mlflow_hp.TrainingRecorder(report=False, snapshot_megabytes=1)
    ...     with mlflow.start_run() as run:
    ...         _ = model.fit(x, x**2, epochs=5, verbose=0, callbacks=[recorder])
    ...     return model, run.info.run_id
    >>> (model, first), (_, second) = trained(1), trained(2)
    >>> between = mlflow_hp.barrier(first, second, model, x, x**2, curve_steps=50, progress=False)
    >>> between.line.shape, list(between.metrics())
    ((31,), ['barrier/line', 'barrier/aligned', 'barrier/curve'])
    """
    _check_arguments(x, y, n_points, curve_steps)
    if log:
        ensure_loggable(run_a, run_b)
    ends = _with_distinct_titles([run_end(run_a, tracking_uri, "run_a"), run_end(run_b, tracking_uri, "run_b")],
                                 [run_a, run_b])  # fmt: skip
    weights = _common_weights(ends)
    model = model if model is not None else _model_of(ends, [run_a, run_b], tracking_uri)
    titles = (ends[0].title, ends[1].title)
    shapes = {name: values.shape for name, values in weights[0].items()}
    variables = variables_like(model, shapes, f"run {titles[0]!r}")
    normalizations = batch_normalizations(model)
    _check_layers(ends, model)
    _check_others(ends, model, normalizations)
    rows = draw_rows(x, y, n_samples=n_samples, batch_size=None if normalizations else 1024, seed=seed)
    alignment = _align(model, variables, weights, titles[1], seed) if align else _Alignment("left out on request")
    with tqdm(
        desc="curve", total=curve_steps, unit=" steps", leave=False, disable=not (progress and curve_steps)
    ) as bar:
        bend = None
        if curve_steps:
            first, second = (list(side.values()) for side in weights)
            values = train_bend(model, variables, first, second, x, y, steps=curve_steps, batch_size=batch_size,
                                seed=seed, normalizations=normalizations, progress=bar.update)  # fmt: skip
            bend = dict(zip(shapes, values, strict=True))
    t = np.linspace(0, 1, n_points)
    straight = np.stack([t, 0 * t], axis=1)
    curved = np.stack([t**2, 2 * t * (1 - t)], axis=1)

    def losses(second: Weights, third: Weights, points: np.ndarray) -> np.ndarray:
        first = weights[0]
        directions = ({n: second[n] - first[n] for n in first}, {n: third[n] - first[n] for n in first})
        plane = WeightPlane(first, directions, "principal", None)
        return PlaneLosses(model, plane, variables, rows, normalizations=normalizations)(points)

    points = straight if bend is None else np.concatenate([straight, curved])
    line, curve = np.split(losses(weights[1], bend or weights[0], points), [n_points])
    _check_ends(titles, line)
    aligned = None
    if alignment.weights is not None:
        aligned = losses(alignment.weights, weights[0], straight)
        if not np.isclose(aligned[-1], line[-1], rtol=SAME_LOSS, atol=1e-6):
            alignment = _Alignment("left out: the permuted network has another loss, so one of its layers does not "
                                   "treat all units alike")  # fmt: skip
            aligned = None
    between = Barrier(
        t, line, aligned, None if bend is None else curve, titles, rows.n, curve_steps, alignment.text,
        f"statistics of {count(rows.n, 'row')} at each point" if normalizations else "",
        alignment.permutations, alignment.weights, bend, (ends[0].source, ends[1].source),
    )  # fmt: skip
    if log:
        log_barrier(between, (str(run_a), str(run_b)), tracking_uri)
    return between


class _Alignment(NamedTuple):
    """Permuted weights of the second end, and a text; None and the reason if it was left out."""

    text: str
    weights: Weights | None = None
    permutations: Permutations = {}  # noqa: RUF012


def _align(model: Any, variables: Sequence[Any], weights: list[Weights], title: str, seed: int) -> _Alignment:
    names = {id(variable): name for variable, name in zip(variables, weights[0], strict=True)}
    try:
        axes = permutable_axes(model, names)
    except UnknownArchitectureError as error:
        return _Alignment(f"left out: {error}")
    if not any(axis for of_tensor in axes.values() for axis in of_tensor):
        return _Alignment("left out: the model has no hidden units that are trained")
    permutations = match_units(weights[0], weights[1], axes, seed)
    moved, n = n_moved(permutations)
    text = f"{moved:,} of {n:,} hidden units of {title} change their places"
    return _Alignment(text, permute_units(weights[1], axes, permutations), permutations)


def _check_arguments(x: Any, y: Any, n_points: int, curve_steps: int) -> None:
    if x is None or y is None:
        raise UserError("no data: a run records no inputs and targets; give x= and y=, as for model.evaluate")
    if n_points < 3:
        raise UserError(f"n_points={n_points} leaves no point between the ends; give 3 or more")
    if curve_steps < 0:
        raise UserError(f"curve_steps={curve_steps} is negative; give 0 for no curve, or a number of steps")
    if curve_steps and keras.backend.backend() != "tensorflow":
        raise UserError(
            f"the backend {keras.backend.backend()!r} is not supported for the curve, which TensorFlow trains; give "
            "curve_steps=0, or set KERAS_BACKEND=tensorflow"
        )


def _with_distinct_titles(ends: list[RunEnd], runs: Sequence[str | Snapshots]) -> list[RunEnd]:
    if ends[0].title != ends[1].title:
        return ends
    return [
        end._replace(title=f"{end.title} ({run[:8] if isinstance(run, str) else number})")
        for number, (end, run) in enumerate(zip(ends, runs, strict=True), start=1)
    ]


def _common_weights(ends: list[RunEnd]) -> list[Weights]:
    """Trainable weights of both ends, float64, with the names of the first."""
    first, second = ends
    shapes = [{name: values.shape for name, values in end.trained.items()} for end in ends]
    if not shapes[0]:
        raise UserError(f"run {first.title!r} has no trainable weights; make a layer trainable")
    names = match_tensors(shapes[0], shapes[1], (f"run {first.title!r}", f"run {second.title!r}"))
    return [
        {name: first.trained[name].astype(np.float64) for name in names},
        {name: second.trained[other].astype(np.float64) for name, other in names.items()},
    ]


def _model_of(ends: list[RunEnd], runs: Sequence[str | Snapshots], tracking_uri: str | None) -> Any:
    """Return the model that was logged to one of the runs."""
    for end, run in zip(ends, runs, strict=True):
        model = end.model or (logged_model(run, tracking_uri) if isinstance(run, str) else None)
        if model is not None:
            return model
    raise UserError(
        "neither run has a logged model to compute the loss with; give model=, compiled and of their architecture, or "
        "record with autolog(log_models=True)"
    )


def _check_layers(ends: list[RunEnd], model: Any) -> None:
    """Raise if kinds or activations of the layers differ between runs and model, as far as they were recorded."""
    programs = [(f"run {end.title!r}", end.program) for end in ends if end.program and end.program.layers]
    programs.append(("the model", describe_program(model, {}, {})))
    described = [
        (title, [(layer.kind, applied_activation(layer)) for layer in program.layers if layer.kind not in NOISE])
        for title, program in programs
    ]
    (title, layers), *others = described
    for other, of_other in others:
        if layers != of_other:
            raise UserError(f"{title} and {other} differ in their layers ({_difference(layers, of_other)}); they must "
                            "be of one architecture")  # fmt: skip


def _difference(layers: list[tuple[str, str]], others: list[tuple[str, str]]) -> str:
    def text(each: tuple[str, str]) -> str:
        return f"{each[0]} {each[1]}".strip()

    for number, (layer, other) in enumerate(zip(layers, others, strict=False), start=1):
        if layer != other:
            return f"layer {number}: {text(layer)} and {text(other)}"
    return f"{len(layers)} and {count(len(others), 'layer')}"


def _check_others(ends: list[RunEnd], model: Any, normalizations: Sequence[Any]) -> None:
    """Raise if weights that are not trained were recorded, and are not those of the model."""
    recomputed = {id(variable) for layer in normalizations for variable in layer.non_trainable_weights}
    tensors = [(t, v) for t, v in zip(tensors_of(model), model.weights, strict=True) if not t.trainable]
    for end in ends:
        if len(end.others) != len(tensors):
            continue
        for recorded, (tensor, variable) in zip(end.others.values(), tensors, strict=True):
            if id(variable) in recomputed:
                continue
            if recorded.shape != tensor.shape or not np.allclose(recorded, to_numpy(variable), rtol=1e-5):
                raise UserError(
                    f"the weights {tensor.name!r}, which are not trained, are others in run {end.title!r} than in the "
                    "model; set them in model= to those of the runs, which need to have the same"
                )


def _check_ends(titles: tuple[str, str], line: np.ndarray) -> None:
    for title, loss in zip(titles, (line[0], line[-1]), strict=True):
        if not np.isfinite(loss):
            raise UserError(f"the loss at the end of run {title!r} is {loss}: x and y are not finite, or of another "
                            "scale than in its training; give the data as the training got them")  # fmt: skip
