"""What a page shows of a training that goes on: the metrics of its run, in the form of the microscope."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.downsampling import Points
from mlflow_hp.run_page.from_metrics import from_metrics


def points(values, steps=None):
    values = np.asarray(values, float)
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    return Points(steps, values, len(values), 1000 * steps)


RUN = {
    "batch/loss": points([3.0, 2.5, 2.0, 1.5]),
    "batch/running_loss": points([3.0, 2.75, 2.0, 1.75]),
    "batch/learning_rate": points([0.1] * 4),
    "gradients/norm": points([1.0, 2.0, np.nan, 4.0]),
    "weights/update_ratio/min": points([0.1, 0.1, 0.2, 0.3]),
    "weights/update_ratio/median": points([0.2, 0.2, 0.2, 0.3]),
    "weights/update_ratio/max": points([0.3, np.inf, 0.2, 0.3]),
    "loss": points([2.75, 1.75]),
    "val_loss": points([2.0]),
    "diagnosis/slope": points([1.0]),
    "system/cpu": points([1.0]),
    "units/dead": points([0.5, 0.25]),
}


def test_the_metrics_of_a_run():
    shown = from_metrics(RUN, RUN.get, steps_per_epoch=2)
    assert [(curve["name"], curve["values"]) for curve in shown["curves"]] == [
        ("loss of the batch", [3.0, 2.5, 2.0, 1.5]),
        ("gradient norm", [1.0, 2.0, None, 4.0]),
        ("learning rate", [0.1] * 4),
        ("running mean of the epoch (Keras)", [3.0, 2.75, 2.0, 1.75]),
    ]
    assert shown["epochs"] == {"steps": [1, 3], "values": {"loss": [2.75, 1.75], "val_loss": [2.0, None]}}
    ratios, units = shown["heatmaps"]
    assert ratios["values"] == [[0.1, 0.1, 0.2, 0.3], [0.2, 0.2, 0.2, 0.3], [0.3, None, 0.2, 0.3]]
    assert ratios["broken"] == [(2, 1)]
    assert (units["rows"], units["values"]) == (["dead"], [[0.5, 0.25]])


def test_a_thinned_spike_is_a_jump_at_its_step():
    steps = np.arange(0, 1000, 10)
    loss = np.where(steps == 700, 9.0, 1 + 0.01 * np.sin(steps))
    shown = from_metrics(["batch/loss"], lambda _: points(loss, steps))
    assert [jump["step"] for jump in shown["jumps"]] == [700]
    assert shown["n_steps"] == 991


@pytest.mark.parametrize("names", [[], ["score", "combinations_failed"], ["diagnosis/slope"]])
def test_a_run_that_is_no_training_shows_none(names):
    assert from_metrics(names, lambda _: points([1.0])) is None


def test_metrics_that_the_store_lacks_by_now():
    assert from_metrics(["batch/loss"], lambda _: None) is None
