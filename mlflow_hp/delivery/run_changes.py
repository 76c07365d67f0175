"""What is still to be written of a run: the sum of the changes that have been told and not been written.

All that happens to a run is a change: plain data, which goes to the journal as it is, and to the run in memory. The
same changes, read from the journal of a process that died, make the same run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from mlflow_hp.tracking.names import distinct_metric_names
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlflow_hp.delivery.outbox import Outbox

Point = tuple[str, float, float, int]
"""A metric's name, value, time in seconds since the epoch, and step (0-based)."""
Change = dict[str, Any]


class Changes:
    """A run, and what is still to be written of it. The methods that tell what happens return at once.

    Attributes
    ----------
    number : int
        Which of the recording's runs; 0 is the parent of all.
    run_id : str or None
        None until the run has been made in MLflow.
    start : float
        In seconds since the epoch; it counts when the run is made.
    parent : Run or None
    is_open : bool
        Whether it is computed, and its end has not come.
    seen_texts : set of str
        Paths of the artifacts that it has, or is to have.
    last : int
        Number of the journal's last record of it.
    is_dropped : bool
        Whether it is not to be made.
    may_be_there : bool
        Whether MLflow may have made it although its id is not known, or more than once.
    """

    def __init__(
        self, outbox: Outbox, number: int, run_id: str | None, name: str, start: float, parent: Self | None = None
    ) -> None:
        self.number = number
        self.run_id = run_id
        self.name = name
        self.start = start
        self.last = -1
        self.is_dropped = False
        self.may_be_there = False
        self.parent = parent
        self.is_open = run_id is None
        self.seen_texts: set[str] = set()
        self._outbox = outbox
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._metrics: list[Point] = []
        self._texts: dict[str, str] = {}
        self._metric_names: dict[str, str] = {}
        self._unless_there: list[tuple[str, str, str, str | None, str | None]] = []
        self._ids: dict[str, int] = {}
        self._code: str | None = None
        self._report = False
        self._goes_on = False
        self._end: tuple[str, float] | None = None
        self._refused: list[Any] = []

    def params(self, params: Mapping[str, str]) -> None:
        """Have params written, without secrets; what is too long for MLflow is whole in an artifact."""
        made = texts("params", params)
        self._note(params=made.values, texts=made.whole)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Have tags written as `params`, in place of those with the same names."""
        made = texts("tags", tags)
        self._note(tags=made.values, texts=made.whole)

    def unless_there(self, kind: Literal["params", "tags"], values: Mapping[str, str]) -> None:
        """Have those of `values` written that the run does not have when their turn comes."""
        made = texts(kind, values)
        choices = []
        for name, text in made.values.items():
            path = next((path for path in made.whole if text.endswith(f"{path})")), None)
            choices.append((kind, name, text, path, made.whole[path] if path else None))
        self._note(unless_there=choices)

    def keep(self, tags: Mapping[str, str] | None = None, *, texts: Mapping[str, str] | None = None) -> None:
        """Have tags, or artifacts by their paths, written verbatim: those that a later process is to read."""
        self._note(tags=dict(tags or {}), texts=dict(texts or {}))

    def metrics(self, points: Iterable[Point]) -> None:
        """Have metric points written, under names that MLflow takes."""
        points = list(points)
        with self._outbox.lock:
            self._note(metrics=list(self._named(points)))

    def text(self, path: str, text: str) -> None:
        """Have an artifact written, without secrets."""
        self._note(texts={path: masked(text)})

    def tag_id(self, name: str, run: Changes) -> None:
        """Have a tag written that holds the id of another run, as soon as that has one."""
        self._note(ids={name: run.number})

    def code(self, patch: str) -> None:
        """Have the uncommitted changes of the code written, as `mlflow_hp.tracking.runs.log_code` does."""
        self._note(code=patch)

    def report(self) -> None:
        """Have the files in the folder for the report written."""
        self._note(report=True)

    def started(self, at: float) -> None:
        """Tell a run that is not made yet that it started at `at`, or before."""
        if self.run_id is None and at < self.start:
            self._note(start=at)

    def go_on(self) -> None:
        """Have a run that had been ended be running."""
        self._note(go_on=True)

    def end(self, status: str, at: float) -> None:
        """Have the run ended with ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``, as of `at` seconds."""
        self._note(end=(status, at))

    def _note(self, **change: Any) -> None:
        if change := {part: value for part, value in change.items() if value}:
            self._outbox.note(self, change)

    def _named(self, points: Iterable[Point]) -> Iterator[Point]:
        if new := {name for name, *_ in points} - self._metric_names.keys():
            self._metric_names |= distinct_metric_names([*self._metric_names, *sorted(new)])
        return ((self._metric_names[name], float(value), float(at), int(step)) for name, value, at, step in points)

    def apply(self, change: Mapping[str, Any], *, is_written: bool = False) -> None:
        """Take a change, under the outbox's lock; of one that `is_written`, only what later ones build upon."""
        self.run_id = change.get("run_id", self.run_id)
        self.start = change.get("start", self.start)
        self._refused += [change["refused"]] if "refused" in change else []
        self.seen_texts |= change.get("texts", {}).keys()
        self.is_open = (self.is_open or "go_on" in change) and "end" not in change
        if is_written:
            return
        self._params |= change.get("params", {})
        self._tags |= change.get("tags", {})
        self._texts |= change.get("texts", {})
        self._metrics += map(tuple, change.get("metrics", ()))
        self._unless_there += map(tuple, change.get("unless_there", ()))
        self._ids |= change.get("ids", {})
        self._code = change.get("code", self._code)
        self._report |= change.get("report", False)
        self._goes_on |= change.get("go_on", False)
        if "end" in change:
            self._end = tuple(change["end"])

    @property
    def is_pending(self) -> bool:
        """Whether something is still to be written."""
        waiting = (self._params, self._tags, self._metrics, self._texts, self._unless_there, self._ids, self._code,
                   self._report, self._goes_on, self._end, self.may_be_there, self.run_id is None)  # fmt: skip
        return not self.is_dropped and any(waiting)

    @property
    def has_ended(self) -> bool:
        """Whether its end is still to be written."""
        return self._end is not None

    @property
    def waiting_tags(self) -> dict[str, str]:
        """Tags that are still to be written."""
        return dict(self._tags)

    @property
    def n_points(self) -> int:
        """How many metric points are still to be written."""
        return len(self._metrics)
