"""Choice of the speed-ups of one ``search.fit``: which fits reuse, share or continue trainings."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from mlflow_hp.search.naming import space_of
from mlflow_hp.search.speedups.epoch_continuation import Stages
from mlflow_hp.search.speedups.epoch_groups import group_calls
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mlflow_hp.search.live.events import Call, Pool


class SpeedUpChoice:
    """Speed-ups of one ``search.fit``.

    Parameters
    ----------
    search : BaseSearchCV
        The search that fits.
    reuse : bool
        Whether compiled Keras models are reused between fits.
    share_epochs : bool
        Whether fits that differ only in epochs share a training, or continue it in the next round.
    states_folder : callable
        Returns the folder for the states of trainings that are continued.
    remark : callable
        Takes messages to the user.
    """

    def __init__(
        self,
        search: Any,
        *,
        reuse: bool,
        share_epochs: bool,
        states_folder: Callable[[], Path],
        remark: Callable[[str], None],
    ) -> None:
        self._search = search
        self._reuse = reuse
        self._shares = self._continues = share_epochs
        self._remark = remark
        self._plain: Counter[str] = Counter()
        self._stages = Stages(
            search, states_folder, lambda reason, is_fault: self.count_plain(reason, is_fault=is_fault)
        )

    def reuses_models(self, pool: Pool) -> bool:
        """Decide which speed-ups a pool allows; return whether models are reused."""
        try:
            in_threads = _uses_threads(pool)
            if in_threads and _is_seeded(self._search.estimator):
                self._remark(
                    "a Keras model with a random_state is not reproducible where several threads of a process fit, "
                    "because they share one random generator; use joblib's backend 'loky', n_jobs=1, or Dask workers "
                    "with one thread each, such as LocalCluster(threads_per_worker=1)"
                )
            names = {name.rpartition("__")[2] for part in space_of(self._search) for name in part}
            self._shares &= pool.kind in ("here", "processes", "dask") and not in_threads and "epochs" in names
            if in_threads or pool.kind not in ("here", "processes"):
                self._stages.refuse(
                    "several threads of a process fit" if in_threads else f"the fits run on {pool.kind}"
                )
        except Exception as error:  # noqa: BLE001 - the fits run without speed-ups
            self.count_plain(f"nothing is reused or shared: {type(error).__name__}: {error}", is_fault=True)
            self._reuse = self._shares = self._continues = False
        return self._reuse

    def grouped(self, calls: Iterable[Call]) -> Iterable[tuple[list[Call], str | None]]:
        """Group the fits that share a training, each group with the name of its parameter for epochs."""
        if not self._shares or "scikeras.wrappers" not in sys.modules:
            return (([call], None) for call in calls)
        calls = list(calls)
        try:
            return list(group_calls(calls, self._search.estimator))
        except Exception as error:  # noqa: BLE001 - the fits run without sharing
            self.count_plain(f"no training is shared: {type(error).__name__}: {error}", is_fault=True)
            return [([call], None) for call in calls]

    def state_file(self, call: Call) -> Path | None:
        """File from which the training of a fit goes on, and for its state; None if it is trained from the start."""
        if not self._continues or "scikeras.wrappers" not in sys.modules:
            return None
        try:
            return self._stages.file_of(call)
        except Exception as error:  # noqa: BLE001 - the fits are trained from the start
            self.count_plain(f"no training is continued: {type(error).__name__}: {error}", is_fault=True)
            self._continues = False
            return None

    def count_plain(self, reason: str, n: int = 1, *, is_fault: bool) -> None:
        """Count trainings without a speed-up; warn of a fault."""
        self._plain[reason] += n
        if is_fault:
            self._remark(f"the results are the same, but the search is slower than it could be: {reason}")

    def count_not_vectorised(self, n: int, reason: str) -> None:
        """Count fits that a vectorised search trains one by one, and tell why."""
        self.count_plain(f"not vectorised: {reason}", n, is_fault=False)
        self._remark(f"{count(n, 'fit')} of the vectorised search run one by one: {reason}")

    def plain_trainings(self) -> str:
        """Numbers of trainings without a speed-up, a line for each reason; empty if there are none."""
        return "\n".join(f"{n} x {reason}" for reason, n in self._plain.most_common())

    def close(self) -> None:
        """Remove the states of trainings."""
        self._stages.remove()


def _uses_threads(pool: Pool) -> bool:
    """Whether several threads of one process may compute fits at the same time."""
    if pool.kind != "dask":
        return pool.kind == "threads"
    threads = pool.cluster.nthreads()
    here = sum(n for worker, n in threads.items() if worker.startswith("inproc:"))
    return max([here, *threads.values()]) > 1


def _is_seeded(estimator: Any) -> bool:
    """Whether an estimator contains a scikeras model with a seed."""
    if "scikeras.wrappers" not in sys.modules:
        return False
    from scikeras.wrappers import BaseWrapper

    parts = [estimator, *estimator.get_params(deep=True).values()]
    return any(isinstance(part, BaseWrapper) and part.random_state is not None for part in parts)
