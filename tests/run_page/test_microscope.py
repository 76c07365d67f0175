"""The microscope: what a screen shows of a training, against the numbers that were recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlflow_hp.history import HistoryWriter, Tensor, TrainingHistory
from mlflow_hp.run_page import microscope as module
from mlflow_hp.run_page.microscope import microscope

RNG = np.random.default_rng(0)
STATISTICS = ("norm", "mean", "std", "update_ratio")


def trained(n=1000, tensors=("dense/kernel", "dense/bias"), per_epoch=100, **columns):
    """A training of `n` steps with statistics of its tensors, in memory."""
    steps = {
        "step": np.arange(n), "epoch": np.arange(n) // per_epoch, "batch": np.arange(n) % per_epoch,
        "batch_loss": np.exp(-np.arange(n) / n) + 0.01 * RNG.normal(size=n), "learning_rate": np.full(n, 0.1),
        **{f"gradient_norm_of/{name}": RNG.lognormal(size=n) for name in tensors},
    }  # fmt: skip
    statistics = {name: {key: RNG.lognormal(size=n + 1) for key in STATISTICS} for name in tensors}
    epochs = {"epoch": np.arange(n // per_epoch), "loss": np.linspace(1, 0.4, n // per_epoch)}
    return TrainingHistory.from_arrays(steps | columns, epochs, statistics=statistics)


def curve(shown, column):
    return next(each for each in shown["curves"] if each["column"] == column)


def heatmap(shown, key):
    return next(each for each in shown["heatmaps"] if each["key"] == key)


def test_a_spike_of_one_step_in_a_long_training_is_shown():
    loss = np.ones(200_000)
    loss[123_456] = 7.0
    shown = microscope(trained(200_000, per_epoch=1000, batch_loss=loss))
    drawn = curve(shown, "batch_loss")
    assert len(drawn["steps"]) < 1300
    assert drawn["values"][drawn["steps"].index(123_456)] == 7.0
    assert [jump["step"] for jump in shown["jumps"]] == [123_456]
    assert (shown["jumps"][0]["epoch"], shown["jumps"][0]["batch"]) == (123, 456)


@pytest.mark.parametrize("key", ["update_ratio", "norm", "gradient_norm"])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (250, 730), (999, 1000)])
def test_each_cell_has_the_largest_value_of_its_steps(key, start, stop):
    history = trained()
    shown = heatmap(microscope(history, start, stop, columns=37), key)
    for row, name in enumerate(shown["rows"]):
        of_history = (
            history.steps[f"gradient_norm_of/{name}"] if key == "gradient_norm" else history.statistics(name)[key][1:]
        )
        for column, value in enumerate(shown["values"][row]):
            low, high = shown["steps"][column], shown["steps"][column + 1]
            assert value == pytest.approx(of_history[low:high].max(), rel=1e-2)
    assert (shown["steps"][0], shown["steps"][-1]) == (start, stop or 1000)


def test_a_zoom_shows_every_step():
    history = trained(50_000, per_epoch=500)
    shown = microscope(history, 20_000, 20_100)
    assert curve(shown, "batch_loss")["steps"] == list(range(20_000, 20_100))
    np.testing.assert_allclose(
        curve(shown, "batch_loss")["values"], history.steps["batch_loss"][20_000:20_100], rtol=1e-5
    )
    assert heatmap(shown, "norm")["steps"] == list(range(20_000, 20_101))


def test_what_is_not_finite_is_marked_and_listed():
    loss = np.ones(1000)
    loss[600:] = np.nan
    history = trained(batch_loss=loss)
    norms = history.statistics("dense/kernel")["norm"].copy()
    norms[601:] = np.inf
    statistics = {name: {**history.statistics(name)} for name in ("dense/kernel", "dense/bias")}
    statistics["dense/kernel"]["norm"] = norms
    shown = microscope(TrainingHistory.from_arrays(dict(history.steps), dict(history.epochs), statistics=statistics))
    assert [(each["column"], each["step"], each["n"]) for each in shown["not_finite"]] == [("batch_loss", 600, 400)]
    broken = heatmap(shown, "norm")["broken"]
    assert {row for row, _ in broken} == {0}
    assert min(heatmap(shown, "norm")["steps"][column] for _, column in broken) == 600


def test_the_ratio_of_a_bias_that_begins_at_zero_is_not_broken():
    history = trained()
    ratio = history.statistics("dense/bias")["update_ratio"].copy()
    ratio[1] = np.inf
    statistics = {name: {**history.statistics(name)} for name in ("dense/kernel", "dense/bias")}
    statistics["dense/bias"]["update_ratio"] = ratio
    again = TrainingHistory.from_arrays(dict(history.steps), dict(history.epochs), statistics=statistics)
    assert heatmap(microscope(again), "update_ratio")["broken"] == []


def test_smoothing_is_the_mean_of_the_batches_around():
    history = trained(10_000)
    smooth = curve(microscope(history), "smooth_batch_loss")
    assert smooth["name"] == "mean of 100 batches"
    loss = history.steps["batch_loss"]
    for step, value in list(zip(smooth["steps"], smooth["values"], strict=True))[5::97]:
        window = loss[max(0, step - 49) : step + 51]
        assert value == pytest.approx(window.mean(), rel=1e-4)


def test_one_huge_value_spoils_no_mean_after_it():
    loss = np.ones(10_000)
    loss[10] = 1e300
    smooth = curve(microscope(trained(10_000, batch_loss=loss)), "smooth_batch_loss")
    assert smooth["values"][-1] == 1.0


def test_epochs_stand_at_their_last_steps():
    shown = microscope(trained(1000))
    assert shown["epochs"]["steps"] == [99 + 100 * epoch for epoch in range(10)]
    assert shown["epochs"]["values"]["loss"][-1] == pytest.approx(0.4)


def test_dead_units_are_shown_by_epoch():
    history = trained(300)
    epochs = dict(history.epochs) | {"dead_units/hidden": np.array([0.1, np.nan, 0.5])}
    shown = heatmap(microscope(TrainingHistory.from_arrays(dict(history.steps), epochs)), "dead_units")
    assert (shown["rows"], shown["steps"], shown["values"]) == (["hidden"], [0, 100, 200, 300], [[0.1, None, 0.5]])


def test_of_a_history_too_large_to_read_stretches_are_shown_and_a_zoom_has_all(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_READS", 20)
    names = [f"layer_{i}/kernel" for i in range(4)]
    tensors = [Tensor(name, (2, 2), "float32", trainable=True) for name in names]
    values = {name: RNG.lognormal(size=(10_001, 4)) for name in names}
    first = {name: value[0] for name, value in values.items()}
    columns = {"batch_loss": "float64"}
    with HistoryWriter(
        tmp_path, columns=columns, tensors=tensors, weights="statistics", initial=first, meta={}
    ) as writer:
        for at in range(0, 10_000, 256):
            n = min(256, 10_000 - at)
            rows = {name: value[1 + at : 1 + at + n] for name, value in values.items()}
            writer.append({"batch_loss": np.ones(n)}, rows)
    history = TrainingHistory.open(tmp_path)
    shown = microscope(history)
    assert "stretches" in shown["note"]
    whole = microscope(history, 5000, 5400)
    assert whole["note"] is None
    cell = heatmap(whole, "norm")["values"][1][0]
    low, high = heatmap(whole, "norm")["steps"][:2]
    assert cell == pytest.approx(values[names[1]][1 + low : 1 + high, 0].max(), rel=1e-2)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_steps(n):
    shown = microscope(trained(max(n, 1)).part(0, n))
    assert (shown["n_steps"], shown["jumps"]) == (n, [])
    json.dumps(shown, allow_nan=False)


def test_a_stretch_reads_no_other_rows(tmp_path):
    columns = {"batch_loss": "float64"}
    with HistoryWriter(tmp_path, columns=columns, tensors=[], weights="none", initial=None, meta={}) as writer:
        for at in range(10):
            writer.append({"batch_loss": np.arange(at * 10.0, at * 10 + 10)}, {})
    whole = TrainingHistory.open(tmp_path)
    damaged = bytearray((tmp_path / "history.arrows").read_bytes())
    at = damaged.find(np.float64(75.0).tobytes())
    damaged[at] ^= 1
    (tmp_path / "history.arrows").write_bytes(damaged)
    assert whole.part(20, 35).steps["batch_loss"].tolist() == list(range(20, 35))
    assert whole.part(20, 35).part(5, 7).steps["batch_loss"].tolist() == [25.0, 26.0]
    with pytest.raises(ValueError, match="damaged"):
        _ = whole.part(70, 80).steps
    with pytest.raises(ValueError, match="has 100"):
        whole.part(90, 101)
