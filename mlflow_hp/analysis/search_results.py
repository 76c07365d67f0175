"""Results of a search: scores by candidate and fold, as arrays and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.computed_once import computed_once
from mlflow_hp.analysis.fit_times import FitTimes
from mlflow_hp.analysis.search_space import Parameter, candidate_text, identity, parameter, value_text, varying
from mlflow_hp.analysis.seeds import seed_std
from mlflow_hp.errors import UserError
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
LARGEST = 1e100
"""Scores beyond this would overflow; their fold counts as failed."""


@dataclass(frozen=True, eq=False)
class SearchResults:
    """Results of a finished search; what is computed of them is computed once.

    Parameters
    ----------
    candidates : list of dict
        The parameters of each candidate.
    scores : dict of str to ndarray of shape (n_candidates, n_splits)
        Scorer -> the score on each test fold, larger is better; nan where the fold failed, or was not computed.
    train_scores : dict of str to ndarray of shape (n_candidates, n_splits), or None
        The same on the training folds; None unless the search had ``return_train_score=True``.
    fit_seconds, score_seconds : ndarray of shape (n_candidates,)
        Mean over the folds.
    ranks : ndarray of int, shape (n_candidates,)
        By `scorer`, from 1, the best; equal means share a rank. In a halving search, candidates of later iterations
        rank first.
    scorer : str
        The scorer that ranks; ``"score"`` in a search with a single one.
    parameters : tuple of str
        Names of the parameters that vary.
    iterations : ndarray of int, shape (n_candidates,), or None
        In a halving search: each candidate's last iteration (0-based), which its numbers come from. Defaults to None.
    fit_times : FitTimes or None
        Times to compare, without the first fits of each process where these are known. Defaults to None: `fit_seconds`
        are compared as they are.
    seed_scores : ndarray of shape (n_candidates, n_splits, n_seeds), or None
        The ranking scorer's scores of each seed. Defaults to None: one seed.

    Examples
    --------
    >>> from mlflow_hp.analysis import from_cv_results
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_regression(30, 3, random_state=0)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3).fit(X, y)
    >>> results = from_cv_results(search.cv_results_)
    >>> results.parameters, results.fold_scores.shape
    (('alpha',), (3, 3))
    """

    candidates: list[dict[str, Any]]
    scores: dict[str, np.ndarray]
    train_scores: dict[str, np.ndarray] | None
    fit_seconds: np.ndarray
    score_seconds: np.ndarray
    ranks: np.ndarray
    scorer: str
    parameters: tuple[str, ...]
    iterations: np.ndarray | None = None
    fit_times: FitTimes | None = None
    seed_scores: np.ndarray | None = None

    @property
    def fold_scores(self) -> np.ndarray:
        """The ranking scorer's scores, shape (n_candidates, n_splits)."""
        return self.scores[self.scorer]

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean score, shape (n_candidates,); nan where a fold failed, as in scikit-learn."""
        return np.asarray(self.fold_scores.mean(axis=1))

    @cached_property
    def std(self) -> np.ndarray:
        """Standard deviation over the folds (divisor n_splits), shape (n_candidates,); nan where a fold failed."""
        with np.errstate(invalid="ignore"):  # an infinite score has no spread
            return np.asarray(self.fold_scores.std(axis=1))

    @cached_property
    def is_skipped(self) -> np.ndarray:
        """Candidates of which a fold was not computed: pruned, or cut by a time budget; bool, (n_candidates,)."""
        return np.asarray(np.isnan(self.mean) & np.isnan(self.fit_seconds))

    @cached_property
    def compared(self) -> np.ndarray:
        """Comparable candidates, bool of shape (n_candidates,): no failed fold and, after halving, last iteration."""
        complete = np.isfinite(self.mean)
        if self.iterations is None or not complete.any():
            return complete
        return np.asarray(complete & (self.iterations == self.iterations.max()))

    @cached_property
    def seed_std(self) -> np.ndarray | None:
        """Standard deviation over the seeds within a fold (divisor n_seeds - 1), shape (n_candidates,)."""
        return None if self.seed_scores is None else np.array([seed_std(scores) for scores in self.seed_scores])

    @cached_property
    def labels(self) -> list[str]:
        """Label of each candidate: the values of its varying parameters."""
        return [candidate_text(candidate, self.parameters) or "the only one" for candidate in self.candidates]

    @computed_once
    def parameter(self, name: str) -> Parameter:
        """Collect the parameter `name` over all candidates, as axes need it.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        Parameter
            The parameter.
        """
        return parameter(self.candidates, name)

    def to_table(self) -> pd.DataFrame:
        """Table with a row per candidate, best first: rank, parameters, mean, std and folds of each scorer, seconds.

        Returns
        -------
        DataFrame
            Rank, parameters, mean, std and folds of each scorer, seconds.
        """
        import pandas as pd

        columns: dict[str, Any] = {"rank": self.ranks}
        for name in dict.fromkeys(name for candidate in self.candidates for name in candidate):
            columns[name] = [candidate.get(name) for candidate in self.candidates]
        for kind, scores in (("", self.scores), ("train_", self.train_scores or {})):
            for scorer, values in scores.items():
                columns |= {f"mean_{kind}{scorer}": values.mean(axis=1), f"std_{kind}{scorer}": values.std(axis=1)}
                columns |= {f"fold_{fold}_{kind}{scorer}": values[:, fold] for fold in range(values.shape[1])}
        if self.seed_std is not None:
            columns[f"seed_std_{self.scorer}"] = self.seed_std
        columns |= {"fit_seconds": self.fit_seconds, "score_seconds": self.score_seconds}
        if self.iterations is not None:
            columns["iteration"] = self.iterations
        return pd.DataFrame(columns).sort_values("rank", kind="stable", ignore_index=True)

    def to_markdown(self, n: int = 10) -> str:
        """Markdown table of the best `n` candidates.

        Parameters
        ----------
        n : int
            How many. Defaults to 10.

        Returns
        -------
        str
            The table.
        """
        columns, rows = self.best_rows(n)
        cells = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)

    def best_rows(self, n: int) -> tuple[list[str], list[list[str]]]:
        """Table of the best `n` candidates as texts.

        Parameters
        ----------
        n : int
            How many.

        Returns
        -------
        columns : list of str
            Headings: rank, varied parameters, scorer, fit seconds.
        rows : list of list of str
            A row for each candidate, the best first.
        """
        spread = [] if self.seed_std is None else ["std over seeds"]
        columns, rows = ["rank", *self.parameters, self.scorer, *spread, "fit seconds"], []
        for index in np.argsort(self.ranks, kind="stable")[:n]:
            values = [value_text(self.candidates[index].get(name, "")) for name in self.parameters]
            missing = "not computed" if self.is_skipped[index] else "failed"
            score = missing if np.isnan(self.mean[index]) else plus_minus(self.mean[index], self.std[index])
            seconds = "" if self.is_skipped[index] else f"{self.fit_seconds[index]:.3g}"
            spread = [] if self.seed_std is None else [f"{self.seed_std[index]:.2g}"]
            rows.append([str(self.ranks[index]), *values, score, *spread, seconds])
        return columns, rows


def from_cv_results(
    cv_results: Mapping[str, Any], scorer: str | None = None, fit_times: FitTimes | None = None
) -> SearchResults:
    """Read scikit-learn's ``cv_results_``.

    In a halving search each candidate is kept once, with the numbers of its last iteration. Only candidates of the
    final iteration were scored with the same resources, and only these are `SearchResults.compared`.

    Parameters
    ----------
    cv_results : mapping
        A search's ``cv_results_``, or a part of it with ``params`` and ``split<i>_test_<scorer>``.
    scorer : str, optional
        The scorer that ranks, as in the search's ``refit``. Defaults to the first.
    fit_times : FitTimes, optional
        Times to compare, of each row of ``cv_results``. Defaults to the means and standard deviations in it.

    Returns
    -------
    SearchResults
        The results.

    Raises
    ------
    UserError
        If there is no candidate, or no such scorer.

    Examples
    --------
    >>> from mlflow_hp.analysis import from_cv_results
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_regression(30, 3, random_state=0)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3).fit(X, y)
    >>> from_cv_results(search.cv_results_).ranks
    array([1, 2, 3])
    """
    candidates = [dict(candidate) for candidate in cv_results.get("params", ())]
    scores = _by_scorer(cv_results, "test")
    if not candidates or not scores:
        raise UserError(
            "cv_results holds no candidate with scores. Pass cv_results_ of a search that has been fitted, with "
            "'params' and 'split0_test_score' in it."
        )
    scorer = next(iter(scores)) if scorer is None else scorer
    if scorer not in scores:
        raise UserError(f"There is no scorer {scorer!r} in cv_results. Pass one of {', '.join(map(repr, scores))}.")
    rows = np.arange(len(candidates))
    iterations = None
    if "iter" in cv_results:
        rows = _last_rows(candidates, np.asarray(cv_results["iter"]))
        iterations = np.asarray(cv_results["iter"], np.int64)[rows]
    candidates = [_without_secrets(candidates[row]) for row in rows]
    scores = {name: values[rows] for name, values in scores.items()}
    train = {name: values[rows] for name, values in _by_scorer(cv_results, "train").items()}
    unknown = np.zeros(len(cv_results["params"]))
    seconds = [np.asarray(cv_results.get(f"mean_{kind}_time", unknown), np.float64)[rows] for kind in ("fit", "score")]
    if iterations is None and f"rank_test_{scorer}" in cv_results:
        ranks = np.asarray(cv_results[f"rank_test_{scorer}"], np.int64)
    else:
        ranks = _ranks(scores[scorer].mean(axis=1), iterations)
    if fit_times is not None:
        fit_times = fit_times.of(rows)
    elif "std_fit_time" in cv_results:
        spread = np.asarray(cv_results["std_fit_time"], np.float64)[rows]
        fit_times = FitTimes(seconds[0], spread, np.full(len(rows), scores[scorer].shape[1]), [None] * len(rows))
    fit, score = seconds
    varied = varying(candidates)
    seeds = _seed_scores(cv_results, scorer, scores[scorer].shape[1])
    return SearchResults(
        candidates, scores, train or None, fit, score, ranks, scorer, varied, iterations, fit_times,
        None if seeds is None else seeds[rows],
    )  # fmt: skip


def plus_minus(mean: float, std: float) -> str:
    """Text of a mean and its spread, to two digits of the spread, such as ``0.953 ± 0.011``."""
    size = std if np.isfinite(std) and std > 0 else abs(mean) / 100 or 1.0
    digits = int(np.clip(1 - np.floor(np.log10(size)), 0, 12))
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if np.isfinite(std) else f"{mean:.{digits}f}"


def _by_scorer(cv_results: Mapping[str, Any], kind: str) -> dict[str, np.ndarray]:
    """Scorer -> scores of shape (n_rows, n_splits); nan where not finite or beyond ``LARGEST``."""
    scores: dict[str, np.ndarray] = {}
    for key in cv_results:
        start = f"split0_{kind}_"
        if key.startswith(start):
            name = key.removeprefix(start)
            columns: list[np.ndarray] = []
            while (column := f"split{len(columns)}_{kind}_{name}") in cv_results:
                columns.append(np.asarray(cv_results[column], np.float64))
            values = np.stack(columns, axis=1)
            scores[name] = np.where(np.abs(values) <= LARGEST, values, np.nan)
    return scores


def _seed_scores(cv_results: Mapping[str, Any], scorer: str, n_splits: int) -> np.ndarray | None:
    """Scores of each seed, shape (n_rows, n_splits, n_seeds), from the columns that `record_search` adds."""
    seeds: list[np.ndarray] = []
    while f"seed{len(seeds)}_split0_test_{scorer}" in cv_results:
        columns = [cv_results[f"seed{len(seeds)}_split{split}_test_{scorer}"] for split in range(n_splits)]
        seeds.append(np.stack([np.asarray(column, np.float64) for column in columns], axis=1))
    return np.stack(seeds, axis=2) if seeds else None


def _without_secrets(candidate: Mapping[str, Any]) -> dict[str, Any]:
    return {name: masked(value, name) if isinstance(value, str) else value for name, value in candidate.items()}


def _last_rows(candidates: Sequence[Mapping[str, Any]], iterations: np.ndarray) -> np.ndarray:
    """Row of each distinct candidate's last iteration, in order of first appearance."""
    last: dict[tuple[tuple[str, str], ...], int] = {}
    for row in np.argsort(iterations, kind="stable"):
        last[tuple((name, identity(value)) for name, value in candidates[row].items())] = int(row)
    return np.array(list(last.values()), np.int64)


def _ranks(mean: np.ndarray, iterations: np.ndarray | None) -> np.ndarray:
    """Rank of each candidate: later iterations first, then by mean, descending; from 1, ties share a rank."""
    level = np.zeros(len(mean)) if iterations is None else iterations
    score = np.where(np.isnan(mean), -np.inf, mean)
    before = (level[None] > level[:, None]) | ((level[None] == level[:, None]) & (score[None] > score[:, None]))
    return np.asarray(1 + before.sum(axis=1), np.int64)


def _cell(value: Any) -> str:
    return plain(value_text(value))
