"""Sweep over several values: a nested run for each combination, and their comparison in the parent run."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from tqdm import tqdm

from mlflow_hp.delivery import held
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import is_live, printable
from mlflow_hp.tracking import artifact_paths, plain, runs, tags
from mlflow_hp.training import Report
from projects import arguments, sweep_report
from projects.experiment import command, ending, first_line
from projects.recorded import after_interrupt, look_at_first

if TYPE_CHECKING:
    from projects.arguments import Settings
    from projects.experiment import Experiment, Outcome


class SweepError(RuntimeError):
    """No combination could be trained."""


def sweep(experiment: Experiment, combinations: list[Settings], parent: Any, repeat: str) -> list[str]:
    """Train each combination in a nested run of `parent`, and compare them in the parent.

    A combination that fails becomes a FAILED run with a traceback, and the sweep continues. `repeat` is the command
    that repeats the sweep.

    Returns
    -------
    list of str
        Findings in sentences.

    Raises
    ------
    SweepError
        If no combination could be trained; the message has the first error.
    UserError
        The same, if the first error is bad input.
    """
    names = arguments.varying_names(combinations)
    outcomes: dict[str, Outcome] = {}
    failures: dict[str, Exception] = {}
    run_ids: dict[str, str] = {}
    try:
        with tqdm(combinations, unit="run", desc=experiment.name, dynamic_ncols=True, disable=not is_live()) as bar:
            for settings in bar:
                label = arguments.label(settings, names)
                bar.set_postfix_str(printable(label))
                try:
                    with mlflow.start_run(run_name=label, nested=True) as active_run, ending(active_run.info.run_id):
                        run_ids[label] = active_run.info.run_id
                        params = {name: arguments.text_of(value) for name, value in settings.items()}
                        runs.log_once(
                            active_run, params, runs.run_tags("training", {tags.EXPERIMENT_TAG: experiment.name})
                        )
                        with contextlib.redirect_stdout(io.StringIO()):  # only the progress bar is shown
                            outcomes[label] = experiment.train(settings, command(experiment, settings))
                except Exception as error:  # noqa: BLE001 - recorded in the child run, and reported at the end
                    failures[label] = error
                    bar.write(
                        printable(f"{label} failed: {type(error).__name__}: {first_line(error)}"), file=sys.stderr
                    )
                    _forget_graphs()
    except KeyboardInterrupt:
        if outcomes:
            with held("comparing the finished combinations"), after_interrupt():
                _compare(experiment, combinations, names, outcomes, failures, run_ids, parent.info.run_id, repeat)
        raise
    if not outcomes:
        label, first = next(iter(failures.items()))
        error_class = UserError if isinstance(first, UserError) else SweepError
        raise error_class(f"all {len(failures)} combinations failed; {label}: {first_line(first)}") from first
    with held("comparing the combinations"):
        return _compare(experiment, combinations, names, outcomes, failures, run_ids, parent.info.run_id, repeat)


def _compare(
    experiment: Experiment,
    combinations: list[Settings],
    names: list[str],
    outcomes: dict[str, Outcome],
    failures: dict[str, Exception],
    run_ids: dict[str, str],
    parent_id: str,
    repeat: str,
) -> list[str]:
    """Record table, best child run and pictures in the parent run."""
    table = _table(combinations, names, outcomes, failures, run_ids)
    best = min(outcomes, key=lambda label: (_nan_last(outcomes[label].numbers[experiment.objective]), label))
    lowest = outcomes[best].numbers[experiment.objective]
    runs.set_tags(
        parent_id,
        {
            tags.BEST_RUN_ID_TAG: outcomes[best].run_id,
            tags.BEST_TAG: best,
            tags.COMBINATIONS_TAG: f"{len(combinations)} planned, {len(outcomes)} done, {len(failures)} failed",
        },
    )
    runs.log_numbers(
        parent_id,
        {f"{tags.BEST_METRIC_PREFIX}{experiment.objective}": lowest, tags.COMBINATIONS_FAILED_METRIC: len(failures)},
    )
    result = f"The best of {len(outcomes)} is **{plain(best)}**, {experiment.objective} {lowest:.4g}"
    if judged_by := outcomes[best].judged_by:
        result += f" at {judged_by}"
    if failures:
        result += f"; {len(failures)} failed"
    common_settings = ", ".join(
        f"{name} {plain(arguments.text_of(value))}"
        for name, value in combinations[0].items()
        if name not in (*names, arguments.IMPROVE.name)
    )
    beginning = f"**Result**: {result} (run `{outcomes[best].run_id}`).\n\n"
    ending_text = (
        f"{_markdown(table)}\n\n**{experiment.question}**\n\n"
        f"**Settings** of all: {common_settings or 'none'}\n\n**To repeat it**: `{repeat}`\n"
    )
    runs.set_description(parent_id, beginning + ending_text)  # before the artifacts, whose store may fail
    with Report(parent_id) as report:
        table.to_csv(report.file(artifact_paths.COMBINATIONS_FILE), index=False)
    findings = experiment.compare(parent_id, outcomes)
    lines = "\n".join(f"- {sentence}" for sentence in findings)
    findings_text = f"**Findings**\n\n{lines}\n\n" if findings else ""
    first = look_at_first(parent_id, experiment.picture)
    runs.set_description(parent_id, f"{beginning}{first}{findings_text}{ending_text}")
    settings_of_all = common_settings.replace("\\", "")
    sweep_report.add_report(
        parent_id, experiment, table, names, outcomes[best], [f"{result}.", *findings], settings_of_all, repeat
    )
    table_sentence = f"The table of all is {artifact_paths.COMBINATIONS_FILE} of run {parent_id}."
    return [sentence.replace("**", "") for sentence in (f"{result}.", *findings, table_sentence)]


def _table(
    combinations: list[Settings],
    names: list[str],
    outcomes: dict[str, Outcome],
    failures: dict[str, Exception],
    run_ids: dict[str, str],
) -> pd.DataFrame:
    rows = []
    for settings in combinations:
        label = arguments.label(settings, names)
        if label not in run_ids:
            continue
        row: dict[str, Any] = {name: arguments.text_of(settings[name]) for name in names}
        row["status"] = "FINISHED" if label in outcomes else "FAILED" if label in failures else "KILLED"
        row |= {**outcomes[label].words, **outcomes[label].numbers} if label in outcomes else {}
        rows.append({**row, "run_id": run_ids[label]})
    return pd.DataFrame(rows)


def _markdown(table: pd.DataFrame) -> str:
    """Write the table in markdown, numbers with four digits."""

    def cell(value: Any) -> str:
        return ("" if pd.isna(value) else f"{value:.4g}") if isinstance(value, float) else plain(str(value))

    lines = [[plain(name) for name in table.columns], ["---"] * len(table.columns)]
    lines += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _nan_last(value: float) -> float:
    return float("inf") if math.isnan(value) else value


def _forget_graphs() -> None:
    import keras

    keras.backend.clear_session()
