"""How a search runs: recorded, the best of it trained once more, tested and logged, and all of that reported."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.delivery import held
from mlflow_hp.errors import UserError
from projects import arguments, clusters, grids, recorded
from projects.datasets import samples
from projects.experiment import Outcome, ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlflow_hp import TrainingHistory
    from mlflow_hp.analysis import SearchResults
    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.datasets.samples import Samples

STEPS_IN_MLFLOW = 300
"""Steps of the best, and of a baseline, of which MLflow gets metrics; the history has every step."""
SHOWN = 10
"""Combinations in the description's table."""


class Trained(NamedTuple):
    """An estimator trained on all but the test part, its score there, and its history where it could be recorded."""

    estimator: Any
    test_score: float
    history: TrainingHistory | None


class Asked(NamedTuple):
    """What a search was asked, for its description."""

    question: str
    settings: Settings
    command: str
    data: Samples

    @property
    def scorer(self) -> str:
        """What scores are."""
        return self.settings["scoring"] or ("accuracy" if self.data.classes else "R2")

    @property
    def digests(self) -> dict[str, str]:
        """Tags by which runs on the same data are known."""
        return {"data_digest": self.data.digest, "split_digest": self.data.split_digest}

    @property
    def about(self) -> str:
        """The data, what it was asked with, and the command that repeats it, in markdown."""
        data, settings = self.data, self.settings
        used = ", ".join(f"{name} {arguments.shown(value)}" for name, value in settings.items())
        return (
            f"**Data**: {data.source}, {len(data.x_train):,} samples to search on in {settings['cv']} folds, "
            f"{len(data.x_test):,} to test; {len(data.classes) or 'no'} classes. Scores are {self.scorer}.\n\n"
            f"**Settings**: {used}\n\n**To repeat it**: `{self.command}`\n"
        )


More = tuple[list[str], dict[str, float]]
"""What an experiment reports of its best: the result in words, and numbers."""


def run(asked: Asked, search: Any, more: Callable[[Trained, Report], More] | None = None) -> Outcome:
    """Fit a search below the active run, train the best once more, test and log it, and report.

    Parameters
    ----------
    asked : Asked
        Its settings are those of `searching.SEARCH` and more, its data as `searching.load` gives them.
    search : BaseSearchCV
        Over `searching.estimator`, made with what `searching.common` gives.
    more : callable, optional
        Reports what only this experiment has, of a best that was trained once more.

    Raises
    ------
    KeyboardInterrupt
        Where it was interrupted: after the description of what was done up to then.
    UserError
        For bad input, and where not one fit succeeded.
    """
    import mlflow

    from mlflow_hp.analysis import from_cv_results
    from mlflow_hp.search import search_sentences
    from mlflow_hp.tracking import runs
    from mlflow_hp.training import Report

    active_id = mlflow.active_run().info.run_id
    asked = asked._replace(command=re.sub(r" -P resume=\S+", "", asked.command))  # what repeats it starts anew
    runs.set_tags(active_id, {f"mlflow_hp.{name}": value for name, value in asked.digests.items()})
    samples.log_input(asked.data, asked.settings["data"])
    with Report(active_id) as report:
        samples.picture(report, asked.data)
    run_id, reasons = _fit(asked, search, active_id)
    if not math.isfinite(search.best_score_):
        raise UserError(f"no combination has a finite {asked.scorer}: lower the learning rates, or take another scorer")
    results = from_cv_results(search.cv_results_)
    found, lines, numbers = [*search_sentences(results), *reasons], [], {"best_score": float(search.best_score_)}
    with _inside(run_id):
        _describe(run_id, asked, [], found, results)
        if asked.settings["refit"]:
            best = trained("best", search.estimator, search.best_params_, asked)
            recorded.log_model(best.estimator.model_, asked.data.x_test)
            numbers["test_score"] = best.test_score
            lines = [f"The best of the search has {asked.scorer} {best.test_score:.4g} on the test part."]
            if more is not None:
                with Report(run_id) as report:
                    lines, added = more(best, report)
                numbers |= added
            with held("finishing the report"):
                runs.log_numbers(run_id, {name: value for name, value in numbers.items() if name != "best_score"})
                _describe(run_id, asked, lines, found, results)
    if run_id != active_id:
        runs.set_tags(active_id, {"mlflow_hp.went_on_with": run_id})
        runs.set_description(active_id, f"**{asked.question}**\n\nThis went on with run `{run_id}`: look there.\n")
        lines = [*lines, f"All of that is in run {run_id}, with which this went on."]
    return Outcome(run_id, numbers, [line.replace("`", "") for line in [*lines, *found]], results)


def trained(name: str, estimator: Any, params: Mapping[str, Any], asked: Asked) -> Trained:
    """Train a clone of `estimator` with `params` on all but the test part, recorded in a nested run, and test it.

    Its validation curves are of the test part: nothing is chosen by them.
    """
    import mlflow
    from sklearn.base import clone
    from sklearn.metrics import check_scoring

    import mlflow_hp
    from mlflow_hp.tracking import runs

    data = asked.data
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}
    chosen = clone(estimator).set_params(**plain)
    n_steps = math.ceil(len(data.x_train) / chosen.batch_size) * chosen.epochs
    recorder = mlflow_hp.TrainingRecorder(metrics_every=max(1, n_steps // STEPS_IN_MLFLOW))
    given = chosen.get_params()
    with mlflow.start_run(run_name=name, nested=True) as active, ending(active.info.run_id):
        params = {name: arguments.shown(given[name]) for name in grids.VARIED}
        runs.log_once(
            active, params | {"seed": str(asked.settings["seed"])}, runs.run_tags("training", **asked.digests)
        )
        chosen.set_params(fit__callbacks=[recorder])
        try:
            chosen.fit(data.x_train, data.y_train, validation_data=(data.x_test, data.y_test))
        finally:
            recorder.close()
        chosen.set_params(fit__callbacks=None)
        score = float(check_scoring(chosen, asked.settings["scoring"])(chosen, data.x_test, data.y_test))
        runs.log_numbers(active.info.run_id, {"test_score": score})
    return Trained(chosen, score, recorder.history)


def _fit(asked: Asked, search: Any, active_id: str) -> tuple[str, list[str]]:
    """Fit the search, recorded.

    Returns
    -------
    str
        The id of its parent run, an earlier one where that was gone on with.
    list of str
        Why fits failed, in sentences.
    """
    import mlflow_hp

    settings, run_id, reasons = asked.settings, active_id, []
    try:
        with (
            clusters.computing_on(settings["dask"], settings["n_jobs"]),
            _failures() as reasons,
            mlflow_hp.record_search(search, record=settings["record"], resume=settings["resume"]) as recording,
        ):
            run_id = recording.run_id
            search.fit(asked.data.x_train, asked.data.y_train)
    except KeyboardInterrupt:
        with held("describing what was done"), recorded.after_interrupt():
            _describe_part(run_id, asked)
        raise
    except ValueError as error:
        if "fits failed" not in str(error):
            raise
        raise UserError(f"all fits failed; {_why(str(error))}. The runs below have the tracebacks") from error
    return run_id, reasons


@contextlib.contextmanager
def _failures() -> Iterator[list[str]]:
    """Gather why fits failed, in place of warnings with all their tracebacks: the combinations' runs have these."""
    from sklearn.exceptions import FitFailedWarning

    reasons: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def gather(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, FitFailedWarning):
                show(message, category, *where, **more)
            elif (reason := f"Fits failed with {_why(str(message))}.") not in reasons:
                reasons.append(reason)

        warnings.simplefilter("always", FitFailedWarning)
        warnings.filterwarnings("ignore", "One or more of the")  # scores that are not finite
        warnings.showwarning = gather
        yield reasons


def _why(told: str) -> str:
    """The line with the exception in what scikit-learn says of fits that failed."""
    lines = told.rpartition("Traceback (most recent call last):")[2].splitlines()
    return next((line for line in lines if line and not line[0].isspace()), told.strip().splitlines()[0])


@contextlib.contextmanager
def _inside(run_id: str) -> Iterator[None]:
    """Have a run be the active one, and end as the block ends."""
    import mlflow

    if mlflow.active_run().info.run_id == run_id:
        yield
        return
    with mlflow.start_run(run_id=run_id, nested=True), ending(run_id):
        yield


def _describe(run_id: str, asked: Asked, lines: list[str], found: list[str], results: SearchResults) -> None:
    """The description: the result before all else, for the UI shows a few lines."""
    from mlflow_hp.tracking import runs

    result = "".join(f"**Result**: {line}\n\n" for line in lines)
    search = "\n".join(f"- {line}" for line in found)
    table = results.to_markdown(SHOWN)
    runs.set_description(run_id, f"**{asked.question}**\n\n{result}{search}\n\n{table}\n\n{asked.about}")


def _describe_part(run_id: str, asked: Asked) -> None:
    """Describe a search that was interrupted: the combinations that are done, and how to go on."""
    import mlflow

    from mlflow_hp.tracking import runs

    client = mlflow.MlflowClient()
    parent = client.get_run(run_id)
    below = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`mlflow_hp.kind` = 'candidate'"
    done = client.search_runs(
        [parent.info.experiment_id], f"{below} and attributes.status = 'FINISHED'", order_by=["metrics.mean_score DESC"]
    )
    rows = [
        f"| {run.info.run_name} | {run.data.metrics.get('mean_score', math.nan):.4g} |" for run in list(done)[:SHOWN]
    ]
    table = "\n".join(["| combination | mean score |", "| --- | --- |", *rows]) if rows else ""
    tags = parent.data.tags
    runs.set_description(
        run_id,
        f"**{asked.question}**\n\n**Interrupted** when {tags.get('mlflow_hp.done', 0)} of "
        f"{tags.get('mlflow_hp.planned', 'all')} combinations were done. To go on with it: "
        f"`{asked.command} -P resume={run_id}`\n\n{table}\n\n{asked.about}",
    )
