"""Check of the settings of a recorder."""

from __future__ import annotations

import math
from typing import Any

from mlflow_hp.delivery.metric_selection import METRICS
from mlflow_hp.errors import UserError
from mlflow_hp.training.live_findings import VERDICTS

CHOICES = {
    "weights": ("auto", "all", "statistics", "none"),
    "gradients": ("auto", True, False),
    "metrics": METRICS,
}
"""Values of the settings that have a few."""


def check_settings(recorder: Any) -> None:
    """Check the attributes of a `TrainingRecorder`, which may have changed since its constructor.

    Raises
    ------
    UserError
        For one out of its range.
    """
    for name, choices in CHOICES.items():
        value = getattr(recorder, name)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise UserError(f"{name}={value!r} is none of {', '.join(map(repr, choices))}")
    _check_whole("metrics_every", recorder.metrics_every, "steps")
    _check_whole("sharpness_every", recorder.sharpness_every, "steps", or_none=True)
    _check_whole("max_points", recorder.max_points, "points", or_none=True)
    if not _is_number(recorder.overhead) or not 0 <= recorder.overhead <= 1:
        raise UserError(f"overhead={recorder.overhead!r} has to be a share of the time of training, from 0 to 1")
    if not _is_number(recorder.snapshot_megabytes) or not 0 <= recorder.snapshot_megabytes < math.inf:
        raise UserError(f"snapshot_megabytes={recorder.snapshot_megabytes!r} has to be a number of 0 or more")
    if recorder.on_finding is not None and not callable(recorder.on_finding):
        raise UserError(f"on_finding={recorder.on_finding!r:.200} cannot be called; give a function of one finding")
    _check_verdicts(recorder.stop_on)


def _check_verdicts(stop_on: Any) -> None:
    known = ", ".join(map(repr, VERDICTS))
    if not isinstance(stop_on, tuple | list | set | frozenset):
        raise UserError(f"stop_on={stop_on!r:.200} has to be a tuple of verdicts, among {known}")
    for verdict in stop_on:
        if verdict not in VERDICTS:
            raise UserError(f"stop_on has {verdict!r:.200}, which is none of {known}")


def _check_whole(name: str, value: Any, unit: str, *, or_none: bool = False) -> None:
    if value is None and or_none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"{name}={value!r} has to be a whole number of {unit}, 1 or more{', or None' if or_none else ''}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
