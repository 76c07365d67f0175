"""What is recorded of a search is not lost: it is on this machine until MLflow has it, and can be recovered."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
import warnings

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sklearn.base import clone

import mlflow_hp
from mlflow_hp.delivery import journal
from mlflow_hp.errors import UserError
from mlflow_hp.search.recovery import KINDS, recover_search
from mlflow_hp.tracking.home import local_home
from mlflow_hp.training import recovery
from tests.helpers.refusals import refusals
from tests.helpers.search_faults import ACTS, OUTAGES, Refuses, error, is_whole, picky, search_folders
from tests.helpers.searches import X, Y, children, found, grid, points, record, text
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("own_experiment"), pytest.mark.filterwarnings(OUTAGES)]


def test_nothing_is_left_of_a_search_that_mlflow_has(store):
    run_id = record(search := grid(), report=True)
    assert is_whole(store, run_id, search)
    assert "plots" in [file.path for file in store.list_artifacts(run_id)]
    assert store.get_run(run_id).info.status == "FINISHED"
    assert not list(local_home().glob("*/*"))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "refusal",
    [
        error("PERMISSION_DENIED"), error("RESOURCE_DOES_NOT_EXIST"), error("INVALID_PARAMETER_VALUE"),
        error("BAD_REQUEST"), error("UNAUTHENTICATED"), error("REQUEST_LIMIT_EXCEEDED"), error("ENDPOINT_NOT_FOUND"),
        MlflowException("failed with error code 413 != 200. Response body: '<html>'"), OSError("gone"),
    ],
    ids=lambda refusal: getattr(refusal, "error_code", "OSError"),
)  # fmt: skip
def test_what_mlflow_refuses_for_a_while_is_written_later(store, monkeypatch, refusal):
    refuses = Refuses(monkeypatch, refusal)
    ACTS.update({2: lambda: refuses.turn(False), 6: refuses.until_met, 7: lambda: refuses.turn(True)})
    assert is_whole(store, record(search := picky()), search)
    assert refuses.n


def test_what_a_large_search_is_known_by_is_not_lost(store, monkeypatch):
    monkeypatch.setattr("mlflow_hp.search.parent_run.LONGEST_MANIFEST_TAG", 10)
    refuses = Refuses(monkeypatch, error("PERMISSION_DENIED"))
    ACTS.update({0: lambda: refuses.turn(False), 6: refuses.until_met, 7: lambda: refuses.turn(True)})
    run_id = record(search := picky())
    assert is_whole(store, run_id, search)
    assert refuses.n
    known = {file.path for file in store.list_artifacts(run_id, "resume")}
    tags = store.get_run(run_id).data.tags
    named = {
        f"resume/{value}.json"
        for name, value in tags.items()
        if name in ("mlflow_hp.digest_code", "mlflow_hp.code_left") and value
    }
    assert named
    assert known >= named  # and what it was known by before a module was imported during the search


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["own run", "active run"])
def test_what_mlflow_refuses_up_to_the_end_is_recovered(store, monkeypatch, how, capfd):
    refuses = Refuses(monkeypatch, error("PERMISSION_DENIED"))
    ACTS[2] = lambda: refuses.turn(False)
    with contextlib.ExitStack() as stack:
        if how == "active run":
            stack.enter_context(mlflow.start_run())
        with pytest.warns(RuntimeWarning, match=r"MLflow lacks a part .*`mlflow-hp recover`") as told:
            run_id = record(search := picky(), report=True)
    assert len(ours(told)) == 1
    assert mlflow.active_run() is None
    printed = capfd.readouterr().err.splitlines()  # the pictures are taken: that may last
    assert set(printed) <= {"mlflow_hp: MLflow is still accepting the recorded data of the search"}
    (left,) = recovery.left_behind()
    with pytest.raises(UserError, match=r"does not return run|does not accept all"):
        bring_as(left, "mlflow_hp-test")
    refuses.turn(True)
    recovered = recovery.recover(left, kinds=KINDS)
    assert (recovered.run_id, recovered.status, recovered.problems) == (run_id, "FINISHED", [])
    assert recovered.n_points > 0
    assert is_whole(store, run_id, search)
    assert "plots" in [file.path for file in store.list_artifacts(run_id)]
    assert store.get_run(run_id).data.tags["mlflow.note.content"].startswith("**Result**: The best of 3")


def ours(told):
    """Warnings of ours but for those of outages; scikit-learn may have some of its own, for versions of libraries."""
    texts = [str(one.message) for one in told]
    return [text for text in texts if text.startswith("mlflow_hp: ") and not re.match(OUTAGES.partition(":")[2], text)]


def bring_as(left, name):
    """`bring` in a thread of a name."""
    errors = []

    def work():
        try:
            recover_search(left)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_a_child_run_that_is_deleted_for_a_while(store, monkeypatch):
    ids, refused = [], refusals(monkeypatch)

    def delete():
        wait_for(lambda: children(store, recording.run_id))
        ids.append(children(store, recording.run_id)[0].info.run_id)
        store.delete_run(ids[0])

    ACTS.update({2: delete, 6: lambda: wait_for(lambda: refused), 7: lambda: store.restore_run(ids[0])})
    search = picky()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
    assert is_whole(store, recording.run_id, search)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("which", ["parent", "child"])
def test_a_run_that_is_deleted_at_the_end(store, which):
    ids = []

    def delete():
        wait_for(lambda: children(store, recording.run_id))
        ids.append(children(store, recording.run_id)[0].info.run_id if which == "child" else recording.run_id)
        store.delete_run(ids[0])

    ACTS[2] = delete
    search = picky()
    with (
        pytest.warns(RuntimeWarning, match="MLflow lacks a part .*active"),
        mlflow_hp.record_search(search, progress=False, report=False) as recording,
    ):
        search.fit(X, Y)
    (left,) = recovery.left_behind()
    with pytest.raises(UserError, match=r"mlflow runs restore.*recover.*--discard|--discard"):
        recovery.recover(left, kinds=KINDS)
    assert search_folders() == [left.folder]
    store.restore_run(ids[0])
    assert recovery.recover(left, kinds=KINDS).status == "FINISHED"
    assert is_whole(store, recording.run_id, search)


def test_what_is_refused_for_what_it_is_is_set_aside_and_blocks_nothing(store, monkeypatch):
    monkeypatch.setattr(
        "mlflow_hp.delivery.run_changes.distinct_metric_names", lambda names: {name: name for name in names}
    )
    search = grid(scoring={"good": "accuracy", "bad[1]": "accuracy"}, refit="good")
    with pytest.warns(RuntimeWarning, match=r"MLflow refuses the metric '.*bad\[1\]' .*refused_by_mlflow.json") as told:
        run_id = record(search)
    assert len(ours(told)) == 1
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


def test_a_parent_run_that_is_active_while_the_server_is_away(store, monkeypatch):
    def away(*_, **__):
        raise UserError("the tracking server does not answer")

    search = grid()
    with monkeypatch.context() as patch, mlflow.start_run() as run:
        for place in ("tracking.runs", "delivery.run_writer"):
            patch.setattr(f"mlflow_hp.{place}.ensure_reachable", away)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with mlflow_hp.record_search(search, progress=False, report=False):
                search.fit(X, Y)
                patch.undo()
    (said,) = ours(told)
    assert said.endswith("does not answer; meanwhile the record of the search is kept on this machine")
    assert is_whole(store, run.info.run_id, search)
    assert found(search) == found(clone(search).fit(X, Y))


def test_without_a_run_and_without_a_server_nothing_can_be_recorded(monkeypatch):
    def away(*_, **__):
        raise UserError("the tracking server does not answer")

    monkeypatch.setattr("mlflow_hp.tracking.runs.ensure_reachable", away)
    with pytest.raises(UserError, match="does not answer"), mlflow_hp.record_search(grid()):
        pass


def test_without_a_place_on_this_machine_metrics_go_directly(store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="not kept on this machine, it goes to MLflow directly"):
        run_id = record(search := grid(), report=True)
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "home"))
    assert is_whole(store, run_id, search)
    assert "plots" in [file.path for file in store.list_artifacts(run_id)]


def test_the_folder_is_removed_while_the_search_runs(store):
    ACTS[2] = lambda: shutil.rmtree(local_home())
    assert is_whole(store, record(search := picky()), search)


def test_a_disk_that_is_full_while_the_search_runs(store, monkeypatch):
    def full(self, record):
        raise OSError(28, "No space left on device")

    ACTS[2] = lambda: monkeypatch.setattr(journal.Journal, "append", full)
    with pytest.warns(RuntimeWarning, match="No space left") as told:
        run_id = record(search := picky())
    assert len(told) == 1
    assert is_whole(store, run_id, search)


def test_the_users_own_run_inside_the_block_stays_active(store):
    search = grid()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
        mine = mlflow.start_run(nested=True)
    assert mlflow.active_run().info.run_id == mine.info.run_id
    mlflow.end_run()
    assert mlflow.active_run() is None
    assert store.get_run(recording.run_id).info.status == "FINISHED"
