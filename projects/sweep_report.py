"""Report of a sweep as one file: which combination won, what to try, the table of all, and the pictures."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from mlflow_hp.terminal import count
from mlflow_hp.tracking import artifact_paths
from mlflow_hp.training import Report, add_overview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projects.experiment import Experiment, Outcome

Part = tuple[str, "Sequence[str]", "Sequence[str]", "Sequence[Sequence[str]]"]
"""Heading, sentences, columns and rows of a part of the report."""
MAX_ROWS = 100
"""Combinations in the table, the best ones."""
FIRST_PICTURES = ("cost_contour", "landscape", "val_loss_by_epoch", "loss_by_epoch")
"""Pictures that come first, as far as there are such."""
FEWEST_VALUES = 3
"""Values of a parameter from which the best may lie at their edge."""


def add_report(
    run_id: str, experiment: Experiment, table: pd.DataFrame, names: Sequence[str], best: Outcome,
    sentences: Sequence[str], settings: str, repeat: str,
) -> None:  # fmt: skip
    """Log ``report.html`` to the run of a sweep, with the pictures that it has by now.

    Parameters
    ----------
    run_id : str
        Run of the sweep.
    experiment : Experiment
        Entry point.
    table : pandas.DataFrame
        Combinations, with the columns `names`, status, numbers and run_id.
    names : sequence of str
        Parameters that vary.
    best : Outcome
        The best combination.
    sentences : sequence of str
        The result, and findings, in Markdown.
    settings : str
        Settings that all have in common.
    repeat : str
        Command that repeats the sweep.
    """
    ordered = table.sort_values(experiment.objective, kind="stable", na_position="last")
    rows = [[_cell(value) for value in row] for row in ordered.head(MAX_ROWS).itertuples(index=False)]
    left_out = (
        [f"The best {MAX_ROWS} of {count(len(table), 'combination')} are listed."] if len(table) > MAX_ROWS else []
    )
    about = [experiment.question, f"Settings of all: {settings or 'none'}.", f"To repeat it: `{repeat}`"]
    advice = [*_edges(table, names, best.run_id), *_advice(best)]
    parts: list[Part] = [("", sentences, [], []), *([("What to try", advice, [], [])] if advice else [])]
    parts += [("Combinations", left_out, list(table.columns), rows), ("About", about, [], [])]
    with tempfile.TemporaryDirectory() as folder, Report(run_id) as report:
        add_overview(report, f"sweep of {count(len(table), 'combination')}", parts, _pictures(run_id, folder))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _advice(best: Outcome) -> list[str]:
    """Proposals of the findings of the best combination, and the command that follows them."""
    proposals = [
        finding.text
        if finding.name == "next_try"  # its text is what to try
        else f"{finding.verdict[:1].upper()}{finding.verdict[1:]}: {finding.text}"
        + (f" Try: {finding.suggestion}." if finding.suggestion else "")
        for finding in best.advice
        if finding.severity != "fine"
    ]
    if not proposals:
        return []
    return [*proposals, f"`mlflow-hp improve {best.run_id}` trains the best as its findings propose."]


def _edges(table: pd.DataFrame, names: Sequence[str], best: str) -> list[str]:
    """Numeric parameters whose best value is the lowest or highest that was tried."""
    sentences = []
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce")
        if values.isna().any() or values.nunique() < FEWEST_VALUES:
            continue
        chosen = values[table["run_id"] == best].iloc[0]
        edge = "largest" if chosen == values.max() else "smallest" if chosen == values.min() else ""
        if edge:
            text = table.loc[table["run_id"] == best, name].iloc[0]
            sentences.append(f"The best has the {edge} {name} tried, {text}: a wider range may contain a better one.")
    return sentences


def _pictures(run_id: str, folder: str) -> dict[str, Path]:
    """Pictures of a run by caption, downloaded into a folder; none if they cannot be read."""
    try:
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=artifact_paths.PLOTS_FOLDER, dst_path=folder)
    except (MlflowException, OSError):
        return {}

    def importance(path: Path) -> tuple[int, str]:
        first = next((n for n, name in enumerate(FIRST_PICTURES) if path.stem.startswith(name)), len(FIRST_PICTURES))
        return first, path.stem

    paths = sorted(Path(folder).rglob("*.png"), key=importance)
    return {path.stem.replace("_", " "): path for path in paths}
