"""The combinations of one ``search.fit``: their runs, and how many are planned, running, done, failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlflow_hp.search.candidate import Candidate
from mlflow_hp.search.describe import candidate_name, param_values, space_of, varying

if TYPE_CHECKING:
    from mlflow_hp.search.fold import Planned
    from mlflow_hp.search.memory import Memory
    from mlflow_hp.search.outbox import Outbox


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
