"""A run on its way to MLflow: what is still to be written of it, and how that is written.

All that happens to a run is a change: plain data, which goes to the journal as it is, and to the run in memory. The
same changes, read from the journal of a process that died, make the same run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any, Literal

from mlflow.exceptions import MlflowException

from mlflow_hp import runs
from mlflow_hp.masking import masked
from mlflow_hp.names import distinct_metric_names
from mlflow_hp.search.batches import METRICS_AT_ONCE, OTHERS_AT_ONCE, Batches, is_refused, ms
from mlflow_hp.texts import texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import mlflow

    from mlflow_hp.search.batches import Item
    from mlflow_hp.search.outbox import Outbox

KEY = "mlflow_hp.key"
"""The tag by which a run is found whose id was lost on the way."""
REFUSED = "mlflow_hp.refused"
"""The tag that names what MLflow refused of a run; `REFUSED_FILE` holds it."""
REFUSED_FILE = "refused_by_mlflow.json"
RETRIED_SECONDS = 1.0
"""A call that takes longer may have been made twice by MLflow's client, whose connection broke in between."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's error codes of a call that has done nothing."""

Point = tuple[str, float, float, int]
"""A metric's name, value, time in seconds since the epoch, and step (0-based)."""
Change = dict[str, Any]


class GivenUpError(Exception):
    """Nobody waits for what is written any more."""


class Run:
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
        self, outbox: Outbox, number: int, run_id: str | None, name: str, start: float, parent: Run | None = None
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

    def keep(self, tags: Mapping[str, str]) -> None:
        """Have tags written verbatim: those that a later process is to read."""
        self._note(tags=dict(tags))

    def metrics(self, points: Iterable[Point]) -> None:
        """Have metric points written, under names that MLflow takes."""
        points = list(points)
        with self._outbox.lock:
            self._note(metrics=list(self._named(points)))

    def text(self, path: str, text: str) -> None:
        """Have an artifact written, without secrets."""
        self._note(texts={path: masked(text)})

    def tag_id(self, name: str, run: Run) -> None:
        """Have a tag written that holds the id of another run, as soon as that has one."""
        self._note(ids={name: run.number})

    def code(self, patch: str) -> None:
        """Have the uncommitted changes of the code written, as `mlflow_hp.runs.log_code` does."""
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

    def write(self, client: mlflow.MlflowClient) -> None:
        """Write what has come; what fails stays to be written, and the rest is written nevertheless."""
        if self.is_dropped:
            return
        if self.run_id is None:
            self._create(client)
        errors = []
        for part in (self._choose, self._write_batches, self._write_texts, self._write_code, self._write_report,
                     self._drop_duplicates, self._write_status):  # fmt: skip
            try:
                part(client)
            except GivenUpError:
                raise
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def _create(self, client: mlflow.MlflowClient) -> None:
        assert self.parent is not None
        if self.parent.run_id is None:
            self.parent._create(client)
        if self.may_be_there and (there := self._there(client)):
            self._made(there[0])
            return
        own = self._take(tags_only=True)  # tags cost least where the run is made
        needed = {KEY: self._key, "mlflow.parentRunId": self.parent.run_id}
        tags = {**self._outbox.common, **{name: value for _, name, value in own}}
        create = functools.partial(client.create_run, self._outbox.experiment_id, ms(self.start), run_name=self.name)
        began = time.monotonic()
        try:
            try:
                run = create(tags={**tags, **needed})
            except MlflowException as error:
                if error.error_code not in REFUSALS:
                    raise
                run = create(tags=needed)
                own = [("tag", name, value) for name, value in tags.items()]  # which of them it refuses is seen then
                self._put_back(own)
        except Exception:
            self.may_be_there = True
            self._put_back(own)
            raise
        self.may_be_there |= time.monotonic() - began > RETRIED_SECONDS
        self._made(run.info.run_id)

    @property
    def _key(self) -> str:
        return f"{self._outbox.key}/{self.number}"

    def _made(self, run_id: str) -> None:
        self._outbox.note(self, {"run_id": run_id})

    def _there(self, client: mlflow.MlflowClient) -> list[str]:
        """Ids of the runs that are this one, but for those that hold something and are others; the oldest first."""
        alike = client.search_runs([self._outbox.experiment_id], f"tags.`{KEY}` = '{self._key}'")
        alike.sort(key=lambda run: (not run.data.params and not run.data.metrics, run.info.run_id))
        return [run.info.run_id for run in alike]

    def _drop_duplicates(self, client: mlflow.MlflowClient) -> None:
        """Delete what the store made of this run next to it, when its answer was lost on the way."""
        if not self.may_be_there or self.parent is None or self.run_id is None:
            return
        for run_id in self._there(client):
            if run_id != self.run_id:
                client.delete_run(run_id)
        self.may_be_there = False

    def _choose(self, client: mlflow.MlflowClient) -> None:
        """Choose what the run does not have."""
        if not self._unless_there:
            return
        data = client.get_run(self.run_id).data
        have = {"params": data.params, "tags": data.tags}
        with self._outbox.lock:
            waiting, self._unless_there = self._unless_there, []
            for kind, name, value, path, whole in waiting:
                if name not in have[kind]:
                    (self._params if kind == "params" else self._tags).setdefault(name, value)
                    self._texts |= {} if path is None or whole is None else {path: whole}

    def _write_batches(self, client: mlflow.MlflowClient) -> None:
        assert self.run_id is not None
        batches = Batches(client, self.run_id, ("tag", KEY, self._key), self._refuse)
        while items := self._take():
            self._put_back(batches.write(items))
            if batches.error is not None:
                raise batches.error
            self._outbox.go_on_or_raise()

    def _take(self, *, tags_only: bool = False) -> list[Item]:
        """Metrics, params and tags for one call, taken from what is to be written."""
        with self._outbox.lock:
            for name, number in list(self._ids.items()):
                run = self._outbox.runs[number]
                if run.run_id is not None:
                    self._tags[name] = run.run_id
                if run.run_id is not None or run.is_dropped:
                    del self._ids[name]
            tags = [("tag", name, self._tags.pop(name)) for name in list(self._tags)[:OTHERS_AT_ONCE]]
            if tags_only:
                return tags
            metrics, self._metrics = self._metrics[:METRICS_AT_ONCE], self._metrics[METRICS_AT_ONCE:]
            params = [("param", name, self._params.pop(name)) for name in list(self._params)[:OTHERS_AT_ONCE]]
        return [*params, *tags, *(("metric", *point) for point in metrics)]

    def _put_back(self, items: list[Item]) -> None:
        with self._outbox.lock:
            self._metrics = [item[1:] for item in items if item[0] == "metric"] + self._metrics
            self._params = {item[1]: item[2] for item in items if item[0] == "param"} | self._params
            self._tags = {item[1]: item[2] for item in items if item[0] == "tag"} | self._tags

    def _refuse(self, item: Item, error: Exception) -> None:
        """Set aside, in an artifact, what MLflow refuses for what it is."""
        kind, name, *rest = item
        refused = {"kind": kind, "name": name, "value": rest, "why": str(error)[:500]}
        with self._outbox.lock:
            if refused not in self._refused:
                self._outbox.note(self, {"refused": refused})
            self._note(
                texts={REFUSED_FILE: json.dumps(self._refused, indent=1)},
                tags={REFUSED: f"{len(self._refused)} values, which are in the artifact {REFUSED_FILE}"},
            )
        self._outbox.refusals.append(f"the {kind} {name!r:.200} of the run {self.name!r:.200} ({error!s:.200}), which "
                                     f"is in the run's artifact {REFUSED_FILE}")  # fmt: skip

    def _write_texts(self, client: mlflow.MlflowClient) -> None:
        errors = []
        for path, text in list(self._texts.items()):
            try:
                self._write_text(client, path, text)
            except Exception as error:  # noqa: BLE001 - the others come first
                errors.append(error)
                continue
            with self._outbox.lock:
                if self._texts.get(path) is text:
                    del self._texts[path]
        if errors:
            raise errors[0]

    def _write_text(self, client: mlflow.MlflowClient, path: str, text: str) -> None:
        try:
            client.log_text(self.run_id, text, path)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            other = f"refused/{hashlib.sha256(path.encode()).hexdigest()[:8]}.txt"
            write = functools.partial(client.log_text, self.run_id, text)
            if is_refused(lambda: write(path), lambda: write(other)):
                self._outbox.refusals.append(f"the artifact {path!r:.200} of the run {self.name!r:.200} "
                                             f"({error!s:.200}), which is there as {other}")  # fmt: skip

    def _write_code(self, client: mlflow.MlflowClient) -> None:
        if self._code is not None:
            assert self.run_id is not None
            runs.bring_code(client, self.run_id, self._code)
            self._code = None

    def _write_report(self, client: mlflow.MlflowClient) -> None:
        if self._report:
            folder = self._outbox.report_folder
            if folder is not None and folder.is_dir():
                client.log_artifacts(self.run_id, str(folder))
            self._report = False

    def _write_status(self, client: mlflow.MlflowClient) -> None:
        goes_on, end = self._goes_on, self._end
        if not self._outbox.is_in_charge:
            goes_on, end = False, None
            self._goes_on, self._end = False, None
        if goes_on:
            client.update_run(self.run_id, status="RUNNING")
            self._goes_on = False
        if end is not None:
            status, at = end
            client.set_terminated(self.run_id, status, end_time=max(ms(at), ms(self.start)))
            with self._outbox.lock:
                self._end = None if self._end is end else self._end
