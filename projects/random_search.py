"""A random search against a baseline: both tested on the same held-out part, the gain with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from projects import arguments, gain, grids, search_runner, search_settings
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main
from projects.search_runner import Asked, Trained

if TYPE_CHECKING:
    from mlflow_hp.training import Report
    from projects.arguments import Settings

PARAMETERS = [
    *search_settings.DATA,
    Parameter("space", "small_layers", str,
              f"one of {', '.join(grids.TUTORIALS['space'])}, JSON, or the path of a YAML file: names with lists of "
              'values, or with {"low": ..., "high": ..., "log": true}', several=False),
    Parameter("n_iter", "10", arguments.whole(1), "combinations to draw", several=False),
    *grids.parameters(
        hidden="784-256", activation="relu", initializer="glorot_uniform", dropout="0.2", optimizer="Adam",
        learning_rate="0.01", batch_size="8", epochs="20",
    ),
    *search_settings.SEARCH,
]  # fmt: skip
QUESTION = "Is what a random search finds really better than the baseline?"


def train(settings: Settings, command: str) -> Outcome:
    """Search below the active run, and compare the best with the network that `settings` describe."""
    from sklearn import model_selection

    space = grids.read(settings["space"], "space")
    data = search_settings.load(settings)
    common, estimator = search_settings.common(data, settings), search_settings.estimator(data, settings)
    common |= {
        "random_state": settings["seed"],
        "n_candidates" if settings["halving"] else "n_iter": settings["n_iter"],
    }
    kind: Any = model_selection.HalvingRandomSearchCV if settings["halving"] else model_selection.RandomizedSearchCV
    asked = Asked(QUESTION, settings, command, data)
    search = kind(estimator, space, **common)
    return search_runner.run(asked, search, lambda best, report: _compared(best, report, asked, estimator))


def _compared(best: Trained, report: Report, asked: Asked, estimator: Any) -> search_runner.More:
    """Train the baseline, and hold the best against it."""
    from sklearn.metrics import check_scoring

    baseline = search_runner.trained("baseline", estimator, {}, asked)
    scorer = check_scoring(baseline.estimator, asked.settings["scoring"])
    found = gain.paired_gain(scorer, best.estimator, baseline.estimator, asked.data.x_test, asked.data.y_test)
    _draw(best, baseline, report)
    said = (
        f"The best of the search has {asked.scorer} {best.test_score:.4g} on the test part, the baseline "
        f"{baseline.test_score:.4g}. The gain is {found.told} (percentile bootstrap of the "
        f"{len(asked.data.y_test):,} test samples, paired; Efron and Tibshirani 1993)."
    )
    numbers = {"baseline_score": baseline.test_score, "gain": found.value, "gain_low": found.low,
               "gain_high": found.high}  # fmt: skip
    return [said], numbers


def _draw(best: Trained, baseline: Trained, report: Report) -> None:
    """Loss and metric of both by epoch, on the training and the test part."""
    from mlflow_hp.plots import training

    both = {"best": best.history, "baseline": baseline.history}
    histories = {name: history for name, history in both.items() if history is not None}
    names = next((list(history.epochs) for history in histories.values()), [])
    for name in [name for name in names if f"val_{name}" in names]:
        curves = [
            training.Curve(history.epochs["epoch"], history.epochs[key], f"{label}, {part}")
            for label, history in histories.items()
            for part, key in (("training", name), ("test", f"val_{name}"))
        ]
        report.picture(f"{name}_by_epoch", training.draw_curves(training.curves_info(curves, "epoch", name)))


EXPERIMENT = Experiment("random_search", QUESTION, PARAMETERS, train, kind="search")

if __name__ == "__main__":
    main(EXPERIMENT)
