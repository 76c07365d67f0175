"""Settings of a recorder out of their range: an error that says what came, and what is right."""

from __future__ import annotations

import pytest

import mlflow_hp
from mlflow_hp.errors import UserError


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("weights", "some", "weights='some' is none of 'auto', 'all', 'statistics', 'none'"),
        ("gradients", "no", "gradients='no' is none of 'auto', True, False"),
        ("gradients", 1, "gradients=1 is none of"),
        ("metrics", None, "metrics=None is none of 'summary', 'all'"),
        ("metrics_every", 0, "metrics_every=0 has to be a whole number of steps, 1 or more$"),
        ("metrics_every", True, "metrics_every=True has to be"),
        ("sharpness_every", 2.5, "sharpness_every=2.5 has to be a whole number of steps, 1 or more, or None"),
        ("max_points", -1, "max_points=-1 has to be a whole number of points, 1 or more, or None"),
        ("overhead", 1.5, "overhead=1.5 has to be a share of the time of training, from 0 to 1"),
        ("overhead", float("nan"), "overhead=nan has to be"),
        ("snapshot_megabytes", float("inf"), "snapshot_megabytes=inf has to be a number of 0 or more"),
        ("on_finding", "print", "on_finding='print' cannot be called; give a function of one finding"),
        ("stop_on", "diverges", "stop_on='diverges' has to be a tuple of verdicts, among 'diverges', 'not finite'"),
        ("stop_on", ("diverges", "NaN"), "stop_on has 'NaN', which is none of 'diverges', 'not finite', 'oscillates'"),
    ],
)
def test_a_setting_out_of_its_range(setting, value, message):
    with pytest.raises(UserError, match=message):
        mlflow_hp.TrainingRecorder(**{setting: value})


@pytest.mark.parametrize("gradients", ["auto", True, False])
def test_each_choice_is_taken(gradients):
    assert mlflow_hp.TrainingRecorder(gradients=gradients, sharpness_every=None, max_points=None).gradients == gradients
