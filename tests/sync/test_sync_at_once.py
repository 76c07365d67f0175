"""Synchronizations at once: each run is at the target once, whoever else brings it, and whoever was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from mlflow.entities import ViewType

from mlflow_hp.cli import main as cli
from mlflow_hp.sync import lock
from mlflow_hp.sync.stores import Stores, connect
from mlflow_hp.tracking.tags import SYNC_CLAIM_TAG_PREFIX, SYNCED_FROM_TAG, SYNCED_TAG
from tests.helpers.forked_python import python
from tests.helpers.synced_runs import Counting, bring, brought, record, verified


class Slow:
    """A client that takes its time behind each look for copies, so that two see that there are none."""

    def __init__(self, client, seconds=0.3):
        self._client, self._seconds = client, seconds

    def __getattr__(self, name):
        method = getattr(self._client, name)
        if name != "search_runs":
            return method

        def call(*words, **named):
            found = method(*words, **named)
            time.sleep(self._seconds)
            return found

        return call


def slow(stores):
    return stores._replace(target=Slow(mlflow.MlflowClient(stores.target_uri)))


def at_once(*works):
    with ThreadPoolExecutor(len(works)) as pool:
        return [done.result() for done in [pool.submit(work) for work in works]]


def copies(stores, name, client=None):
    """The origins of all runs of the experiment, as often as they are there."""
    client = client or stores.target
    experiment = client.get_experiment_by_name(name).experiment_id
    runs = client.search_runs([experiment], "", ViewType.ACTIVE_ONLY)
    return sorted(run.data.tags.get(SYNCED_FROM_TAG, run.info.run_id) for run in runs)


def test_two_at_once_bring_each_run_once(both, tmp_path, tracking_uri):
    """The second knows the source by another name."""
    stores, name, experiment = both
    ids = sorted(record(stores.source, experiment, f"r{i}").info.run_id for i in range(3))
    (tmp_path / "link.db").symlink_to(tracking_uri.removeprefix("sqlite:///"))
    renamed = connect(stores.target_uri, f"sqlite:///{tmp_path}/link.db")
    waits = []
    reports = at_once(*(lambda s=s: bring(slow(s), name, on_wait=waits.append) for s in (stores, renamed)))
    assert sorted(report.new for report in reports) == [0, 3]
    assert sorted(report.unchanged for report in reports) == [0, 3]
    assert copies(stores, name) == ids
    assert len(waits) == 1
    assert verified(stores, name).differences == []
    assert not [tag for tag in stores.target.get_experiment_by_name(name).tags if tag.startswith(SYNC_CLAIM_TAG_PREFIX)]


@pytest.mark.thorough
def test_two_that_make_the_experiment(both, empty_uri):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    to_fresh = connect(empty_uri, stores.source_uri)
    at_once(*(lambda: bring(slow(to_fresh), name) for _ in range(3)))
    assert copies(to_fresh, name) == [run.info.run_id]


@pytest.mark.thorough
def test_from_the_source_and_from_a_copy_of_it(both, empty_uri):
    """Two stores with the same runs, the second as copies, into a third."""
    stores, name, experiment = both
    ids = sorted(record(stores.source, experiment, f"r{i}").info.run_id for i in range(2))
    bring(stores, name)
    mlflow.MlflowClient(empty_uri).create_experiment(name)
    ways = [connect(empty_uri, stores.source_uri), connect(empty_uri, stores.target_uri)]
    reports = at_once(*(lambda way=way: bring(slow(way), name) for way in ways))
    assert sum(report.new for report in reports) == 2
    assert copies(ways[0], name) == ids
    for way in ways:
        assert verified(way, name).differences == []


def test_in_both_directions(both):
    stores, name, experiment = both
    there = stores.target.get_experiment_by_name(name).experiment_id
    ids = sorted(
        [record(stores.source, experiment, "here").info.run_id, record(stores.target, there, "there").info.run_id]
    )
    back = Stores(stores.target, stores.source, stores.target_uri, stores.source_uri)
    at_once(lambda: bring(slow(stores), name), lambda: bring(slow(back), name))
    bring(stores, name)
    assert copies(stores, name) == copies(back, name) == ids


def test_an_answer_that_is_lost_makes_no_duplicate(both):
    """The client asks again where the server's answer to `create_run` was lost, and the server makes a second run."""
    stores, name, experiment = both
    ids = sorted(record(stores.source, experiment, f"r{i}").info.run_id for i in range(3))

    class Lossy(Counting):
        def create_run(self, *words, **named):
            self._client.create_run(*words, **named)
            return self._client.create_run(*words, **named)

    assert bring(stores._replace(target=Lossy(stores.target)), name).new == 3
    assert copies(stores, name) == ids
    assert bring(stores, name).unchanged == 3
    assert verified(stores, name).differences == []


@pytest.fixture
def duplicated(both):
    """A run that is at the target three times, as two synchronizations at once made it before there was a lock."""
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    child = record(stores.source, experiment, "child", run)
    bring(stores, name)
    first = brought(stores, name)["r"]
    others = []
    for i in range(2):
        tags = {SYNCED_FROM_TAG: run.info.run_id, **({SYNCED_TAG: "0" * 64} if i else {})}
        there = stores.target.create_run(first.info.experiment_id, run.info.start_time, tags, f"duplicate {i}")
        stores.target.set_terminated(there.info.run_id, "FINISHED")
        others.append(there.info.run_id)
    return stores, name, run.info.run_id, child.info.run_id, [first.info.run_id, *others]


def test_duplicates_are_named_and_what_to_do(duplicated, capsys):
    stores, name, run_id, _, ids = duplicated
    words = ["sync", "--from", stores.source_uri, "--to", stores.target_uri, "--experiment", name]
    assert cli.main(words) == 0
    assert "1 are at the target more than once: --verify names the duplicates" in capsys.readouterr().out
    assert cli.main([*words, "--verify"]) == 1
    said = capsys.readouterr().out
    assert f"({run_id}) is at the target 3 times: " in said
    for copy in ids:
        assert (f"`mlflow runs delete --run-id {copy}`" in said) != (f": {copy} is kept complete" in said)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_one_that_people_keep_is_completed(duplicated, kept):
    """Whichever that is: the nested run is nested in it."""
    stores, name, run_id, child_id, ids = duplicated
    for copy in ids[:kept] + ids[kept + 1 :]:
        stores.target.delete_run(copy)
    bring(stores, name, thorough=True)
    assert verified(stores, name).differences == []
    assert copies(stores, name) == sorted([run_id, child_id])
    kept_run = stores.target.get_run(ids[kept])
    assert kept_run.info.run_name == "r"
    assert brought_child(stores, name).data.tags["mlflow.parentRunId"] == ids[kept]
    stores.source.delete_run(run_id)
    bring(stores, name)
    stores.source.restore_run(run_id)
    bring(stores, name)
    assert copies(stores, name) == sorted([run_id, child_id])


def brought_child(stores, name):
    experiment = stores.target.get_experiment_by_name(name).experiment_id
    (child,) = stores.target.search_runs([experiment], "attributes.run_name = 'child'")
    return child


def test_duplicates_of_a_model_are_named(both):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    model = stores.source.create_logged_model(experiment, "net", run.info.run_id)
    bring(stores, name)
    there = stores.target.get_experiment_by_name(name).experiment_id
    made = stores.target.create_logged_model(there, "net", None, {SYNCED_FROM_TAG: model.model_id})
    (line,) = verified(stores, name).differences
    assert f"({model.model_id}) is at the target 2 times" in line
    assert f'delete_logged_model("{made.model_id}")' in line
    stores.target.delete_logged_model(made.model_id)
    assert verified(stores, name).differences == []


BRING = """
import sys
import mlflow
from mlflow_hp.sync import lock, selection, stores, transfer
lock.PATIENCE_SECONDS = float(sys.argv[4])
make = mlflow.MlflowClient.create_run
def slowly(self, *words, **named):
    run = make(self, *words, **named)
    print("made", flush=True)
    sys.stdin.readline()
    return run
mlflow.MlflowClient.create_run = slowly
both = stores.connect(sys.argv[1], sys.argv[2])
report = transfer.copy_missing(both, selection.find(both.source, sys.argv[3]))
print(report.new, flush=True)
"""


def started(stores, name, stdin, patience=60.0, executable=None):
    """A process that copies runs; behind each it waits for a line of its input."""
    words = [
        executable or python(),
        "-W",
        "ignore",
        "-c",
        BRING,
        stores.target_uri,
        stores.source_uri,
        name,
        str(patience),
    ]
    return subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(process_id, how, uri):
    """Send the signal; one that suspends, between two writes: SQLite's lock would stay with the suspended process."""
    os.kill(process_id, how)
    while how == signal.SIGSTOP and is_locked(uri):
        os.kill(process_id, signal.SIGCONT)
        time.sleep(0.05)
        os.kill(process_id, how)


def is_locked(uri):
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=0.5)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_suspended_amid_its_copies(both, monkeypatch, how):
    stores, name, experiment = both
    ids = sorted(record(stores.source, experiment, f"r{i}").info.run_id for i in range(4))
    process = started(stores, name, subprocess.PIPE, patience=2.0, executable=sys.executable)  # which is suspended
    assert process.stdout.readline() == "made\n"
    stop(process.pid, how, stores.target_uri)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 2.0)  # which is waited for, and more than half of its own
    try:
        report = bring(stores, name)
        assert 1 <= report.new < 4
        assert copies(stores, name) == ids
    finally:
        if how == signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
        _, said = process.communicate()
    assert how == signal.SIGKILL or "run the command again" in said
    assert copies(stores, name) == ids
    assert verified(stores, name).differences == []


@pytest.mark.thorough
@pytest.mark.slow
def test_two_processes_at_a_server_on_postgresql(server, tracking_uri, tmp_path):
    stores, name = connect(server, tracking_uri), f"at once {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri())
    ids = sorted(record(stores.source, experiment, f"r{i}", count=1500).info.run_id for i in range(6))
    processes = [started(stores, name, subprocess.DEVNULL) for _ in range(3)]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sorted(int(out.split()[-1]) for out, _ in said) == [0, 0, 6]
    assert copies(stores, name) == ids
    assert verified(stores, name).differences == []
