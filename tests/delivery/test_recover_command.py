"""The command ``mlflow-hp recover``."""

from __future__ import annotations

import os
import shutil
import socket

import mlflow
import pytest

from mlflow_hp.cli.main import main
from mlflow_hp.delivery import journal
from mlflow_hp.tracking import runs
from mlflow_hp.training import recovery
from tests.helpers.callbacks import AtEpoch
from tests.helpers.fits import record, regression
from tests.helpers.interrupted_recordings import leave
from tests.helpers.refusals import upload_failing_for

pytestmark = pytest.mark.usefixtures("impatient")


def test_recoveries_and_failures_are_printed(store, monkeypatch, tmp_path, capsys):
    run_id, _ = leave(monkeypatch, tmp_path)
    gone, folder = leave(monkeypatch, tmp_path)
    monkeypatch.setattr(runs, "upload", upload_failing_for(gone, runs.upload))
    assert main(["recover"]) == 1
    printed = capsys.readouterr()
    assert f"{run_id} in {mlflow.get_tracking_uri()}: 30 steps, KILLED\n" in printed.out
    assert "the artifact store is gone" in printed.err
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(folder.parents[1]))
    assert main(["recover", "nowhere"]) == 2
    assert "no recording of nowhere is on this machine" in capsys.readouterr().err
    assert main(["recover", gone]) == 0
    assert main(["recover"]) == 0
    assert "nothing was left behind" in capsys.readouterr().out


def test_missing_store_is_not_created(store, monkeypatch, tmp_path, capsys):
    leave(monkeypatch, tmp_path)
    (left,) = recovery.recordings()
    path = left.folder / journal.FILE
    with journal.Journal(tmp_path, {**left.entries.header, "tracking_uri": f"sqlite:///{tmp_path}/gone.db"}) as copy:
        for entry in left.entries.records:
            copy.append(entry)
    shutil.copy(tmp_path / journal.FILE, path)
    assert main(["recover"]) == 1
    assert "gone.db is missing" in capsys.readouterr().err
    assert not (tmp_path / "gone.db").exists()
    assert path.exists()


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_folder_that_cannot_be_locked_is_reported(store, monkeypatch, tmp_path, capsys, fault):
    _, folder = leave(monkeypatch, tmp_path)

    def fails(*_, **__):
        raise OSError(28, "No space left on device") if fault == "full" else PermissionError(30, "Read-only")

    monkeypatch.setattr("mlflow_hp.training.recovery.FolderLock", fails)
    assert main(["recover"]) == 1
    said = capsys.readouterr().err
    assert "cannot be locked" in said
    assert "MLFLOW_HP_FOLDER" in said
    assert (folder / journal.FILE).exists()


def test_living_recording_is_skipped(store, capsys):
    said = []

    def look():
        said.append((main(["recover"]), capsys.readouterr().out))

    fitted = record(regression(), epochs=2, callbacks=[AtEpoch(epoch_1=look)])
    ((status, out),) = said
    assert status == 0
    assert f"{fitted.run_id}: left alone in" in out
    assert f"process {os.getpid()} on {socket.gethostname()} holds the lock" in out
