"""Network with any optimizer, loss and initialisation: its curves, its test scores, and its saved files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.tracking import artifact_paths, tags
from projects import arguments, models, network, recorded
from projects.arguments import Parameter
from projects.datasets import samples
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    import keras

    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.network import ReportExtension, Trained

SHARE = arguments.number(0, 1, open_high=True)
PARAMETERS = [
    *samples.PARAMETERS,
    Parameter("optimizer", "RMSprop", arguments.one_of(models.optimizer_names), "any of Keras' optimizers, by name"),
    Parameter("learning_rate", "0.001", arguments.number(0, open_low=True), "learning rate"),
    Parameter("momentum", "0", SHARE, "momentum, for optimizers that have one"),
    Parameter("rho", "none", arguments.optional(SHARE), "of RMSprop and Adadelta; none: Keras' own (0.9 for RMSprop)"),
    Parameter("nesterov", "false", arguments.flag, "Nesterov's momentum, for SGD and others that have it"),
    Parameter("loss", "auto", arguments.one_of(models.loss_names),
              "auto: categorical cross-entropy for classes, mean squared error for numbers"),
    Parameter("batch_size", "32", arguments.whole(1), "samples in a batch"),
    Parameter("epochs", "20", arguments.whole(1), "passes over the training part"),
    Parameter("hidden", "64-64", arguments.sizes, "units of the hidden layers, with dashes between them"),
    Parameter("activation", "relu", arguments.one_of(models.activation_names), "of the hidden layers"),
    Parameter("initializer", "glorot_uniform", arguments.one_of(models.initializer_names), "of all layers' kernels"),
    Parameter("dropout", "0", SHARE, "share of the units dropped at each step, after each hidden layer"),
    Parameter("monitor", "val_loss", arguments.one_of(lambda: ["val_loss", "loss"]),
              "metric for the best checkpoint and for early stopping", several=False),
    Parameter("patience", "none", arguments.optional(arguments.whole(0)),
              "early stopping: end after so many epochs without an improvement; none: never"),
    Parameter("min_delta", "0", arguments.number(0), "early stopping: least improvement that counts"),
    Parameter("restore_best", "true", arguments.flag, "early stopping: restore the weights of the best epoch"),
    Parameter("register", "none", arguments.optional(str),
              "name of the model in MLflow's model registry; none: not registered", several=False),
    network.JUDGE,
    *network.RECORDING,
    arguments.IMPROVE,
]  # fmt: skip
QUESTION = "How well does a network learn with these settings, and do its saved files predict the same?"
CHECKPOINT = "best.keras"


def train(settings: Settings, command: str) -> Outcome:
    """Train into the active run, report, and log the model."""
    import tempfile

    import keras

    data = samples.load(settings)
    keras.utils.set_random_seed(settings["seed"])
    shape = {name: settings[name] for name in ("hidden", "activation", "initializer", "dropout")}
    model = models.perceptron(data, **shape)
    options = {name: settings[name] for name in ("momentum", "rho", "nesterov")}
    optimizer = models.optimizer(settings["optimizer"], settings["learning_rate"], **options)
    model.compile(optimizer, loss=models.loss_for(data, settings["loss"]), metrics=models.metrics_for(data))
    with tempfile.TemporaryDirectory(prefix="mlflow_hp_checkpoint_") as folder:
        checkpoint = Path(folder, CHECKPOINT)
        outcome = network.train(
            QUESTION,
            settings,
            command,
            data,
            model,
            callbacks=_callbacks(settings, checkpoint),
            extend_report=lambda trained, report: _extend_report(trained, report, checkpoint),
        )
    recorded.log_model(model, data.x_test, settings["register"])
    return outcome


def _callbacks(settings: Settings, checkpoint: Path) -> list[keras.callbacks.Callback]:
    import keras

    monitor = settings["monitor"]
    callbacks: list[Any] = [keras.callbacks.ModelCheckpoint(checkpoint, monitor=monitor, save_best_only=True)]
    if settings["patience"] is not None:
        stopping = keras.callbacks.EarlyStopping(
            monitor,
            min_delta=settings["min_delta"],
            patience=settings["patience"],
            restore_best_weights=settings["restore_best"],
        )
        callbacks.append(stopping)
    return callbacks


def _extend_report(trained: Trained, report: Report, checkpoint: Path) -> ReportExtension:
    """Report test scores, confusion matrix, the best epoch's model, and the saved files."""
    import shutil

    from mlflow_hp.analysis import Finding

    data, model = trained.samples, trained.model
    predicted = model.predict(data.x_test, verbose=0)
    numbers = _scores(trained, predicted, report)
    monitored = trained.history.epochs.get(trained.settings["monitor"], np.zeros(0))
    if checkpoint.exists() and np.isfinite(monitored).any():
        shutil.copy(checkpoint, report.file(f"checkpoint/{CHECKPOINT}"))
        numbers["best_epoch"] = float(trained.history.epochs["epoch"][int(np.nanargmin(monitored))])
    numbers |= _saved(model, data.x_test, predicted, report)
    findings = []
    if "best_epoch" in numbers:
        stopped = trained.history.n_epochs < trained.settings["epochs"]
        when = f"early stopping ended it after epoch {trained.history.epochs['epoch'][-1]:.0f}; " if stopped else ""
        text = f"{when}the lowest {trained.settings['monitor']}, {np.nanmin(monitored):.4g}, was at epoch"
        text = f"{text[0].upper()}{text[1:]} {numbers['best_epoch']:.0f}; that model is checkpoint/{CHECKPOINT}."
        findings.append(Finding("checkpoint", "stopped early" if stopped else "best epoch", text, {}))
    broken = {name: value for name, value in numbers.items() if name.startswith(tags.SAVED_PARAM_PREFIX) and value != 0}
    if broken:
        text = f"The saved model predicts differently when loaded back: {broken}."
        findings.append(Finding("saved", "not the same", text, {}, "keep the MLflow model instead"))
    return findings, numbers


def _scores(trained: Trained, predicted: np.ndarray, report: Report) -> dict[str, float]:
    """Score the outputs: R2 against the labels (one-hot for classes), and scores by class."""
    import pandas as pd
    from sklearn.metrics import classification_report, r2_score

    from mlflow_hp.plots import classification

    data = trained.samples
    if not np.isfinite(predicted).all():
        return {}
    if not data.classes:
        return {}  # `network.train` scores numbers
    one_hot = np.eye(len(data.classes))[data.y_test]
    predicted_classes = predicted.argmax(axis=1)
    info = classification.confusion_info(data.y_test, predicted_classes, data.classes)
    report.picture("confusion_matrix", classification.draw_confusion(info))
    scores = classification_report(
        data.y_test, predicted_classes, labels=range(len(data.classes)), target_names=data.classes,
        output_dict=True, zero_division=0.0,
    )  # fmt: skip
    table = pd.DataFrame({name: scores[name] for name in data.classes}).T
    table.to_csv(report.file("per_class.csv"), index_label="class")
    numbers = {f"{tags.F1_METRIC_PREFIX}{name}": float(scores[name]["f1-score"]) for name in data.classes}
    return {"test_r2": float(r2_score(one_hot, predicted)), **numbers}


def _saved(model: keras.Model, x: np.ndarray, predicted: np.ndarray, report: Report) -> dict[str, float]:
    """Save as JSON with HDF5 weights and as .keras, load both, and compare their predictions on `x`."""
    import keras

    structure, weights, whole = (
        report.file(f"{artifact_paths.SAVED_FOLDER}/model.{ending}") for ending in ("json", "weights.h5", "keras")
    )
    structure.write_text(model.to_json(), encoding="utf-8")
    model.save_weights(weights)
    model.save(whole)
    parts = keras.models.model_from_json(structure.read_text(encoding="utf-8"))
    parts.load_weights(weights)
    models = {
        f"{tags.SAVED_PARAM_PREFIX}json_and_h5_difference": parts,
        f"{tags.SAVED_PARAM_PREFIX}keras_difference": keras.models.load_model(whole),
    }
    return {name: recorded.largest_difference(model.predict(x, verbose=0), predicted) for name, model in models.items()}


EXPERIMENT = Experiment("train", QUESTION, PARAMETERS, train, network.compare, "val_loss", check=network.check)

if __name__ == "__main__":
    main(EXPERIMENT)
