"""Runs of all kinds, what brings them from store to store, and how both sides are read by plain clients."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    ViewType,
)

from mlflow_hp.sync import selection, transfer
from mlflow_hp.sync.verify import compare
from mlflow_hp.tracking.tags import SYNCED_FROM_TAG, SYNCED_TAG

LARGEST = 1.7976931348623157e308
START = 1_700_000_000_000
POINTS = 10 + 2345 + 3 + 4 + 3
"""Of `record_all_kinds`."""


def bring(stores, name, run_ids=(), **options):
    return transfer.copy_missing(stores, selection.find(stores.source, name, run_ids), **options)


def verified(stores, name):
    return compare(stores, selection.find(stores.source, name))


def brought(stores, name):
    """The runs of the experiment at the target, by their names, read by a plain client."""
    experiment = stores.target.get_experiment_by_name(name)
    runs = stores.target.search_runs([experiment.experiment_id], "", ViewType.ALL)
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: stores.target.get_run(run.info.run_id) for run in runs}


def history(client, run, key):
    """The points of a metric as plain tuples; NaN as text."""
    found = client.get_metric_history(run.info.run_id, key)
    return sorted((m.step, m.timestamp, "nan" if math.isnan(m.value) else m.value) for m in found)


def text(client, run, path, tmp_path):
    folder = tmp_path / f"read {time.time_ns()}"
    folder.mkdir()
    return Path(client.download_artifacts(run.info.run_id, path, str(folder))).read_text()


def record(client, experiment, name, parent=None, count=3, **tags):
    if parent is not None:
        tags["mlflow.parentRunId"] = parent.info.run_id
    run = client.create_run(experiment, START, tags, name)
    client.log_batch(
        run.info.run_id, [Metric("loss", 1 / (i + 1), START + i, i) for i in range(count)], [Param("a", "1")]
    )
    client.set_terminated(run.info.run_id, "FINISHED", START + 5000)
    return client.get_run(run.info.run_id)


def record_all_kinds(client, experiment):
    """A search with a candidate, whose model another run uses; a deleted run, a running one."""
    parent = client.create_run(experiment, START, {"mlflow.user": "ada", "mlflow.note.content": "# Why"}, "search")
    parent_id = parent.info.run_id
    values = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-320, 0.1, -3.5]
    metrics = [Metric("odd/values", value, START + i, -2 + i) for i, value in enumerate(values)]
    metrics += [Metric("odd/values", 0.25, START, 7), Metric("odd/values", 0.25, START + 1, 7)]
    metrics += [Metric("many", 1 / (i + 1), START + i // 3, i) for i in range(2345)]
    params = [Param("long", "p" * 6000), Param("empty", ""), Param("quote", "'\"`; -- \n é 🙂")]
    client.log_batch(parent_id, metrics[:1000], params + [Param(f"p{i}", str(i)) for i in range(120)])
    client.log_batch(parent_id, metrics[1000:])
    client.set_tag(parent_id, "long", "t" * 8000)
    for path in ("training/history.txt", "plots/a b.svg", ".hidden/x", "top.txt"):
        client.log_text(parent_id, f"content of {path}", path)
    dataset = Dataset("digits", "abc123", "local", '{"uri": "x"}', '{"schema": 1}', '{"rows": 2}')
    client.log_inputs(parent_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    candidate = record(client, experiment, "candidate", parent)
    candidate_id = candidate.info.run_id
    client.set_tag(parent_id, "mlflow_hp.best_run_id", candidate_id)
    model = client.create_logged_model(experiment, "net", candidate_id, {"kind": "mlp"}, {"units": "8"}, "keras")
    about = f"artifact_path: models:/{model.model_id}\nmodel_id: {model.model_id}\nrun_id: {candidate_id}\n"
    Path("MLmodel").write_text(about)
    Path("weights.bin").write_bytes(bytes(range(256)))
    for file in ("MLmodel", "weights.bin"):
        client.log_model_artifact(model.model_id, file)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(candidate_id, [LoggedModelOutput(model.model_id, 3)])

    using = client.create_run(experiment, START + 1, {"mlflow.parentRunId": candidate_id}, "fold")
    client.log_inputs(using.info.run_id, models=[LoggedModelInput(model.model_id)])
    told = [Metric("accuracy", value, START, step, model.model_id, "digits", "abc123", run_id=using.info.run_id)
            for step, value in enumerate([0.5, math.nan, 0.0])]  # fmt: skip
    client.log_batch(using.info.run_id, told)
    client.log_batch(using.info.run_id, [Metric("accuracy", 0.9, START, 9)])
    client.set_terminated(using.info.run_id, "FAILED", START + 9)
    client.set_terminated(parent_id, "KILLED", START + 123_456)
    client.delete_run(record(client, experiment, "deleted").info.run_id)
    client.create_run(experiment, START, run_name="running")
    return model


def check_all_kinds(stores, name, model, tmp_path):
    """Both stores read by plain clients, entry by entry."""
    source, target = stores.source, stores.target
    there = brought(stores, name)
    experiment = source.get_experiment_by_name(name).experiment_id
    here = {
        run.info.run_name: source.get_run(run.info.run_id) for run in source.search_runs([experiment], "", ViewType.ALL)
    }
    assert there.keys() == here.keys() == {"search", "candidate", "fold", "deleted", "running"}
    for key, run in here.items():
        copy = there[key]
        for fact in ("status", "start_time", "end_time", "lifecycle_stage", "user_id", "run_name"):
            assert getattr(copy.info, fact) == getattr(run.info, fact), (key, fact)
        assert copy.data.params == run.data.params
        assert copy.data.metrics.keys() == run.data.metrics.keys()
        for metric in run.data.metrics:
            assert history(target, copy, metric) == history(source, run, metric)
    ids = {here[key].info.run_id: there[key].info.run_id for key in here}
    for key, run in here.items():
        tags = {name: ids.get(value, value) for name, value in run.data.tags.items()}
        assert {k: v for k, v in there[key].data.tags.items() if k not in (SYNCED_TAG, SYNCED_FROM_TAG)} == tags
    assert there["candidate"].data.tags["mlflow.parentRunId"] == there["search"].info.run_id
    assert there["search"].data.tags["mlflow_hp.best_run_id"] == there["candidate"].info.run_id
    assert len(there["search"].data.params["long"]) == 6000
    assert len(there["search"].data.tags["long"]) == 8000
    assert sum(value == "nan" for *_, value in history(target, there["search"], "odd/values")) == 1
    assert {LARGEST, -LARGEST} <= {value for *_, value in history(target, there["search"], "odd/values")}
    for path in ("training/history.txt", "plots/a b.svg", ".hidden/x", "top.txt"):
        assert text(target, there["search"], path, tmp_path) == f"content of {path}"
    (given,) = there["search"].inputs.dataset_inputs
    assert dict(given.dataset) == dict(here["search"].inputs.dataset_inputs[0].dataset)
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]

    (made,) = there["candidate"].outputs.model_outputs
    assert made.step == 3
    assert [used.model_id for used in there["fold"].inputs.model_inputs] == [made.model_id]
    copy = target.get_logged_model(made.model_id)
    model = source.get_logged_model(model.model_id)
    assert (copy.name, copy.model_type, str(copy.status), copy.params) == ("net", "keras", "READY", {"units": "8"})
    assert copy.tags["kind"] == "mlp"
    assert copy.source_run_id == there["candidate"].info.run_id
    told = lambda model: sorted((m.key, m.step, m.timestamp, m.value, m.dataset_name) for m in model.metrics)  # noqa: E731
    assert told(copy) == told(model)
    assert len(copy.metrics) == 3
    assert {metric.run_id for metric in copy.metrics} == {there["fold"].info.run_id}
    files = Path(mlflow.artifacts.download_artifacts(copy.artifact_location, tracking_uri=stores.target_uri))
    run_id = there["candidate"].info.run_id
    expected = f"artifact_path: models:/{copy.model_id}\nmodel_id: {copy.model_id}\nrun_id: {run_id}\n"
    assert (files / "MLmodel").read_text() == expected
    assert (files / "weights.bin").read_bytes() == bytes(range(256))


def check_counts(comparison):
    assert comparison.differences == []
    assert {kind: here for kind, (here, _) in comparison.counts.items()} == {
        "runs": 5, "params": 125, "tags": comparison.counts["tags"][0], "metric points": POINTS,
        "artifacts": 6, "models": 1, "inputs": 2,
    }  # fmt: skip
    assert all(here == there for here, there in comparison.counts.values())


class Counting:
    """A client that counts what it writes, and fails once it has made so many calls that write.

    The call that fails is made all the same where it is `lost` on its way back.
    """

    def __init__(self, client, calls=math.inf, *, lost=False):
        self._client, self._left, self._lost = client, calls, lost
        self._lock = threading.Lock()
        self.points, self.calls = 0, 0

    def __getattr__(self, name):
        if name == "_tracking_client":  # all goes through the client's own methods
            raise AttributeError(name)
        method = getattr(self._client, name)
        if name.startswith(("get_", "search_")) or name.endswith("_experiment_tag"):  # reads, or tags of a lock
            return method

        def call(*words, **named):
            with self._lock:
                self.calls += 1
                dead = self.calls > self._left
                if dead and not (self._lost and self.calls == self._left + 1):
                    raise RuntimeError("the line is dead")
                self.points += len(named.get("metrics", ()))
            result = method(*words, **named)
            if dead:
                raise RuntimeError("the line is dead")
            return result

        return call
