"""The combinations of one ``search.fit``: the run of each, and how many are planned, running, done, failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mlflow_hp.search.naming import candidate_name, param_values, score_name, space_of, varying

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.delivery.outbox import Outbox
    from mlflow_hp.delivery.pending_run import Run
    from mlflow_hp.delivery.run_changes import Point
    from mlflow_hp.search.live.events import Epoch, Fold, Planned
    from mlflow_hp.search.resume.fold_cache import Memory


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


class Combinations:
    """Those of which a fit is planned.

    The counts are shown in a progress bar, and written as tags of the parent run.

    Parameters
    ----------
    search : BaseSearchCV
        The one that fits.
    writer : Outbox
        Takes the runs.
    number : int
        Which of the fits that are recorded into the parent run (0-based).
    memory : Memory
        Knows the runs that combinations have had before.
    progress : bool
        Whether the progress bar is shown.

    Attributes
    ----------
    fits : dict of int to Planned
        By task.
    candidates : dict of int to Candidate
        Those of which a fit has started or is known, by their place in ``cv_results_``.
    """

    def __init__(self, search: Any, writer: Outbox, number: int, memory: Memory, *, progress: bool) -> None:
        self.fits: dict[int, Planned] = {}
        self.candidates: dict[int, Candidate] = {}
        self._writer = writer
        self._number = number
        self._memory = memory
        self._varying = varying(space_of(search))
        self._n_planned = 0
        self._resting: set[int] = set()  # those whose runs are an earlier process's, and have ended
        self._ends: Counter[str] = Counter()
        self._bar: Any = tqdm(desc="search", unit=" fits", total=0, disable=not progress)

    def plan(self, fit: Planned) -> None:
        """A fit is going to be computed."""
        self.fits[fit.task] = fit
        if fit.n_candidates > self._n_planned:
            self._bar.total += (fit.n_candidates - self._n_planned) * fit.n_splits
            self._n_planned = fit.n_candidates
            self.count()

    def of(self, task: int, at: float) -> Candidate:
        """The combination of a fit, which started at `at` seconds since the epoch."""
        fit = self.fits[task]
        candidate = self.candidates.get(fit.candidate)
        if candidate is not None:
            return candidate
        child = self._memory.child(fit.candidate)
        if child is not None:
            self._resting.add(fit.candidate)
            run = self._writer.known(child.run_id, child.name, child.start)
        else:
            name = candidate_name(fit.params, self._varying)
            tags = {"kind": "candidate", "candidate": str(fit.candidate)}
            if fit.round:
                tags["round"] = str(fit.round)
                name += f" round={fit.round}"
            if self._number:
                tags["fit"] = str(self._number)
            run = self._writer.open(name, at)
            run.tags({f"mlflow_hp.{key}": value for key, value in tags.items()})
            run.params(param_values(fit.params))
        candidate = self.candidates[fit.candidate] = Candidate(run, fit.params, fit.n_splits)
        self.count()
        return candidate

    def open(self, task: int, at: float) -> Candidate:
        """The combination of a fit that is computed, with its run open."""
        candidate, number = self.of(task, at), self.fits[task].candidate
        if number in self._resting:
            self._resting.remove(number)
            candidate.run.go_on()
        else:
            candidate.run.started(at)
        return candidate

    @property
    def still_open(self) -> list[Candidate]:
        """Those that have started and not ended."""
        candidates = self.candidates.items()
        return [each for number, each in candidates if each.status is None and number not in self._resting]

    def fold_ended(self, task: int) -> None:
        """A fit came back, or is known; the last of a combination comes when its status is known."""
        self._bar.update()
        number = self.fits[task].candidate
        candidate = self.candidates[number]
        if candidate.is_complete:
            self._resting.discard(number)
            self._ends[str(candidate.status)] += 1
        self.count()

    def kill(self, at: float) -> None:
        """Have the runs ended that are open, as of `at` seconds since the epoch."""
        for candidate in self.still_open:
            candidate.kill(at)
            self._ends[str(candidate.status)] += 1
        self.count()

    def count(self) -> None:
        """Tell how many combinations are planned, running, done, failed."""
        counts = {
            "planned": self._n_planned,
            "running": len(self.candidates) - len(self._resting) - self._ends.total(),
            "done": self._ends["FINISHED"],
            "failed": self._ends["FAILED"],
        }
        self._writer.parent.tags({f"mlflow_hp.{name}": str(count) for name, count in counts.items()})
        words = [f"{count} {name}" for name, count in counts.items() if count]
        self._bar.set_postfix_str(f"combinations: {', '.join(words)}", refresh=False)

    def close(self) -> None:
        """No more fits come back."""
        self._bar.close()
