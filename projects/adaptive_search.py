"""Adaptive search by cross-validation: each combination is chosen by the scores of those before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.terminal import count
from projects import arguments, grids, search_runner, search_settings
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from projects.arguments import Settings

SAMPLERS = ("tpe", "random", "qmc")


TIME_BUDGET_HELP = "begin no combination that would end after it, as 90s, 10min or 1h 30min"
NOT_TAKEN = ("halving", "engine")
"""Parameters of other searches: each round has one combination."""
PARAMETERS = [
    *search_settings.DATA,
    Parameter("space", "rate_and_dropout", str,
              f"one of {', '.join(grids.TUTORIALS['space'])}, JSON, or the path of a YAML file: names with lists of "
              'values, or with {"low": ..., "high": ..., "log": true}', several=False),
    Parameter("n_iter", "10", arguments.whole(1), "combinations to try", several=False),
    Parameter("sampler", "tpe", arguments.one_of(lambda: list(SAMPLERS)), "Optuna's sampler that chooses them",
              several=False),
    *grids.parameters(
        hidden="64-64", activation="relu", initializer="glorot_uniform", dropout="0.2", optimizer="Adam",
        learning_rate="0.001", batch_size="32", epochs="10",
    ),
    *(
        parameter._replace(help=TIME_BUDGET_HELP) if parameter.name == "time_budget" else parameter
        for parameter in search_settings.SEARCH
        if parameter.name not in NOT_TAKEN
    ),
]  # fmt: skip
QUESTION = "Which combination is the best, if each is chosen by the scores of those before?"


def train(settings: Settings, command: str) -> Outcome:
    """Search with the active run as the parent."""
    from mlflow_hp import AdaptiveSearchCV

    space = grids.read(settings["space"], "space")
    data = search_settings.load(settings)
    common = search_settings.common(data, {**settings, "halving": False}, space)
    chosen = {"n_iter": settings["n_iter"], "sampler": settings["sampler"], "time_budget": settings["time_budget"]}
    search = AdaptiveSearchCV(
        search_settings.estimator(data, settings), space, random_state=settings["seed"], **chosen, **common
    )
    outcome = search_runner.run(search_settings.SearchSetup(QUESTION, settings, command, data), search)
    n = len(search.cv_results_["params"])
    why = {"time_budget": "the time was up", "space": "the space has no others"}.get(search.stopped_by_)
    lines = (
        [f"{n} of {count(settings['n_iter'], 'combination')} {'was' if n == 1 else 'were'} tried: {why}."]
        if why
        else []
    )
    return outcome._replace(findings=[*lines, *outcome.findings])


EXPERIMENT = Experiment(
    "adaptive_search", QUESTION, PARAMETERS, train, kind="search", improves_itself=True, check=search_settings.check
)

if __name__ == "__main__":
    main(EXPERIMENT)
