"""Training and report of an experiment on a network: a recorded fit, findings, pictures, and a comparison."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.terminal import count
from mlflow_hp.tracking import artifact_paths, tags
from projects import arguments, captions, models, recorded, unit_scores
from projects.arguments import Parameter
from projects.datasets import samples, unsplit
from projects.experiment import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import keras

    from mlflow_hp.analysis import Finding
    from mlflow_hp.history import Snapshots, TrainingHistory
    from mlflow_hp.plots import training as training_plots
    from mlflow_hp.training import BestEpoch, Report
    from projects.arguments import Settings
    from projects.datasets.samples import Samples

RECORDING = [
    Parameter("seed", "0", arguments.whole(0, 2**32 - 1), "seed of split, initial weights and shuffling"),
    Parameter("weights", "auto", arguments.one_of(lambda: ["auto", "all", "statistics", "none"]),
              "weights to record: all keeps every weight at every step, which the gradient noise scale needs",
              several=False),
    Parameter("metrics_every", "none", arguments.optional(arguments.whole(1)),
              "log metrics to MLflow of each such step; none: of about a thousand in all; the history has every step",
              several=False),
    Parameter("landscape", "false", arguments.flag, "draw the loss around the path on a plane through weight space",
              several=False),
    Parameter("snapshot_megabytes", "64", arguments.number(0, open_low=True),
              "memory for the snapshots of weights from which the landscape is drawn", several=False),
]  # fmt: skip
"""Parameters of the recording and the plots."""
JUDGE = Parameter("judge", "auto", arguments.one_of(lambda: ["auto", "best", "last"]),
                  "epoch whose values rank several trainings, the best or the last of each; auto: that of the model "
                  "that is kept", several=False)  # fmt: skip
"""Parameter of experiments whose trainings are ranked by values of an epoch."""
STEPS_IN_MLFLOW = 1000
"""Steps with metrics in MLflow by default: its charts draw 320 points, and it needs milliseconds for each."""


class Trained(NamedTuple):
    """Recorded training, with its data and settings."""

    samples: Samples
    model: keras.Model
    history: TrainingHistory
    snapshots: Snapshots | None
    best: BestEpoch | None
    settings: Settings

    @property
    def loss(self) -> str:
        """Name of its loss."""
        return str(self.model.loss)

    def labels(self, y: np.ndarray) -> np.ndarray:
        """Labels as its loss takes them."""
        return models.labels_for(self.samples, y, self.loss)


ReportExtension = tuple[list["Finding"], dict[str, float]]
"""Findings and numbers that an experiment adds to its report; numbers without a slash are also in the sweep's table."""


def train(
    question: str,
    settings: Settings,
    command: str,
    data: Samples,
    model: keras.Model,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    extend_report: Callable[[Trained, Report], ReportExtension] | None = None,
    diagnosed: bool = True,
    picture: str = "",
) -> Outcome:
    """Fit a compiled model into the active run, and report.

    Parameters
    ----------
    question : str
        Question of the experiment.
    settings, command : Settings, str
        As `Experiment.train` receives them, with epochs, batch_size and those of ``RECORDING``.
    data : Samples
        Data to train on.
    model : keras.Model
        Compiled with one of `models.loss_names`.
    callbacks : sequence of keras.callbacks.Callback
        Callbacks of the fit.
    extend_report : callable, optional
        Adds to the report, and returns findings and numbers. Defaults to None.
    diagnosed : bool
        Whether the network is tested, and its training diagnosed by the rules for networks. Defaults to True.
    picture : str
        Name of the picture to look at first. Defaults to ``""``, for that of the loss.

    Returns
    -------
    Outcome
        Its record is a `Trained`.
    """
    import mlflow

    import mlflow_hp
    from mlflow_hp.tracking import runs

    run_id = mlflow.active_run().info.run_id
    runs.set_tags(run_id, {tags.DATA_DIGEST_TAG: data.digest, tags.SPLIT_DIGEST_TAG: data.split_digest})
    samples.log_input(data, settings["data"])
    budget = settings["snapshot_megabytes"] if settings["landscape"] else 0.0
    n_steps = math.ceil(len(data.x_train) / settings["batch_size"]) * settings["epochs"]
    recorder = mlflow_hp.TrainingRecorder(
        weights=settings["weights"],
        metrics_every=settings["metrics_every"] or max(1, n_steps // STEPS_IN_MLFLOW),
        report=False,
        snapshot_megabytes=budget,
    )

    def report(history: TrainingHistory) -> Outcome:
        trained = Trained(data, model, history, recorder.snapshots, recorder.best, settings)
        return _report(run_id, question, trained, command, extend_report, diagnosed, picture)

    return recorded.fit(
        model,
        recorder,
        report,
        data.x_train,
        models.labels_for(data, data.y_train, model.loss),
        validation_data=(data.x_validation, models.labels_for(data, data.y_validation, model.loss)),
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        callbacks=list(callbacks),
    )


def compare(run_id: str, outcomes: Mapping[str, Outcome]) -> list[str]:
    """Draw the losses, metrics and learning rates of all trainings together, and their paths on one plane."""
    from mlflow_hp.analysis import window_width
    from mlflow_hp.plots import panels, training
    from mlflow_hp.training import Report

    several = {label: outcome.record for label, outcome in outcomes.items()}
    first = next(iter(several.values()))
    with Report(run_id, captions.caption([trained.settings for trained in several.values()])) as report:
        names = [name for name in first.history.epoch_metrics if name != "learning_rate"]
        for name in dict.fromkeys(name.removeprefix("val_") for name in names):
            shown = [each for each in (name, f"val_{name}") if each in names]
            infos = [_by_epoch(several, each) for each in shown]
            for each, info in zip(shown, training.on_one_scale(infos), strict=True):
                report.picture(f"{each}_by_epoch", training.draw_curves(info))
        width = min(window_width(trained.history.n_steps) for trained in several.values())
        by_batch = {label: training.loss_by_batch(trained.history, width) for label, trained in several.items()}
        report.picture("loss_by_batch", panels.draw_panels(panels.panels_info(by_batch, "loss of each batch")))
        curves = [
            training.Curve(trained.history.steps["step"], trained.history.steps["learning_rate"], label)
            for label, trained in several.items()
        ]
        if any(np.ptp(curve.y) for curve in curves):
            rates = training.curves_info(curves, "step", "learning rate")
            report.picture("learning_rate_by_step", training.draw_curves(rates))
        if first.settings["landscape"]:
            _landscapes(report, several, {label: outcome.run_id for label, outcome in outcomes.items()})
    return []


def _by_epoch(several: Mapping[str, Trained], name: str) -> training_plots.CurvesInfo:
    """Curves of a metric of several trainings by epoch."""
    from mlflow_hp.plots import training

    curves = [
        training.Curve(trained.history.epochs["epoch"], trained.history.epochs[name], label)
        for label, trained in several.items()
        if name in trained.history.epochs
    ]
    return training.curves_info(curves, "epoch", training.metric_in_words(name))


def result(history: TrainingHistory) -> dict[str, float]:
    """Metrics of the last epoch."""
    return {name: float(history.epochs[name][-1]) for name in history.epoch_metrics if history.n_epochs}


def _report(
    run_id: str,
    question: str,
    trained: Trained,
    command: str,
    extend_report: Callable[[Trained, Report], ReportExtension] | None,
    diagnosed: bool,
    picture: str,
) -> Outcome:
    import mlflow

    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.tracking import runs
    from mlflow_hp.training import (
        Report,
        add_training_page,
        dead_shares,
        saturated_shares,
        settings_in_words,
        training_pictures,
    )

    data, model, history = trained.samples, trained.model, trained.history
    numbers: dict[str, float] = {}
    findings: list[Finding] = []
    if diagnosed:
        tested = model.evaluate(data.x_test, trained.labels(data.y_test), verbose=0, return_dict=True)
        numbers = {f"test_{name}": float(value) for name, value in tested.items()}
        numbers |= {} if data.classes else unit_scores.of_test_part(data, model)
        dead, saturated = dead_shares(model, data.x_validation), saturated_shares(model, data.x_validation)
        saturated.pop(model.layers[-1].name, None)  # its outputs are predictions
        n_classes = len(data.classes) or None
        findings = diagnosis.diagnose(history, n_classes=n_classes, dead=dead, saturated=saturated)
    with Report(run_id, f"data {trained.settings['data']}, {settings_in_words(history)}") as report:
        if extend_report is not None:
            extra_findings, extra_numbers = extend_report(trained, report)
            findings, numbers = [*extra_findings, *findings], numbers | extra_numbers
        of_files = {name: value for name, value in numbers.items() if name.startswith(tags.SAVED_PARAM_PREFIX)}
        runs.log_once(mlflow.MlflowClient().get_run(run_id), of_files)
        results = {name: value for name, value in numbers.items() if name not in of_files}
        runs.log_numbers(run_id, diagnosis.to_metrics(findings) | results)
        last = result(history)
        classes = count(len(data.classes), "class") if data.classes else "no classes"
        about = f"{data.source}: {data.sizes}, {classes}.{recorded.noted(data.notes)}"
        if not data.classes:
            mean, deviation = data.target_scale
            about += (
                f" Losses, and mean_absolute_error by epoch, are of the standardised target: in standard deviations of "
                f"{deviation:.4g} around {mean:.4g}. Scores of the test part are in the target's own units."
            )
        scores = last | {name: value for name, value in numbers.items() if name.startswith("test_")}
        picture = picture or ("loss_by_epoch" if history.n_epochs > 1 else "loss_by_batch")
        text = recorded.description(question, about, history, trained.settings, scores, findings, command, picture)
        runs.set_description(run_id, text)
        report.findings(findings)
        training_pictures(report, history)
        samples.picture(report, data)
        if trained.snapshots is not None:
            _landscapes(report, {"path": trained}, {"path": run_id})
        add_training_page(report, history, findings, trained.snapshots)
    ranked, judged_by = _judged(trained, last)
    seconds = float(np.sum(history.epochs.get("seconds", np.zeros(1))))
    sentences = [f"{f.verdict}: {f.text}" for f in findings]
    if "test_root_mean_squared_error" in numbers:
        sentences.insert(0, f"test part: {unit_scores.in_words(numbers)}.")
    table = {**ranked, **{name: value for name, value in numbers.items() if "/" not in name}, "seconds": seconds}
    return Outcome(run_id, table, sentences, trained, judged_by, findings)


def check(settings: Settings) -> list[str]:
    """Check data and loss before a run begins.

    Returns
    -------
    list of str
        What was decided about the data, in sentences.

    Raises
    ------
    UserError
        If the data cannot be trained on, or not with the loss.
    """
    lines = samples.check(settings)
    if unsplit.is_table(settings["data"]) and "loss" in settings:
        models.loss_for(samples.load(settings), settings["loss"])
    return lines


def _judged(trained: Trained, last: dict[str, float]) -> tuple[dict[str, float], str]:
    """Values by which a training is ranked, and of which epoch they are."""
    judge, best = trained.settings.get("judge", "last"), trained.best
    if best is not None and (judge == "best" or (judge == "auto" and best.saved == "best")):
        return best.values, "the best epoch"
    return last, "the last epoch"


def _landscapes(report: Report, several: Mapping[str, Trained], run_ids: Mapping[str, str]) -> None:
    """Draw one plane for all trainings of the same architecture and data; several where these differ."""
    from mlflow_hp.training import landscape

    groups: dict[Any, dict[str, Trained]] = {}
    for label, trained in several.items():
        if trained.snapshots is not None:
            shapes = tuple(values.shape[1:] for values in trained.snapshots.tensors.values())
            key = (shapes, trained.samples.digest, trained.samples.split_digest, trained.loss)
            groups.setdefault(key, {})[label] = trained
    for index, group in enumerate(groups.values()):
        first = next(iter(group.values()))
        paths = {label: trained.snapshots for label, trained in group.items() if trained.snapshots is not None}
        plane = landscape(first.model, paths, first.samples.x_train, first.labels(first.samples.y_train))
        name = artifact_paths.LANDSCAPE_NAME if len(groups) == 1 else f"{artifact_paths.LANDSCAPE_NAME}_{index + 1}"
        report.landscape(plane, run_ids, name)
