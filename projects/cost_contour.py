"""Path of gradient descent over the cost surface of a linear regression, trained as one Dense unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.terminal import count
from mlflow_hp.tracking import artifact_paths, tags
from projects import arguments, captions, models, recorded
from projects.arguments import Parameter
from projects.datasets import data, tables, targets
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from mlflow_hp.analysis import LinearRegressionSurface
    from mlflow_hp.history import TrainingHistory
    from projects.arguments import Settings

PARAMETERS = [
    Parameter("data", "diabetes", str, "diabetes (in scikit-learn), or a CSV file or URL", several=False),
    Parameter("feature", "bmi", str, "column of the feature"),
    Parameter("target", "target", str, "column of the target", several=False),
    targets.TASK._replace(help="of a CSV; a line is fitted, which is a regression: classification is refused"),
    tables.HEADER,
    Parameter("learning_rate", "0.01", arguments.number(0, open_low=True), "learning rate"),
    Parameter("batch_size", "10", arguments.whole(1), "rows in a batch"),
    Parameter("epochs", "10", arguments.whole(1), "passes over the training part"),
    Parameter("optimizer", "RMSprop", arguments.one_of(models.optimizer_names), "any of Keras' optimizers, by name"),
    Parameter("momentum", "0", arguments.number(0, 1, open_high=True), "momentum, for optimizers that have one"),
    Parameter("standardize", "false", arguments.flag, "scale the feature to mean 0 and standard deviation 1"),
    Parameter("test_size", "0.2", arguments.number(0, 1, open_low=True, open_high=True), "share kept for testing"),
    Parameter("seed", "0", arguments.whole(0, 2**32 - 1), "seed of split, initial weights and shuffling"),
    Parameter("weight", "none", arguments.optional(arguments.number()), "initial weight; none: as Keras draws it"),
    Parameter("bias", "none", arguments.optional(arguments.number()), "initial bias; none: zero"),
    Parameter("animate", "true", arguments.flag, "make an animation of the descent", several=False),
    arguments.IMPROVE,
]
QUESTION = "Which path does gradient descent take over the cost surface of a linear regression?"


class Descent(NamedTuple):
    """Recorded descent: data, surface, path (n_steps + 1,) in w and b, and history."""

    data: data.Regression
    surface: LinearRegressionSurface
    w: np.ndarray
    b: np.ndarray
    history: TrainingHistory
    settings: Settings


def train(settings: Settings, command: str) -> Outcome:
    """Train into the active run, and report; if interrupted, report the training up to there."""
    import keras
    import mlflow

    import mlflow_hp
    from mlflow_hp.analysis import LinearRegressionSurface
    from mlflow_hp.tracking import runs

    dataset = data.regression(settings)
    surface = LinearRegressionSurface(dataset.x_train, dataset.y_train)
    run_id = mlflow.active_run().info.run_id
    runs.set_tags(run_id, {tags.DATA_DIGEST_TAG: dataset.digest, tags.SPLIT_DIGEST_TAG: dataset.split_digest})
    data.log_input(dataset, settings["data"])
    keras.utils.set_random_seed(settings["seed"])
    model = models.linear_unit(settings["weight"], settings["bias"])
    optimizer = models.optimizer(settings["optimizer"], settings["learning_rate"], momentum=settings["momentum"])
    model.compile(optimizer, loss="mean_squared_error", metrics=["mean_absolute_error"])
    recorder = mlflow_hp.TrainingRecorder(weights="all", report=False)

    def report(history: TrainingHistory) -> Outcome:
        return _report(run_id, _descent(dataset, surface, history, settings), command)

    outcome = recorded.fit(
        model,
        recorder,
        report,
        dataset.x_train,
        dataset.y_train,
        validation_data=(dataset.x_test, dataset.y_test),
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
    )
    recorded.log_model(model, dataset.x_test)
    return outcome


def compare(run_id: str, outcomes: dict[str, Outcome]) -> list[str]:
    """Draw all paths on one surface (one for each data and scale), and all losses in one picture."""
    from mlflow_hp.analysis import window_width
    from mlflow_hp.plots import panels, training
    from mlflow_hp.plots import surface as surface_plots
    from mlflow_hp.training import Report

    descents = {label: outcome.record for label, outcome in outcomes.items()}
    surfaces: dict[tuple[Any, ...], dict[str, Descent]] = {}
    for label, descent in descents.items():
        key = (descent.data.digest, descent.data.split_digest, descent.data.feature)
        surfaces.setdefault(key, {})[label] = descent
    with Report(run_id, captions.caption([descent.settings for descent in descents.values()])) as report:
        for index, group in enumerate(surfaces.values()):
            first = next(iter(group.values()))
            paths = {label: (descent.w, descent.b) for label, descent in group.items()}
            info = surface_plots.surface_info(first.surface, paths, _axes(first.data))
            name = "cost_contour" if len(surfaces) == 1 else f"cost_contour_{index + 1}"
            report.picture(name, surface_plots.draw_surface(info))
        curves = [
            training.Curve(descent.history.epochs["epoch"], descent.history.epochs["loss"], label)
            for label, descent in descents.items()
        ]
        report.picture("loss_by_epoch", training.draw_curves(training.curves_info(curves, "epoch", "loss")))
        by_step = [
            training.Curve(np.arange(-1, len(d.w) - 1), d.surface.cost(d.w, d.b), label)
            for label, d in descents.items()
        ]
        axes = training.draw_curves(training.curves_info(by_step, "step (-1: before the first)", "cost J"))
        report.picture("cost_by_step", axes)
        width = min(window_width(descent.history.n_steps) for descent in descents.values())
        by_batch = {label: training.loss_by_batch(descent.history, width) for label, descent in descents.items()}
        report.picture("loss_by_batch", panels.draw_panels(panels.panels_info(by_batch, "loss of each batch")))
    return []


def compare_improved(run_id: str, outcomes: dict[str, Outcome]) -> list[str]:
    """Draw all paths in the units of the data, on one surface: of a standardised feature, too."""
    raw = next((o.record for o in outcomes.values() if not o.record.settings["standardize"]), None)
    if raw is None:
        return compare(run_id, outcomes)
    return compare(run_id, {label: o._replace(record=in_units_of(raw, o.record)) for label, o in outcomes.items()})


def in_units_of(raw: Descent, descent: Descent) -> Descent:
    """Convert the path of a descent to the units of another one on the same data that is not standardised.

    ``w (x - mean) / std + b`` is ``(w / std) x + (b - w mean / std)``, so the cost is the same at each step.
    """
    if not descent.settings["standardize"] or descent.data.split_digest != raw.data.split_digest:
        return descent
    x = raw.data.x_train.astype(np.float64)
    slope = descent.w / x.std()
    return descent._replace(data=raw.data, surface=raw.surface, w=slope, b=descent.b - slope * x.mean())


def _descent(
    dataset: data.Regression, surface: LinearRegressionSurface, history: TrainingHistory, settings: Settings
) -> Descent:
    kernel, bias = (history.weights(tensor.name)[..., 0] for tensor in history.tensors)
    return Descent(
        dataset, surface, kernel.ravel().astype(np.float64), bias.ravel().astype(np.float64), history, settings
    )


def _axes(dataset: data.Regression) -> tuple[str, str]:
    return f"weight w of {dataset.feature}", f"bias b, in units of {dataset.target}"


def _report(run_id: str, descent: Descent, command: str) -> Outcome:
    """Log numbers and description, then artifacts, whose store may fail."""
    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.compare import surface_numbers
    from mlflow_hp.tracking import runs
    from mlflow_hp.training import Report, add_training_page, settings_in_words

    settings, history, surface = descent.settings, descent.history, descent.surface
    findings = diagnosis.diagnose_regression(history, surface, descent.w, descent.b, settings)
    numbers = diagnosis.to_metrics(findings)
    runs.log_numbers(run_id, numbers | surface_numbers(surface))
    last = {name: values[-1] for name, values in history.epochs.items() if name in ("loss", "val_loss")}
    about = (
        f"{descent.data.target} from {descent.data.feature}, {descent.data.source}: "
        f"{count(len(descent.data.x_train), 'row')} to train on, {len(descent.data.x_test)} to test."
        f"{recorded.noted(descent.data.notes)}"
    )
    text = recorded.description(QUESTION, about, history, settings, last, findings, command, "cost_contour")
    runs.set_description(run_id, text)
    about = f"{descent.data.target} from {descent.data.feature}, {settings_in_words(history)}"
    with Report(run_id, about) as report:
        report.findings(findings)
        _pictures(report, descent)
        add_training_page(report, history, findings)
    columns = {
        name: numbers.get(f"{tags.DIAGNOSIS_METRIC_PREFIX}{name}", float("nan"))
        for name in ("final_J", "excess_J", "arrival_step")
    }
    verdicts = {"final_J": columns["final_J"], **{k: float(v) for k, v in last.items()}, **columns}
    return Outcome(run_id, verdicts, [f"{f.verdict}: {f.text}" for f in findings], descent, advice=findings)


def _pictures(report: Any, descent: Descent) -> None:
    from mlflow_hp.plots import regression_line, surface_animation, training
    from mlflow_hp.plots import surface as surface_plots
    from mlflow_hp.training import training_pictures

    best = descent.surface.minimum
    info = surface_plots.surface_info(descent.surface, {"path": (descent.w, descent.b)}, _axes(descent.data))
    report.picture("cost_contour", surface_plots.draw_surface(info))
    for name, values, height in (("weight", descent.w, best.w), ("bias", descent.b, best.b)):
        curve = training.weights_by_step(values, name, {"least squares": height})
        report.picture(f"{name}_by_step", training.draw_curves(curve))
    training_pictures(report, descent.history)
    x = np.concatenate([descent.data.x_train, descent.data.x_test])[:, 0]
    y = np.concatenate([descent.data.y_train, descent.data.y_test])
    lines = {
        "after training": (float(descent.w[-1]), float(descent.b[-1])),
        "least squares": (best.w, best.b),
    }
    fit = regression_line.FitInfo(x, y, lines, (descent.data.feature, descent.data.target))
    report.picture("prediction", regression_line.draw_fit(fit))
    if descent.settings["animate"] and len(info.paths["path"].w) > 1:
        file = report.file(f"{artifact_paths.PLOTS_FOLDER}/descent.gif")
        surface_animation.animate_surface(info, file, subtitle=report.subtitle())


EXPERIMENT = Experiment(
    "cost_contour",
    QUESTION,
    PARAMETERS,
    train,
    compare,
    "final_J",
    compare_improved=compare_improved,
    check=data.check,
    picture="cost_contour",
)

if __name__ == "__main__":
    main(EXPERIMENT)
