"""Report of an improvement: its text, the table of its trainings, and pictures of their curves."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

from mlflow_hp.history.load import load_history
from mlflow_hp.improvement.reasons import why
from mlflow_hp.improvement.scores import main_metric
from mlflow_hp.improvement.training_result import FAILED, START, TrainingResult
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.tags import (
    BEST_METRIC_PREFIX,
    BEST_PARAMS_TAG,
    BEST_RUN_ID_TAG,
    BEST_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.improvement.advice_loop import AdviceLoop
    from mlflow_hp.improvement.proposals import Proposal


def summary(loop: AdviceLoop) -> str:
    """Write the result in one or two sentences.

    Parameters
    ----------
    loop : AdviceLoop
        The loop, with the start at least.

    Returns
    -------
    str
        Text without markup.

    Examples
    --------
    >>> from mlflow_hp.improvement import AdviceLoop, Scores, TrainingResult, summary
    >>> loop = AdviceLoop({"lr": 0.1})
    >>> _ = loop.add(TrainingResult(loop.propose(), "run id", (), Scores({"val_loss": 0.5})))
    >>> loop.propose()
    >>> summary(loop)
    'Nothing to try: no finding names a change that a keyword of the function can make (val_loss 0.5).'
    """
    start, best = loop.trainings[0], loop.best
    n_more = len(loop.trainings) - 1
    after = f"after {n_more} further training{'s' * (n_more != 1)}"
    ending = f" It ended as {loop.ending}." if loop.ending else " It was interrupted."
    if loop.left_alone:
        hints = "; ".join(f"{each.name} ({_verdict_of(each)})" for each in loop.left_alone)
        return f"Nothing to try: no finding is a problem{_at(loop)}. Hints are followed with hints=True: {hints}."
    if not n_more and loop.ending:
        return f"Nothing to try: no finding names a change that a keyword of the function can make{_at(loop)}."
    if best is start:
        return f"The start is the best {after}{_at(loop)}.{ending}"
    name = best.compared_by
    values = f"{name} {' -> '.join(filter(None, (_number(start, name), _number(best, name))))}"
    changes = ", ".join(
        f"{keyword}={value}"
        for keyword, value in best.hyperparameters.items()
        if start.hyperparameters.get(keyword, math.nan) != value
    )
    return f"The best is training {loop.trainings.index(best)} ({changes}), {values}, {after}.{ending}"


def table(loop: AdviceLoop) -> str:
    """Write the trainings as a table in markdown: what was changed, why, and the result.

    Parameters
    ----------
    loop : AdviceLoop
        The loop, with the start at least.

    Returns
    -------
    str
        The table.

    Examples
    --------
    >>> from mlflow_hp.improvement import AdviceLoop, Scores, TrainingResult, table
    >>> loop = AdviceLoop({"lr": 0.1})
    >>> _ = loop.add(TrainingResult(loop.propose(), "run id", (), Scores({"val_loss": 0.5})))
    >>> print(table(loop))
    | training | what was changed | why | val_loss | |
    |---|---|---|---|---|
    | start | nothing: the start |  | 0.5 | **(the best)** |
    """
    trainings, best = loop.trainings, loop.best
    metric = _metric(loop)
    lines = [f"| training | what was changed | why | {plain(metric) or 'result'} | |", "|---|---|---|---|---|"]
    for number, training in enumerate(trainings):
        reason = "; ".join(filter(None, (training.proposal.note, why(training.proposal))))
        changes = ", ".join(change.text for change in training.proposal.changes) or "nothing: the start"
        verdict = (
            training.error if training.verdict == FAILED else "" if training.verdict == START else training.verdict
        )
        verdict = f"{plain(verdict)}{' **(the best)**' if training is best else ''}".strip()
        name = str(number) if number else "start"
        cells = [name, plain(changes), plain(reason), _number(training, metric), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def describe(run_id: str, loop: AdviceLoop) -> None:
    """Record the result in the parent run: description, tags and metrics, then pictures.

    Parameters
    ----------
    run_id : str
        Id of the parent run.
    loop : AdviceLoop
        The loop, with the start at least.
    """
    best = loop.best
    text = f"**{plain(summary(loop))}**\n\n{table(loop)}\n\nThe best run: `{best.run_id}`\n"
    runs.set_description(run_id, text)
    name_best(run_id, loop)
    _draw(run_id, loop.trainings)


def name_best(run_id: str, loop: AdviceLoop) -> None:
    """Name the best training in the tags of the parent run, and log its scores there as ``best/<metric>``.

    Parameters
    ----------
    run_id : str
        Id of the parent run.
    loop : AdviceLoop
        The loop, with the start at least.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.improvement import AdviceLoop, Scores, TrainingResult, name_best
    >>> loop = AdviceLoop({"lr": 0.1})
    >>> _ = loop.add(TrainingResult(loop.propose(), "run id", (), Scores({"val_loss": 0.5})))
    >>> with mlflow.start_run() as run:
    ...     name_best(run.info.run_id, loop)
    >>> mlflow.get_run(run.info.run_id).data.metrics
    {'best/val_loss': 0.5}
    """
    best = loop.best
    named = {
        BEST_RUN_ID_TAG: best.run_id,
        BEST_TAG: f"{loop.trainings.index(best)} {best.proposal.name}",
        BEST_PARAMS_TAG: json.dumps(best.hyperparameters, default=str),
    }
    runs.set_tags(run_id, named)
    numbers = {f"{BEST_METRIC_PREFIX}{name}": value for name, value in best.scores.values.items()}
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    if finite:
        runs.log_numbers(run_id, finite)


def _draw(run_id: str, trainings: Sequence[TrainingResult]) -> None:
    """Draw the curves of all trainings together, of each loss and metric that they share."""
    from mlflow_hp.plots import training as plots
    from mlflow_hp.training.report import Report

    histories: dict[str, Any] = {}
    for number, training in enumerate(trainings):
        with contextlib.suppress(Exception):  # one that failed has none
            histories[f"{number} {training.proposal.name}"] = load_history(training.run_id)
    metrics: dict[str, None] = {}
    for history in histories.values():
        metrics |= dict.fromkeys(name for name in history.epoch_metrics if name != "learning_rate")
    with Report(run_id, f"{len(histories)} trainings, each by the advice of the one before") as report:
        for metric in dict.fromkeys(name.removeprefix("val_") for name in metrics):
            shown = [name for name in (metric, f"val_{metric}") if name in metrics]
            infos = [
                plots.curves_info(
                    [
                        plots.Curve(history.epochs["epoch"], history.epochs[name], label)
                        for label, history in histories.items()
                        if name in history.epochs
                    ],
                    "epoch",
                    plots.metric_in_words(name),
                )
                for name in shown
            ]
            for name, info in zip(shown, plots.on_one_scale(infos), strict=True):
                report.picture(f"{name}_by_epoch", plots.draw_curves(info))


def verdict_text(training: TrainingResult) -> str:
    """Describe how a training compares, for the terminal.

    Parameters
    ----------
    training : TrainingResult
        The training.

    Returns
    -------
    str
        Its metric and verdict.
    """
    if training.verdict == FAILED:
        return f"failed: {training.error}"
    metric = training.compared_by or main_metric(training.scores.values)
    number = f"{metric} {_number(training, metric)}" if metric else "no score"
    return number if training.verdict == START else f"{number}, {training.verdict}"


def _at(loop: AdviceLoop) -> str:
    """The score of the start, in brackets."""
    start, metric = loop.trainings[0], _metric(loop)
    return f" ({metric} {_number(start, metric)})" if metric else ""


def _metric(loop: AdviceLoop) -> str:
    """Metric that the trainings were compared by; of a start alone, its main one."""
    compared = next((each.compared_by for each in loop.trainings if each.compared_by), "")
    return compared or main_metric(loop.trainings[0].scores.values)


def _number(training: TrainingResult, metric: str) -> str:
    value = training.scores.values.get(metric)
    return "" if value is None else f"{value:.4g}"


def _verdict_of(proposal: Proposal) -> str:
    return "" if proposal.finding is None else proposal.finding.verdict
