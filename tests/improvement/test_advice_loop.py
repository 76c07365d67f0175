"""Which training is tried next, with results and findings made up."""

from __future__ import annotations

import math

import pytest

from mlflow_hp.analysis.diagnosis import Change, Finding
from mlflow_hp.improvement import AdviceLoop, Scores, TrainingResult, summary
from mlflow_hp.improvement.advice_loop import NO_PROBLEM, NOT_REAL, NOTHING_LEFT, SPENT


def finding(*changes, name="rule", severity="problem"):
    return Finding(name, "too slow", "It is.", {}, severity=severity, change=tuple(Change(*c) for c in changes))


RATE = finding(("learning_rate", 0.01, 1.0))
BATCH = finding(("batch_size", 256, 32))


def follow(start, respond, trainings=3, **settings):
    """Run a loop; `respond` maps hyperparameters to findings and val_loss, an error, or scores."""
    loop = AdviceLoop(start, trainings, **settings)
    while (proposal := loop.propose()) is not None:
        findings, result = respond(proposal.hyperparameters)
        scores = (
            result if isinstance(result, Scores) else Scores({} if isinstance(result, str) else {"val_loss": result})
        )
        error = result if isinstance(result, str) else ""
        loop.add(TrainingResult(proposal, f"run {len(loop.trainings)}", tuple(findings), scores, error))
    return loop


def tried(loop):
    return [training.hyperparameters for training in loop.trainings]


def verdicts(loop):
    return [training.verdict for training in loop.trainings]


def test_nothing_to_try():
    loop = follow({"lr": 0.01}, lambda _: ([], 1.0))
    assert (tried(loop), loop.ending) == ([{"lr": 0.01}], NOTHING_LEFT)


def test_a_training_without_a_problem_is_left_alone_unless_hints_are_asked_for():
    hint = finding(("epochs", 10, 20), severity="hint")
    start = {"epochs": 10}
    loop = follow(start, lambda _: ([hint], 1.0))
    assert (tried(loop), loop.ending) == ([start], NO_PROBLEM)
    assert "hints=True: epochs=20 (too slow)" in summary(loop)
    assert tried(follow(start, lambda _: ([hint], 1.0), hints=True)) == [start, {"epochs": 20}]
    assert loop.left_alone[0].hyperparameters == {"epochs": 20}


def test_hints_are_followed_where_there_was_a_problem():
    hint = finding(("epochs", 10, 20), severity="hint")
    loop = follow({"lr": 0.01, "epochs": 10}, lambda h: ([RATE] if h["lr"] < 1 else [hint], 1 / h["lr"] / h["epochs"]))
    assert tried(loop)[2] == {"lr": 1.0, "epochs": 20}
    assert loop.left_alone == []


def test_the_first_finding_that_touches_a_keyword_is_followed_until_all_trainings_are_used_up():
    def respond(h):
        return [finding(("loss", "mse", "mae")), finding(("learning_rate", h["lr"], h["lr"] * 10))], 1 / h["lr"]

    loop = follow({"lr": 0.01}, respond, 2)
    assert [h["lr"] for h in tried(loop)] == pytest.approx([0.01, 0.1, 1.0])
    assert verdicts(loop) == ["start", "better", "better"]
    assert loop.ending == SPENT
    assert loop.best is loop.trainings[2]


def test_what_is_worse_is_taken_back_and_the_next_finding_is_tried():
    losses = {(0.01, 256): 1.0, (1.0, 256): 2.0, (0.01, 32): 0.5}
    loop = follow({"lr": 0.01, "batch": 256}, lambda h: ([RATE, BATCH], losses[h["lr"], h["batch"]]), 2)
    assert tried(loop)[1:] == [{"lr": 1.0, "batch": 256}, {"lr": 0.01, "batch": 32}]
    assert verdicts(loop) == ["start", "worse", "better"]
    assert loop.best.hyperparameters == {"lr": 0.01, "batch": 32}


@pytest.mark.parametrize("by", ["result", "advice"])
def test_a_change_that_went_too_far_is_halved_on_a_logarithmic_scale(by):
    def respond(h):
        if h["lr"] == 1.0:
            back = [finding(("learning_rate", 1.0, 0.3))] if by == "advice" else []
            return back, 3.0 if by == "advice" else math.nan
        return [RATE, BATCH], 1.0 if h["lr"] == 0.01 else 0.1

    loop = follow({"lr": 0.01, "batch": 256}, respond, 2)
    assert tried(loop)[2] == {"lr": 0.1, "batch": 256}
    assert loop.trainings[2].proposal.note == "half of a change that went too far"
    assert verdicts(loop) == ["start", "worse", "better"]


def test_halves_come_last_where_nothing_says_that_the_change_went_too_far():
    loop = follow({"lr": 0.01}, lambda h: ([RATE], {0.01: 1.0, 1.0: 2.0}.get(h["lr"], 1.5)), 9)
    assert [h["lr"] for h in tried(loop)] == pytest.approx([0.01, 1.0, 0.1, 0.0316, 0.0178, 0.0133])
    assert loop.ending == NOTHING_LEFT
    assert loop.best.hyperparameters == {"lr": 0.01}


def test_half_of_an_earlier_change_is_made_to_the_best_training():
    losses = {(0.01, 256): 1.0, (1.0, 256): 2.0, (0.01, 32): 0.5}
    loop = follow({"lr": 0.01, "batch": 256}, lambda h: ([RATE, BATCH][: 1 + (h["batch"] == 256)],
                                                         losses.get((h["lr"], h["batch"]), 3.0)), 4)  # fmt: skip
    assert tried(loop)[3:] == [{"lr": 1.0, "batch": 32}, {"lr": 0.1, "batch": 32}]


def test_no_combination_is_tried_twice():
    loop = follow({"lr": 0.01}, lambda h: ([finding(("learning_rate", h["lr"], 0.01 if h["lr"] == 1 else 1.0))],
                                           -h["lr"]), 5)  # fmt: skip
    assert tried(loop) == [{"lr": 0.01}, {"lr": 1.0}]


def test_a_difference_that_is_not_real_ends_it_unless_a_problem_is_left():
    hint = finding(("batch_size", 256, 32), severity="hint")
    for second, n in ((hint, 2), (BATCH, 3)):
        loop = follow({"lr": 0.01, "batch": 256}, lambda h, second=second: ([RATE, second], 1.0 + h["lr"] / 1000))
        assert len(loop.trainings) == n
        assert set(verdicts(loop)[1:]) == {"no real difference"}
        assert loop.ending == NOT_REAL
        assert loop.best is loop.trainings[0]


def test_the_finding_that_weighs_the_others_is_followed_first():
    weighed = finding(("learning_rate", 0.01, 0.3), name="next_try")
    loop = follow({"lr": 0.01, "batch": 256}, lambda _: ([BATCH, weighed], 1.0), 1)
    assert tried(loop)[1] == {"lr": 0.3, "batch": 256}


def test_what_is_fine_is_not_followed():
    fine = finding(("epochs", 100, 12), severity="fine")
    assert len(follow({"epochs": 100}, lambda _: ([fine], 1.0)).trainings) == 1


def test_a_failed_training_is_left_out_and_the_next_finding_is_followed():
    loop = follow(
        {"lr": 0.01, "batch": 256}, lambda h: ([RATE, BATCH], "boom" if h["lr"] == 1 else float(h["batch"])), 2
    )
    assert verdicts(loop) == ["start", "failed", "better"]
    assert tried(loop)[2] == {"lr": 0.01, "batch": 32}


def test_evidence_suggests_values_where_a_finding_has_no_change():
    old = Finding("speed", "too slow", "It is.", {"suggested_learning_rate": 0.5, "suggested_epochs": None, "x": 1.0})
    loop = follow({"eta": 0.01, "epochs": 5}, lambda h: ([old], 1 - h["eta"]), hints=True)
    assert tried(loop) == [{"eta": 0.01, "epochs": 5}, {"eta": 0.5, "epochs": 5}]


def test_changes_of_a_finding_are_made_together_and_complete_ones_first():
    both = finding(("standardize", False, True), ("learning_rate", 0.01, 0.3))
    part = finding(("last_activation", "linear", "softmax"), ("last_units", 1, 3))
    loop = follow({"lr": 0.01, "scale": False, "output_activation": "linear"}, lambda _: ([part, both], 1.0), 9)
    assert tried(loop)[1:] == [
        {"lr": 0.3, "scale": True, "output_activation": "linear"},
        {"lr": 0.01, "scale": False, "output_activation": "softmax"},
    ]


def test_stepwise_the_learning_rate_is_changed_alone_first():
    both = finding(("standardize", False, True), ("learning_rate", 0.01, 0.3))
    loop = follow({"lr": 0.01, "scale": False}, lambda _: ([both], 1.0), 9, stepwise=True)
    assert tried(loop)[1:] == [{"lr": 0.3, "scale": False}, {"lr": 0.3, "scale": True}]
    assert loop.trainings[1].proposal.note == "the learning rate alone, to see what it does"


def test_keywords_that_the_start_leaves_at_their_defaults_are_changed_too():
    loop = follow({}, lambda h: ([BATCH], 1 / len(h) if h else 2.0), defaults={"batch_size": 256, "lr": 0.1})
    assert tried(loop) == [{}, {"batch_size": 32}]


def test_the_best_of_a_start_that_is_not_finite():
    loop = follow({"lr": 1.0}, lambda h: ([finding(("learning_rate", h["lr"], h["lr"] / 3))],
                                          math.nan if h["lr"] > 0.2 else 1.0), 2)  # fmt: skip
    assert verdicts(loop) == ["start", "no real difference", "better"]
    assert loop.best.hyperparameters["lr"] < 0.2


@pytest.mark.parametrize(
    ("keywords", "old", "new", "verdict"),
    [
        (("loss", "mse", "categorical_crossentropy"), {"val_loss": 0.1, "val_accuracy": 0.5},
         {"val_loss": 0.9, "val_accuracy": 0.8}, "better"),
        (("loss", "mse", "mae"), {"val_loss": 0.1}, {"val_loss": 0.05}, "not comparable"),
        (("scale_targets", False, True), {"val_loss": 9.0, "val_mae": 9.0}, {"val_loss": 0.9, "val_mae": 0.9},
         "not comparable"),
        (("batch_size", 256, 32), {"val_loss": 0.1, "val_accuracy": 0.5}, {"val_loss": 0.9, "val_accuracy": 0.8},
         "worse"),
    ],
)  # fmt: skip
def test_losses_of_another_kind_are_not_compared(keywords, old, new, verdict):
    parameter, before, after = keywords
    results = {before: Scores(old), after: Scores(new)}
    loop = follow({parameter: before}, lambda h: ([finding(keywords)], results[h[parameter]]), 1)
    assert verdicts(loop) == ["start", verdict]


def test_without_a_loss_the_metric_tells_that_a_training_has_no_result():
    """Of two without one the last is gone on from; of two that do not differ, the first."""

    def respond(h):
        distance = math.inf if h["lr"] > 0.02 else 0.5
        return [finding(("learning_rate", h["lr"], h["lr"] / 10))], Scores({"distance": distance})

    loop = follow({"lr": 10.0}, respond, 4, metric="distance", goal="min")
    assert [h["lr"] for h in tried(loop)] == pytest.approx([10, 1, 0.1, 0.01, 0.001])
    assert loop.best is loop.trainings[3]
