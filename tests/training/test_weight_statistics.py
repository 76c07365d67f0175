"""Statistics of the weights: those of the weights themselves, of large tensors as often as their cost allows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import mlflow_hp
from mlflow_hp.history import statistics_of
from mlflow_hp.training.capture import cadence, turns, weight_statistics
from mlflow_hp.training.capture.cadence import Cadence
from mlflow_hp.training.capture.tensor_groups import TensorGroups, elementwise
from mlflow_hp.training.capture.turns import turns_of
from mlflow_hp.training.capture.weight_statistics import WeightStatistics
from tests.helpers.fits import X, record, regression

pytestmark = pytest.mark.usefixtures("store")


def mixed():
    """Tensors of many shapes: a scalar, convolutions, normalisation, a large kernel, a frozen layer, float64."""

    class Scale(layers.Layer):
        def build(self, _):
            self.factor = self.add_weight(name="factor", shape=(), initializer="ones")

        def call(self, x):
            return x * self.factor

    keras.utils.set_random_seed(7)
    frozen = layers.Dense(4, name="frozen", trainable=False)
    stack = [
        keras.Input((3,)), frozen, Scale(name="scale"), layers.Reshape((4, 1)), layers.Conv1D(5, 2, name="conv"),
        layers.BatchNormalization(name="norm"), layers.Flatten(), layers.Dense(2000, name="large"),
        layers.Dense(3, name="double", dtype="float64"), layers.Dense(1, name="out"),
    ]  # fmt: skip
    model = keras.Sequential(stack)
    model.compile("adam", "mse")
    return model


def test_statistics_are_those_of_the_weights():
    values = record(mixed(), recorder=mlflow_hp.TrainingRecorder(weights="all", report=False)).history
    recorder = mlflow_hp.TrainingRecorder(weights="statistics", overhead=1.0, report=False)
    statistics = record(mixed(), recorder=recorder).history
    assert max(np.prod(tensor.shape) for tensor in values.tensors) > 2**14
    for tensor in values.tensors:
        expected = statistics_of(values.weights(tensor.name))
        found = np.stack(list(statistics.statistics(tensor.name).values()), axis=1)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-7, err_msg=tensor.name)
        assert statistics.has_statistics(tensor.name).all()


def test_digits_do_not_cancel_where_the_mean_is_large():
    values = 1000.0 + np.random.default_rng(0).normal(size=(64,)).astype("float32") / 100
    variable = tf.Variable(values.astype("float32"))
    statistics = WeightStatistics([variable])
    statistics.start()
    moved = (values + 0.001).astype("float32")
    variable.assign(moved)
    found = statistics.after([], tf.constant(0)).numpy()
    expected = statistics_of(np.stack([variable.numpy() * 0 + values.astype("float32"), moved]))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_weights_that_recover_from_nan_have_statistics_again():
    variable = tf.Variable([1.0, 2.0, 4.0])
    statistics = WeightStatistics([variable])
    statistics.start()
    for values in ([np.nan, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 5.0]):
        variable.assign(values)
        found = statistics.after([], tf.constant(0)).numpy()
    np.testing.assert_allclose(found, statistics_of(np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 5.0]]))[1], rtol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("per_execution", [1, 5])
def test_without_any_share_of_the_time_large_tensors_are_seen_once(per_execution):
    model = mixed()
    model.compile("adam", "mse", steps_per_execution=per_execution)
    recorder = mlflow_hp.TrainingRecorder(overhead=0.0, report=False)
    history = record(model, recorder=recorder).history
    assert history.has_statistics("large/kernel").tolist() == [True, True] + [False] * 9
    assert np.isnan(history.statistics("large/kernel")["norm"][2:]).all()
    assert history.has_statistics("out/kernel").all()
    assert history.has_statistics("conv/kernel").all()
    assert np.isfinite(history.steps["gradient_norm_of/large/kernel"]).all()


@pytest.mark.parametrize("overhead", [-0.1, 1.5, "much", None, float("nan")])
def test_a_share_of_the_time_is_from_0_to_1(overhead):
    with pytest.raises(mlflow_hp.UserError, match="overhead"):
        mlflow_hp.TrainingRecorder(overhead=overhead)


def times_of(interval, step, cost, n):
    """Train `n` steps of `step` seconds, at a cost where statistics are due; return the steps at which they were."""
    now, due_at, times = 0.0, [], []
    for index in range(n):
        due = interval.is_due(index, 1)
        now += step + (cost / 2 if due else 0)
        times.append(now)
        now += cost / 2 if due else 0
        due_at.append(due)
        if index % 20 == 19:
            interval.observe(np.array(times), np.where(due_at[-20:], 0, -1))
            times = []
    return np.flatnonzero(due_at)


@pytest.mark.parametrize(("step", "cost"), [(0.001, 0.02), (0.1, 0.002), (0.01, 0.01), (1e-4, 0.004)])
@pytest.mark.parametrize("overhead", [0.05, 0.3])
def test_statistics_take_their_share_of_the_time(step, cost, overhead):
    n = 20_000
    due_at = times_of(Cadence(overhead), step, cost, n)
    later = due_at[due_at >= n // 10]
    share = len(later) * cost / (0.9 * n * step)
    assert share <= overhead * 1.1
    is_rare = cost / step > overhead / 2  # else every step is cheap enough
    assert share >= overhead * 0.5 or not is_rare
    if not is_rare:
        assert len(later) == 0.9 * n


def test_a_pause_for_validation_is_no_cost():
    interval = Cadence(0.05)
    times = np.cumsum(np.where(np.arange(200) % 16 == 0, 0.02, 0.01))
    times[100:] += 60.0
    interval.observe(times, np.where(np.arange(200) % 16 == 0, 0, -1))
    assert interval.interval == 20  # 0.01 s more, of 0.01 s, at 5 %


@pytest.mark.sampled(2)
@pytest.mark.parametrize("overhead", [0.05, 0.3])
def test_turns_of_different_cost_take_their_share_together(overhead):
    interval, costs, step = Cadence(overhead), (0.001, 0.05, 0.003), 0.001
    now, turn, spent, ordinary = 0.0, 0, 0.0, 0.0
    for index in range(20_000):
        own = turn if interval.is_due(index, 3) else -1
        cost = 0.0 if own < 0 else costs[own]
        turn = (turn + (own >= 0)) % 3
        interval.observe(np.array([now + step + cost / 2]), np.array([own]))
        now += step + cost
        if index >= 5_000:
            spent, ordinary = spent + cost, ordinary + step
    assert 0.7 * overhead <= spent / ordinary <= 1.1 * overhead


def test_tensors_of_a_turn_take_a_bounded_memory():
    sizes = np.random.default_rng(1).integers(1, 2**24, 50).tolist()
    for largest in (1, 2**28):
        turns = turns_of([*sizes, largest])
        by_turn = np.bincount(turns, weights=[*sizes, largest])
        assert by_turn.max() <= max(2**24, largest)
        assert (np.diff(turns) >= 0).all()
        assert len(by_turn) <= 2 * sum([*sizes, largest]) / max(2**24, largest) + 1
    assert turns_of([]).tolist() == []


WAYS = {"graph": {}, "several per call": {"steps_per_execution": 5}, "eager": {"run_eagerly": True}}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("way", WAYS)
def test_large_tensors_have_statistics_in_turns(monkeypatch, way):
    """Two large kernels, not both of which may be copied at once."""
    monkeypatch.setattr(turns, "MAX_BYTES", 2**16)
    monkeypatch.setattr(weight_statistics, "PART", 2**10)
    monkeypatch.setattr(cadence, "FIRST_INTERVAL", 4)

    def model():
        keras.utils.set_random_seed(3)
        stack = [keras.Input((3,)), layers.Dense(100), layers.Dense(200, name="a"), layers.Dense(100, name="b"),
                 layers.Dense(1, name="out")]  # fmt: skip
        made = keras.Sequential(stack)
        made.compile("adam", "mse", **WAYS[way])
        return made

    values = record(model(), recorder=mlflow_hp.TrainingRecorder(weights="all", report=False)).history
    recorder = mlflow_hp.TrainingRecorder(weights="statistics", report=False)
    history = record(model(), recorder=recorder).history
    assert np.flatnonzero(history.has_statistics("a/kernel")).tolist() == [0, 1, 5]
    assert np.flatnonzero(history.has_statistics("b/kernel")).tolist() == [0, 2, 9]
    assert history.has_statistics("out/kernel").all()
    for name in ("a/kernel", "b/kernel", "out/kernel"):
        taken = history.has_statistics(name)
        found = np.stack(list(history.statistics(name).values()), axis=1)[taken]
        np.testing.assert_allclose(
            found, statistics_of(values.weights(name))[taken], rtol=1e-3, atol=1e-7, err_msg=name
        )


def test_the_model_of_few_weights_has_each_of_them():
    history = record(regression(), X).history
    assert history.recorded == "values"


@pytest.mark.thorough
def test_read_from_the_host_large_tensors_are_seen_as_often_as_their_cost_allows():
    recorder = mlflow_hp.TrainingRecorder(overhead=0.0, report=False)
    model = mixed()
    model.compile("adam", "mse", run_eagerly=True)
    history = record(model, recorder=recorder).history
    assert history.meta["reader"] == "host"
    assert history.has_statistics("large/kernel").tolist() == [True, True] + [False] * 9
    assert history.has_statistics("out/kernel").all()
    every = mlflow_hp.TrainingRecorder(overhead=1.0, report=False)
    model = mixed()
    model.compile("adam", "mse", run_eagerly=True)
    complete = record(model, recorder=every).history
    values = mlflow_hp.TrainingRecorder(weights="all", report=False)
    model = mixed()
    model.compile("adam", "mse", run_eagerly=True)
    expected = statistics_of(record(model, recorder=values).history.weights("large/kernel"))
    np.testing.assert_allclose(
        np.stack(list(complete.statistics("large/kernel").values()), axis=1), expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        np.stack(list(history.statistics("large/kernel").values()), axis=1)[:2], expected[:2], rtol=1e-6
    )


@pytest.mark.parametrize(
    "shapes",
    [
        [(3,)] * 5 + [(4,)] * 2,
        [(3,)] * 4 + [(2, 3)] * 4 + [(), ()],
        [(0,)] * 4 + [(3, 0), (0, 3), (3,)],
        [(2, 2, 3), (5, 2, 3), (3,), (1,), ()],
        [],
    ],
)
def test_sums_of_tensors_of_any_shapes(shapes):
    groups = TensorGroups(shapes, [tf.float32] * len(shapes))
    values = [np.random.default_rng(index).normal(size=shape).astype("float32") for index, shape in enumerate(shapes)]
    matrices = groups.matrices([tf.constant(value) for value in values])
    found = groups.sums(matrices, elementwise(tf.square, matrices))
    expected = np.array([[value.sum(), np.square(value).sum()] for value in values]).reshape(-1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    numbers = np.arange(1.0, len(shapes) + 1)
    weighed = groups.sums(elementwise(tf.multiply, matrices, groups.by_row(tf.constant(numbers))))
    np.testing.assert_allclose(weighed[:, 0], expected[:, 0] * numbers, rtol=1e-5, atol=1e-5)
