"""What is recorded of a search is not lost: it is on this machine until MLflow has it, and can be recovered."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from test_search import X, Y, children, grid, nothing_runs, points, record, text
from test_search_hook import Picky, found

import mlflow_hp
from mlflow_hp import journal, recovery, runs
from mlflow_hp.errors import UserError
from mlflow_hp.folder_lock import FolderLock, HeldError
from mlflow_hp.left_behind import Left
from mlflow_hp.search import past
from mlflow_hp.search.records import of_a_search
from mlflow_hp.search.recovery import bring

FOREIGN = json.dumps({"host": "box", "pid": 1, "started": "another-boot 7", "namespace": "pid:[1]"})


@pytest.fixture(autouse=True)
def experiment(request, store, monkeypatch):
    """An experiment of each test's own, and a writer that does not wait for long."""
    mlflow.set_experiment(f"journal {request.node.name} {time.time()}".replace("/", "_"))
    monkeypatch.setattr("mlflow_hp.search.writer.EVERY_SECONDS", 0.1)
    monkeypatch.setattr("mlflow_hp.search.writer.LONGEST_PAUSE_SECONDS", 0.5)
    monkeypatch.setattr("mlflow_hp.search.writer.PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr("mlflow_hp.search.recovery.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("mlflow_hp.search.recovery.PAUSE_SECONDS", 0.1)


class Acts(Picky):
    """Does something when a fit begins: by the number of fits before it."""

    acts = {}  # noqa: RUF012 - of all that are cloned
    n_fits = 0

    def fit(self, x, y):
        number, Acts.n_fits = Acts.n_fits, Acts.n_fits + 1
        Acts.acts.get(number, lambda: None)()
        return super().fit(x, y)


@pytest.fixture
def acts(monkeypatch):
    """What is to happen at which fit."""
    monkeypatch.setattr(Acts, "n_fits", 0)
    monkeypatch.setattr(Acts, "acts", {})
    return Acts.acts


def picky(n=3):
    return GridSearchCV(Acts(), {"strength": list(range(n))}, cv=3)


def search_folders():
    return sorted(runs.local_home().glob("*/search_*"))


def is_whole(store, run_id, search):
    """Whether MLflow has all of a search, each thing once, and this machine nothing."""
    below, results = children(store, run_id), search.cv_results_
    assert [run.info.status for run in below] == ["FINISHED"] * len(results["params"])
    for index, run in enumerate(below):
        expected = {i: results[f"split{i}_test_score"][index] for i in range(3)}
        assert points(store, run, "score") == expected
        assert len(store.get_metric_history(run.info.run_id, "score")) == 3
        assert run.data.metrics["rank"] == results["rank_test_score"][index]
        assert run.data.params == {name: str(value) for name, value in results["params"][index].items()}
    parent = store.get_run(run_id)
    assert parent.data.metrics["best_score"] == search.best_score_
    assert parent.data.tags["mlflow_hp.best_run_id"] == below[search.best_index_].info.run_id
    assert parent.data.params["search"] == "GridSearchCV"
    assert "recording_seconds" in parent.data.metrics
    assert "cv_results.csv" in [file.path for file in store.list_artifacts(run_id)]
    assert "mlflow_hp.recording_error" not in parent.data.tags
    assert not search_folders()
    return True


def test_nothing_is_left_of_a_search_that_mlflow_has(store):
    run_id = record(search := grid(), report=True)
    assert is_whole(store, run_id, search)
    assert "plots" in [file.path for file in store.list_artifacts(run_id)]
    assert store.get_run(run_id).info.status == "FINISHED"
    assert not list(runs.local_home().glob("*/*"))


class Refuses:
    """Has calls of MLflow's client fail, some or all, until it is well again."""

    def __init__(self, monkeypatch, error, names=("log_batch", "create_run", "set_terminated", "log_text", "get_run")):
        self.error = error
        self.is_well = True
        self.n = 0
        for name in names:
            monkeypatch.setattr(mlflow.MlflowClient, name, self.wrap(getattr(mlflow.MlflowClient, name)))

    def wrap(self, real):
        def call(*arguments, **named):
            if not self.is_well and threading.current_thread().name.startswith("mlflow_hp"):
                self.n += 1
                raise self.error
            return real(*arguments, **named)

        return call

    def turn(self, is_well):
        self.is_well = is_well

    def until_met(self):
        until, before = time.monotonic() + 30, self.n
        while self.n == before and time.monotonic() < until:
            time.sleep(0.01)


def error(code):
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException("no", ErrorCode.Value(code))


@pytest.mark.parametrize(
    "refusal",
    [
        error("PERMISSION_DENIED"), error("RESOURCE_DOES_NOT_EXIST"), error("INVALID_PARAMETER_VALUE"),
        error("BAD_REQUEST"), error("UNAUTHENTICATED"), error("REQUEST_LIMIT_EXCEEDED"), error("ENDPOINT_NOT_FOUND"),
        MlflowException("failed with error code 413 != 200. Response body: '<html>'"), OSError("gone"),
    ],
    ids=lambda refusal: getattr(refusal, "error_code", "OSError"),
)  # fmt: skip
def test_what_mlflow_refuses_for_a_while_is_written_later(store, monkeypatch, acts, refusal):
    refuses = Refuses(monkeypatch, refusal)
    acts |= {2: lambda: refuses.turn(False), 6: refuses.until_met, 7: lambda: refuses.turn(True)}
    assert is_whole(store, record(search := picky()), search)
    assert refuses.n


@pytest.mark.parametrize("how", ["own run", "active run"])
def test_what_mlflow_refuses_up_to_the_end_is_recovered(store, monkeypatch, acts, how, capfd):
    refuses = Refuses(monkeypatch, error("PERMISSION_DENIED"))
    acts[2] = lambda: refuses.turn(False)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if how == "active run":
            stack.enter_context(mlflow.start_run())
        with pytest.warns(RuntimeWarning, match=r"MLflow lacks a part .*`mlflow-hp recover`") as told:
            run_id = record(search := picky(), report=True)
    assert time.monotonic() - began < 60
    assert len(told) == 1
    assert (mlflow.active_run(), capfd.readouterr().err) == (None, "")
    (left,) = recovery.left_behind()
    with pytest.raises(UserError, match=r"can't be had|does not take all"):
        bring_as(left, "mlflow_hp-test")
    refuses.turn(True)
    recovered = recovery.recover(left)
    assert (recovered.run_id, recovered.status, recovered.problems) == (run_id, "FINISHED", [])
    assert recovered.n_points > 0
    assert is_whole(store, run_id, search)
    assert "plots" in [file.path for file in store.list_artifacts(run_id)]
    assert store.get_run(run_id).data.tags["mlflow.note.content"].startswith("**3 combinations, 3 folds each**")


def bring_as(left, name):
    """`bring` in a thread of a name."""
    errors = []

    def work():
        try:
            bring(left)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_recovering_again_changes_nothing(store, monkeypatch, acts):
    refuses = Refuses(monkeypatch, OSError("gone"))
    acts[2] = lambda: refuses.turn(False)
    with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
        run_id = record(search := picky())
    refuses.turn(True)
    (left,) = recovery.left_behind()
    kept = left.folder.with_name("kept")
    shutil.copytree(left.folder, kept)
    recovery.recover(left)
    before = [dump(store, run) for run in [store.get_run(run_id), *children(store, run_id)]]
    bring(Left(kept, journal.read(kept)))
    assert [dump(store, run) for run in [store.get_run(run_id), *children(store, run_id)]] == before
    shutil.rmtree(kept)
    assert is_whole(store, run_id, search)


def dump(store, run):
    data = run.data.to_dictionary()
    history = [[vars(point) for point in store.get_metric_history(run.info.run_id, name)] for name in data["metrics"]]
    return str((dict(run.info), data, history))


def test_a_child_run_that_is_deleted_for_a_while(store, acts):
    ids = []

    def delete():
        wait_for(lambda: children(store, recording.run_id))
        ids.append(children(store, recording.run_id)[0].info.run_id)
        store.delete_run(ids[0])

    acts |= {2: delete, 6: lambda: time.sleep(1.0), 7: lambda: store.restore_run(ids[0])}
    search = picky()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
    assert is_whole(store, recording.run_id, search)


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("which", ["parent", "child"])
def test_a_run_that_is_deleted_at_the_end(store, acts, which):
    ids = []

    def delete():
        wait_for(lambda: children(store, recording.run_id))
        ids.append(children(store, recording.run_id)[0].info.run_id if which == "child" else recording.run_id)
        store.delete_run(ids[0])

    acts[2] = delete
    search = picky()
    with (
        pytest.warns(RuntimeWarning, match="MLflow lacks a part .*active"),
        mlflow_hp.record_search(search, progress=False, report=False) as recording,
    ):
        search.fit(X, Y)
    (left,) = recovery.left_behind()
    with pytest.raises(UserError, match=r"mlflow runs restore.*recover.*--discard|--discard"):
        recovery.recover(left)
    assert search_folders() == [left.folder]
    store.restore_run(ids[0])
    assert recovery.recover(left).status == "FINISHED"
    assert is_whole(store, recording.run_id, search)


def test_what_is_refused_for_what_it_is_is_set_aside_and_blocks_nothing(store, monkeypatch):
    monkeypatch.setattr("mlflow_hp.search.run.distinct_metric_names", lambda names: {name: name for name in names})
    search = grid(scoring={"good": "accuracy", "bad[1]": "accuracy"}, refit="good")
    with pytest.warns(RuntimeWarning, match=r"MLflow refuses the metric '.*bad\[1\]' .*refused_by_mlflow.json") as told:
        run_id = record(search)
    assert len(told) == 1
    below = children(store, run_id)
    assert len(below) == 4
    for index, run in enumerate(below):
        assert run.info.status == "FINISHED"
        good = {i: search.cv_results_[f"split{i}_test_good"][index] for i in range(3)}
        assert points(store, run, "test_good") == good
        refused = json.loads(text(run, "refused_by_mlflow.json"))
        steps = {each["value"][2]: each["value"][0] for each in refused if each["name"] == "test_bad[1]"}
        assert steps == good
        assert "refused_by_mlflow.json" in run.data.tags["mlflow_hp.refused"]
    assert not search_folders()


PROGRAM = """
import os, sys, time
sys.path[:0] = {paths!r}
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
import mlflow_hp
from mlflow_hp.search import writer
writer.EVERY_SECONDS = float(os.environ["EVERY"])

class Slow(LogisticRegression):
    def fit(self, x, y, sample_weight=None):
        print("fit", flush=True)
        time.sleep(float(os.environ["SLOW"]))
        return super().fit(x, y, sample_weight)

rng = np.random.default_rng(0)
x = rng.normal(size=(90, 3)); y = (x[:, 0] + rng.normal(size=90) > 0).astype(int)
search = GridSearchCV(Slow(), {{"C": [0.001, 0.1, 10.0]}}, cv=3)
with mlflow_hp.record_search(search, resume=sys.argv[1] == "resume", progress=False, report=False) as recording:
    print(recording.run_id, flush=True)
    search.fit(x, y)
    {end}
print("end", flush=True)
"""


def start(tmp_path, how="record", slow=0.0, every=0.1, end="pass", **more):
    script = tmp_path / f"program_{how}.py"
    script.write_text(PROGRAM.format(paths=[str(Path(mlflow_hp.__file__).parents[1])], end=end))
    environment = {
        **os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "SLOW": str(slow), "EVERY": str(every),
        "MLFLOW_EXPERIMENT_ID": mlflow.tracking.fluent._get_experiment_id(), **more,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(script), how],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip


def killed_after(process, n_fits):
    """Kill it when so many fits have begun; the id of its run."""
    run_id = process.stdout.readline().strip()
    for _ in range(n_fits):
        assert process.stdout.readline() == "fit\n"
    time.sleep(0.1)
    process.kill()
    process.communicate()
    return run_id


def test_a_killed_search_is_recovered_and_resumed(store, tmp_path):
    run_id = killed_after(start(tmp_path, slow=0.3, every=1000), 5)
    assert not children(store, run_id)  # nothing was sent
    (left,) = recovery.left_behind()
    died_at = (left.folder / journal.FILE).stat().st_mtime
    recovered = recovery.recover(left)
    assert (recovered.status, recovered.problems) == ("KILLED", [])
    first, second = children(store, run_id)
    assert (first.info.status, second.info.status) == ("FINISHED", "KILLED")
    assert list(points(store, first, "score")) == [0, 1, 2]
    assert list(points(store, second, "score")) == [0]
    parent = store.get_run(run_id)
    assert parent.info.end_time == pytest.approx(died_at * 1000, abs=2)
    assert parent.data.tags["mlflow_hp.recovered"] == "all that was on disk"
    assert parent.data.tags["mlflow_hp.running"] == "0"
    out, _ = start(tmp_path, "resume").communicate(timeout=120)
    assert out.split() == [run_id, *["fit"] * (9 - 4 + 1), "end"]
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert not search_folders()


def test_the_next_search_recovers_and_resumes_by_itself(store, tmp_path):
    run_id = killed_after(start(tmp_path, slow=0.3, every=1000), 5)
    out, errors = start(tmp_path, "resume").communicate(timeout=120)
    assert out.split() == [run_id, *["fit"] * (9 - 4 + 1), "end"]
    assert f"recovered what was left behind of run {run_id}, which is KILLED now" in errors
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert nothing_runs(store, run_id)
    assert not search_folders()


def test_a_search_that_was_resumed_without_its_record_keeps_what_the_later_one_says(store, tmp_path):
    run_id = killed_after(start(tmp_path, slow=0.3, every=1000), 5)
    away = tmp_path / "another machine"
    home = runs.local_home()
    home.rename(away)
    for run in store.search_runs([mlflow.tracking.fluent._get_experiment_id()]):
        store.set_tag(run.info.run_id, past.PROCESS, FOREIGN)  # as the resumed search has it
    assert children(store, run_id) == []
    later = store.create_run(
        store.get_run(run_id).info.experiment_id,
        tags={"mlflow.parentRunId": run_id, "mlflow_hp.kind": "candidate", "mlflow_hp.candidate": "0"},
    )
    (left,) = recovery.left_behind(away)
    recovered = recovery.recover(left)
    assert store.get_run(run_id).info.status == "RUNNING"  # its end is the later one's to tell
    assert recovered.problems == ["1 combinations are left out, which were computed again in the resumed search"]
    first, second = children(store, run_id)
    assert first.info.run_id == later.info.run_id
    assert list(points(store, second, "score")) == [0]


def test_a_living_search_is_left_alone(store, tmp_path):
    process = start(tmp_path, slow=0.3)
    run_id = process.stdout.readline().strip()
    wait_for(lambda: "mlflow_hp.planned" in store.get_run(run_id).data.tags)
    assert not list(recovery.left_behind())
    (left,) = recovery.recordings()
    with pytest.raises(HeldError, match="holds it"):
        recovery.recover(left)
    store.set_tag(run_id, past.PROCESS, FOREIGN)  # as if in another container: the lock knows that it lives
    with pytest.raises(UserError, match="still runs"), mlflow_hp.record_search(grid(), resume=run_id):
        pass
    record(grid())
    assert store.get_run(run_id).info.status == "RUNNING"
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out.split()[-1], errors) == (0, "end", "")
    assert store.get_run(run_id).info.status == "FINISHED"


def test_a_search_of_a_container_that_was_started_again_is_recovered(store, monkeypatch, acts):
    with monkeypatch.context() as patch:
        patch.setattr("mlflow_hp.search.writer.this_process", lambda: FOREIGN)
        patch.setattr("mlflow_hp.search.record.this_process", lambda: FOREIGN)
        patch.setattr("mlflow_hp.runs.this_process", lambda: FOREIGN)
        refuses = Refuses(monkeypatch, OSError("gone"))
        acts[4] = lambda: refuses.turn(False)
        with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
            run_id = record(search := picky())
    refuses.turn(True)
    past.close_dead(store, store.get_run(run_id).info.experiment_id)
    assert store.get_run(run_id).info.status == "RUNNING"  # its record knows how it ended
    record(grid())
    assert store.get_run(run_id).info.status == "FINISHED"
    assert is_whole(store, run_id, search)


@pytest.mark.parametrize(("seconds", "is_told"), [(2, False), (30, True)])
def test_sqlite_that_is_locked_at_the_end(store, tmp_path, seconds, is_told):
    path = mlflow.get_tracking_uri().removeprefix("sqlite:///")
    end = (
        f"import sqlite3, threading; l = sqlite3.connect({path!r}, check_same_thread=False, isolation_level=None); "
        f"l.execute('BEGIN EXCLUSIVE'); t = threading.Timer({seconds}, l.close); t.daemon = True; t.start()"
    )
    began = time.monotonic()
    process = start(tmp_path, every=1000, end=end)
    out, errors = process.communicate(timeout=120)
    assert time.monotonic() - began < 100
    assert (process.returncode, out.split()[-1]) == (0, "end")
    assert "database is locked" not in errors
    assert ("MLflow lacks a part" in errors) == is_told
    assert "Traceback" not in errors
    run_id = out.split()[0]
    for left in recovery.left_behind():
        recovery.recover(left)
    assert store.get_run(run_id).info.status == "FINISHED"
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 3
    assert not search_folders()


def test_a_parent_run_that_is_active_while_the_server_is_away(store, monkeypatch):
    def away(*_, **__):
        raise UserError("the tracking server does not answer")

    search = grid()
    with monkeypatch.context() as patch, mlflow.start_run() as run:
        for place in ("runs", "search.outbox"):
            patch.setattr(f"mlflow_hp.{place}.ensure_reachable", away)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with mlflow_hp.record_search(search, progress=False, report=False):
                search.fit(X, Y)
                patch.undo()
    (said,) = (str(one.message) for one in told)
    assert said.endswith("does not answer; what is recorded of the search is kept on this machine meanwhile")
    assert is_whole(store, run.info.run_id, search)
    assert found(search) == found(clone(search).fit(X, Y))


def test_without_a_run_and_without_a_server_nothing_can_be_recorded(monkeypatch):
    def away(*_, **__):
        raise UserError("the tracking server does not answer")

    monkeypatch.setattr("mlflow_hp.runs.ensure_reachable", away)
    with pytest.raises(UserError, match="does not answer"), mlflow_hp.record_search(grid()):
        pass


def test_without_a_place_on_this_machine_metrics_go_directly(store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="record is not kept on this machine, it goes to MLflow directly"):
        run_id = record(search := grid(), report=True)
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "home"))
    assert is_whole(store, run_id, search)
    assert "plots" in [file.path for file in store.list_artifacts(run_id)]


def test_the_folder_is_removed_while_the_search_runs(store, acts):
    acts[2] = lambda: shutil.rmtree(runs.local_home())
    assert is_whole(store, record(search := picky()), search)


def test_a_disk_that_is_full_while_the_search_runs(store, monkeypatch, acts):
    def full(self, record):
        raise OSError(28, "No space left on device")

    acts[2] = lambda: monkeypatch.setattr(journal.Journal, "append", full)
    with pytest.warns(RuntimeWarning, match="No space left") as told:
        run_id = record(search := picky())
    assert len(told) == 1
    assert is_whole(store, run_id, search)


def left_by_an_outage(store, monkeypatch, acts):
    with monkeypatch.context() as patch:
        refuses = Refuses(patch, OSError("gone"))
        acts[1] = lambda: refuses.turn(False)
        with pytest.warns(RuntimeWarning, match="MLflow lacks a part"):
            record(picky())
    (left,) = recovery.left_behind()
    return left


OTHERS = (None, -1, 10**30, 1.5, True, "x", [], {}, [1], {"a": 1}, [["x", "y"]], {"run_id": 3})


def test_a_journal_that_is_damaged_is_used_up_to_there(store, monkeypatch, acts):
    left = left_by_an_outage(store, monkeypatch, acts)
    entries = left.entries
    assert of_a_search(entries) == entries
    n = 0
    for number, whole in enumerate(entries.records):
        for part in whole:
            for value in OTHERS:
                records = [*entries.records[:number], {**whole, part: value}, *entries.records[number + 1 :]]
                sound = of_a_search(entries._replace(records=records))
                assert len(sound.records) in (number, len(records)) or sound.problem
                n += len(sound.records) == number
    assert n > 100
    for name in ("run_id", "kind", "experiment_id", "common", "key", "start"):
        with pytest.raises(journal.JournalError, match=f"{name}="):
            of_a_search(entries._replace(head={**entries.head, name: [3]}))
    cut = [*entries.records[:-8], {"run": 99, "tags": {}}]
    recovered = bring(left._replace(entries=entries._replace(records=cut)))
    assert recovered.status in ("KILLED", "FINISHED")
    assert any("is not a search's" in problem for problem in recovered.problems)
    assert "is not a search's" in store.get_run(left.run_id).data.tags["mlflow_hp.recovered"]
    assert nothing_runs(store, left.run_id)


def test_whoever_forks_in_the_block_leaves_the_record_alone(store, tmp_path):
    end = "pid = os.fork(); pid or sys.exit(3); print('child', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    process = start(tmp_path, end=end)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out.split()[-3:]) == (0, ["child", "3", "end"]), errors
    assert store.get_run(out.split()[0]).info.status == "FINISHED"
    assert not search_folders()


def test_mlflow_that_keeps_its_active_runs_elsewhere(store, monkeypatch):
    from mlflow_hp.search import active

    run = mlflow.start_run()
    with monkeypatch.context() as patch:
        patch.delattr(mlflow.tracking.fluent, "_last_active_run_id")
        active.leave(run.info.run_id, "FAILED")
    assert mlflow.active_run() is None


def test_the_users_own_run_inside_the_block_stays_active(store):
    search = grid()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
        mine = mlflow.start_run(nested=True)
    assert mlflow.active_run().info.run_id == mine.info.run_id
    mlflow.end_run()
    assert mlflow.active_run() is None
    assert store.get_run(recording.run_id).info.status == "FINISHED"


def test_processes_are_told_by_the_lock(store, tmp_path):
    run_id = store.create_run(mlflow.tracking.fluent._get_experiment_id(), tags={past.PROCESS: FOREIGN}).info.run_id
    folder = runs.local_folder(run_id, "search")
    journal.Journal(folder, {"kind": "search", "run_id": run_id}).close()
    assert not past.is_recorded(store.get_run(run_id))
    with FolderLock(folder):
        assert past.is_recorded(store.get_run(run_id))
    assert not past.is_recorded(store.get_run(run_id))
