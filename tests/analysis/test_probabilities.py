"""Probabilities of proposed changes: of the first problem, of those behind it, and of hints."""

from __future__ import annotations

import pytest

from mlflow_hp.analysis.diagnosis import Change, Finding
from mlflow_hp.analysis.diagnosis.probabilities import FOLLOWED, odds, with_probabilities

CHANGE = (Change("learning_rate", 0.1, 0.01),)


def finding(name, severity, verdict="odd", change=CHANGE):
    return Finding(name, verdict, "It is.", {}, "another", severity, change=change)


def probabilities(*findings):
    return [each.probability for each in with_probabilities(findings, {"speed", "trend", "plateau"})]


def test_the_first_problem_is_the_cause_and_those_behind_it_its_effects():
    of_program, of_curve = finding("pixels", "problem"), finding("speed", "problem")
    first, behind = probabilities(of_program, of_curve)
    assert first == pytest.approx(120 / 125, abs=0.005)
    assert behind == pytest.approx(27 / 58, abs=0.005)
    assert behind < probabilities(of_curve)[0] < first


def test_hints_by_their_verdicts():
    falling, stopped = finding("trend", "hint", "still falling"), finding("plateau", "hint", "stopped learning")
    likely, unlikely, other = probabilities(falling, stopped, finding("few_steps", "hint"))
    assert unlikely < other < likely


def test_what_proposes_no_value_or_is_fine_has_none():
    unknown = finding("pixels", "problem", change=(Change("features", None, None),))
    assert probabilities(unknown, finding("trend", "fine"), finding("speed", "hint", change=())) == [None] * 3


def test_changes_that_were_never_tried_have_none():
    metric = finding("accuracy_of_other_task", "problem", change=(Change("metrics", "Accuracy", "accuracy"),))
    validation = finding("validation_scaled_differently", "problem", change=(Change("standardize", "train", "both"),))
    assert probabilities(metric) == probabilities(validation) == [None]


def test_in_words_where_it_is_more_likely_than_not():
    likely, unlikely = with_probabilities([finding("pixels", "problem"), finding("speed", "problem")], ["speed"])
    assert odds(likely) == " That lowered the held-out loss in 96% of made cases."
    assert odds(unlikely) == odds(finding("trend", "fine")) == ""


def test_counts_are_counts():
    assert all(0 <= improved <= tried for improved, tried in FOLLOWED.values())
