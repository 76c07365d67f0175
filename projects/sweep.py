"""Several values: a nested run for each combination, live, and the comparison on their parent."""

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
from mlflow_hp.terminal import printable
from mlflow_hp.tracking import plain, runs
from mlflow_hp.training import Report
from projects import arguments
from projects.experiment import command, ending, first_line
from projects.recorded import after_interrupt

if TYPE_CHECKING:
    from projects.arguments import Settings
    from projects.experiment import Experiment, Outcome


class SweepError(RuntimeError):
    """Not one combination could be trained."""


def sweep(experiment: Experiment, chosen: list[Settings], parent: Any, repeat: str) -> list[str]:
    """Train each combination in a nested run of `parent`, and compare them there.

    A combination that fails is a FAILED run with its traceback, and the others go on. `repeat` is the command
    that repeats them all.

    Returns
    -------
    list of str
        What was found, in sentences.

    Raises
    ------
    SweepError
        Where none could be trained: why the first could not.
    UserError
        Likewise, where that is bad input.
    """
    names = arguments.varied(chosen)
    outcomes: dict[str, Outcome] = {}
    failures: dict[str, Exception] = {}
    run_ids: dict[str, str] = {}
    try:
        with tqdm(chosen, unit="run", desc=experiment.name, dynamic_ncols=True) as bar:
            for settings in bar:
                label = arguments.label(settings, names)
                bar.set_postfix_str(printable(label))
                try:
                    with mlflow.start_run(run_name=label, nested=True) as active, ending(active.info.run_id):
                        run_ids[label] = active.info.run_id
                        params = {name: arguments.shown(value) for name, value in settings.items()}
                        tags = runs.run_tags("training", experiment=experiment.name)
                        runs.log_once(active, params, tags)
                        with contextlib.redirect_stdout(io.StringIO()):  # the bar is what is shown
                            outcomes[label] = experiment.train(settings, command(experiment, settings))
                except Exception as error:  # noqa: BLE001 - it is in the child run, and told at the end
                    failures[label] = error
                    bar.write(
                        printable(f"{label} failed: {type(error).__name__}: {first_line(error)}"), file=sys.stderr
                    )
                    _forget_graphs()
    except KeyboardInterrupt:
        if outcomes:
            with held("comparing those that ended"), after_interrupt():
                _compare(experiment, chosen, names, outcomes, failures, run_ids, parent.info.run_id, repeat)
        raise
    if not outcomes:
        label, first = next(iter(failures.items()))
        kind = UserError if isinstance(first, UserError) else SweepError
        raise kind(f"all {len(failures)} combinations failed; {label}: {first_line(first)}") from first
    with held("comparing them"):
        return _compare(experiment, chosen, names, outcomes, failures, run_ids, parent.info.run_id, repeat)


def _compare(
    experiment: Experiment,
    chosen: list[Settings],
    names: list[str],
    outcomes: dict[str, Outcome],
    failures: dict[str, Exception],
    run_ids: dict[str, str],
    parent_id: str,
    repeat: str,
) -> list[str]:
    """Table, best child and pictures on the parent."""
    table = _table(chosen, names, outcomes, failures, run_ids)
    best = min(outcomes, key=lambda label: (_nan_last(outcomes[label].numbers[experiment.objective]), label))
    lowest = outcomes[best].numbers[experiment.objective]
    runs.set_tags(
        parent_id,
        {
            "mlflow_hp.best_run_id": outcomes[best].run_id,
            "mlflow_hp.best": best,
            "mlflow_hp.combinations": f"{len(chosen)} planned, {len(outcomes)} done, {len(failures)} failed",
        },
    )
    runs.log_numbers(parent_id, {f"best/{experiment.objective}": lowest, "combinations_failed": len(failures)})
    result = f"The best of {len(outcomes)} is **{plain(best)}**, {experiment.objective} {lowest:.4g}"
    if failures:
        result += f"; {len(failures)} failed"
    alike = {name: plain(arguments.shown(value)) for name, value in chosen[0].items() if name not in names}
    same = ", ".join(f"{name} {value}" for name, value in alike.items())
    began = f"**{experiment.question}**\n\n**Result**: {result} (run `{outcomes[best].run_id}`).\n\n"
    ended = f"{_markdown(table)}\n\n**Settings** of all: {same or 'none'}\n\n**To repeat it**: `{repeat}`\n"
    runs.set_description(parent_id, began + ended)  # before the artifacts, whose store may be what fails
    with Report(parent_id) as report:
        table.to_csv(report.file("combinations.csv"), index=False)
    told = experiment.compare(parent_id, outcomes)
    if told:
        findings = "\n".join(f"- {sentence}" for sentence in told)
        runs.set_description(parent_id, f"{began}**Findings**\n\n{findings}\n\n{ended}")
    said = [f"{result}.", *told, f"The table of all is combinations.csv of run {parent_id}."]
    return [sentence.replace("**", "") for sentence in said]


def _table(
    chosen: list[Settings],
    names: list[str],
    outcomes: dict[str, Outcome],
    failures: dict[str, Exception],
    run_ids: dict[str, str],
) -> pd.DataFrame:
    rows = []
    for settings in chosen:
        label = arguments.label(settings, names)
        if label not in run_ids:
            continue
        row: dict[str, Any] = {name: arguments.shown(settings[name]) for name in names}
        row["status"] = "FINISHED" if label in outcomes else "FAILED" if label in failures else "KILLED"
        row |= outcomes[label].numbers if label in outcomes else {}
        rows.append({**row, "run_id": run_ids[label]})
    return pd.DataFrame(rows)


def _markdown(table: pd.DataFrame) -> str:
    """The table in markdown, numbers with four digits."""

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
