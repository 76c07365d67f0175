"""Settings of the searches: their parameters, data, estimator, folds and scorer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.tracking import tags
from projects import arguments, grids, models, next_search, recorded
from projects.arguments import Parameter
from projects.datasets import samples, unsplit
from projects.experiment import first_line
from projects.unit_scores import ScorerInUnits

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    import keras

    from projects.arguments import Settings
    from projects.datasets.samples import Samples


def _jobs(text: str) -> int:
    value = int(arguments.whole(-1, 1024)(text))
    if value == 0:
        raise ValueError("a whole number of 1 or more, or -1 for one on each core")
    return value


def _budget(text: str) -> str:
    from mlflow_hp.search import budget_seconds

    try:
        budget_seconds(text)
    except UserError:
        raise ValueError("seconds, or a text such as 90s, 10min or 1h 30min") from None
    return text


def _halving(text: str) -> str | bool:
    if text.lower() in HALVED:
        return text.lower()
    try:
        return arguments.flag(text) and HALVED[0]
    except ValueError:
        raise ValueError(f"{' or '.join(HALVED)}, or false; true is {HALVED[0]}") from None


def _resume(text: str) -> bool | str:
    try:
        return arguments.flag(text)
    except ValueError:
        return False if text.lower() in ("", "none") else text


HALVED = ("samples", "epochs")
"""What the rounds of a halving search have more and more of."""
DATA = [parameter for parameter in samples.PARAMETERS if parameter.name != "validation_size"]
SEARCH = [
    Parameter("cv", "3", arguments.whole(2), "folds", several=False),
    Parameter("scoring", "none", arguments.optional(str),
              "a scorer of scikit-learn by name; none: accuracy, or R2 if numbers are predicted", several=False),
    Parameter("n_jobs", "1", _jobs, "fits at a time; -1: one on each core", several=False),
    Parameter("dask", "none", arguments.optional(str),
              "compute on Dask: a scheduler's address, or local for a cluster of n_jobs processes", several=False),
    Parameter("halving", "false", _halving,
              "samples or epochs: begin with few, and continue with three times as many for the better third of the "
              "combinations", several=False),
    Parameter("engine", "plain", arguments.one_of(lambda: ["plain", "vectorised"]),
              "vectorised: train all combinations and folds in one program, then fit the best three exactly",
              several=False),
    Parameter("prune", "none", arguments.optional(arguments.one_of(lambda: ["exact", "tested"])),
              "leave out the other folds of combinations that cannot become the best (exact), or that are "
              "significantly worse than the best so far (tested)", several=False),
    Parameter("repeats", "1", arguments.whole(1, 1000), "seeds of each fit; scores are means over them", several=False),
    Parameter("time_budget", "none", arguments.optional(_budget),
              "begin no fit after it, as 90s, 10min or 1h 30min; resume computes the rest", several=False),
    Parameter("refit", "true", arguments.flag, "train the best again on all but the test part, test and log it",
              several=False),
    Parameter("resume", "false", _resume,
              "resume an interrupted search: the id of its run, or true for the latest", several=False),
    Parameter("record", "epochs", arguments.one_of(lambda: ["epochs", "batches"]),
              "of each fold: its curves by epoch, or every batch in a run of its own", several=False),
    Parameter("seed", "0", arguments.whole(0, 2**32 - 1), "seed of split, folds, initial weights and shuffling",
              several=False),
    arguments.IMPROVE._replace(help="trainings that follow the advice about the winner of the search"),
    next_search.THEN,
]  # fmt: skip
"""Parameters of every search."""
WITHOUT_VALIDATION = 1e-9
"""Share of the training part that validates: of one sample, which is put back."""
RECORDING = ("record", "resume", "engine", "prune", "repeats", "time_budget")
"""Parameters that are arguments of `mlflow_hp.record_search`, unless the search itself takes them."""
HALVING_FACTOR = 3
"""Ratio of the combinations of successive rounds of a halving search, and of samples or epochs, inversely."""


class SearchSetup(NamedTuple):
    """Question, settings and data of a search, for its description."""

    question: str
    settings: Settings
    command: str
    data: Samples

    @property
    def scorer(self) -> str:
        """Name of the score."""
        return self.settings["scoring"] or ("accuracy" if self.data.classes else "R2")

    @property
    def scoring(self) -> str | ScorerInUnits | None:
        """Scorer, as scikit-learn takes it."""
        return scoring(self.data, self.settings)

    @property
    def digests(self) -> dict[str, str]:
        """Tags that runs on the same data share."""
        return {tags.DATA_DIGEST_TAG: self.data.digest, tags.SPLIT_DIGEST_TAG: self.data.split_digest}

    @property
    def about(self) -> str:
        """Data, settings, and the command that repeats it, in markdown."""
        data, settings = self.data, self.settings
        used = ", ".join(f"{name} {arguments.text_of(value)}" for name, value in settings.items())
        return (
            f"**Data**: {data.source}, {count(len(data.x_train), 'sample')} to search on in {settings['cv']} folds, "
            f"{len(data.x_test):,} to test; "
            f"{count(len(data.classes), 'class') if data.classes else 'no classes'}. Scores are "
            f"{self.scorer}.{recorded.noted(data.notes)}\n\n"
            f"**Settings**: {used}\n\n**To repeat it**: `{self.command}`\n"
        )


def check(settings: Settings) -> list[str]:
    """Check a table, and the scorer for it, before a run begins; return what was decided about it, in sentences.

    Raises
    ------
    UserError
        If it cannot be searched on.
    """
    settings = {**settings, "validation_size": WITHOUT_VALIDATION}
    lines = samples.check(settings)
    if unsplit.is_table(settings["data"]):
        _check_scorer(settings["scoring"], load(settings), settings)
    return lines


def load(settings: Settings) -> Samples:
    """Load the samples that `settings` name; there is no validation part: folds of the training part validate.

    Raises
    ------
    UserError
        If the data cannot be read, or are too few for the folds.
    """
    data = samples.load({**settings, "validation_size": WITHOUT_VALIDATION})
    x = np.concatenate([data.x_train, data.x_validation])
    y = np.concatenate([data.y_train, data.y_validation])
    counts = np.bincount(y, minlength=len(data.classes)) if data.classes else np.array([len(y)])
    if counts.min() < settings["cv"]:
        subject = f"class {data.classes[int(counts.argmin())]!r} has" if data.classes else "there are"
        raise UserError(
            f"cv={settings['cv']} folds need {settings['cv']} samples{' of each class' if data.classes else ''}, and "
            f"{subject} {counts.min()} to train on: lower cv, or use more samples"
        )
    return data._replace(x_train=x, y_train=y, x_validation=x[:0], y_validation=y[:0])


def estimator(data: Samples, settings: Mapping[str, Any]) -> Any:
    """Make a scikeras estimator of a perceptron for `data`, with the parameters that a search may vary."""
    from scikeras.wrappers import KerasClassifier, KerasRegressor

    wrapper = KerasClassifier if data.classes else KerasRegressor
    return wrapper(
        model=perceptron,
        metrics=models.metrics_for(data),
        verbose=0,
        random_state=settings["seed"],
        **{name: settings.get(name) for name in grids.HYPERPARAMETERS},
    )


def perceptron(
    meta: Mapping[str, Any],
    compile_kwargs: Mapping[str, Any],
    hidden: str,
    activation: str,
    initializer: str,
    dropout: float,
    learning_rate: float,
    momentum: float | None,
) -> keras.Model:
    """Compile the network that scikeras builds, with as many inputs and outputs as it has seen in the data."""
    n_classes = meta.get("n_classes_")
    model = models.network(
        meta["n_features_in_"], n_classes, arguments.sizes(hidden),
        activation=activation, initializer=initializer, dropout=dropout,
    )  # fmt: skip
    optimizer = models.optimizer(type(compile_kwargs["optimizer"]).__name__, learning_rate, momentum=momentum)
    loss = "sparse_categorical_crossentropy" if n_classes else "mean_squared_error"
    model.compile(optimizer, loss=loss, metrics=compile_kwargs["metrics"])
    return model


def common(data: Samples, settings: Settings, space: Container[str] = ()) -> dict[str, Any]:
    """Make the arguments that all searches of scikit-learn share.

    Raises
    ------
    UserError
        If the scorer is unknown, or cannot score the data, or if `space` has what a halving search is to raise.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    _check_scorer(settings["scoring"], data, settings)
    folds = StratifiedKFold if data.classes else KFold
    keywords: dict[str, Any] = {
        "scoring": scoring(data, settings),
        "cv": folds(settings["cv"], shuffle=True, random_state=settings["seed"]),
        "n_jobs": None if settings["dask"] else settings["n_jobs"],
        "refit": False,  # `search_runner.run` does it, recorded
    }
    if settings["halving"]:
        from sklearn.experimental import enable_halving_search_cv  # noqa: F401

        keywords |= {"factor": HALVING_FACTOR, "random_state": settings["seed"]}
        if settings["halving"] == "epochs":
            if "epochs" in space:
                raise UserError("halving=epochs raises the epochs itself, up to epochs: take them out of the grid")
            keywords |= {"resource": "epochs", "max_resources": settings["epochs"]}
    return keywords


def scoring(data: Samples, settings: Settings) -> str | ScorerInUnits | None:
    """Scorer of the settings, as scikit-learn takes it: in units of the target, if numbers are predicted."""
    name: str | None = settings["scoring"]
    return name if name is None or data.classes else ScorerInUnits(name, *data.target_scale)


def _check_scorer(name: str | None, data: Samples, settings: Settings) -> None:
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.metrics import check_scoring, get_scorer_names

    if name is None:
        return
    grids.check_name(name, get_scorer_names(), "scoring")
    dummy = (DummyClassifier if data.classes else DummyRegressor)().fit(data.x_train, data.y_train)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_scoring(dummy, scoring(data, settings))(dummy, data.x_train, data.y_train)
    except (ValueError, AttributeError) as error:  # one of a regressor has no probabilities
        labels = count(len(data.classes), "class") if data.classes else "numbers to predict"
        raise UserError(f"scoring={name} cannot score these data, which have {labels}: {first_line(error)}") from None
