"""Candidates of one ``search.fit``: their runs, and the counts of planned, running, done and failed ones."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mlflow_hp.analysis.seeds import seed_std
from mlflow_hp.search.naming import candidate_name, param_values, space_of, varying
from mlflow_hp.terminal import is_live
from mlflow_hp.tracking.artifact_paths import BATCH_LOSSES_FILE, TRACEBACK_FILE
from mlflow_hp.tracking.tags import (
    CANDIDATE_TAG,
    DONE_TAG,
    FAILED_TAG,
    FIT_SECONDS_METRIC,
    FIT_TAG,
    FOLD_METRIC_PREFIX,
    FOLD_TAG,
    KIND_TAG,
    PLANNED_TAG,
    PRUNED_TAG,
    ROUND_TAG,
    RUNNING_TAG,
    SCORE_SECONDS_METRIC,
    TAG_PREFIX,
    score_metric,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.delivery.outbox import Outbox
    from mlflow_hp.delivery.run_changes import Point, RunChanges
    from mlflow_hp.search.live.events import Epoch, Fold, PlannedFit
    from mlflow_hp.search.resume.fold_cache import FoldCache


class Candidate:
    """A candidate with a started or reused fit.

    Parameters
    ----------
    run : RunChanges
        Its run.
    params : mapping of str to object
    n_splits : int
        Number of folds.

    Attributes
    ----------
    folds : dict of int to Fold
        Finished folds by index of their split (0-based).
    fold_runs : dict of int to RunChanges
        Runs of the folds, if they have any.
    batch_losses : dict of tuple of int to ndarray of float, shape (n_steps,)
        Loss of each batch of vectorised trainings, by index of the split and of the seed.
    errors : list of str
        Tracebacks.
    pruned : dict of int to str
        Reasons by index of the split (0-based) that it lost.
    status : str or None
        Final status; None until the last fold has ended.
    """

    def __init__(self, run: RunChanges, params: Mapping[str, Any], n_splits: int) -> None:
        self.run = run
        self.params = params
        self.n_splits = n_splits
        self.folds: dict[int, Fold] = {}
        self.fold_runs: dict[int, RunChanges] = {}
        self.batch_losses: dict[tuple[int, int], np.ndarray] = {}
        self.errors: list[str] = []
        self.pruned: dict[int, str] = {}
        self.status: str | None = None

    def open_fold(self, writer: Outbox, split: int, at: float) -> None:
        """Open a run for a fold that started at `at` seconds since the epoch."""
        if split in self.fold_runs:
            return
        run = self.fold_runs[split] = writer.open_run(f"fold {split}", at, self.run)
        run.set_tags({KIND_TAG: "fold", FOLD_TAG: str(split)})
        run.log_params(param_values(self.params))

    def log_epoch(self, split: int, event: Epoch, *, also_in_fold: bool) -> None:
        """Write the values of an epoch."""
        within = f"fit_{event.fit}/" if event.fit else ""
        points = [(within + name, value, event.time, event.epoch) for name, value in event.values.items()]
        self.run.log_metrics([(f"{FOLD_METRIC_PREFIX}{split}/{p[0]}", *p[1:]) for p in points])
        if also_in_fold and split in self.fold_runs:
            self.fold_runs[split].log_metrics(points)

    def add(self, split: int, fold: Fold, tags: Mapping[str, str]) -> None:
        """Write a finished fold: its metrics, and `tags`."""
        self.folds[split] = fold
        points = _points(fold, split)
        self.run.log_metrics([*points, *_seed_points(fold, f"{FOLD_METRIC_PREFIX}{split}/")])
        if tags:
            self.run.write_verbatim(tags)
        if fold.error is not None:
            self.fail(split, fold.error)
        if split in self.fold_runs:
            run = self.fold_runs[split]
            run.log_metrics([*((name, value, at, 0) for name, value, at, _ in points), *_seed_points(fold, "")])
            run.end("FINISHED" if fold.error is None else "FAILED", fold.ended)

    def fail(self, split: int, traceback: str) -> None:
        """Write the traceback of a failed fold."""
        self.errors.append(f"fold {split}\n{traceback}")
        self.run.log_text(TRACEBACK_FILE, "\n".join(self.errors))

    @property
    def is_complete(self) -> bool:
        """Whether all folds that it has not lost have ended."""
        return len(self.folds) + len(self.pruned) == self.n_splits

    def summarize(self) -> None:
        """Write mean and standard deviation over the folds, and end the run at the end of the last fold.

        A pruned candidate has no mean, as in ``cv_results_``, but the reason as a tag.
        """
        folds = [self.folds[split] for split in sorted(self.folds)]
        at = max((fold.ended for fold in folds), default=time.time())
        if self.pruned:
            self.run.set_tags({PRUNED_TAG: next(iter(self.pruned.values()))})
            self.end("FAILED" if self.errors else "FINISHED", at)
            return
        points: list[Point] = []
        for scorer in {name: None for fold in folds for name in fold.scores}:
            scores = np.array([fold.scores.get(scorer, np.nan) for fold in folds], np.float64)
            for kind, value in (("mean", scores.mean()), ("std", scores.std())):
                points.append((score_metric(scorer, kind), float(value), at, 0))
            if all(fold.seed_scores for fold in folds):
                spread = seed_std(np.array([fold.seed_scores[scorer] for fold in folds]))
                points.append((score_metric(scorer, "seed_std"), float(spread), at, 0))
        self.run.log_metrics(points)
        if self.batch_losses:
            self.run.log_text(BATCH_LOSSES_FILE, _losses_csv(self.batch_losses))
        self.end("FAILED" if self.errors else "FINISHED", at)

    def kill(self, at: float) -> None:
        """End the run and those of unfinished folds as KILLED."""
        for run in (run for split, run in self.fold_runs.items() if split not in self.folds):
            run.end("KILLED", at)
        self.end("FAILED" if self.errors else "KILLED", at)

    def end(self, status: str, at: float) -> None:
        """End the run."""
        self.status = status
        self.run.end(status, at)


def _points(fold: Fold, split: int) -> list[Point]:
    values = {score_metric(scorer): value for scorer, value in fold.scores.items()}
    values |= {score_metric(scorer, "train"): value for scorer, value in fold.train_scores.items()}
    values |= {FIT_SECONDS_METRIC: fold.fit_seconds, SCORE_SECONDS_METRIC: fold.score_seconds}
    return [(name, float(value), fold.ended, split) for name, value in values.items()]


def _seed_points(fold: Fold, prefix: str) -> list[Point]:
    return [
        (prefix + score_metric(scorer, "seed"), score, fold.ended, seed)
        for scorer, scores in fold.seed_scores.items()
        for seed, score in enumerate(scores)
    ]


def _losses_csv(batch_losses: Mapping[tuple[int, int], np.ndarray]) -> str:
    """CSV of the losses of all batches: a line for each step, a column for each fold and seed."""
    keys = sorted(batch_losses)
    columns = [map(repr, batch_losses[key].tolist()) for key in keys]
    lines = (",".join(values) for values in itertools.zip_longest(*columns, fillvalue=""))
    names = [f"{FOLD_METRIC_PREFIX}{split}{f'/seed_{seed}' if seed else ''}" for split, seed in keys]
    return "\n".join([",".join(["step", *names]), *(f"{step},{line}" for step, line in enumerate(lines))]) + "\n"


class Candidates:
    """Tracks every candidate of one ``search.fit``.

    The counts are shown in a progress bar, and written as tags of the parent run.

    Parameters
    ----------
    search : BaseSearchCV
        The search that fits.
    writer : Outbox
        Writes the runs.
    number : int
        Number of this fit among those recorded into the parent run (0-based).
    fold_cache : FoldCache
        Earlier runs of the candidates.
    progress : bool
        Whether to show the progress bar.

    Attributes
    ----------
    fits : dict of int to PlannedFit
        By number of their task.
    candidates : dict of int to Candidate
        Candidates with a started or reused fit, by their index in ``cv_results_``.
    """

    def __init__(self, search: Any, writer: Outbox, number: int, fold_cache: FoldCache, *, progress: bool) -> None:
        self.fits: dict[int, PlannedFit] = {}
        self.candidates: dict[int, Candidate] = {}
        self._writer = writer
        self._number = number
        self._fold_cache = fold_cache
        self._varying = varying(space_of(search))
        self._names: set[str] = set()
        self._n_planned = self._n_asked = 0
        self._n_expected = _expected(search)
        self._ended_earlier: set[int] = set()  # runs of an earlier process, not reopened
        self._n_by_status: Counter[str] = Counter()
        self._bar: Any = tqdm(desc="search", unit=" fits", total=0, disable=not (progress and is_live()))

    def plan(self, fit: PlannedFit) -> None:
        """Add a planned fit."""
        self.fits[fit.task] = fit
        self._n_asked = max(self._n_asked, fit.n_candidates)
        n_planned = max(self._n_asked, self._n_expected)
        if n_planned > self._n_planned:
            self._bar.total += (n_planned - self._n_planned) * fit.n_splits
            self._n_planned = n_planned
            self.count()

    def of(self, task: int, at: float) -> Candidate:
        """The candidate of a fit that started at `at` seconds since the epoch, created with its run if it is new."""
        fit = self.fits[task]
        candidate = self.candidates.get(fit.candidate)
        if candidate is not None:
            return candidate
        name = candidate_name(fit.params, self._varying)
        is_another_round = fit.round > 0 and name in self._names  # of a halving search
        self._names.add(name)
        previous_candidate = self._fold_cache.previous_candidate(fit.candidate)
        if previous_candidate is not None:
            self._ended_earlier.add(fit.candidate)
            run = self._writer.add_existing_run(
                previous_candidate.run_id, previous_candidate.name, previous_candidate.start
            )
        else:
            tags = {KIND_TAG: "candidate", CANDIDATE_TAG: str(fit.candidate)}
            if fit.round:
                tags[ROUND_TAG] = str(fit.round)
            if is_another_round:
                name += f" round={fit.round}"
            if self._number:
                tags[FIT_TAG] = str(self._number)
            run = self._writer.open_run(name, at)
            run.set_tags(tags)
            run.log_params(param_values(fit.params))
        candidate = self.candidates[fit.candidate] = Candidate(run, fit.params, fit.n_splits)
        self.count()
        return candidate

    def open(self, task: int, at: float) -> Candidate:
        """The candidate of a fit that is being computed, with its run open."""
        candidate, index = self.of(task, at), self.fits[task].candidate
        if index in self._ended_earlier:
            self._ended_earlier.remove(index)
            candidate.run.resume()
            if self._fold_cache.was_pruned(index):
                candidate.run.set_tags({PRUNED_TAG: ""})
        else:
            candidate.run.start_by(at)
        return candidate

    @property
    def running(self) -> list[Candidate]:
        """Candidates that are being computed."""
        candidates = self.candidates.items()
        return [each for index, each in candidates if each.status is None and index not in self._ended_earlier]

    def fold_ended(self, task: int) -> None:
        """Count a finished or reused fold; call it for the last one after the candidate's status is set."""
        self._bar.update()
        index = self.fits[task].candidate
        candidate = self.candidates[index]
        if candidate.is_complete:
            self._ended_earlier.discard(index)
            self._n_by_status[str(candidate.status)] += 1
        self.count()

    def skip(self, fit: PlannedFit, reason: str | None) -> None:
        """Note a fit that is not computed: a pruned one for this reason; without a reason the candidate stays open."""
        self._bar.update()
        candidate = self.candidates.get(fit.candidate)
        if reason is None or candidate is None:
            return
        candidate.pruned[fit.split] = reason
        if candidate.is_complete:
            candidate.summarize()
            self._ended_earlier.discard(fit.candidate)
            self._n_by_status[str(candidate.status)] += 1
            self.count()

    def kill(self, at: float) -> None:
        """End the open runs as KILLED at `at` seconds since the epoch."""
        for candidate in self.running:
            candidate.kill(at)
            self._n_by_status[str(candidate.status)] += 1
        self.count()

    def count(self) -> None:
        """Show and write the counts of planned, running, done and failed candidates."""
        counts = {
            PLANNED_TAG: self._n_planned,
            RUNNING_TAG: len(self.candidates) - len(self._ended_earlier) - self._n_by_status.total(),
            DONE_TAG: self._n_by_status["FINISHED"],
            FAILED_TAG: self._n_by_status["FAILED"],
        }
        self._writer.parent.set_tags({name: str(count) for name, count in counts.items()})
        texts = [f"{count} {name.removeprefix(TAG_PREFIX)}" for name, count in counts.items() if count]
        self._bar.set_postfix_str(f"candidates: {', '.join(texts)}", refresh=False)

    def close(self) -> None:
        """Close the progress bar; candidates that were expected and not asked for are no longer planned."""
        if self._n_asked < self._n_planned:
            self._n_planned = self._n_asked
            self.count()
        self._bar.close()


def _expected(search: Any) -> int:
    """Number of candidates that a search which asks in rounds expects in all; 0 if it does not know."""
    try:
        return int(search.expected_candidates())
    except Exception:  # noqa: BLE001 - most searches do not know it, and one with wrong settings refuses them itself
        return 0
