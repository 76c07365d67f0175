"""Replays of searches with pruning: the fits that they save, and how often the best candidate is the same.

The scores are those of real trainings (`benchmarks.score_tables`); the searches are scikit-learn's, through the hook of
`mlflow_hp.record_search`, of an estimator that looks its score up, without the recording to MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, KFold
from tqdm import tqdm

from benchmarks.score_tables import DATA, Table, table
from mlflow_hp.analysis import from_cv_results
from mlflow_hp.analysis.significance import winner
from mlflow_hp.search.live import parallel_hook
from mlflow_hp.search.live.skipping import Skipping, expected_gaps
from mlflow_hp.search.live.worker_channel import Inbox
from mlflow_hp.search.time_limit import TimeLimit
from projects.grids import TUTORIALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GRIDS = tuple(TUTORIALS["grid"])
JUDGED_FROM = 67
"""First seed of the tables that the level of the test was not tuned on."""


N_ROWS = 400
"""Rows of a test fold: accuracies are rounded to their share."""


class Looked(ClassifierMixin, BaseEstimator):
    """An estimator whose accuracy stands in a table: a row of `scores` of each combination, a column of each fold."""

    def __init__(self, row: int = 0, scores: Any = None) -> None:
        self.row = row
        self.scores = scores

    def fit(self, x: np.ndarray, y: np.ndarray) -> Looked:
        self.classes_ = np.unique(y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        fold = int(x[0, 0]) // N_ROWS
        return (x[:, 0] % N_ROWS < round(self.scores.of[self.row, fold] * N_ROWS)).astype(int)


class Shared:
    """A table that clones of an estimator share."""

    def __init__(self, of: np.ndarray) -> None:
        self.of = of

    def __sklearn_clone__(self) -> Shared:
        return self


class Watcher:
    """A recorder of one search that prunes, and counts the fits; it writes nothing."""

    steps = False
    repeats = 1

    def __init__(self, search: Any, rule: str) -> None:
        self._search = search
        self._fits: dict[int, Any] = {}
        self.n_fits = 0
        self._inbox = Inbox(lambda _: None)
        self._skipping = Skipping(search, rule, TimeLimit(), skipped=lambda _: None, remark=print)

    def wants(self, search: Any) -> bool:
        return search is self._search

    def observe(self, search: Any) -> Watcher:
        return self

    def cannot_observe(self, search: Any, reason: str) -> None:
        raise RuntimeError(f"{search}: {reason}")

    def address(self, pool: Any) -> Any:
        return self._inbox.address(False, pool.cluster)

    def rounds(self, calls: Any, _: Any) -> Any:
        yield calls

    def planned(self, fit: Any) -> None:
        self._fits[fit.task] = fit
        self._skipping.plan(fit)

    def cached_result(self, call: Any) -> None:
        """Nothing is cached."""

    def grouped(self, calls: Iterable[Any]) -> Iterator[Any]:
        return (([call], None) for call in calls)

    def selected(self, groups: Iterable[Any], results: dict[int, Any]) -> Iterator[Any]:
        return self._skipping.select(groups, results)

    def state_file(self, call: Any) -> None:
        """Train each fit from the start."""

    def prefers_order(self) -> bool:
        return True

    def ended(self, fold: Any) -> None:
        self.n_fits += 1
        self._skipping.note(self._fits[fold.task], fold)

    def ended_round(self) -> None:
        """Nothing is refused."""

    def not_understood(self, error: Exception) -> None:
        raise error

    def computed(self) -> None:
        self._inbox.close()


class Replay(NamedTuple):
    """Outcome of a pruned search.

    Attributes
    ----------
    share : float
        Share of the fits that were computed.
    is_same : bool
        Whether ``best_index_``, ``best_params_`` and ``best_score_`` are those of all fits.
    is_tied : bool
        Whether its best cannot be told from that of all fits, on the whole table.
    loss : float
        Mean score that the best of all fits has more, on the whole table.
    """

    share: float
    is_same: bool
    is_tied: bool
    loss: float


def replay(of: Table, rule: str) -> Replay:
    """Search a table with and without pruning."""
    n_candidates, n_splits = of.scores.shape
    x = np.arange(n_splits * N_ROWS, dtype=float)[:, None]
    y = np.ones(len(x), int)
    scores = Shared(of.scores)

    def search() -> Any:
        rows = {"row": list(range(n_candidates))}
        return GridSearchCV(Looked(scores=scores), rows, cv=KFold(n_splits), refit=False)

    plain, pruned = search().fit(x, y), search()
    watcher = Watcher(pruned, rule)
    with parallel_hook.active(watcher), expected_gaps(True):
        pruned.fit(x, y)
    names = ("best_index_", "best_score_", "best_params_")
    best = winner(from_cv_results(plain.cv_results_))
    means = plain.cv_results_["mean_test_score"]
    return Replay(
        watcher.n_fits / of.scores.size,
        all(getattr(plain, name) == getattr(pruned, name) for name in names),
        best is not None and bool(best.tied[pruned.best_index_]),
        float(means.max() - means[pruned.best_index_]),
    )


def prune(n_replays: int = 200, folds: tuple[int, ...] = (3, 5, 10)) -> None:
    """Print what pruning saves of the tutorials' grids, and what it misses."""
    print("\n(prune) tutorials' grids, 400 rows of digits, breast cancer and wine, networks of 32 units\n")
    print("| folds | prune | replays | fits of all | same best | not told from it | mean loss | largest loss |")
    print("|---" * 8 + "|")
    for n_splits in folds:
        tables = []
        for number in tqdm(range(n_replays), desc=f"{n_splits} folds"):
            seed, grid = JUDGED_FROM + number // len(GRIDS), GRIDS[number % len(GRIDS)]
            tables.append(table(grid, list(DATA)[seed % len(DATA)], n_splits, seed))
        for rule in ("exact", "tested"):
            replays = [replay(each, rule) for each in tqdm(tables, desc=rule)]
            share, same, tied, loss = np.array(replays, float).T
            counts = f"{len(replays)} | {share.mean():.0%} | {same.sum():.0f} | {tied.sum():.0f}"
            print(f"| {n_splits} | {rule} | {counts} | {loss.mean():.4f} | {loss.max():.3f} |", flush=True)


if __name__ == "__main__":
    prune()
