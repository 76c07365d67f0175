"""Run of a search: record it; train the best again, test and log it; and report."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.delivery import held
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import tags
from projects import arguments, captions, clusters, grids, next_search, recorded, search_advice
from projects.arguments import IMPROVE
from projects.datasets import samples
from projects.experiment import Outcome, ending
from projects.search_settings import RECORDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlflow_hp import TrainingHistory
    from mlflow_hp.analysis import SearchResults
    from mlflow_hp.training import Report
    from projects.search_settings import SearchSetup

MAX_ROWS = 10
"""Number of combinations in the description's table."""


class Trained(NamedTuple):
    """Estimator trained on all but the test part, its score there, and its history if it was recorded."""

    estimator: Any
    test_score: float
    history: TrainingHistory | None


class Fitted(NamedTuple):
    """Fitted search.

    Attributes
    ----------
    run_id : str
        Id of its parent run, an earlier one if that was resumed.
    notes : list of str
        Sentences about fits that failed, or were not computed.
    is_cut : bool
        Whether the time budget has cut it.
    results : SearchResults
        Its results.
    """

    run_id: str
    notes: list[str]
    is_cut: bool
    results: SearchResults


ReportExtension = tuple[list[str], dict[str, float]]
"""Result of an experiment about its best combination: sentences, and numbers."""


def run(
    setup: SearchSetup, search: Any, extend_report: Callable[[Trained, Report], ReportExtension] | None = None
) -> Outcome:
    """Fit a search with the active run as the parent, train the best again, test and log it, and report.

    A search that the time budget has cut leaves its run KILLED, to be resumed.

    If improve is set, the advice about the winner is followed at last, and with then=review the next space is searched:
    an interrupt keeps the search's result.

    Parameters
    ----------
    setup : SearchSetup
        Settings include those of `search_settings.SEARCH`; its data are those of `search_settings.load`.
    search : BaseSearchCV
        Made of `search_settings.estimator` with the arguments of `search_settings.common`.
    extend_report : callable, optional
        Reports on the trained best, and returns sentences and numbers. Defaults to None.

    Raises
    ------
    KeyboardInterrupt
        If the search was interrupted; the finished combinations are described first.
    UserError
        If the input is bad, no fit succeeded, or the time budget was over before a combination had all its folds.
    """
    import mlflow

    from mlflow_hp.search import search_sentences
    from mlflow_hp.tracking import runs
    from mlflow_hp.training import Report

    active_id = mlflow.active_run().info.run_id
    setup = setup._replace(command=re.sub(r" -P resume=\S+", "", setup.command))  # a repetition is a new search
    runs.set_tags(active_id, setup.digests)
    samples.log_input(setup.data, setup.settings["data"])
    with Report(active_id, f"data {setup.settings['data']}") as report:
        samples.picture(report, setup.data)
    run_id, notes, is_cut, results = _fit(setup, search, active_id)
    if not math.isfinite(search.best_score_):
        if is_cut:
            raise UserError(
                f"time_budget={setup.settings['time_budget']} was over before a combination had all its folds: raise "
                f"it, and add -P resume={run_id} to keep what was computed"
            )
        raise UserError(f"no combination has a finite {setup.scorer}: lower the learning rates, or take another scorer")
    findings, lines, numbers = (
        [*search_sentences(results), *notes],
        [],
        {tags.BEST_SCORE_METRIC: float(search.best_score_)},
    )
    with _inside(run_id):
        _describe(run_id, setup, [], findings, results)
        if setup.settings["refit"]:
            best = train_and_test("best", search.estimator, search.best_params_, setup)
            recorded.log_model(best.estimator.model_, setup.data.x_test)
            numbers[tags.TEST_SCORE_METRIC] = best.test_score
            lines = [f"The best of the search has {setup.scorer} {best.test_score:.4g} on the test part."]
            if extend_report is not None:
                with Report(run_id, captions.caption([setup.settings])) as report:
                    lines, extra_numbers = extend_report(best, report)
                numbers |= extra_numbers
            with held("finishing the report"):
                runs.log_numbers(
                    run_id, {name: value for name, value in numbers.items() if name != tags.BEST_SCORE_METRIC}
                )
                _describe(run_id, setup, lines, findings, results)
        if setup.settings[IMPROVE.name]:
            advised = search_advice.follow(setup, search, results)
            lines = [*lines, advised.sentence]
            if advised.numbers:
                runs.log_numbers(run_id, advised.numbers)
            _describe(run_id, setup, lines, findings, results)
        if setup.settings[next_search.THEN.name] == "review":
            following = next_search.follow(setup, search, results, run_id, run)
            lines = [*lines, following.sentence]
            runs.log_numbers(run_id, following.numbers)
            _describe(run_id, setup, lines, findings, results)
        if is_cut:
            mlflow.end_run("KILLED")
    if run_id != active_id:
        runs.set_tags(active_id, {tags.WENT_ON_WITH_TAG: run_id})
        runs.set_description(active_id, f"**This resumed run `{run_id}`**: look there.\n\n**{setup.question}**\n")
        lines = [*lines, f"All of that is in run {run_id}, which this resumed."]
    sentences = [line.replace("`", "") for line in [*lines, *findings]]
    return Outcome(run_id, numbers, sentences, results, status="KILLED" if is_cut else "FINISHED")


def train_and_test(name: str, estimator: Any, params: Mapping[str, Any], setup: SearchSetup) -> Trained:
    """Train a clone of `estimator` with `params` on all but the test part, recorded in a nested run, and test it.

    Its validation curves are of the test part: nothing is chosen by them.
    """
    import mlflow
    from sklearn.base import clone
    from sklearn.metrics import check_scoring

    from mlflow_hp.tracking import runs

    data = setup.data
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}
    clone_of_best = clone(estimator).set_params(**plain)
    used = clone_of_best.get_params()
    with mlflow.start_run(run_name=name, nested=True) as active_run, ending(active_run.info.run_id):
        params = {name: arguments.text_of(used[name]) for name in grids.HYPERPARAMETERS}
        runs.log_once(
            active_run, params | {"seed": str(setup.settings["seed"])}, runs.run_tags("training", setup.digests)
        )
        recorder = recorded.fit_estimator(clone_of_best, (data.x_train, data.y_train), (data.x_test, data.y_test))
        score = float(check_scoring(clone_of_best, setup.scoring)(clone_of_best, data.x_test, data.y_test))
        runs.log_numbers(active_run.info.run_id, {tags.TEST_SCORE_METRIC: score})
    return Trained(clone_of_best, score, recorder.history)


def _fit(setup: SearchSetup, search: Any, active_id: str) -> Fitted:
    """Fit the search, recorded."""
    import mlflow_hp
    from mlflow_hp.analysis import from_cv_results

    settings, run_id, reasons = setup.settings, active_id, []
    of_search = search.get_params(deep=False)
    options = {name: settings[name] for name in RECORDING if name in settings and name not in of_search}
    try:
        with (
            clusters.computing_on(settings["dask"], settings["n_jobs"]),
            _failures() as reasons,
            mlflow_hp.record_search(search, **options) as recording,
        ):
            run_id = recording.run_id
            search.fit(setup.data.x_train, setup.data.y_train)
    except KeyboardInterrupt:
        with held("describing the finished combinations"), recorded.after_interrupt():
            _describe_part(run_id, setup)
        raise
    except ValueError as error:
        if "fits failed" not in str(error):
            raise
        raise UserError(
            f"all fits failed; {_exception_line(str(error))}. The nested runs have the tracebacks"
        ) from error
    notes = [*reasons, *recording.skipped]
    if recording.is_cut:
        notes.append(f"To compute the rest: `{setup.command} -P resume={run_id}`")
    results = recording.last_results
    return Fitted(run_id, notes, recording.is_cut, from_cv_results(search.cv_results_) if results is None else results)


@contextlib.contextmanager
def _failures() -> Iterator[list[str]]:
    """Collect the reasons of failed fits in place of warnings with tracebacks, which the combinations' runs have."""
    from sklearn.exceptions import FitFailedWarning

    reasons: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Any, category: type[Warning], *position: Any, **options: Any) -> None:
            if not issubclass(category, FitFailedWarning):
                show(message, category, *position, **options)
            elif (reason := f"Fits failed with {_exception_line(str(message))}.") not in reasons:
                reasons.append(reason)

        warnings.simplefilter("always", FitFailedWarning)
        warnings.filterwarnings("ignore", "One or more of the")  # scores that are not finite
        warnings.showwarning = collect
        yield reasons


def _exception_line(message: str) -> str:
    """Line with the exception in scikit-learn's message about failed fits."""
    lines = message.rpartition("Traceback (most recent call last):")[2].splitlines()
    return next((line for line in lines if line and not line[0].isspace()), message.strip().splitlines()[0])


@contextlib.contextmanager
def _inside(run_id: str) -> Iterator[None]:
    """Make a run the active one, and end it as the block ends."""
    import mlflow

    if mlflow.active_run().info.run_id == run_id:
        yield
        return
    with mlflow.start_run(run_id=run_id, nested=True), ending(run_id):
        yield


def _describe(run_id: str, setup: SearchSetup, lines: list[str], findings: list[str], results: SearchResults) -> None:
    """Write the description, the result first, since the UI shows only a few lines."""
    from mlflow_hp.search import result_sentence
    from mlflow_hp.tracking import runs

    result = " ".join([result_sentence(results), *lines])
    search = "\n".join(f"- {line}" for line in findings)
    table = results.to_markdown(MAX_ROWS)
    runs.set_description(
        run_id, f"**Result**: {result}\n\n**{setup.question}**\n\n{search}\n\n{table}\n\n{setup.about}"
    )


def _describe_part(run_id: str, setup: SearchSetup) -> None:
    """Describe a search that was interrupted: the finished combinations, and how to resume it."""
    import mlflow

    from mlflow_hp.tracking import runs

    client = mlflow.MlflowClient()
    parent = client.get_run(run_id)
    below = f"tags.`{tags.PARENT_TAG}` = '{run_id}' and tags.`{tags.KIND_TAG}` = 'candidate'"
    finished = client.search_runs(
        [parent.info.experiment_id],
        f"{below} and attributes.status = 'FINISHED'",
        order_by=[f"metrics.{tags.MEAN_SCORE_METRIC} DESC"],
    )
    rows = [
        f"| {run.info.run_name} | {run.data.metrics.get(tags.MEAN_SCORE_METRIC, math.nan):.4g} |"
        for run in list(finished)[:MAX_ROWS]
    ]
    table = "\n".join(["| combination | mean score |", "| --- | --- |", *rows]) if rows else ""
    parent_tags = parent.data.tags
    runs.set_description(
        run_id,
        f"**Interrupted** when {parent_tags.get(tags.DONE_TAG, 0)} of "
        f"{parent_tags.get(tags.PLANNED_TAG, 'all')} combinations were done. To resume it: "
        f"`{setup.command} -P resume={run_id}`\n\n{table}\n\n**{setup.question}**\n\n{setup.about}",
    )
