"""Trainings of the benchmark of the diagnosis, made without looking at its rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.diagnosis_cases.case import Case


def all_cases() -> list[Case]:
    """Every case, by kind and name."""
    from benchmarks.diagnosis_cases import keyword_healthy, keyword_network_faults, keyword_training_faults
    from benchmarks.diagnosis_cases.case import checked

    return checked([*keyword_healthy.CASES, *keyword_network_faults.CASES, *keyword_training_faults.CASES])
