"""Settings of the recording of one fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.delivery.metric_selection import MAX_POINTS
from mlflow_hp.training.capture import CaptureSettings
from mlflow_hp.training.live_findings import LiveSettings, live_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class FitSettings(NamedTuple):
    """Settings of `TrainingRecorder` for one fit."""

    capture: CaptureSettings
    metrics_every: int
    report: bool
    snapshot_megabytes: float
    owns_run: bool
    extra_tags: Mapping[str, str]
    metrics: str = "summary"
    max_points: int | None = MAX_POINTS
    live: LiveSettings | None = None


def fit_settings(recorder: Any) -> FitSettings:
    """Read the settings from the attributes of a `TrainingRecorder`."""
    return FitSettings(
        CaptureSettings(recorder.weights, recorder.gradients, float(recorder.overhead), recorder.sharpness_every),
        recorder.metrics_every,
        recorder.report,
        recorder.snapshot_megabytes,
        recorder.owns_run,
        recorder.extra_tags,
        metrics=recorder.metrics,
        max_points=recorder.max_points,
        live=live_settings(recorder),
    )
