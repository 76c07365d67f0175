"""Trials of Optuna's studies and of KerasTuner's tuners, as nested runs."""
