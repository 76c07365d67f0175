"""What a copy lacks is sent to it: nothing twice, and the true end last."""

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
from mlflow_hp.sync.copies import Places, experiments_at
from mlflow_hp.sync.files import Files
from mlflow_hp.sync.id_map import SYNCED
from mlflow_hp.sync.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow.entities import Experiment, Run

    from mlflow_hp.sync.run_contents import Link, RunContents
    from mlflow_hp.sync.selection import Scope
    from mlflow_hp.sync.stores import Stores

_METRICS_PER_CALL = 1000
_OTHERS_PER_CALL = 100
_AT_ONCE = 3
"""Runs on their way at the same time: one is read while others wait for the server."""


class Report(NamedTuple):
    """What one synchronization did: counts of runs, of how many there are duplicates, and why some failed."""

    new: int
    completed: int
    unchanged: int
    at_home: int
    points: int
    files: int
    duplicates: int
    failed: dict[str, str]


class _StoppedError(Exception):
    """Another run met an error that ends the whole."""


def bring(
    stores: Stores, scope: Scope, *, thorough: bool = False, on_wait: Callable[[str], object] | None = None
) -> Report:
    """Bring runs and models to the target, as far as it lacks them.

    Parameters
    ----------
    stores : Stores
        Both sides.
    scope : Scope
        What to bring.
    thorough : bool
        Compare those with the source that were complete, too: someone may have changed the copy.
    on_wait : callable, optional
        Told where another synchronization has to end first.

    Raises
    ------
    UserError
        Where a server stops to answer, or the artifact store of the target can't be written.
    """
    experiments = experiments_at(stores.target, scope)
    with contextlib.ExitStack() as stack:
        # One synchronization of the same runs at a time; others may come from elsewhere, but make their copies in turn.
        queues = {there: source_key(scope.experiments[here]) for here, there in experiments.items()}
        locks = [stack.enter_context(Lock(stores.target, there, queues[there], on_wait)) for there in sorted(queues)]
        with contextlib.ExitStack() as making:
            locks += [making.enter_context(Lock(stores.target, there, "making", on_wait)) for there in sorted(queues)]

            def ensure_held() -> None:
                for lock in locks:
                    lock.ensure_held()

            places = Places(stores.target, scope)
            places.make(experiments, ensure_held)
        del locks[len(queues) :]
        transfer = _Transfer(stores, scope, places, ensure_held, thorough=thorough)
        transfer.all_of_it()
    return transfer.report()


def source_key(experiment: Experiment) -> str:
    """What is the same for an experiment of a source under whatever URI that is opened."""
    known = (experiment.experiment_id, experiment.creation_time, experiment.artifact_location)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


class _Transfer:
    def __init__(
        self, stores: Stores, scope: Scope, places: Places, ensure_held: Callable[[], None], *, thorough: bool
    ) -> None:
        self._ensure_held = ensure_held
        self._stores, self._scope, self._places, self._thorough = stores, scope, places, thorough
        self._source, self._target, self._identities = stores.source, stores.target, places.identities
        self._links = run_contents.links_of(scope.models, places.identities)
        self._links_there: dict[str, set[Link]] = {}
        self._counts = {"new": 0, "completed": 0, "unchanged": 0, "points": 0, "files": 0}
        self._failed: dict[str, str] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()

    def all_of_it(self) -> None:
        runs = [run for run in self._scope.runs if run.info.run_id not in self._places.at_home]
        with tqdm(total=len(runs), unit="run", disable=None) as self._bar:
            self._each(self._model, {model.model_id: model for model in self._scope.models})
            there = [self._target.get_logged_model(self._identities[model.model_id]) for model in self._scope.models]
            self._links_there = run_contents.links_of(there)
            self._each(self._run, {run.info.run_id: run for run in runs})

    def report(self) -> Report:
        places = self._places
        return Report(
            **self._counts, at_home=len(places.at_home), duplicates=len(places.duplicates), failed=self._failed
        )

    def _each(self, work: Callable[[str], None], ids: Iterable[str]) -> None:
        """Do `work` for every id, some at a time; what only one of them can't do is noted, and the others go on."""
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            doing = {pool.submit(work, identity): identity for identity in ids}
            for done in as_completed(doing):
                try:
                    done.result()
                except (MlflowException, OSError) as error:
                    self._stores.ensure_reachable()
                    self._failed[doing[done]] = str(error).strip().splitlines()[0]
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _model(self, model_id: str) -> None:
        """Complete the copy of a model."""
        model, copy = self._source.get_logged_model(model_id), self._target.get_logged_model(self._identities[model_id])
        files = Files(model.artifact_location, self._stores.source_uri, self._identities)
        wanted = run_contents.of_model(model, files, self._identities)
        digest = wanted.digest()
        if copy.tags.get(SYNCED) == digest and not self._thorough:
            return
        present = run_contents.of_model(copy, None)
        there = Files(copy.artifact_location, self._stores.target_uri)
        self._files(model_id, wanted.files, files, there, new=False)
        params = _lacking(wanted.params, present.params)
        if params:
            self._target.log_model_params(copy.model_id, params)
        status = wanted.facts["status"]
        if status != present.facts["status"] and status in ("READY", "FAILED"):
            self._target.finalize_logged_model(copy.model_id, status)
        done = {} if model_id in self._failed else {SYNCED: digest}
        self._target.set_logged_model_tags(copy.model_id, {**wanted.tags, **done})

    def _run(self, run_id: str) -> None:
        """Complete the copy of a run."""
        run, copy = self._source.get_run(run_id), self._target.get_run(self._identities[run_id])
        new = copy.info.run_id in self._places.new
        files = Files(run.info.artifact_uri, self._stores.source_uri, self._identities)
        wanted = run_contents.of_run(self._source, run, self._links.get(run_id, set()), files, self._identities)
        digest, stage = wanted.digest(), wanted.facts["lifecycle"]
        was_complete = copy.data.tags.get(SYNCED) == digest and copy.info.lifecycle_stage == stage
        if was_complete and not self._thorough:
            self._count("unchanged")
            return
        present = run_contents.of_run(self._target, copy, self._links_there.get(copy.info.run_id, set()), None)
        if copy.info.lifecycle_stage == "deleted":
            self._target.restore_run(copy.info.run_id)
        there = Files(copy.info.artifact_uri, self._stores.target_uri)
        sent = self._words(copy.info.run_id, wanted, present)
        sent += self._inputs(copy.info.run_id, run, wanted, present)
        sent += self._points(copy.info.run_id, wanted, present)
        sent += self._files(run_id, wanted.files, files, there, new=new)
        sent += self._facts(copy.info.run_id, wanted, present)
        if run_id not in self._failed:
            self._target.set_tag(copy.info.run_id, SYNCED, digest, synchronous=True)
        if stage == "deleted":
            self._target.delete_run(copy.info.run_id)
        self._count("new" if new else "unchanged" if was_complete and not sent else "completed")

    def _words(self, run_id: str, wanted: RunContents, present: RunContents) -> int:
        """Send params and tags."""
        params = [Param(name, value) for name, value in _lacking(wanted.params, present.params).items()]
        tags = [RunTag(name, value) for name, value in _lacking(wanted.tags, present.tags).items()]
        for some in _batched(params, _OTHERS_PER_CALL):
            self._log(run_id, params=some)
        for some in _batched(tags, _OTHERS_PER_CALL):
            self._log(run_id, tags=some)
        return len(params) + len(tags)

    def _inputs(self, run_id: str, run: Run, wanted: RunContents, present: RunContents) -> int:
        """Send the data sets and models that a run used, and name those that it made."""
        datasets = [
            given
            for given in (run.inputs.dataset_inputs if run.inputs else [])
            if (given.dataset.name, given.dataset.digest) not in present.datasets
        ]
        used = [LoggedModelInput(model_id) for model_id in sorted(wanted.model_inputs - present.model_inputs)]
        made = [
            LoggedModelOutput(model_id, step)
            for model_id, step in sorted(wanted.model_outputs.items())
            if model_id not in present.model_outputs
        ]
        if datasets or used:
            self._target.log_inputs(run_id, datasets, used)
        if made:
            self._target.log_outputs(run_id, made)
        return len(datasets) + len(used) + len(made)

    def _points(self, run_id: str, wanted: RunContents, present: RunContents) -> int:
        """Send the points of the metrics; those that tell of a model first, with it."""
        with_models = list(_with_models(wanted.links - present.links, wanted))
        told: dict[str, list[tuple[int, int, int]]] = {}
        for metric, bits in zip(with_models, points.bits(metric.value for metric in with_models).tolist(), strict=True):
            told.setdefault(metric.key, []).append((metric.step, metric.timestamp, bits))
        plain = []
        for key, history in wanted.points.items():
            lacking = points.missing(history, present.points.get(key))
            rest = points.missing(lacking, np.unique(np.array(told.get(key, []), points.POINT)))
            plain.append(points.named(key, rest))
        sent = 0
        for models in _batched(with_models, _METRICS_PER_CALL):
            self._log(run_id, metrics=models)
            sent += len(models)
            self._count("points", len(models))
        for some in _batched(itertools.chain(*plain), _METRICS_PER_CALL):
            self._go_on()
            points.send(self._target, run_id, some)
            sent += len(some)
            self._count("points", len(some))
        return sent

    def _files(self, identity: str, wanted: dict[str, str], source: Files, target: Files, *, new: bool) -> int:
        """Send the artifacts of a run or a model."""
        there = {} if new else target.sizes()
        sent = 0
        for path, digest in wanted.items():
            self._go_on()
            if not target.takes(path):
                self._failed[identity] = f"MLflow can't send names with #, ? or %XX over http: rename {path!r}"
                continue
            with source.local(path) as local:
                alike = path in there and there[path] in (None, local.stat().st_size)
                if alike and target.digest(path) == digest:
                    continue
                target.put(local, path)
            sent += 1
            self._count("files")
        return sent

    def _facts(self, run_id: str, wanted: RunContents, present: RunContents) -> int:
        """Give a copy its name and its true end."""
        lacking = {name for name, fact in wanted.facts.items() if fact != present.facts[name]} - {"start", "lifecycle"}
        if "name" in lacking:
            self._target.update_run(run_id, name=wanted.facts["name"])
        if lacking & {"status", "end"}:
            if wanted.facts["end"] is None:
                self._target.update_run(run_id, status=wanted.facts["status"])
            else:
                self._target.set_terminated(run_id, wanted.facts["status"], wanted.facts["end"])
        return len(lacking)

    def _log(self, run_id: str, **some: list[Any]) -> None:
        self._go_on()
        self._target.log_batch(run_id, **some, synchronous=True)

    def _go_on(self) -> None:
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


def _with_models(links: set[Link], wanted: RunContents) -> Iterator[Metric]:
    """The points behind links as MLflow takes them; with a model MLflow keeps a NaN as 0, and so shows it."""
    for link in sorted(links, key=repr):
        value = float(np.int64(link.bits).view(np.float64))
        point = np.array([(link.step, link.timestamp, link.bits)], points.POINT)
        if value == 0.0 and len(points.missing(point, wanted.points.get(link.key))):
            value = math.nan
        yield Metric(link.key, value, link.timestamp, link.step, link.model_id, link.dataset_name, link.dataset_digest)
