"""Diagnosis of a recorded training: findings, each with its evidence and what to try next.

Each rule is one function; the threshold and its source are in the docstring.
"""

from __future__ import annotations

from mlflow_hp.analysis.diagnosis.chance import chance, explains_nothing
from mlflow_hp.analysis.diagnosis.descent import divergence, oscillation, speed
from mlflow_hp.analysis.diagnosis.finding import Change, Finding, Findings, from_json, to_json, to_metrics
from mlflow_hp.analysis.diagnosis.forecast import Forecast, forecast, prospects
from mlflow_hp.analysis.diagnosis.generalization import overfit, plateau
from mlflow_hp.analysis.diagnosis.layers import dead_units, layers, saturated_units, update_ratios
from mlflow_hp.analysis.diagnosis.network import diagnose
from mlflow_hp.analysis.diagnosis.noise_scale import (
    GradientNoise,
    NoiseScaleSeries,
    gradient_noise,
    noise_scale,
    noise_scale_by_step,
)
from mlflow_hp.analysis.diagnosis.range_test import RangeTest, range_finding, range_test
from mlflow_hp.analysis.diagnosis.regression import diagnose_regression, next_try
from mlflow_hp.analysis.diagnosis.regression_descent import (
    ARRIVED_WITHIN,
    ILL_CONDITIONED,
    REVERSALS,
    arrival,
    curvature,
    distance,
    overshoot,
)
from mlflow_hp.analysis.diagnosis.training import not_finite, trend, weights_not_finite
from mlflow_hp.analysis.diagnosis.words import findings_in_words, result_in_words

__all__ = [
    "ARRIVED_WITHIN",
    "ILL_CONDITIONED",
    "REVERSALS",
    "Change",
    "Finding",
    "Findings",
    "Forecast",
    "GradientNoise",
    "NoiseScaleSeries",
    "RangeTest",
    "arrival",
    "chance",
    "curvature",
    "dead_units",
    "diagnose",
    "diagnose_regression",
    "distance",
    "divergence",
    "explains_nothing",
    "findings_in_words",
    "forecast",
    "from_json",
    "gradient_noise",
    "layers",
    "next_try",
    "noise_scale",
    "noise_scale_by_step",
    "not_finite",
    "oscillation",
    "overfit",
    "overshoot",
    "plateau",
    "prospects",
    "range_finding",
    "range_test",
    "result_in_words",
    "saturated_units",
    "speed",
    "to_json",
    "to_metrics",
    "trend",
    "update_ratios",
    "weights_not_finite",
]
