"""Advice about the winner of a search: followed on a part of the training data, judged in the folds of the search."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.terminal import say
from mlflow_hp.tracking import plain, tags
from projects import arguments, clusters, grids, network, recorded
from projects.arguments import IMPROVE, Parameter
from projects.experiment import Experiment, Outcome, ending, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.analysis import SearchResults
    from mlflow_hp.improvement import AdviceLoop
    from projects.arguments import Settings
    from projects.datasets.samples import Samples
    from projects.search_settings import SearchSetup

QUESTION = "Does the advice of the findings about the winner of the search make it better?"
RUN_NAME = "advice about the winner"
VALIDATION_SHARE = 0.2
"""Share of the training part that validates the trainings that follow the advice."""
ADVISED_SCORE_METRIC = "advised_score"
"""Metric of the search's run: mean score, in the folds of the search, of the best that followed the advice."""
PARAMETERS = [
    Parameter(
        name,
        "none",
        arguments.optional(arguments.sizes if name == "hidden" else hyperparameter.read),
        hyperparameter.help,
        several=False,
    )
    for name, hyperparameter in grids.HYPERPARAMETERS.items()
]
"""Hyperparameters of a search, hidden as sizes, which advice can change."""


class Advised(NamedTuple):
    """Result of following the advice: a sentence, and numbers for the run of the search."""

    sentence: str
    numbers: dict[str, float]


def follow(setup: SearchSetup, search: Any, results: SearchResults) -> Advised:
    """Follow the advice about the winner of a search, in a run nested in the active one; judge it in the same folds.

    The winner is trained on the training part without a validation part of it, and each training that follows the
    advice is compared with it there. The test part is not touched. If that fails, the sentence says so.

    Parameters
    ----------
    setup : SearchSetup
        Settings of the search; improve is the number of trainings after that of the winner.
    search : BaseSearchCV
        Fitted.
    results : SearchResults
        Its results.

    Returns
    -------
    Advised
        The result.
    """
    import mlflow

    from mlflow_hp.tracking import runs
    from projects.improving import follow_advice

    winner = search.best_params_
    try:
        with mlflow.start_run(run_name=RUN_NAME, nested=True) as active_run, ending(active_run.info.run_id):
            start = _settings(setup, search.estimator, winner)
            texts = {name: arguments.text_of(value) for name, value in start.items()}
            runs.log_once(active_run, texts, runs.run_tags("improvement", setup.digests))
            loop, _ = follow_advice(_experiment(setup, search.estimator), start, active_run, setup.command)
            advised = _judge(setup, search, results, loop)
            if ADVISED_SCORE_METRIC in advised.numbers:  # named as that of a candidate, to be listed next to it
                numbers = {tags.MEAN_SCORE_METRIC: advised.numbers[ADVISED_SCORE_METRIC]}
                runs.log_numbers(active_run.info.run_id, numbers)
            client, run_id = mlflow.MlflowClient(), active_run.info.run_id
            text = client.get_run(run_id).data.tags.get(tags.DESCRIPTION_TAG, "")
            runs.set_description(run_id, f"**{plain(advised.sentence)}**\n\n{text}")
    except Exception as error:  # noqa: BLE001 - the search itself has succeeded; the traceback is in the run
        reason = f"{type(error).__name__}: {first_line(error)}"
        say(f"following the advice about the winner failed: {reason}", file=sys.stderr)
        return Advised(f"Following the advice about the winner failed: {reason}.", {})
    return advised


def _settings(setup: SearchSetup, estimator: Any, params: Mapping[str, Any]) -> Settings:
    """Hyperparameters of a candidate as settings of the improvement."""
    used = estimator.get_params() | {
        name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()
    }
    texts = {name: arguments.text_of(used[name]) for name in grids.HYPERPARAMETERS}
    return arguments.combinations(texts, PARAMETERS)[0] | {IMPROVE.name: setup.settings[IMPROVE.name]}


def _params(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the improvement as parameters of the estimator."""
    return {
        name: arguments.text_of(settings[name]) if name == "hidden" else settings[name]
        for name in grids.HYPERPARAMETERS
    }


def _experiment(setup: SearchSetup, estimator: Any) -> Experiment:
    """Experiment that trains the estimator on a part of the training data, and validates on the rest."""
    from sklearn.model_selection import train_test_split

    data = setup.data
    x, x_validation, y, y_validation = train_test_split(
        data.x_train,
        data.y_train,
        test_size=VALIDATION_SHARE,
        stratify=data.y_train if _can_stratify(setup) else None,
        random_state=setup.settings["seed"],
    )
    parts = data._replace(x_train=x, y_train=y, x_validation=x_validation, y_validation=y_validation)

    def train(settings: Settings, command: str) -> Outcome:  # noqa: ARG001 - the search's repeats it
        return train_on_part(estimator, parts, settings)

    return Experiment("search_advice", QUESTION, [*PARAMETERS, IMPROVE], train, network.compare, "val_loss")


def _can_stratify(setup: SearchSetup) -> bool:
    """Whether each class has a sample for both parts, and each part room for each class."""
    data = setup.data
    if not data.classes:
        return False
    n_least = int(len(data.y_train) * min(VALIDATION_SHARE, 1 - VALIDATION_SHARE))
    return bool(np.bincount(data.y_train, minlength=len(data.classes)).min() >= 2) and n_least >= len(data.classes)


def train_on_part(estimator: Any, data: Samples, settings: Settings) -> Outcome:
    """Train a clone of the estimator into the active run, recorded and diagnosed."""
    import mlflow
    from sklearn.base import clone

    from mlflow_hp.analysis import diagnosis

    fitted = clone(estimator).set_params(**_params(settings))
    recorder = recorded.fit_estimator(fitted, (data.x_train, data.y_train), (data.x_validation, data.y_validation))
    history = recorder.history
    if history is None:
        raise RuntimeError("the training could not be recorded: the warning above says why")
    findings = diagnosis.diagnose(history, n_classes=len(data.classes) or None)
    trained = network.Trained(data, fitted.model_, history, None, recorder.best, {**settings, "landscape": False})
    sentences = [f"{finding.verdict}: {finding.text}" for finding in findings]
    run_id = mlflow.active_run().info.run_id
    return Outcome(run_id, network.result(history), sentences, trained, advice=findings)


def _judge(setup: SearchSetup, search: Any, results: SearchResults, loop: AdviceLoop) -> Advised:
    """Cross-validate the best of the trainings in the folds of the search, and compare it with the winner."""
    from mlflow_hp.improvement import summary

    about, start, best = "Following the advice about the winner", loop.trainings[0], loop.best
    if best is start:
        text = summary(loop)
        return Advised(f"{about}: {text[0].lower()}{text[1:]}", {})
    changes = ", ".join(
        f"{name}={arguments.text_of(value)}"
        for name, value in best.hyperparameters.items()
        if value != start.hyperparameters[name]
    )
    scores = _cross_validate(setup, search, _params(best.hyperparameters))
    if results.iterations is None and results.seed_scores is None:
        of_winner = results.fold_scores[search.best_index_]
    else:  # those of a halving search are of fewer samples, others of several seeds
        of_winner = _cross_validate(setup, search, search.best_params_)
    new, old = float(scores.mean()), float(of_winner.mean())
    n_better = int(np.sum(scores > of_winner))
    folds = f"{new:.4g} in the same folds, {old:.4g} of the winner (better in {n_better} of {len(scores)} folds)"
    if new > old:
        sentence = f"{about}: {changes}, mean {setup.scorer} {folds}."
    else:
        sentence = f"{about} did not make it better: {changes} has mean {setup.scorer} {folds}."
    return Advised(sentence, {ADVISED_SCORE_METRIC: new})


def _cross_validate(setup: SearchSetup, search: Any, params: Mapping[str, Any]) -> np.ndarray:
    """Scores of the estimator with `params` in each fold of the search, shape (n_splits,)."""
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    settings, data = setup.settings, setup.data
    with clusters.computing_on(settings["dask"], settings["n_jobs"]):
        scores: np.ndarray = cross_val_score(
            clone(search.estimator).set_params(**params),
            data.x_train,
            data.y_train,
            cv=search.cv,
            scoring=setup.scoring,
            n_jobs=search.n_jobs,
        )
    return scores
