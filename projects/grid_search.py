"""Grid search by cross-validation: every combination is a nested run, and the best one is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from projects import grids, search_runner, search_settings
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from projects.arguments import Settings

PARAMETERS = [
    *search_settings.DATA,
    Parameter("grid", "init", str,
              f"one of {', '.join(grids.TUTORIALS['grid'])}, JSON, or the path of a YAML file: names with lists",
              several=False),
    *grids.parameters(
        hidden="64-64", activation="relu", initializer="glorot_uniform", dropout="0.5", optimizer="RMSprop",
        learning_rate="0.001", batch_size="128", epochs="10",
    ),
    *search_settings.SEARCH,
]  # fmt: skip
QUESTION = "Which combination of the grid is the best, and is it really better than the others?"


def train(settings: Settings, command: str) -> Outcome:
    """Search with the active run as the parent."""
    from sklearn import model_selection

    space = grids.read(settings["grid"], "grid")
    data = search_settings.load(settings)
    common = search_settings.common(data, settings, space)
    search_class: Any = model_selection.HalvingGridSearchCV if settings["halving"] else model_selection.GridSearchCV
    search = search_class(search_settings.estimator(data, settings), space, **common)
    return search_runner.run(search_settings.SearchSetup(QUESTION, settings, command, data), search)


EXPERIMENT = Experiment(
    "grid_search", QUESTION, PARAMETERS, train, kind="search", improves_itself=True, check=search_settings.check
)

if __name__ == "__main__":
    main(EXPERIMENT)
