"""Trainings of the benchmark of the diagnosis, made without looking at its rules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.diagnosis_cases.case import Case

_MODULES = (
    "keyword_healthy", "healthy_programs", "healthy_regressions", "healthy_sequences", "keyword_network_faults",
    "keyword_training_faults", "healthy_schedules", "output_faults", "label_faults", "data_faults", "fit_faults",
    "network_faults", "regularisation_faults", "forum_faults", "forum_network_faults", "mutated_faults",
    "guide_programs", "guide_networks", "course_faults", "course_data_faults", "course_programs",
)  # fmt: skip


def all_cases() -> list[Case]:
    """Every case, by kind and name."""
    from benchmarks.diagnosis_cases.case import checked

    return checked(case for name in _MODULES for case in import_module(f"{__name__}.{name}").CASES)
