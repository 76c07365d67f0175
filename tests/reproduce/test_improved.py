"""The command `mlflow-hp improve`: which program it runs, and what it finds afterwards."""

from __future__ import annotations

import mlflow
import pytest

from mlflow_hp.cli import main as cli
from mlflow_hp.errors import UserError
from mlflow_hp.reproduce import improved, recipe
from mlflow_hp.reproduce.rerun import Attempt
from mlflow_hp.tracking.tags import BEST_RUN_ID_TAG, BEST_TAG, COMMAND_TAG, EXPERIMENT_TAG, KIND_TAG, REPETITION_TAG

COMMAND = "python -m projects.train --learning_rate 1e-1,0.01 --epochs 2 --improve 0"


@pytest.fixture
def recorded(store):
    """Record a run of an experiment, and one nested in it; gives the recipe of either."""

    def record(command=COMMAND, nested=None, experiment="train"):
        tags = {COMMAND_TAG: command} | ({EXPERIMENT_TAG: experiment} if experiment else {})
        with mlflow.start_run(tags=tags) as top:
            run_id = top.info.run_id
            if nested is not None:
                with mlflow.start_run(nested=True, tags={EXPERIMENT_TAG: "train"}) as below:
                    mlflow.log_params(nested)
                    run_id = below.info.run_id
        return recipe.recipe_of(run_id)._replace(is_sealed=True)

    return record


def arguments(steps):
    return " ".join(steps.program.arguments)


def test_the_command_is_run_with_improve(recorded):
    steps = improved.improving(recorded(), 3)
    assert arguments(steps) == "--learning_rate 1e-1,0.01 --epochs 2 --improve 3"
    assert steps.is_sealed
    steps = improved.improving(recorded("python -m projects.train --epochs 2"), 1)
    assert arguments(steps) == "--epochs 2 --improve 1"


def test_a_nested_run_starts_from_its_own_values_of_the_command(recorded):
    steps = improved.improving(recorded(nested={"learning_rate": "0.1", "epochs": "2", "other": "x"}), 3)
    assert arguments(steps) == "--learning_rate 1e-1 --epochs 2 --improve 3"
    assert steps.is_sealed


def test_values_that_the_command_does_not_have_break_its_seal(recorded):
    steps = improved.improving(recorded(nested={"learning_rate": "0.3", "epochs": "2"}), 3)
    assert arguments(steps) == "--learning_rate 0.3 --epochs 2 --improve 3"
    assert not steps.is_sealed


@pytest.mark.parametrize(
    ("command", "experiment"), [("python train.py", "train"), ("python -m train", "train"), (COMMAND, "")]
)
def test_other_programs_are_refused(recorded, command, experiment):
    with pytest.raises(UserError, match=r"call mlflow_hp\.improve\(train, start\)"):
        improved.improving(recorded(command, experiment=experiment), 3)


@pytest.mark.parametrize(("kind", "status"), [("improvement", 0), ("search", 0), ("training", 2)])
def test_the_run_of_the_improvement_is_named(recorded, monkeypatch, capsys, kind, status):
    def run_program(steps, **settings):
        assert settings["here"]
        assert arguments(steps).endswith("--improve 2")
        tags = {KIND_TAG: kind, REPETITION_TAG: kind, BEST_TAG: "1 epochs=9", BEST_RUN_ID_TAG: "abc"}
        with mlflow.start_run(tags=tags):
            if kind == "search":  # it follows the advice about its winner in a nested run
                with mlflow.start_run(tags={**tags, KIND_TAG: "improvement"}, nested=True):
                    pass
            return Attempt(kind, status)

    monkeypatch.setattr(improved, "run_program", run_program)
    original = recorded().run.info.run_id
    assert cli.main(["improve", original, "--trainings", "2", "--here", "--yes"]) == status
    printed = capsys.readouterr()
    if status == 0:
        assert "the best training is 1 epochs=9, run abc" in printed.out
    else:
        assert "recorded no improvement" in printed.err
