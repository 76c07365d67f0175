"""Microscope: curves by step, and layers by steps, of a whole training or of a stretch of it, for one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.downsampling import downsample
from mlflow_hp.history import STATISTICS
from mlflow_hp.history.step_record import COSINE, gradient_column
from mlflow_hp.history.unit_shares import DEAD_UNITS, SATURATED_UNITS
from mlflow_hp.run_page.events import jumps, not_finite
from mlflow_hp.run_page.numbers import moving_mean, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.history import TrainingHistory

MAX_COLUMNS = 300
"""Columns of a heatmap at most."""
MAX_CELLS = 50_000
"""Cells of a heatmap at most; one of many tensors has fewer columns."""
MAX_READS = 40_000
"""Columns times chunks of the file that a heatmap is read from at most, which takes a second; beyond that, evenly
spaced stretches of the steps are read."""
STRETCH = 256
"""Steps of such a stretch, those of a chunk of the file."""
BUCKETS = 600
"""Points of a curve, in pairs of lowest and highest."""
SMOOTH = 100
"""Means of the loss of the batch that fit side by side into the steps shown."""
NORM, UPDATE_RATIO = STATISTICS[0], STATISTICS[-1]


class Heatmap(NamedTuple):
    """Layers by steps.

    Attributes
    ----------
    key : str
        Name of the statistic.
    title : str
        The statistic in words.
    rows : list of str
        Tensors or layers, in the order of the model.
    steps : list of int
        First step of each column, and the end of the last: one more than columns.
    values : list of list of float or None
        The largest value of each cell's steps, row by row; None where there is none.
    broken : list of (int, int)
        Cells (row, column) with a value that is not finite.
    log : bool
        Whether the values span magnitudes.
    """

    key: str
    title: str
    rows: list[str]
    steps: list[int]
    values: list[list[float | None]]
    broken: list[tuple[int, int]]
    log: bool


def microscope(
    history: TrainingHistory, start: int = 0, stop: int | None = None, *, columns: int = MAX_COLUMNS
) -> dict[str, Any]:
    """Thin a training, or a stretch of it, to what one screen can show.

    Curves keep the lowest and highest value of each pixel. A cell of a heatmap shows the largest value of its steps, so
    that no spike is lost.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    start, stop : int, optional
        First step and the step after the last, counted from the first recorded one (0-based). Default to all steps.
    columns : int
        Columns of a heatmap at most. Defaults to ``MAX_COLUMNS``.

    Returns
    -------
    dict of str to object
        For strict JSON: ``n_steps``, ``start``, ``stop``; ``curves``, each with ``name``, ``panel``, ``steps`` and
        ``values``; ``epochs``; ``heatmaps`` (`Heatmap` as dicts); ``jumps`` and ``not_finite``; ``note``, a sentence
        where a part of the steps was read.

    Examples
    --------
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.run_page.microscope import microscope
    >>> history = TrainingHistory.from_arrays({"batch_loss": [4.0, 2.0, 1.0]}, {"epoch": [0], "loss": [2.5]})
    >>> shown = microscope(history)
    >>> shown["curves"][0]["values"], shown["epochs"]["values"]["loss"]
    ([4.0, 2.0, 1.0], [2.5])
    """
    stop = history.n_steps if stop is None else min(stop, history.n_steps)
    start = min(max(start, 0), stop)
    part = history.part(start, stop)
    wanted = [name for name in history.columns if panel_of(name) is not None]
    places = [name for name in ("epoch", "batch") if name in history.columns]
    steps = part.read_steps([*wanted, *places])
    numbers = np.arange(start, stop)
    curves = [curve for name in wanted for curve in curves_of(name, numbers, steps[name])]
    maps, note = _heatmaps(history, start, stop, columns)
    loss = steps.get("batch_loss", steps.get("running_loss", np.zeros(0)))
    of_place = {name: steps[name] for name in places}
    ends = _epoch_ends(history)
    epochs = {name: rounded(history.epochs[name]) for name in history.epoch_metrics}
    return {
        "n_steps": history.n_steps,
        "start": start,
        "stop": stop,
        "curves": curves,
        "epochs": {"steps": ends, "values": epochs},
        "heatmaps": [each._asdict() for each in maps + _unit_heatmaps(history, ends, start, stop)],
        "jumps": jumps(loss, numbers, of_place),
        "not_finite": not_finite({name: steps[name] for name in wanted}, numbers, of_place),
        "note": note,
    }


def panel_of(column: str) -> str | None:
    """Name the chart of a step column; None if it is in none."""
    if column.startswith("learning_rate"):
        return "learning rate"
    if column in ("batch_loss", "running_loss") or (column.startswith("batch_") and column.endswith("_loss")):
        return "loss"
    if column.startswith(("gradient_norm", "clipped_gradient_norm", "sharpness")) and "_of/" not in column:
        return "gradient norm" if "norm" in column else "sharpness"
    return "gradient cosine" if column.startswith(COSINE) else None


def curves_of(name: str, steps: np.ndarray, values: np.ndarray) -> Iterator[dict[str, Any]]:
    """Make the curves of a step column: its values, and the smoothed ones of a loss of the batch."""
    panel, words = panel_of(name), name.replace("_", " ").replace("batch ", "", 1)
    is_batch_loss = panel == "loss" and name.startswith("batch_")
    if is_batch_loss:
        words = "loss of the batch" if name == "batch_loss" else f"{words} of the batch"
    elif name == "running_loss":
        words = "running mean of the epoch (Keras)"
    known = ~np.isnan(values) if panel == "sharpness" else np.ones(len(values), bool)
    steps, values = steps[known], values[known]
    index = downsample(steps, values, buckets=BUCKETS)
    yield {
        "name": words,
        "panel": panel,
        "column": name,
        "steps": steps[index].tolist(),
        "values": rounded(values[index]),
    }
    width = len(values) // SMOOTH
    if is_batch_loss and width > 1:
        index = np.unique(np.linspace(0, len(values) - 1, BUCKETS).astype(int))
        smooth = moving_mean(values, width, index)
        yield {
            "name": f"mean of {width} batches", "panel": panel, "column": f"smooth_{name}",
            "steps": steps[index].tolist(), "values": rounded(smooth),
        }  # fmt: skip


def _heatmaps(history: TrainingHistory, start: int, stop: int, columns: int) -> tuple[list[Heatmap], str | None]:
    """Make the heatmaps of the tensors' statistics, and a sentence if only stretches of the steps are read."""
    tensors = [tensor.name for tensor in history.tensors if tensor.trainable]
    if history.recorded == "none" or start == stop:
        tensors_with_statistics: list[str] = []
    else:
        tensors_with_statistics = tensors
    with_gradient = [name for name in tensors if gradient_column(name) in history.columns]
    n_fields = 2 * len(tensors_with_statistics) + len(with_gradient)
    if not n_fields:
        return [], None
    n_rows = max(len(tensors_with_statistics), len(with_gradient))
    n_columns = max(1, min(columns, MAX_CELLS // n_rows, stop - start))
    n_stretches = max(1, MAX_READS // n_fields)
    stretches, note = [(start, stop)], None
    if stop - start > n_stretches * STRETCH:
        n_columns = min(n_columns, n_stretches)
        begins = np.linspace(start, stop, n_columns, endpoint=False).astype(int)
        stretches = [(int(begin), int(min(begin + STRETCH, stop))) for begin in begins]
        note = f"The heatmaps show {n_columns} stretches of {STRETCH} steps, evenly spaced: zoom in to see all."
    edges = np.unique(np.linspace(start, stop, n_columns + 1).astype(int))
    if note:
        edges = np.array([begin for begin, _ in stretches] + [stop])
    values: dict[str, dict[str, list[np.ndarray]]] = {key: {} for key in (UPDATE_RATIO, "gradient_norm", NORM)}
    for begin, end in stretches:
        part = history.part(begin, end)
        gradients = part.read_steps([gradient_column(name) for name in with_gradient])
        statistics = part.read_statistics((UPDATE_RATIO, NORM)) if tensors_with_statistics else {}
        for name, of_tensor in statistics.items():
            for key in (UPDATE_RATIO, NORM):
                values[key].setdefault(name, []).append(of_tensor[key][1:])
        for name in with_gradient:
            values["gradient_norm"].setdefault(name, []).append(gradients[gradient_column(name)])
    titles = {UPDATE_RATIO: "update ratio", "gradient_norm": "gradient norm", NORM: "weight norm"}
    steps = np.concatenate([np.arange(begin, end) for begin, end in stretches])
    bucket = np.searchsorted(edges, steps, side="right") - 1
    cells = {key: {name: np.concatenate(parts) for name, parts in each.items()} for key, each in values.items()}
    # The ratio of a tensor of zeros is undefined, not broken: that shows in its norm.
    cells[UPDATE_RATIO] = {
        name: np.where(np.isinf(ratio) & np.isfinite(cells[NORM][name]), np.nan, ratio)
        for name, ratio in cells[UPDATE_RATIO].items()
    }
    broken = {key: cells[NORM] if key == UPDATE_RATIO else cells[key] for key in cells}
    return [_heatmap(key, titles[key], cells[key], bucket, edges, broken[key]) for key in cells if cells[key]], note


def _heatmap(
    key: str, title: str, cells: dict[str, np.ndarray], bucket: np.ndarray, edges: np.ndarray,
    of_broken: dict[str, np.ndarray],
) -> Heatmap:  # fmt: skip
    """Reduce values by step, of each row, to the largest of each column; infinite values of `of_broken` are marked."""
    n_columns = len(edges) - 1
    rows, broken = [], []
    starts = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)])
    of_bucket = bucket[starts]
    for number, (name, series) in enumerate(cells.items()):
        row = np.full(n_columns, np.nan)
        if len(series):
            finite = np.where(np.isfinite(series), series, -np.inf)
            row[of_bucket] = np.maximum.reduceat(finite, starts)
            row[row == -np.inf] = np.nan
            infinite = np.unique(bucket[np.isinf(of_broken[name])])
            broken += [(number, int(column)) for column in infinite]
        rows.append(rounded(row, 3))
    return Heatmap(key, title, list(cells), edges.tolist(), rows, broken, log=True)


def _unit_heatmaps(history: TrainingHistory, ends: list[int], start: int, stop: int) -> list[Heatmap]:
    """Make the heatmaps of dead and of saturated units, by epoch, as far as epochs are among the steps."""
    maps = []
    for prefix, title in ((DEAD_UNITS, "dead units"), (SATURATED_UNITS, "saturated units")):
        layers = {
            name.removeprefix(prefix): values for name, values in history.epochs.items() if name.startswith(prefix)
        }
        first = [0, *(end + 1 for end in ends)]
        shown = [i for i in range(len(ends)) if first[i] < stop and ends[i] >= start]
        if layers and shown:
            values = [rounded(column[shown], 3) for column in layers.values()]
            edges = [first[i] for i in shown] + [ends[shown[-1]] + 1]
            maps.append(Heatmap(prefix.rstrip("/"), f"{title}, share", list(layers), edges, values, [], log=False))
    return maps


def _epoch_ends(history: TrainingHistory) -> list[int]:
    """Last step of each epoch, counted from the first recorded step."""
    n = history.n_epochs
    if not n:
        return []
    if "epoch" in history.columns and "epoch" in history.epochs:
        numbers = history.read_steps(["epoch"])["epoch"]
        ends = np.searchsorted(numbers, history.epochs["epoch"], side="right") - 1
        return [int(end) for end in np.clip(ends, 0, max(history.n_steps - 1, 0))]
    return [round(history.n_steps * (i + 1) / n) - 1 for i in range(n)]
