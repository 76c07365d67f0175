"""The points of steps that MLflow gets: which metrics, at which steps, and no null."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest

from mlflow_hp.delivery.metric_points import StepPoints, epoch_points
from mlflow_hp.delivery.metric_selection import MetricSelection
from mlflow_hp.history import Tensor
from mlflow_hp.history.step_record import Layout, Rows

TENSORS = tuple(
    Tensor(name, (10, 10), "float32", trainable)
    for name, trainable in (("a/kernel", True), ("b/kernel", True), ("c/kernel", True), ("bn/moving_mean", False))
)
COLUMNS = (
    "step", "epoch", "batch", "time", "samples", "learning_rate", "batch_loss", "running_loss", "gradient_norm",
    "clipped_gradient_norm", "gradient_cosine", "noise_scale", "sharpness", "gradient_norm_of/a/kernel",
    "clipped_gradient_norm_of/a/kernel",
)  # fmt: skip
SUMMARY = {"weights/update_ratio/min", "weights/update_ratio/median", "weights/update_ratio/max"}
GLOBAL = {
    "batch/loss", "batch/running_loss", "batch/learning_rate", "gradients/norm", "gradients/clipped_norm",
    "gradients/cosine", "gradients/noise_scale", "sharpness",
}  # fmt: skip


def rows(start, n, ratios=(0.01, 0.02, 0.04, 5.0), columns=COLUMNS, **changed):
    step = np.arange(start, start + n)
    numbers = {name: step if name in ("step", "epoch", "batch", "samples") else step / 2 for name in columns}
    statistics = {
        tensor.name: np.column_stack([np.ones((n, 3)), np.full(n, ratio)])
        for tensor, ratio in zip(TENSORS, ratios, strict=True)
    }
    return Rows(numbers | changed, statistics)


def layout(columns=COLUMNS, tensors=TENSORS, store="statistics", initial=None):
    return Layout(dict.fromkeys(columns, "float64"), tensors, store, initial or {})


def series(points):
    result = {}
    for name, value, _, step in points:
        assert step not in result.setdefault(name, {})
        result[name][step] = value
    return result


def sent(points, chunks):
    return series([*itertools.chain.from_iterable(map(points.convert, chunks)), *points.rest()])


def test_summary_of_the_layers_and_the_global_gradient():
    metrics = sent(StepPoints(layout(), MetricSelection()), [rows(0, 4), rows(4, 4)])
    assert metrics.keys() == GLOBAL | SUMMARY
    assert [metrics[name][5] for name in sorted(SUMMARY)] == [0.04, 0.02, 0.01]  # max, median, min of the trainable
    assert metrics["gradients/norm"] == {step: step / 2 for step in range(8)}


def test_all_has_each_tensor():
    metrics = sent(StepPoints(layout(), MetricSelection("all")), [rows(0, 4)])
    of_tensors = {f"weights/{t.name}/{s}" for t in TENSORS for s in ("norm", "mean", "std", "update_ratio")}
    assert metrics.keys() == GLOBAL | of_tensors | {"gradients/norm/a/kernel", "gradients/clipped_norm/a/kernel"}
    assert metrics["weights/bn/moving_mean/update_ratio"][3] == 5


def test_several_optimizers():
    columns = ("step", "time", "gradient_norm/d_optimizer", "gradient_cosine/g_optimizer", "learning_rate/d_optimizer")
    metrics = sent(StepPoints(layout(columns, ()), MetricSelection()), [rows(0, 1, columns=columns)])
    assert metrics.keys() == {
        "gradients/norm/d_optimizer",
        "gradients/cosine/g_optimizer",
        "batch/learning_rate/d_optimizer",
    }


@pytest.mark.parametrize("metrics", ["summary", "all"])
def test_few_weights_are_metrics_each(metrics):
    tensors = (Tensor("dense/kernel", (2, 1), "float32", True), Tensor("dense/bias", (1,), "float32", True))
    values = {"dense/kernel": np.float32([[[1], [2]]]), "dense/bias": np.float32([[3]])}
    chunk = rows(0, 1, columns=("step", "time"))._replace(weights=values)
    points = StepPoints(layout(("step", "time"), tensors, "values"), MetricSelection(metrics))
    assert sent(points, [chunk]) == {
        "weights/dense/kernel/0": {0: 1},
        "weights/dense/kernel/1": {0: 2},
        "weights/dense/bias": {0: 3},
    }


def test_many_recorded_weights_have_a_summary():
    tensors, initial = TENSORS[:2], {tensor.name: np.ones((10, 10), np.float32) for tensor in TENSORS[:2]}
    values = {"a/kernel": np.full((1, 10, 10), 1.5, np.float32), "b/kernel": np.full((1, 10, 10), 1.25, np.float32)}
    chunk = rows(0, 1, columns=("step", "time"))._replace(weights=values)
    metrics = sent(StepPoints(layout(("step", "time"), tensors, "values", initial), MetricSelection()), [chunk])
    assert [metrics[name][0] for name in sorted(SUMMARY)] == [0.5, 0.375, 0.25]


def test_nulls_are_never_sent():
    """Statistics of a large tensor at steps 0 and 3: only there is there a summary of all layers."""
    taken = np.array([True, False, False, True])
    chunk = rows(0, 4, sharpness=np.ma.masked_array(np.arange(4.0), ~taken))
    chunk.weights["b/kernel"] = np.ma.masked_array(chunk.weights["b/kernel"], np.repeat(~taken[:, None], 4, axis=1))
    metrics = sent(StepPoints(layout(), MetricSelection()), [chunk])
    assert {tuple(metrics[name]) for name in (*SUMMARY, "sharpness")} == {(0, 3)}
    assert len(metrics["batch/loss"]) == 4
    metrics = sent(StepPoints(layout(), MetricSelection("all")), [chunk])
    assert list(metrics["weights/b/kernel/norm"]) == [0, 3]
    assert list(metrics["weights/a/kernel/norm"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_summary_has_the_last_known_ratios_of_tensors_in_turns(at_once):
    """Of two large tensors, one has statistics at steps 0 and 4, the other at 1 and 5."""
    chunks = [rows(step, 1) for step in range(7)]
    numbers = {"a/kernel": [0.1] * 7, "b/kernel": [0.5, 9, 9, 9, 0.05, 9, 9], "c/kernel": [9, 0.2, 9, 9, 9, 0.7, 9]}
    for step, chunk in enumerate(chunks):
        for name, turn in (("b/kernel", 0), ("c/kernel", 1)):
            chunk.weights[name][:, -1] = numbers[name][step]
            chunk.weights[name] = np.ma.masked_array(chunk.weights[name], np.full((1, 4), step % 4 != turn))
        chunk.weights["a/kernel"][:, -1] = numbers["a/kernel"][step]
    if at_once:
        chunks = [
            Rows(
                {name: np.concatenate([chunk.columns[name] for chunk in chunks]) for name in chunks[0].columns},
                {name: np.ma.concatenate([chunk.weights[name] for chunk in chunks]) for name in chunks[0].weights},
            )
        ]
    metrics = sent(StepPoints(layout(), MetricSelection()), chunks)
    assert metrics["weights/update_ratio/max"] == {1: 0.5, 4: 0.2, 5: 0.7}
    assert metrics["weights/update_ratio/median"] == {1: 0.2, 4: 0.1, 5: 0.1}
    assert metrics["weights/update_ratio/min"] == {1: 0.1, 4: 0.05, 5: 0.05}


def test_tensor_of_zeros_has_no_update_ratio_and_a_diverged_one_has_nan():
    """A bias that begins at 0 has an infinite ratio in its first step, which says nothing."""
    chunk = rows(0, 3)
    for row, (norm, ratio) in enumerate(((1.0, np.inf), (0.0, np.nan), (np.nan, np.nan))):
        chunk.weights["c/kernel"][row] = norm, 0, 0, ratio
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = sent(StepPoints(layout(), MetricSelection()), [chunk])
        assert sent(StepPoints(layout(), MetricSelection()), [rows(0, 2, ratios=(np.inf,) * 4)]).keys() == GLOBAL
    assert metrics["weights/update_ratio/max"][0] == 0.02
    assert metrics["weights/update_ratio/max"][1] == 0.02
    assert math.isnan(metrics["weights/update_ratio/max"][2])


def test_losses_come_first_in_a_chunk():
    names = [name for name, *_ in StepPoints(layout(), MetricSelection("all")).convert(rows(0, 50))]
    assert set(names[:100]) == {"batch/loss", "batch/running_loss"}


def test_step_metrics_and_those_of_an_epoch_are_distinct():
    names = [
        name
        for name, *_ in epoch_points({"epoch": 0, "sharpness": 1.0, "gradients/norm": 1.0, "sharpness_of_x": 1.0}, 0)
    ]
    assert names == ["epoch/sharpness", "epoch/gradients/norm", "sharpness_of_x"]


def test_shares_of_units_and_a_metric_of_keras_with_their_name_are_distinct():
    row = {"epoch": 3, "dead_units/a": 0.25, "dead_units/b": 0.5, "units/dead": 7.0, "saturated_units/c": 0.0}
    assert epoch_points(row, 0, 1) == [
        ("epoch/units/dead", 7.0, 0, 4), ("units/dead", 0.5, 0, 4), ("units/saturated", 0.0, 0, 4),
    ]  # fmt: skip
    names = [name for name, *_ in epoch_points(row, 0, metrics="all")]
    assert names == ["epoch/units/dead", "units/dead/a", "units/dead/b", "units/saturated/c"]


def curves(n, n_metrics=10, seed=0):
    """Random curves of `n` steps, each with a spike, and one with single NaN and infinities."""
    values = np.random.default_rng(seed).normal(size=(n, n_metrics)).cumsum(axis=0)
    values[n // 3] = -1e6
    values[2 * n // 3] = 1e6
    values[[n // 5, n // 2], 0] = np.nan, np.inf
    values[3 * n // 5, 0] = -np.inf
    return values


def thinned(values, n_steps, max_points=20_000, every=1, chunk=25):
    n, names = len(values), [f"batch_m{i}" for i in range(values.shape[1])]
    columns = ("step", "time", *names)
    points = StepPoints(layout(columns, ()), MetricSelection(every=every, max_points=max_points, n_steps=n_steps))
    step = np.arange(n)
    chunks = [
        Rows({"step": step[part], "time": step[part] / 10} | dict(zip(names, values[part].T, strict=True)), {})
        for part in (slice(start, start + chunk) for start in range(0, n, chunk))
    ]
    return points, sent(points, chunks)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("n", [7, 2_000, 2_003, 12_345, 60_000])
def test_points_within_the_budget_keep_every_spike(n, is_known):
    values = curves(n)
    points, metrics = thinned(values, n if is_known else None)
    assert sum(map(len, metrics.values())) <= 20_000
    for i in range(10):
        curve = metrics[f"batch/m{i}"]
        assert {0, n - 1, n // 3, 2 * n // 3} <= curve.keys()
        np.testing.assert_array_equal(list(curve.values()), values[list(curve), i])
        assert list(curve) == sorted(curve)
    assert {n // 5, n // 2, 3 * n // 5} <= metrics["batch/m0"].keys()
    if n <= 2_000 and is_known:
        assert (points.cadence, {len(curve) for curve in metrics.values()}) == ("every step", {n})
    if n == 60_000:
        assert "every step of the first 500, then the lowest and highest of each 4 to " in points.cadence
        assert sum(map(len, metrics.values())) > (12_000 if is_known else 8_000)


def test_training_that_is_stopped_early_is_hardly_thinned():
    """`epochs=1000` with EarlyStopping after 20: the steps that are never done cost no points."""
    _, metrics = thinned(curves(1_500), n_steps=100_000)
    assert sum(map(len, metrics.values())) > 8_000


def test_diverged_training_stays_within_the_budget():
    values = curves(30_000)
    values[1_000:] = np.nan
    _, metrics = thinned(values, None)
    assert sum(map(len, metrics.values())) <= 20_000
    assert all(1_000 in curve for curve in metrics.values() if len(curve) > 2_000)
    assert all(math.isnan(list(curve.values())[-1]) for curve in metrics.values())


def test_more_metrics_than_points():
    """First, last, lowest and highest of each metric are sent whatever the budget is."""
    values = curves(300, n_metrics=1_000)
    points, metrics = thinned(values, 300, max_points=500)
    assert max(map(len, metrics.values())) <= 7
    assert all({0, 299, 100, 200} <= curve.keys() for curve in metrics.values())
    assert points.cadence == "every step of the first 1, then the lowest and highest of the rest"


def test_no_limit_and_every_nth_step():
    values = curves(9_000, n_metrics=4)
    assert [len(curve) for curve in thinned(values, 9_000, None)[1].values()] == [9_000] * 4
    points, metrics = thinned(values, 9_000, every=3)
    assert list(metrics["batch/m0"]) == list(range(0, 9_000, 3))
    assert points.cadence == "one step in 3"
    points, metrics = thinned(values, 9_000, max_points=4_000, every=3)
    assert sum(map(len, metrics.values())) <= 4_000
    assert {step % 3 for step in metrics["batch/m0"]} == {0}


def test_points_do_not_depend_on_the_chunks():
    values = curves(5_000)
    expected = thinned(values, None, chunk=1)[1]
    for chunk in (7, 512, 5_000):
        np.testing.assert_equal(thinned(values, None, chunk=chunk)[1], expected)
