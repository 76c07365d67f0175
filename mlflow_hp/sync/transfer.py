"""Copies missing data to the target; idempotent. A run's status and end time are written last."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mlflow_hp.sync import points, run_contents
from mlflow_hp.sync.copies import Copies, experiments_at_target
from mlflow_hp.sync.files import Artifacts
from mlflow_hp.sync.lock import Lock
from mlflow_hp.terminal import is_live
from mlflow_hp.tracking.datasets import log_inputs
from mlflow_hp.tracking.tags import SYNCED_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow.entities import Experiment, Run

    from mlflow_hp.sync.run_contents import Link, RunContents
    from mlflow_hp.sync.selection import Scope
    from mlflow_hp.sync.stores import Stores

_METRICS_PER_CALL = 1000
_OTHERS_PER_CALL = 100
_AT_ONCE = 3
"""Runs copied in parallel: one is read while others wait for the server."""


class SyncReport(NamedTuple):
    """Result of one sync: numbers of runs, metric points, artifacts and duplicates; failed id -> reason."""

    new: int
    completed: int
    unchanged: int
    copied_from_target: int
    points: int
    files: int
    duplicates: int
    failed: dict[str, str]


class _StoppedError(Exception):
    """Another run met an error that ends the whole sync."""


def copy_missing(
    stores: Stores, scope: Scope, *, thorough: bool = False, on_wait: Callable[[str], object] | None = None
) -> SyncReport:
    """Copy to the target what it lacks of the runs and models in `scope`.

    Parameters
    ----------
    stores : Stores
        Source and target.
    scope : Scope
        Runs and models to copy.
    thorough : bool
        Whether to compare complete copies with the source, too: someone may have changed a copy. Defaults to False.
    on_wait : callable, optional
        Called with a message if another sync has to end first.

    Raises
    ------
    UserError
        If a server stops answering, or the artifact store of the target cannot be written.
    """
    experiments = experiments_at_target(stores.target, scope)
    with contextlib.ExitStack() as stack:
        # Syncs of the same source run one at a time. Syncs of other sources may run at once, but create copies in turn.
        queues = {target_id: source_key(scope.experiments[source_id]) for source_id, target_id in experiments.items()}
        locks = [stack.enter_context(Lock(stores.target, key, queues[key], on_wait)) for key in sorted(queues)]
        with contextlib.ExitStack() as creation:
            locks += [creation.enter_context(Lock(stores.target, key, "making", on_wait)) for key in sorted(queues)]

            def ensure_held() -> None:
                for lock in locks:
                    lock.ensure_held()

            copies = Copies(stores.target, scope)
            copies.create_missing(experiments, ensure_held)
        del locks[len(queues) :]
        transfer = _Transfer(stores, scope, copies, ensure_held, thorough=thorough)
        transfer.run()
    return transfer.report()


def source_key(experiment: Experiment) -> str:
    """Key of a source experiment that does not depend on the URI under which its store was opened."""
    identity = (experiment.experiment_id, experiment.creation_time, experiment.artifact_location)
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


class _Transfer:
    def __init__(
        self, stores: Stores, scope: Scope, copies: Copies, ensure_held: Callable[[], None], *, thorough: bool
    ) -> None:
        self._ensure_held = ensure_held
        self._stores, self._scope, self._copies, self._thorough = stores, scope, copies, thorough
        self._source, self._target, self._id_map = stores.source, stores.target, copies.id_map
        self._links = run_contents.links_of(scope.models, copies.id_map)
        self._target_links: dict[str, set[Link]] = {}
        self._counts = {"new": 0, "completed": 0, "unchanged": 0, "points": 0, "files": 0}
        self._failed: dict[str, str] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()

    def run(self) -> None:
        runs = [run for run in self._scope.runs if run.info.run_id not in self._copies.copied_from_target]
        with tqdm(total=len(runs), unit="run", disable=not is_live()) as self._bar:
            self._for_each(self._complete_model, {model.model_id: model for model in self._scope.models})
            models = [self._target.get_logged_model(self._id_map[model.model_id]) for model in self._scope.models]
            self._target_links = run_contents.links_of(models)
            self._for_each(self._complete_run, {run.info.run_id: run for run in runs})

    def report(self) -> SyncReport:
        return SyncReport(
            **self._counts,
            copied_from_target=len(self._copies.copied_from_target),
            duplicates=len(self._copies.duplicates),
            failed=self._failed,
        )

    def _for_each(self, work: Callable[[str], None], ids: Iterable[str]) -> None:
        """Do `work` for every id, some in parallel; the failure of one is noted and does not stop the others."""
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            ids_by_future = {pool.submit(work, identity): identity for identity in ids}
            for future in as_completed(ids_by_future):
                try:
                    future.result()
                except (MlflowException, OSError) as error:
                    self._stores.ensure_reachable()
                    self._failed[ids_by_future[future]] = str(error).strip().splitlines()[0]
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _complete_model(self, model_id: str) -> None:
        model, copy = self._source.get_logged_model(model_id), self._target.get_logged_model(self._id_map[model_id])
        artifacts = Artifacts(model.artifact_location, self._stores.source_uri, self._id_map)
        wanted = run_contents.of_model(model, artifacts, self._id_map)
        digest = wanted.digest()
        if copy.tags.get(SYNCED_TAG) == digest and not self._thorough:
            return
        present = run_contents.of_model(copy, None)
        target_artifacts = Artifacts(copy.artifact_location, self._stores.target_uri)
        self._send_artifacts(model_id, wanted.files, artifacts, target_artifacts, new=False)
        params = _lacking(wanted.params, present.params)
        if params:
            self._target.log_model_params(copy.model_id, params)
        status = wanted.facts["status"]
        if status != present.facts["status"] and status in ("READY", "FAILED"):
            self._target.finalize_logged_model(copy.model_id, status)
        complete = {} if model_id in self._failed else {SYNCED_TAG: digest}
        self._target.set_logged_model_tags(copy.model_id, {**wanted.tags, **complete})

    def _complete_run(self, run_id: str) -> None:
        run, copy = self._source.get_run(run_id), self._target.get_run(self._id_map[run_id])
        new = copy.info.run_id in self._copies.new
        artifacts = Artifacts(run.info.artifact_uri, self._stores.source_uri, self._id_map)
        wanted = run_contents.of_run(self._source, run, self._links.get(run_id, set()), artifacts, self._id_map)
        digest, stage = wanted.digest(), wanted.facts["lifecycle"]
        was_complete = copy.data.tags.get(SYNCED_TAG) == digest and copy.info.lifecycle_stage == stage
        if was_complete and not self._thorough:
            self._count("unchanged")
            return
        present = run_contents.of_run(self._target, copy, self._target_links.get(copy.info.run_id, set()), None)
        if copy.info.lifecycle_stage == "deleted":
            self._target.restore_run(copy.info.run_id)
        target_artifacts = Artifacts(copy.info.artifact_uri, self._stores.target_uri)
        sent = self._send_params_and_tags(copy.info.run_id, wanted, present)
        sent += self._send_inputs(copy.info.run_id, run, wanted, present)
        sent += self._send_points(copy.info.run_id, wanted, present)
        sent += self._send_artifacts(run_id, wanted.files, artifacts, target_artifacts, new=new)
        sent += self._send_name_and_status(copy.info.run_id, wanted, present)
        if run_id not in self._failed:
            self._target.set_tag(copy.info.run_id, SYNCED_TAG, digest, synchronous=True)
        if stage == "deleted":
            self._target.delete_run(copy.info.run_id)
        self._count("new" if new else "unchanged" if was_complete and not sent else "completed")

    def _send_params_and_tags(self, run_id: str, wanted: RunContents, present: RunContents) -> int:
        params = [Param(name, value) for name, value in _lacking(wanted.params, present.params).items()]
        tags = [RunTag(name, value) for name, value in _lacking(wanted.tags, present.tags).items()]
        for batch in _batched(params, _OTHERS_PER_CALL):
            self._log(run_id, params=batch)
        for batch in _batched(tags, _OTHERS_PER_CALL):
            self._log(run_id, tags=batch)
        return len(params) + len(tags)

    def _send_inputs(self, run_id: str, run: Run, wanted: RunContents, present: RunContents) -> int:
        """Send the datasets and models that a run used, and the ids of the models that it produced."""
        datasets = [
            used
            for used in (run.inputs.dataset_inputs if run.inputs else [])
            if (used.dataset.name, used.dataset.digest) not in present.datasets
        ]
        models = [LoggedModelInput(model_id) for model_id in sorted(wanted.model_inputs - present.model_inputs)]
        outputs = [
            LoggedModelOutput(model_id, step)
            for model_id, step in sorted(wanted.model_outputs.items())
            if model_id not in present.model_outputs
        ]
        if datasets or models:
            log_inputs(self._target, run_id, datasets, models)
        if outputs:
            self._target.log_outputs(run_id, outputs)
        return len(datasets) + len(models) + len(outputs)

    def _send_points(self, run_id: str, wanted: RunContents, present: RunContents) -> int:
        """Send the missing metric points: first those that belong to a model, then the others."""
        of_models = list(_model_metrics(wanted.links - present.links, wanted))
        sent_with_model: dict[str, list[tuple[int, int, int]]] = {}
        for metric, bits in zip(of_models, points.bits(metric.value for metric in of_models).tolist(), strict=True):
            sent_with_model.setdefault(metric.key, []).append((metric.step, metric.timestamp, bits))
        others = []
        for key, history in wanted.points.items():
            lacking = points.missing(history, present.points.get(key))
            rest = points.missing(lacking, np.unique(np.array(sent_with_model.get(key, []), points.POINT)))
            others.append(points.with_name(key, rest))
        sent = 0
        for metrics in _batched(of_models, _METRICS_PER_CALL):
            self._log(run_id, metrics=metrics)
            sent += len(metrics)
            self._count("points", len(metrics))
        for batch in _batched(itertools.chain(*others), _METRICS_PER_CALL):
            self._check()
            points.send(self._target, run_id, batch)
            sent += len(batch)
            self._count("points", len(batch))
        return sent

    def _send_artifacts(
        self, identity: str, wanted: dict[str, str], source: Artifacts, target: Artifacts, *, new: bool
    ) -> int:
        """Send the missing and the changed artifacts of a run or a model."""
        target_sizes = {} if new else target.sizes()
        sent = 0
        for path, digest in wanted.items():
            self._check()
            if not target.accepts_name(path):
                self._failed[identity] = f"MLflow cannot send names with #, ? or %XX over http: rename {path!r}"
                continue
            with source.local(path) as local:
                same_size = path in target_sizes and target_sizes[path] in (None, local.stat().st_size)
                if same_size and target.digest(path) == digest:
                    continue
                target.write(local, path)
            sent += 1
            self._count("files")
        return sent

    def _send_name_and_status(self, run_id: str, wanted: RunContents, present: RunContents) -> int:
        lacking = {name for name, fact in wanted.facts.items() if fact != present.facts[name]} - {"start", "lifecycle"}
        if "name" in lacking:
            self._target.update_run(run_id, name=wanted.facts["name"])
        if lacking & {"status", "end"}:
            if wanted.facts["end"] is None:
                self._target.update_run(run_id, status=wanted.facts["status"])
            else:
                self._target.set_terminated(run_id, wanted.facts["status"], wanted.facts["end"])
        return len(lacking)

    def _log(self, run_id: str, **batch: list[Any]) -> None:
        self._check()
        self._target.log_batch(run_id, **batch, synchronous=True)

    def _check(self) -> None:
        """Raise if this sync has to stop: another run failed for good, or a lock is lost."""
        if self._stop.is_set():
            raise _StoppedError
        self._ensure_held()

    def _count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self._counts[what] += by
            if what in ("points", "files"):
                self._bar.set_postfix_str(f"{self._counts['points']:,} points, {self._counts['files']:,} files")
            else:
                self._bar.update(by)


def _batched(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _lacking(wanted: dict[str, str], present: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if present.get(name) != value}


def _model_metrics(links: set[Link], wanted: RunContents) -> Iterator[Metric]:
    """Restore the metrics behind `links`. MLflow reads a model's NaN back as 0; the run's points tell which it was."""
    for link in sorted(links, key=repr):
        value = float(np.int64(link.bits).view(np.float64))
        point = np.array([(link.step, link.timestamp, link.bits)], points.POINT)
        if value == 0.0 and len(points.missing(point, wanted.points.get(link.key))):
            value = math.nan
        yield Metric(link.key, value, link.timestamp, link.step, link.model_id, link.dataset_name, link.dataset_digest)
