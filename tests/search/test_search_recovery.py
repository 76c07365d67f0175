"""Searches that a process left behind are recovered, with their true ends; those that live are left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.delivery import journal
from mlflow_hp.delivery.folder_lock import FolderLock, FolderLockedError
from mlflow_hp.delivery.local_recording import LocalRecording
from mlflow_hp.errors import UserError
from mlflow_hp.search.journal_validation import validated
from mlflow_hp.search.recovery import KINDS, recover_search
from mlflow_hp.search.resume import previous_run
from mlflow_hp.tracking.home import local_folder, local_home
from mlflow_hp.tracking.tags import PROCESS_TAG
from mlflow_hp.training import recovery
from tests.helpers.forked_python import python, wait_for_end
from tests.helpers.search_faults import ACTS, OUTAGES, Refuses, is_whole, picky, search_folders
from tests.helpers.searches import children, grid, nothing_runs, points, record
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("own_experiment"), pytest.mark.filterwarnings(OUTAGES)]

FOREIGN = json.dumps({"host": "box", "pid": 1, "started": "another-boot 7", "namespace": "pid:[1]"})


def test_recovering_again_changes_nothing(store, monkeypatch):
    refuses = Refuses(monkeypatch, OSError("gone"))
    ACTS[2] = lambda: refuses.turn(False)
    with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
        run_id = record(search := picky())
    refuses.turn(True)
    (left,) = recovery.left_behind()
    kept = left.folder.with_name("kept")
    shutil.copytree(left.folder, kept)
    recovery.recover(left, kinds=KINDS)
    before = [dump(store, run) for run in [store.get_run(run_id), *children(store, run_id)]]
    recover_search(LocalRecording(kept, journal.read(kept)))
    assert [dump(store, run) for run in [store.get_run(run_id), *children(store, run_id)]] == before
    shutil.rmtree(kept)
    assert is_whole(store, run_id, search)


@pytest.mark.thorough
def test_recovering_again_into_a_file_store_changes_nothing(monkeypatch, tmp_path):
    """MLflow's databases keep equal points once; its file store keeps all that is written."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(str(tmp_path / "mlruns"))
    try:
        store = mlflow.MlflowClient()
        mlflow.set_experiment("tests")
        refuses = Refuses(monkeypatch, OSError("gone"))
        ACTS[2] = lambda: refuses.turn(False)
        with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
            run_id = record(picky())
        refuses.turn(True)
        (left,) = recovery.left_behind()
        kept = left.folder.with_name("kept")
        shutil.copytree(left.folder, kept)
        assert recovery.recover(left, kinds=KINDS).n_points > 0
        recorded = [dump(store, run) for run in children(store, run_id)]
        again = recover_search(LocalRecording(kept, journal.read(kept)))
        assert again.n_points == 0
        assert [dump(store, run) for run in children(store, run_id)] == recorded
        shutil.rmtree(kept)
    finally:
        mlflow.set_tracking_uri(before)


def dump(store, run):
    data = run.data.to_dictionary()
    history = [[vars(point) for point in store.get_metric_history(run.info.run_id, name)] for name in data["metrics"]]
    return str((dict(run.info), data, history))


PROGRAM = """
import os, sys
sys.path[:0] = {paths!r}
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
import mlflow_hp
from mlflow_hp.delivery import patience, search_sender as writer
writer.EVERY_SECONDS = float(os.environ["EVERY"])

n_fits = 0

class Stops(LogisticRegression):
    def fit(self, x, y, sample_weight=None):
        global n_fits
        n_fits += 1
        print("fit", flush=True)
        if n_fits == int(sys.argv[2]):
            sys.stdin.read()
        return super().fit(x, y, sample_weight)

rng = np.random.default_rng(0)
x = rng.normal(size=(90, 3)); y = (x[:, 0] + rng.normal(size=90) > 0).astype(int)
search = GridSearchCV(Stops(), {{"C": [0.001, 0.1, 10.0]}}, cv=3)
with mlflow_hp.record_search(search, resume=sys.argv[1] == "resume", progress=False, report=False) as recording:
    print(recording.run_id, flush=True)
    search.fit(x, y)
    {end}
print("end", flush=True)
"""


def start(tmp_path, how="record", stops_at=0, every=0.1, end="pass", **more):
    """A program with a search of nine fits, of which one stops until the program's input ends."""
    script = tmp_path / f"program_{how}.py"
    script.write_text(PROGRAM.format(paths=[str(Path(mlflow_hp.__file__).parents[1])], end=end))
    environment = {
        **os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "EVERY": str(every),
        "MLFLOW_EXPERIMENT_ID": mlflow.tracking.fluent._get_experiment_id(), **more,
    }  # fmt: skip
    return subprocess.Popen(
        [python(), str(script), how, str(stops_at)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip


def killed_in_fit(tmp_path, number, every=1000):
    """Kill a search in one of its fits; the id of its run."""
    process = start(tmp_path, stops_at=number, every=every)
    run_id = process.stdout.readline().strip()
    for _ in range(number):
        assert process.stdout.readline() == "fit\n"
    if every < 1:
        wait_for(lambda: len(children(mlflow.MlflowClient(), run_id)) == 2)
    process.kill()
    wait_for_end(process)
    process.communicate()
    return run_id


def test_a_killed_search_is_recovered_and_resumed(store, tmp_path):
    run_id = killed_in_fit(tmp_path, 5)
    assert not children(store, run_id)  # nothing was sent
    (left,) = recovery.left_behind()
    died_at = (left.folder / journal.FILE).stat().st_mtime
    recovered = recovery.recover(left, kinds=KINDS)
    assert (recovered.status, recovered.problems) == ("KILLED", [])
    first, second = children(store, run_id)
    assert (first.info.status, second.info.status) == ("FINISHED", "KILLED")
    assert list(points(store, first, "score")) == [0, 1, 2]
    assert list(points(store, second, "score")) == [0]
    parent = store.get_run(run_id)
    assert parent.info.end_time == pytest.approx(died_at * 1000, abs=2)
    assert parent.data.tags["mlflow_hp.recovered"] == "all that was on disk"
    assert parent.data.tags["mlflow_hp.running"] == "0"
    out, _ = start(tmp_path, "resume").communicate()
    assert out.split() == [run_id, *["fit"] * (9 - 4 + 1), "end"]
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert not search_folders()


@pytest.mark.thorough
def test_the_next_search_recovers_and_resumes_by_itself(store, tmp_path):
    run_id = killed_in_fit(tmp_path, 5)
    out, errors = start(tmp_path, "resume").communicate()
    assert out.split() == [run_id, *["fit"] * (9 - 4 + 1), "end"]
    assert f"recovered the record of run {run_id}, which is KILLED now" in errors
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert nothing_runs(store, run_id)
    assert not search_folders()


@pytest.mark.thorough
def test_a_search_that_was_resumed_without_its_record_keeps_what_the_later_one_says(store, tmp_path):
    run_id = killed_in_fit(tmp_path, 5)
    away = tmp_path / "another machine"
    home = local_home()
    home.rename(away)
    for run in store.search_runs([mlflow.tracking.fluent._get_experiment_id()]):
        store.set_tag(run.info.run_id, PROCESS_TAG, FOREIGN)  # as the resumed search has it
    assert children(store, run_id) == []
    later = store.create_run(
        store.get_run(run_id).info.experiment_id,
        tags={"mlflow.parentRunId": run_id, "mlflow_hp.kind": "candidate", "mlflow_hp.candidate": "0"},
    )
    (left,) = recovery.left_behind(away)
    recovered = recovery.recover(left, kinds=KINDS)
    assert store.get_run(run_id).info.status == "RUNNING"  # its end is the later one's to tell
    assert recovered.problems == ["1 candidate left out: computed again in the resumed search"]
    first, second = children(store, run_id)
    assert first.info.run_id == later.info.run_id
    assert list(points(store, second, "score")) == [0]
    assert second.info.status == "KILLED"


@pytest.mark.thorough
def test_a_killed_search_in_a_run_that_others_record_into_ends_its_own_candidates(store, tmp_path):
    run_id = killed_in_fit(tmp_path, 5, every=0.1)
    assert [run.info.status for run in children(store, run_id)][1:] == ["RUNNING"]
    store.set_tag(run_id, PROCESS_TAG, FOREIGN)
    (left,) = recovery.left_behind()
    assert recovery.recover(left, kinds=KINDS).problems == []
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED", "KILLED"]
    assert store.get_run(run_id).info.status == "RUNNING"


@pytest.mark.thorough
def test_a_candidate_that_a_later_process_goes_on_with_is_that_ones_to_end(store, tmp_path):
    run_id = killed_in_fit(tmp_path, 5, every=0.1)
    away = tmp_path / "another machine"
    local_home().rename(away)
    later = start(tmp_path, "resume", stops_at=2)
    assert [later.stdout.readline().strip() for _ in range(3)] == [run_id, "fit", "fit"]
    wait_for(lambda: [run.info.status for run in children(store, run_id)] == ["FINISHED", "RUNNING"])
    (left,) = recovery.left_behind(away)
    recovery.recover(left, kinds=KINDS)
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED", "RUNNING"]
    later.communicate()
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert nothing_runs(store, run_id)


def test_a_living_search_is_left_alone(store, tmp_path):
    process = start(tmp_path, stops_at=2)
    run_id = process.stdout.readline().strip()
    wait_for(lambda: "mlflow_hp.planned" in store.get_run(run_id).data.tags)
    assert not list(recovery.left_behind())
    (left,) = recovery.recordings()
    with pytest.raises(FolderLockedError, match="holds the lock"):
        recovery.recover(left, kinds=KINDS)
    store.set_tag(run_id, PROCESS_TAG, FOREIGN)  # as if in another container: the lock knows that it lives
    with pytest.raises(UserError, match="still runs"), mlflow_hp.record_search(grid(), resume=run_id):
        pass
    record(grid())
    assert store.get_run(run_id).info.status == "RUNNING"
    out, errors = process.communicate()
    assert (process.returncode, out.split()[-1], errors) == (0, "end", "")
    assert store.get_run(run_id).info.status == "FINISHED"


@pytest.mark.thorough
def test_a_search_of_a_container_that_was_started_again_is_recovered(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mlflow_hp.delivery.search_sender.this_process", lambda: FOREIGN)
        patch.setattr("mlflow_hp.search.parent_lifetime.this_process", lambda: FOREIGN)
        patch.setattr("mlflow_hp.tracking.runs.this_process", lambda: FOREIGN)
        refuses = Refuses(monkeypatch, OSError("gone"))
        ACTS[4] = lambda: refuses.turn(False)
        with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
            run_id = record(search := picky())
    refuses.turn(True)
    previous_run.close_dead(store, store.get_run(run_id).info.experiment_id)
    assert store.get_run(run_id).info.status == "RUNNING"  # its record knows how it ended
    record(grid())
    assert store.get_run(run_id).info.status == "FINISHED"
    assert is_whole(store, run_id, search)


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("then", "is_told"),
    [("threading.Timer(0.5, lock.close).start()", False), ("patience.PATIENCE_SECONDS = 1.0", True)],
    ids=["for a moment", "to the end"],
)
def test_sqlite_that_is_locked_at_the_end(store, tmp_path, then, is_told):
    path = mlflow.get_tracking_uri().removeprefix("sqlite:///")
    end = (
        f"import sqlite3, threading; lock = sqlite3.connect({path!r}, check_same_thread=False, isolation_level=None); "
        f"lock.execute('BEGIN EXCLUSIVE'); {then}"
    )
    process = start(tmp_path, every=1000, end=end)
    out, errors = process.communicate()
    assert (process.returncode, out.split()[-1]) == (0, "end")
    assert "database is locked" not in errors
    assert ("MLflow lacks a part" in errors) == is_told
    assert "Traceback" not in errors
    run_id = out.split()[0]
    for left in recovery.left_behind():
        recovery.recover(left, kinds=KINDS)
    assert store.get_run(run_id).info.status == "FINISHED"
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert not search_folders()


def left_by_an_outage(store, monkeypatch):
    with monkeypatch.context() as patch:
        refuses = Refuses(patch, OSError("gone"))
        ACTS[1] = lambda: refuses.turn(False)
        with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
            record(picky())
    (left,) = recovery.left_behind()
    return left


OTHERS = (None, -1, 10**30, 1.5, True, "x", [], {}, [1], {"a": 1}, [["x", "y"]], {"run_id": 3})


def test_a_journal_that_is_damaged_is_used_up_to_there(store, monkeypatch):
    left = left_by_an_outage(store, monkeypatch)
    entries = left.entries
    assert validated(entries) == entries
    n = 0
    for number, whole in enumerate(entries.records):
        for part in whole:
            for value in OTHERS:
                records = [*entries.records[:number], {**whole, part: value}, *entries.records[number + 1 :]]
                sound = validated(entries._replace(records=records))
                assert len(sound.records) in (number, len(records)) or sound.problem
                n += len(sound.records) == number
    assert n > 100
    for name in ("run_id", "kind", "experiment_id", "common", "key", "start"):
        with pytest.raises(journal.JournalError, match=f"{name}="):
            validated(entries._replace(header={**entries.header, name: [3]}))
    cut = [*entries.records[:-8], {"run": 99, "tags": {}}]
    recovered = recover_search(left._replace(entries=entries._replace(records=cut)))
    assert recovered.status in ("KILLED", "FINISHED")
    assert any("is invalid" in problem for problem in recovered.problems)
    assert "is invalid" in store.get_run(left.run_id).data.tags["mlflow_hp.recovered"]
    assert nothing_runs(store, left.run_id)


@pytest.mark.thorough
def test_whoever_forks_in_the_block_leaves_the_record_alone(store, tmp_path):
    end = "pid = os.fork(); pid or sys.exit(3); print('child', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    process = start(tmp_path, end=end)
    out, errors = process.communicate()
    assert (process.returncode, out.split()[-3:]) == (0, ["child", "3", "end"]), errors
    assert store.get_run(out.split()[0]).info.status == "FINISHED"
    assert not search_folders()


def test_processes_are_told_by_the_lock(store, tmp_path):
    run_id = store.create_run(mlflow.tracking.fluent._get_experiment_id(), tags={PROCESS_TAG: FOREIGN}).info.run_id
    folder = local_folder(run_id, "search")
    journal.Journal(folder, {"kind": "search", "run_id": run_id}).close()
    assert not previous_run.is_recorded(store.get_run(run_id))
    with FolderLock(folder):
        assert previous_run.is_recorded(store.get_run(run_id))
    assert not previous_run.is_recorded(store.get_run(run_id))
