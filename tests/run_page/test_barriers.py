"""Logged barriers as the page shows them: heights and words, and what is no barrier."""

from __future__ import annotations

import json

import pytest

from mlflow_hp.run_page.barriers import barrier_from

FILE = {
    "run_ids": ["0f", "1a"], "t": [0.0, 0.5, 1.0], "n_samples": 600, "curve_steps": 2000, "batch_norm": "",
    "losses": {"line": [0.4, 0.9, 0.4], "aligned": [0.4, 0.41, 0.4], "curve": [0.4, 0.2, 0.4]},
    "barriers": {"line": 0.5, "aligned": 0.01, "curve": 0.0},
    "alignment": "3 of 4 hidden units of b change their places",
}  # fmt: skip


def changed(**values):
    return json.dumps(FILE | values)


def test_heights_and_what_they_say():
    shown = barrier_from(changed(), "0f")
    assert (shown["other"], shown["is_first"]) == ("1a", True)
    assert [(way["name"], way["height"]) for way in shown["ways"]] == [
        ("straight line", 0.5), ("line, units aligned", 0.01), ("trained curve", 0.0),
    ]  # fmt: skip
    line, aligned, curve, about = shown["words"]
    assert "rises by 0.5: there is a ridge" in line
    assert "3 of 4 hidden units" in aligned
    assert "differ by the order of their units" in aligned
    assert "2,000 steps, the loss does not rise: the ends are connected" in curve
    assert "600 samples" in about


def test_the_other_run_shows_it_from_its_side():
    shown = barrier_from(changed(), "1a")
    assert (shown["other"], shown["is_first"]) == ("0f", False)


def test_without_a_ridge_nothing_is_said_of_what_explains_it():
    barriers = {"line": 0.01, "aligned": 0.0, "curve": 0.0}
    words = barrier_from(changed(barriers=barriers), "0f")["words"]
    assert "one valley" in words[0]
    assert not any("order of their units" in each or "connected" in each for each in words)


def test_an_infinite_loss_is_a_gap():
    losses = {"line": [0.4, "inf", 0.4]}
    shown = barrier_from(changed(losses=losses, barriers={"line": "inf"}), "0f")
    assert shown["ways"] == [{"name": "straight line", "losses": [0.4, None, 0.4], "height": None}]
    assert "not finite" in shown["words"][0]
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize(
    "text",
    [
        "", "[" * 100_000, "[]", "null", "{}", changed(run_ids=["2b", "1a"]), changed(run_ids=["0f", "a\x00b"]),
        changed(t=[0.0]), changed(losses={"curve": [1, 1, 1]}), changed(losses={"line": [1, 1]}), changed(barriers={}),
        changed(t=[0.0, "nan", 1.0]), changed(n_samples="many"),
    ],
)  # fmt: skip
def test_what_is_no_barrier_of_the_run_is_none(text):
    assert barrier_from(text, "0f") is None
