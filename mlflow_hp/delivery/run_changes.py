"""Changes of a run that are still to be written to MLflow.

Everything that happens to a run is a change: plain data that is appended to the journal, and applied to the run in
memory. Replaying the changes from the journal of a dead process restores the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from mlflow.entities import Metric, Param, RunTag

from mlflow_hp.delivery.retry import BackOff
from mlflow_hp.tracking.names import distinct_metric_names
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mlflow_hp.delivery.batches import Item

Point = tuple[str, float, float, int]
"""Name of a metric, value, time in seconds since the epoch, and step (0-based)."""
Change = dict[str, Any]
"""Parts of a change by name, as they are in the journal."""
IfMissing = tuple[str, str, str, str | None, str | None]
"""Param or tag that is written if the run lacks it: "params" or "tags", name, value; path and text of the artifact with
its full text, if it is too long for MLflow."""


@dataclass
class Pending:
    """Sum of the changes of a run that are still to be written.

    Attributes
    ----------
    params, tags, artifacts : dict of str to str
        By name; the texts of artifacts by path.
    metrics : list of tuple
        Metric points.
    if_missing : list of tuple
        Params and tags that are written if the run lacks them.
    run_id_tags : dict of str to int
        Tags that hold the ids of other runs; the value is the number of the run.
    code : str or None
        Uncommitted changes of the code.
    report : bool
        Whether to write the files of the report.
    resumes : bool
        Whether a run that had ended is running again.
    end : tuple of str and float, or None
        Final status, and time of the end in seconds since the epoch.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Point] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)
    if_missing: list[IfMissing] = field(default_factory=list)
    run_id_tags: dict[str, int] = field(default_factory=dict)
    code: str | None = None
    report: bool = False
    resumes: bool = False
    end: tuple[str, float] | None = None

    def __bool__(self) -> bool:
        return any(vars(self).values())

    @property
    def has_items(self) -> bool:
        """Whether there are params, tags or metrics."""
        return bool(self.params or self.tags or self.metrics)

    def add(self, change: Mapping[str, Any]) -> None:
        """Add a change."""
        self.params |= change.get("params", {})
        self.tags |= change.get("tags", {})
        self.artifacts |= change.get("texts", {})
        self.metrics += map(tuple, change.get("metrics", ()))
        self.if_missing += map(tuple, change.get("unless_there", ()))
        self.run_id_tags |= change.get("ids", {})
        self.code = change.get("code", self.code)
        self.report |= change.get("report", False)
        self.resumes |= change.get("go_on", False)
        if "end" in change:
            status, at = change["end"]
            self.end = status, at


class RunChanges:
    """Run and its pending changes; methods that add a change return at once.

    Parameters
    ----------
    on_change : callable
        Called with the run and each of its changes; appends it to the journal, and calls `apply`.
    lock : RLock
        Held while the run is changed.
    number : int
        Number of the run in its recording; 0 is the parent of all others.
    run_id : str or None
        Id of the run; None until it is created in MLflow.
    name : str
        Name of the run.
    start : float
        Start in seconds since the epoch, for the creation of the run.
    parent : RunChanges, optional
        Run that it is nested in. Defaults to None.

    Attributes
    ----------
    is_open : bool
        Whether the run is being computed, and has not ended.
    artifact_paths : set of str
        Paths of all its text artifacts, written or pending.
    last_record : int
        Number of its last record in the journal; -1 if there is none.
    is_dropped : bool
        Whether it is not to be created.
    owns_status : bool
        Whether its status is written: not that of a run which another process goes on with.
    may_exist : bool
        Whether MLflow may have created it although its id is unknown, or more than once.
    pending : Pending
        Changes that are still to be written.
    refused_items : list of dict
        Items that MLflow has refused for their content.
    back_off : BackOff
        Back-off after failures to write it.
    lock : RLock
        As given.
    """

    def __init__(
        self,
        on_change: Callable[[RunChanges, Change], None],
        lock: threading.RLock,
        number: int,
        run_id: str | None,
        name: str,
        start: float,
        parent: Self | None = None,
    ) -> None:
        self.number = number
        self.run_id = run_id
        self.name = name
        self.start = start
        self.parent = parent
        self.last_record = -1
        self.is_dropped = False
        self.may_exist = False
        self.owns_status = True
        self.is_open = run_id is None
        self.artifact_paths: set[str] = set()
        self.pending = Pending()
        self.refused_items: list[Any] = []
        self.back_off = BackOff()
        self.lock = lock
        self._on_change = on_change
        self._is_being_written = False
        self._metric_names: dict[str, str] = {}

    def log_params(self, params: Mapping[str, str]) -> None:
        """Write params, without secrets; an artifact has the full text of those that are too long for MLflow."""
        storable = texts("params", params)
        self.note(params=storable.values, texts=storable.whole)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags like params, replacing those of the same names."""
        storable = texts("tags", tags)
        self.note(tags=storable.values, texts=storable.whole)

    def log_if_missing(self, kind: Literal["params", "tags"], values: Mapping[str, str]) -> None:
        """Write those of `values` that the run does not have at the time of writing."""
        storable = texts(kind, values)
        items = []
        for name, text in storable.values.items():
            path = next((path for path in storable.whole if text.endswith(f"{path})")), None)
            items.append((kind, name, text, path, storable.whole[path] if path else None))
        self.note(unless_there=items)

    def write_verbatim(
        self, tags: Mapping[str, str] | None = None, *, artifacts: Mapping[str, str] | None = None
    ) -> None:
        """Write tags, or text artifacts by path, that a later process reads: neither masked nor cut."""
        self.note(tags=dict(tags or {}), texts=dict(artifacts or {}))

    def log_metrics(self, points: Iterable[Point]) -> None:
        """Write metric points, under names that MLflow accepts."""
        points = list(points)
        with self.lock:
            self.note(metrics=list(self._with_metric_names(points)))

    def log_text(self, path: str, text: str) -> None:
        """Write a text artifact, without secrets."""
        self.note(texts={path: masked(text)})

    def set_run_id_tag(self, name: str, run: RunChanges) -> None:
        """Write a tag that holds the id of another run, as soon as it has one."""
        self.note(ids={name: run.number})

    def log_code(self, patch: str) -> None:
        """Write the uncommitted changes of the code, like `mlflow_hp.tracking.runs.log_code`."""
        self.note(code=patch)

    def log_report(self) -> None:
        """Write the files in the folder of the report."""
        self.note(report=True)

    def start_by(self, at: float) -> None:
        """Note that a run that is not created yet started at `at`, or before."""
        if self.run_id is None and at < self.start:
            self.note(start=at)

    def resume(self) -> None:
        """Set the status of a run that had ended to RUNNING."""
        self.note(go_on=True)

    def end(self, status: str, at: float) -> None:
        """End the run with ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``, at `at` in seconds since the epoch."""
        self.note(end=(status, at))

    def note(self, **change: Any) -> None:
        """Add a change, without its empty parts."""
        if change := {part: value for part, value in change.items() if value}:
            self._on_change(self, change)

    def _with_metric_names(self, points: Iterable[Point]) -> Iterator[Point]:
        if new_names := {name for name, *_ in points} - self._metric_names.keys():
            self._metric_names |= distinct_metric_names([*self._metric_names, *sorted(new_names)])
        return ((self._metric_names[name], float(value), float(at), int(step)) for name, value, at, step in points)

    def apply(self, change: Mapping[str, Any], *, is_written: bool = False) -> None:
        """Apply a change, under the lock; of a written one, only the parts on which later changes depend."""
        self.run_id = change.get("run_id", self.run_id)
        self.start = change.get("start", self.start)
        self.refused_items += [change["refused"]] if "refused" in change else []
        self.artifact_paths |= change.get("texts", {}).keys()
        self.is_open = (self.is_open or "go_on" in change) and "end" not in change
        if not is_written:
            self.pending.add(change)

    @property
    def is_pending(self) -> bool:
        """Whether something is still to be written, or is being written."""
        is_unwritten = bool(self.pending) or self._is_being_written
        return not self.is_dropped and (is_unwritten or self.may_exist or self.run_id is None)

    @property
    def n_points(self) -> int:
        """Number of metric points that are still to be written."""
        return len(self.pending.metrics)

    def take_tags(self) -> dict[str, str]:
        """Remove and return the pending tags."""
        with self.lock:
            tags, self.pending.tags = self.pending.tags, {}
        return tags

    def take_items(self) -> list[Item]:
        """Remove and return the pending params, tags and metrics; `put_back` has to follow."""
        with self.lock:
            self._is_being_written = True
            pending, tags = self.pending, self.take_tags()
            params, pending.params = pending.params, {}
            metrics, pending.metrics = pending.metrics, []
        return [
            *(Param(*param) for param in params.items()),
            *(RunTag(*tag) for tag in tags.items()),
            *(Metric(name, value, milliseconds(at), step) for name, value, at, step in metrics),
        ]

    def put_back(self, items: Iterable[Item]) -> None:
        """Put back items that were not written."""
        with self.lock:
            self._is_being_written, pending = False, self.pending
            pending.params = {i.key: i.value for i in items if isinstance(i, Param)} | pending.params
            pending.tags = {i.key: i.value for i in items if isinstance(i, RunTag)} | pending.tags
            points = [(i.key, i.value, i.timestamp / 1000, i.step) for i in items if isinstance(i, Metric)]
            pending.metrics = points + pending.metrics


def milliseconds(seconds: float) -> int:
    """Convert seconds to whole milliseconds, MLflow's unit of time."""
    return round(seconds * 1000)
