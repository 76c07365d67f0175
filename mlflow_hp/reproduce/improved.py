"""Improvement of a recorded run of an experiment: its program is run again, and follows the advice of its findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp.errors import UserError
from mlflow_hp.reproduce.rerun import run_program
from mlflow_hp.reproduce.run_comparison import search_runs
from mlflow_hp.tracking.tags import EXPERIMENT_TAG, KIND_TAG, REPETITION_TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities import Run

    from mlflow_hp.reproduce.recipe import Recipe

PACKAGE = "projects."
"""Package of the experiments of MLproject."""
OPTION = "--improve"


def improving(recipe: Recipe, trainings: int) -> Recipe:
    """Change a recipe so that its program follows the advice of its findings.

    A nested run starts from its own values: those that the recorded command has among several, so that the seal of the
    command holds; with another value, as of a training of an improvement, the recipe has no seal any more.

    Parameters
    ----------
    recipe : Recipe
        Recipe of a run of an experiment.
    trainings : int
        Trainings after the first one.

    Returns
    -------
    Recipe
        The changed recipe.

    Raises
    ------
    UserError
        If the run is none of an experiment of MLproject.
    """
    program, run = recipe.program, recipe.run
    if EXPERIMENT_TAG not in run.data.tags or program is None or not (program.module or "").startswith(PACKAGE):
        raise UserError(
            f"run {run.info.run_id} is no run of an experiment of the MLproject, whose command can be run again with "
            "other values. In a program of your own, call mlflow_hp.improve(train, start)"
        )
    words = list(program.arguments)
    if OPTION in words[:-1]:
        at = words.index(OPTION)
        del words[at : at + 2]
    is_sealed = recipe.is_sealed
    if run.info.run_id != recipe.top_run.info.run_id:
        for at in range(1, len(words)):
            value = run.data.params.get(words[at - 1].removeprefix("--")) if words[at - 1].startswith("--") else None
            if value is not None and not _is_same(words[at], value):
                same = [part for part in words[at].split(",") if _is_same(part, value)]
                words[at], is_sealed = (same[0], is_sealed) if same else (value, False)
    arguments = (*words, OPTION, str(trainings))
    return recipe._replace(program=program._replace(arguments=arguments), is_sealed=is_sealed)


def run_improvement(
    recipe: Recipe, *, here: bool = False, trust: bool = False, confirm: Callable[[list[str]], None] | None = None
) -> Run:
    """Run the program of an `improving` recipe.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    here : bool
        Whether to run it in the working folder with the code there, instead of a copy. Defaults to False.
    trust : bool
        Whether to run it without the seal of this user. Defaults to False.
    confirm : callable, optional
        Called with lines that describe what is about to be run; raises to cancel.

    Returns
    -------
    Run
        Parent run of the trainings.

    Raises
    ------
    UserError
        If the recipe is incomplete, its author is not trusted, or the program recorded no improvement.
    """
    attempt = run_program(recipe, here=here, trust=trust, confirm=confirm)
    new_runs = search_runs(f"tags.`{REPETITION_TAG}` = '{attempt.id}'")
    improvements = [run for run in new_runs if run.data.tags.get(KIND_TAG) == "improvement"]
    if improvements:  # that of a search's winner is nested in the run of the search
        return min(improvements, key=lambda run: MLFLOW_PARENT_RUN_ID in run.data.tags)
    raise UserError(
        f"the program ended with status {attempt.status}, and recorded no improvement: its output above says why. An "
        "experiment of an earlier commit does not know --improve: with --here the code in this folder is run"
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two texts are the same value: 1e-1 and 0.1 are."""
    try:
        return one.strip() == other or float(one) == float(other)
    except ValueError:
        return False
