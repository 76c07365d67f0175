"""One combination of a search, as the run that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.describe import param_values, score_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.search.changes import Point
    from mlflow_hp.search.fold import Fold
    from mlflow_hp.search.outbox import Outbox
    from mlflow_hp.search.run import Run
    from mlflow_hp.search.task import Epoch


ERROR_FILE = "error/traceback.txt"
"""The artifact of a combination with a fold that failed."""


class Candidate:
    """A combination of which a fit has started, or is known.

    Parameters
    ----------
    run : Run
        Its run.
    params : mapping of str to object
    n_splits : int
        How many folds it has.

    Attributes
    ----------
    folds : dict of int to Fold
        Those that have ended, by number (0-based).
    fold_runs : dict of int to Run
        The folds' own runs.
    errors : list of str
        Tracebacks.
    status : str or None
        None until the last fold has ended.
    """

    def __init__(self, run: Run, params: Mapping[str, Any], n_splits: int) -> None:
        self.run = run
        self.params = params
        self.n_splits = n_splits
        self.folds: dict[int, Fold] = {}
        self.fold_runs: dict[int, Run] = {}
        self.errors: list[str] = []
        self.status: str | None = None

    def open_fold(self, writer: Outbox, split: int, at: float) -> None:
        """Have a run made for a fold that started at `at` seconds since the epoch."""
        if split in self.fold_runs:
            return
        run = self.fold_runs[split] = writer.open(f"fold {split}", at, self.run)
        run.tags({"mlflow_hp.kind": "fold", "mlflow_hp.fold": str(split)})
        run.params(param_values(self.params))

    def log_epoch(self, split: int, event: Epoch, *, also_in_fold: bool) -> None:
        """Have the values of an epoch written."""
        within = f"fit_{event.fit}/" if event.fit else ""
        points = [(within + name, value, event.time, event.epoch) for name, value in event.values.items()]
        self.run.metrics([(f"fold_{split}/{p[0]}", *p[1:]) for p in points])
        if also_in_fold and split in self.fold_runs:
            self.fold_runs[split].metrics(points)

    def add(self, split: int, fold: Fold, tags: Mapping[str, str]) -> None:
        """Have a fold written that has ended, and with its metrics the `tags`."""
        self.folds[split] = fold
        points = _points(fold, split)
        self.run.metrics(points)
        if tags:
            self.run.keep(tags)
        if fold.error is not None:
            self.fail(split, fold.error)
        if split in self.fold_runs:
            run = self.fold_runs[split]
            run.metrics([(name, value, at, 0) for name, value, at, _ in points])
            run.end("FINISHED" if fold.error is None else "FAILED", fold.ended)

    def fail(self, split: int, traceback: str) -> None:
        """Have it known that a fold has failed, and why."""
        self.errors.append(f"fold {split}\n{traceback}")
        self.run.text(ERROR_FILE, "\n".join(self.errors))

    @property
    def is_complete(self) -> bool:
        """Whether all folds have ended."""
        return len(self.folds) == self.n_splits

    def summarize(self) -> None:
        """Have mean and standard deviation over the folds written, and the run ended as of the last fold's end."""
        folds = [self.folds[split] for split in sorted(self.folds)]
        at = max(fold.ended for fold in folds)
        points: list[Point] = []
        for scorer in {name: None for fold in folds for name in fold.scores}:
            scores = np.array([fold.scores.get(scorer, np.nan) for fold in folds], np.float64)
            for kind, value in (("mean", scores.mean()), ("std", scores.std())):
                points.append((score_name(scorer, kind), float(value), at, 0))
        self.run.metrics(points)
        self.end("FAILED" if self.errors else "FINISHED", at)

    def kill(self, at: float) -> None:
        """Have the run ended, and those of the folds that have not."""
        for run in (run for split, run in self.fold_runs.items() if split not in self.folds):
            run.end("KILLED", at)
        self.end("FAILED" if self.errors else "KILLED", at)

    def end(self, status: str, at: float) -> None:
        """Have the run ended."""
        self.status = status
        self.run.end(status, at)


def _points(fold: Fold, split: int) -> list[Point]:
    named = {score_name(scorer): value for scorer, value in fold.scores.items()}
    named |= {score_name(scorer, "train"): value for scorer, value in fold.train_scores.items()}
    named |= {"fit_seconds": fold.fit_seconds, "score_seconds": fold.score_seconds}
    return [(name, float(value), fold.ended, split) for name, value in named.items()]
