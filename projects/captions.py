"""Small print below the titles of pictures: the settings that several trainings share, and those that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projects import arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projects.arguments import Settings

SHOWN = ("data", "feature", "schedule", "optimizer", "learning_rate", "momentum", "batch_size", "epochs", "hidden",
         "standardize", "x", "y", "iterations")  # fmt: skip
"""Settings that matter to a reader of a picture, the most telling first."""


def caption(several: Sequence[Settings]) -> str:
    """Describe the settings of one or several trainings, such as "4 runs that differ in schedule; all: data digits"."""
    differing = arguments.varying_names(several)
    shared = [
        f"{_words(name)} {arguments.text_of(several[0][name])}"
        for name in SHOWN
        if name in several[0] and name not in differing and several[0][name] is not None
    ]
    if len(several) == 1:
        return ", ".join(shared)
    names = " and ".join(_words(name) for name in differing)
    return f"{len(several)} runs that differ in {names or 'nothing'}; all: {', '.join(shared)}"


def _words(name: str) -> str:
    return name.replace("_", " ")
