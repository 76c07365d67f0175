"""Runs brought from store to store: all that they hold, once, whatever comes between."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
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
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.sync import points, scope, transfer
from mlflow_hp.sync.identity import SYNCED, SYNCED_FROM, Identities
from mlflow_hp.sync.stores import Stores, connect
from mlflow_hp.sync.verify import compare

LARGEST = 1.7976931348623157e308
START = 1_700_000_000_000
POINTS = 10 + 2345 + 3 + 4 + 3
"""Of `record_all_kinds`."""


@pytest.fixture(scope="module")
def other_uri(tmp_path_factory):
    """A second store."""
    folder = tmp_path_factory.mktemp("other")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A store makes its folder of artifacts where the process is."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def both(tracking_uri, other_uri, request, tmp_path):
    """Both stores, and an experiment of its own at the source."""
    stores = connect(other_uri, tracking_uri)
    name = f"{request.node.name} {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri(), {"mlflow.note.content": "Why"})
    stores.target.create_experiment(name, (tmp_path / "target").as_uri())
    return stores, name, experiment


def bring(stores, name, run_ids=(), **options):
    return transfer.bring(stores, scope.find(stores.source, name, run_ids), **options)


def verified(stores, name):
    return compare(stores, scope.find(stores.source, name))


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
        assert {k: v for k, v in there[key].data.tags.items() if k not in (SYNCED, SYNCED_FROM)} == tags
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


def test_all_that_a_run_holds(both, tmp_path):
    stores, name, experiment = both
    model = record_all_kinds(stores.source, experiment)
    report = bring(stores, name)
    assert (report.new, report.completed, report.unchanged, report.failed) == (5, 0, 0, {})
    check_all_kinds(stores, name, model, tmp_path)
    check_counts(verified(stores, name))


class Counting:
    """A client that counts what it writes, and fails once it has made so many calls that write.

    The call that fails is made all the same where it is `lost` on its way back.
    """

    def __init__(self, client, calls=math.inf, *, lost=False):
        self._client, self._left, self._lost = client, calls, lost
        self._lock = threading.Lock()
        self.points, self.calls = 0, 0

    def __getattr__(self, name):
        method = getattr(self._client, name)
        if name.startswith(("get_", "search_")):
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


def test_again_writes_nothing(both):
    stores, name, experiment = both
    record_all_kinds(stores.source, experiment)
    bring(stores, name)
    for thorough in (False, True):
        counting = Counting(stores.target)
        report = bring(stores._replace(target=counting), name, thorough=thorough)
        assert (report.new, report.completed, report.unchanged) == (0, 0, 5)
        assert (report.points, report.files, counting.points) == (0, 0, 0)
        assert thorough or counting.calls == 0


@pytest.mark.parametrize(("calls", "lost"), [(1, True), (3, False), (4, True), (7, False)])
def test_interrupted_it_goes_on_where_it_was(both, tmp_path, calls, lost):
    """Broken off after every few calls, all is there once at last, and no point has been sent twice."""
    stores, name, experiment = both
    model = record_all_kinds(stores.source, experiment)
    sent, broken = 0, 0
    for attempt in itertools.count():
        assert attempt < 100, "it does not come to an end"
        counting = Counting(stores.target, calls, lost=lost)
        with contextlib.suppress(RuntimeError):
            report = bring(stores._replace(target=counting), name)
            break
        broken, sent = broken + 1, sent + counting.points
    assert broken > 2
    assert report.failed == {}
    sent += counting.points
    check_all_kinds(stores, name, model, tmp_path)
    check_counts(verified(stores, name))
    assert sent == POINTS


def test_a_running_run_is_completed_later(both):
    stores, name, experiment = both
    run = stores.source.create_run(experiment, START, run_name="r")
    stores.source.log_batch(run.info.run_id, [Metric("loss", 1.0, START + i, i) for i in range(10)])
    assert bring(stores, name).new == 1
    assert brought(stores, name)["r"].info.status == "RUNNING"
    stores.source.log_batch(
        run.info.run_id, [Metric("loss", 1.0, START + i, i) for i in range(5, 20)], [Param("a", "1")]
    )
    stores.source.set_terminated(run.info.run_id, "FAILED", START + 99)
    report = bring(stores, name)
    assert (report.new, report.completed, report.points) == (0, 1, 10)
    copy = brought(stores, name)["r"]
    assert (copy.info.status, copy.info.end_time, copy.data.params) == ("FAILED", START + 99, {"a": "1"})
    assert history(stores.target, copy, "loss") == [(i, START + i, 1.0) for i in range(20)]


def test_a_run_deleted_or_renamed_here_is_so_there(both):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    bring(stores, name)
    stores.source.update_run(run.info.run_id, name="s")
    stores.source.delete_run(run.info.run_id)
    bring(stores, name)
    assert brought(stores, name)["s"].info.lifecycle_stage == "deleted"
    stores.source.restore_run(run.info.run_id)
    stores.source.set_tag(run.info.run_id, "again", "yes")
    bring(stores, name)
    assert brought(stores, name)["s"].info.lifecycle_stage == "active"
    assert brought(stores, name)["s"].data.tags["again"] == "yes"
    assert verified(stores, name).differences == []


def test_an_experiment_renamed_there_keeps_its_copies(both):
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    bring(stores, name)
    stores.target.rename_experiment(stores.target.get_experiment_by_name(name).experiment_id, f"{name} of Ada")
    assert (report := bring(stores, name)).unchanged == 1
    assert report.new == 0


def test_named_runs_come_with_what_they_need(both):
    stores, name, experiment = both
    source = stores.source
    root = record(source, experiment, "root")
    middle = record(source, experiment, "middle", root)
    record(source, experiment, "leaf", middle)
    record(source, experiment, "sibling", root)
    maker = record(source, experiment, "maker")
    model = source.create_logged_model(experiment, "net", maker.info.run_id)
    source.log_inputs(middle.info.run_id, models=[LoggedModelInput(model.model_id)])
    bring(stores, None, [middle.info.run_id])
    there = brought(stores, name)
    assert there.keys() == {"root", "middle", "leaf", "maker"}
    for child, parent in (("leaf", "middle"), ("middle", "root")):
        assert there[child].data.tags["mlflow.parentRunId"] == there[parent].info.run_id
    bring(stores, name)
    there = brought(stores, name)
    assert there["sibling"].data.tags["mlflow.parentRunId"] == there["root"].info.run_id


def test_copies_of_copies_are_known(both, tmp_path):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    third = f"sqlite:///{tmp_path}/third.db"
    bring(stores, name)
    onward, direct = connect(third, stores.target_uri), connect(third, stores.source_uri)
    assert bring(onward, name).new == 1
    assert bring(direct, name).new == 0
    assert brought(onward, name)["r"].data.tags[SYNCED_FROM] == run.info.run_id
    home = Stores(stores.target, stores.source, stores.target_uri, stores.source_uri)
    before = stores.source.get_run(run.info.run_id)
    assert (report := bring(home, name)).at_home == 1
    assert report.new == 0
    assert dict(stores.source.get_run(run.info.run_id).data) == dict(before.data)


def test_what_one_run_cannot_does_not_stop_the_others(both):
    stores, name, experiment = both
    bad, _ = record(stores.source, experiment, "bad"), record(stores.source, experiment, "good")

    class Refusing(Counting):
        def log_batch(self, run_id, **named):
            if self._client.get_run(run_id).info.run_name == "bad":
                raise MlflowException("too long\nand more")
            return self._client.log_batch(run_id, **named)

    report = bring(stores._replace(target=Refusing(stores.target)), name)
    assert report.failed == {bad.info.run_id: "too long"}
    assert report.new == 1
    assert [line for line in verified(stores, name).differences if bad.info.run_id not in line] == []
    assert bring(stores, name).completed == 1
    assert verified(stores, name).differences == []


def change_tag(client, run_id):
    client.set_tag(run_id, "colour", "blue")


def change_file(client, run_id):
    client.log_text(run_id, "worse", "plots/a.svg")


def add_file(client, run_id):
    client.log_text(run_id, "x", "b.svg")


def add_param(client, run_id):
    client.log_param(run_id, "b", "2")


def add_point(client, run_id):
    client.log_metric(run_id, "loss", 0.5, START, 1)


def end_otherwise(client, run_id):
    client.set_terminated(run_id, "KILLED", START + 5000)


def double(client, run_id):
    run = client.get_run(run_id)
    client.create_run(run.info.experiment_id, START + 1, {SYNCED_FROM: run.data.tags[SYNCED_FROM]}, "double")


@pytest.mark.parametrize(
    ("change", "kind", "line", "mended"),
    [
        (change_tag, None, "tag 'colour' differs: 'red' at the source, 'blue' at the target", True),
        (change_file, None, "artifact 'plots/a.svg' differs in content", True),
        (end_otherwise, None, "its 'status' differs: 'FINISHED' at the source, 'KILLED' at the target", True),
        (lambda client, run_id: client.delete_run(run_id), None, "its 'lifecycle' differs", True),
        (add_file, "artifacts", "artifact 'b.svg' is at the target alone", False),
        (add_param, "params", "param 'b' is at the target alone", False),
        (add_point, "metric points", "metric 'loss': 1 points more at the target", False),
        (double, "runs", "is at the target 2 times", False),
    ],
)
def test_verifying_sees(both, change, kind, line, mended):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r", colour="red")
    stores.source.log_text(run.info.run_id, "bette", "plots/a.svg")
    bring(stores, name)
    copy = brought(stores, name)["r"].info.run_id
    assert verified(stores, name).differences == []
    change(stores.target, copy)
    found = verified(stores, name)
    assert len(found.differences) == 1
    assert line in found.differences[0]
    assert [name for name, (here, there) in found.counts.items() if here != there] == ([kind] if kind else [])
    bring(stores, name, thorough=True)
    assert bool(verified(stores, name).differences) is not mended


def test_verifying_sees_what_is_missing(both):
    stores, name, experiment = both
    record_all_kinds(stores.source, experiment)
    found = verified(stores, name)
    assert {there for _, there in found.counts.values()} == {0}
    assert sum("is not at the target" in line for line in found.differences) == 6
    bring(stores, name)
    model_id = brought(stores, name)["candidate"].outputs.model_outputs[0].model_id
    location = stores.target.get_logged_model(model_id).artifact_location
    Path(location.removeprefix("file://"), "weights.bin").unlink()
    (line,) = verified(stores, name).differences
    assert "model net" in line
    assert "artifact 'weights.bin' is missing" in line


def test_tags_added_there_are_left_alone(both):
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    bring(stores, name)
    stores.target.set_tag(brought(stores, name)["r"].info.run_id, "reviewed", "yes")
    assert verified(stores, name).differences == []
    bring(stores, name, thorough=True)
    assert brought(stores, name)["r"].data.tags["reviewed"] == "yes"


def test_one_store_under_two_names(tracking_uri, tmp_path, both):
    file = Path(tracking_uri.removeprefix("sqlite:///"))
    (tmp_path / "link.db").symlink_to(file)
    with pytest.raises(UserError, match="is the store that is copied from"):
        connect(f"sqlite:///{tmp_path}/link.db", tracking_uri)
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    one = stores._replace(target=stores.source)
    with pytest.raises(UserError, match="name two different ones"):
        one.ensure_two(scope.find(one.source, name))
    stores.ensure_two(scope.find(stores.source, name))


def test_an_artifact_store_that_cannot_be_written(both, tmp_path):
    stores, name, experiment = both
    stores.source.log_text(record(stores.source, experiment, "r").info.run_id, "x", "a.txt")
    (tmp_path / "target").write_text("a file in place of the folder")
    with pytest.raises(UserError, match=r"the artifact store .* can't be written"):
        bring(stores, name)
    (tmp_path / "target").unlink()
    assert bring(stores, name).completed == 1
    assert verified(stores, name).differences == []


def test_errors_name_what_mends_them(both, other_uri, tmp_path):
    stores, _, _ = both
    with pytest.raises(UserError, match=r"no experiment 'none'.*--experiment"):
        scope.find(stores.source, "none")
    with pytest.raises(UserError, match=r"run 'f00'.*--from"):
        scope.find(stores.source, None, ["f00"])
    with pytest.raises(UserError, match="no tracking store"):
        connect(other_uri, f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(UserError, match=r"--to nonsense://u:\*\*\*@h can't be opened"):
        connect("nonsense://u:geheim@h", other_uri)
    with pytest.raises(UserError, match="does not answer"):
        connect("http://127.0.0.1:9", other_uri)


def test_a_deleted_experiment_is_named(both):
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    stores.target.delete_experiment(stores.target.get_experiment_by_name(name).experiment_id)
    with pytest.raises(UserError, match="mlflow experiments restore"):
        bring(stores, name)


def test_the_active_experiment_is_the_default(both, monkeypatch):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    for variables in ({"NAME": name}, {"ID": experiment}, {"NAME": name, "ID": "0"}):
        with monkeypatch.context() as patch:
            for variable in ("NAME", "ID"):  # as an earlier mlflow.set_experiment may have left them
                patch.delenv(f"MLFLOW_EXPERIMENT_{variable}", raising=False)
            for variable, value in variables.items():
                patch.setenv(f"MLFLOW_EXPERIMENT_{variable}", value)
            assert [found.info.run_id for found in scope.find(stores.source).runs] == [run.info.run_id]
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    with pytest.raises(UserError, match="no experiment '4711'"):
        scope.find(stores.source)


def test_points_compare_as_the_stores_keep_them():
    same = points.bits([math.nan, math.inf, -math.inf, 0.0])
    assert (same == points.bits([-np.nan, LARGEST, -LARGEST, -0.0])).all()
    history = np.unique(np.array([(1, 5, 7), (0, 5, 7), (1, 5, 7)], points.POINT))
    assert history.tolist() == [(0, 5, 7), (1, 5, 7)]
    assert points.missing(history, history[1:]).tolist() == [(0, 5, 7)]
    assert points.missing(history, None).tolist() == history.tolist()


def test_identities_are_translated_whole():
    run, copy = "a" * 32, "b" * 32
    known = Identities({run: copy, f"m-{run}": f"m-{copy}"})
    assert known.translate(f"{run}, m-{run}/x; {run}0 {'c' * 32}") == f"{copy}, m-{copy}/x; {run}0 {'c' * 32}"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """`mlflow server` on a PostgreSQL database of its own."""
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed")
    import psutil
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres",
        isolation_level="AUTOCOMMIT",
        poolclass=sqlalchemy.NullPool,
    )
    name = f"mlflow_hp_test_{os.getpid()}"
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    except sqlalchemy.exc.OperationalError as error:
        pytest.skip(f"PostgreSQL does not answer at 127.0.0.1:5432: {error.orig}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    words = ["-m", "mlflow", "server", "--workers", "1", "--port", uri.rpartition(":")[2]]
    words += ["--backend-store-uri", f"postgresql+psycopg2://postgres@127.0.0.1:5432/{name}"]
    words += ["--artifacts-destination", str(tmp_path / "at-the-server")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, env=environment)
    from mlflow_hp.runs import ensure_reachable

    try:
        for _ in range(240):
            with contextlib.suppress(UserError):
                ensure_reachable(uri)
                break
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
        yield uri
    finally:
        for running in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            running.kill()
        process.wait()
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.mark.slow
def test_to_a_server_on_postgresql(server, tracking_uri, tmp_path):
    """The same to a real server, broken off a few times, and back into an empty store."""
    stores, name = connect(server, tracking_uri), f"server {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri())
    model = record_all_kinds(stores.source, experiment)
    sent = 0
    for calls in (3, 9, 12):
        counting = Counting(stores.target, calls)
        with pytest.raises(RuntimeError, match="the line is dead"):
            bring(stores._replace(target=counting), name)
        sent += counting.points
    assert sent + bring(stores, name).points == POINTS
    check_all_kinds(stores, name, model, tmp_path)
    check_counts(verified(stores, name))
    assert bring(stores, name).unchanged == 5
    back = connect(f"sqlite:///{tmp_path}/back.db", server)
    assert bring(back, name).new == 5
    check_counts(verified(back, name))


@pytest.mark.slow
def test_names_that_a_url_cuts_are_told(server, tracking_uri, tmp_path):
    stores, name = connect(server, tracking_uri), f"names {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri())
    run_id = record(stores.source, experiment, "r").info.run_id
    for path in ("odd/a#b.txt", "odd/what?.txt", "odd/%41.txt", "odd/\u00e4 100% +&=;,@.txt"):
        stores.source.log_text(run_id, path, path)
    assert "rename 'odd/" in bring(stores, name).failed[run_id]
    copy = brought(stores, name)["r"]
    assert copy.info.status == "FINISHED"
    (path,) = [file.path for file in stores.target.list_artifacts(copy.info.run_id, "odd")]
    assert path == "odd/\u00e4 100% +&=;,@.txt"
    assert len(verified(stores, name).differences) == 3
    for file in ("a#b.txt", "what?.txt", "%41.txt"):
        (tmp_path / "source" / run_id / "artifacts" / "odd" / file).unlink()
    assert bring(stores, name).failed == {}
    assert verified(stores, name).differences == []
