"""Random search against a baseline: both tested on the same held-out part, and the gain with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from projects import arguments, gain, grids, search_runner, search_settings
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main
from projects.search_settings import SearchSetup

if TYPE_CHECKING:
    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.search_runner import Trained

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
QUESTION = "Is the best combination of a random search really better than the baseline?"


def train(settings: Settings, command: str) -> Outcome:
    """Search with the active run as the parent, and compare the best with the network that `settings` describe."""
    from sklearn import model_selection

    space = grids.read(settings["space"], "space")
    data = search_settings.load(settings)
    common, estimator = search_settings.common(data, settings, space), search_settings.estimator(data, settings)
    common |= {
        "random_state": settings["seed"],
        "n_candidates" if settings["halving"] else "n_iter": settings["n_iter"],
    }
    search_class: Any = (
        model_selection.HalvingRandomSearchCV if settings["halving"] else model_selection.RandomizedSearchCV
    )
    setup = SearchSetup(QUESTION, settings, command, data)
    search = search_class(estimator, space, **common)
    return search_runner.run(setup, search, lambda best, report: _report_gain(best, report, setup, estimator))


def _report_gain(best: Trained, report: Report, setup: SearchSetup, estimator: Any) -> search_runner.ReportExtension:
    """Train the baseline, and report the gain of the best combination over it."""
    from sklearn.metrics import check_scoring

    baseline = search_runner.train_and_test("baseline", estimator, {}, setup)
    scorer = check_scoring(baseline.estimator, setup.scoring)
    difference = gain.paired_gain(scorer, best.estimator, baseline.estimator, setup.data.x_test, setup.data.y_test)
    _draw(best, baseline, report)
    sentence = (
        f"The best of the search has {setup.scorer} {best.test_score:.4g} on the test part, the baseline "
        f"{baseline.test_score:.4g}. The gain is {difference.sentence} (percentile bootstrap of the "
        f"{len(setup.data.y_test):,} test samples, paired; Efron and Tibshirani 1993)."
    )
    numbers = {"baseline_score": baseline.test_score, "gain": difference.value, "gain_low": difference.low,
               "gain_high": difference.high}  # fmt: skip
    return [sentence], numbers


def _draw(best: Trained, baseline: Trained, report: Report) -> None:
    """Draw loss and metric of both by epoch, on the training and the test part."""
    from mlflow_hp.plots import training

    trained = {"best": best, "baseline": baseline}
    histories = {name: each.history for name, each in trained.items() if each.history is not None}
    names = next((list(history.epochs) for history in histories.values()), [])
    for name in [name for name in names if f"val_{name}" in names]:
        curves = [
            training.Curve(history.epochs["epoch"], history.epochs[key], f"{label}, {part}")
            for label, history in histories.items()
            for part, key in (("training", name), ("test", f"val_{name}"))
        ]
        report.picture(
            f"{name}_by_epoch",
            training.draw_curves(training.curves_info(curves, "epoch", training.metric_in_words(name))),
        )


EXPERIMENT = Experiment(
    "random_search", QUESTION, PARAMETERS, train, kind="search", improves_itself=True, check=search_settings.check
)

if __name__ == "__main__":
    main(EXPERIMENT)
