"""The picture of the loss between two ends."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.surfaces.barrier import Barrier, barrier_height
from mlflow_hp.plots import barrier_info, draw_barrier
from mlflow_hp.plots.figure import save

T = np.linspace(0, 1, 5)


def between(**other):
    numbers = {
        "t": T, "line": np.array([1.0, 2, 4, 3, 2]), "aligned": np.array([1.0, 1.5, 1.8, 1.9, 2]),
        "curve": np.array([1.0, 0.5, 0.1, 0.5, 2]), "titles": ("anna's $run$", "ben's run"), "n_samples": 2000,
        "curve_steps": 100, "alignment": "3 of 4 hidden units of ben's run change their places", "batch_norm": "",
        "permutations": {}, "aligned_weights": None, "bend": None, "sources": ("snapshots", "history"),
    }  # fmt: skip
    return Barrier(**{**numbers, **other})


def test_the_height_is_above_the_line_between_the_ends():
    assert barrier_height(T, np.array([1.0, 2, 4, 3, 2])) == 2.5
    assert barrier_height(T, np.array([1.0, 0, 0, 0, 2])) == 0
    assert barrier_height(T, np.array([1.0, np.nan, 0, 0, 2])) == np.inf


def test_the_labels_say_the_heights_and_the_title_what_was_done():
    info = barrier_info(between(batch_norm="statistics of the 2,000 rows at each point"))
    assert list(info.losses) == [
        "straight line: barrier 2.5", "line, units aligned: barrier 0.3", "trained curve: barrier 0",
    ]  # fmt: skip
    assert info.ends == (1, 2)
    for part in ("2,000 samples", "100 steps", "3 of 4 hidden units", "batch normalisation"):
        assert part in info.title


def test_what_was_left_out_is_missing_and_the_reason_is_in_the_title():
    info = barrier_info(between(aligned=None, curve=None, alignment="left out: its layers are no chain"))
    assert list(info.losses) == ["straight line: barrier 2.5"]
    assert "alignment left out: its layers are no chain" in info.title
    assert "curve" not in info.title
    without = barrier_info(between(aligned=None))
    assert without.styles == (0, 2)  # the curve has its colour, whatever else is there


@pytest.mark.parametrize("line", [[1.0, 2, 4, 3, 2], [1.0, np.inf, np.nan, 1e4, 2], [1e-6, 1, 4, 3, 1e-5]])
def test_it_is_drawn_with_labels_of_both_axes_and_a_legend(line, tmp_path):
    axes = draw_barrier(barrier_info(between(line=np.array(line))))
    assert axes.get_ylabel() == "loss"
    assert "ben's run" in axes.get_xlabel()
    assert len(axes.get_legend().get_texts()) == 4
    assert save(axes, tmp_path / "barrier.png").stat().st_size > 10_000
