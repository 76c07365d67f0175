"""Lock of a folder: held by living processes, whatever their host is called, and released by dead ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from mlflow_hp.delivery import folder_lock
from mlflow_hp.delivery.folder_lock import EXPIRY_SECONDS, FILE, FolderLock, FolderLockedError, lock_holder
from mlflow_hp.tracking import process_identity
from tests.helpers.waiting import wait_for

HOLDER = """
    import signal, sys
    from pathlib import Path
    from mlflow_hp.delivery.folder_lock import FolderLock
    lock = FolderLock(Path(sys.argv[1]))
    print("held", flush=True)
    signal.pause()
"""


@pytest.fixture
def holder(tmp_path):
    """Starter of processes that hold the lock, perhaps in other namespaces."""
    started = []

    def start(*before):
        command = [*before, sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)]
        holding = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(holding)
        assert holding.stdout.readline() == "held\n"
        return holding

    yield start
    for each in started:
        end(each)


def end(holding):
    if holding.poll() is None:
        os.killpg(holding.pid, signal.SIGKILL)
        holding.wait()
        holding.stdout.close()


def in_other_namespaces(*which):
    """Return the command to start a process under another host name or with other process ids, or skip."""
    command = ["unshare", *which, "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("namespaces cannot be made here: it takes unshare (util-linux) and its rights, which root has")
    return command


def test_only_one_holds_the_lock(tmp_path):
    with FolderLock(tmp_path):
        assert f"process {os.getpid()} on {socket.gethostname()}" in lock_holder(tmp_path)
        with pytest.raises(FolderLockedError) as held:
            FolderLock(tmp_path, take_over=True)
        assert held.value.is_certain
    assert lock_holder(tmp_path) is None
    FolderLock(tmp_path).release()


def test_lock_holder_changes_nothing(tmp_path):
    FolderLock(tmp_path).release()
    before = (tmp_path / FILE).read_bytes(), (tmp_path / FILE).stat().st_mtime_ns
    assert lock_holder(tmp_path) is None
    assert ((tmp_path / FILE).read_bytes(), (tmp_path / FILE).stat().st_mtime_ns) == before


def test_killed_process_releases_the_lock(tmp_path, holder):
    holding = holder()
    assert f"process {holding.pid} on" in lock_holder(tmp_path)
    end(holding)
    assert lock_holder(tmp_path) is None


@pytest.mark.parametrize("which", [("--uts",), ("--pid",), ("--uts", "--pid", "--mount-proc")], ids=" ".join)
def test_process_in_another_container_holds_the_lock(tmp_path, holder, which):
    holding = holder(*in_other_namespaces(*which))
    assert lock_holder(tmp_path) is not None
    with pytest.raises(FolderLockedError):
        FolderLock(tmp_path)
    end(holding)
    wait_for(lambda: lock_holder(tmp_path) is None)  # the kernel ends what was in the namespace
    FolderLock(tmp_path).release()


def test_host_name_does_not_matter(tmp_path, monkeypatch, holder):
    holding = holder()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert lock_holder(tmp_path) is not None
    end(holding)
    assert lock_holder(tmp_path) is None


FORKS = """
    import os, sys
    from pathlib import Path
    from mlflow_hp.delivery.folder_lock import FolderLock, lock_holder
    folder = Path(sys.argv[1])
    lock = FolderLock(folder)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)  # lives on when the lock is given back
        os._exit(0)
    before = lock_holder(folder)
    lock.release()
    print(before is not None, lock_holder(folder))
    os.write(writing, b"x")
    os.waitpid(child, 0)
"""


def test_forked_child_does_not_hold_the_lock(tmp_path):
    program = [sys.executable, "-c", textwrap.dedent(FORKS), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.stdout == "True None\n", done.stderr


def lock_of_another_machine(tmp_path, age):
    """Write a lock of another machine, whose locks are not visible here, renewed `age` seconds ago."""
    FolderLock(tmp_path).release()
    path = tmp_path / FILE
    elsewhere = {"host": socket.gethostname(), "pid": os.getpid(), "started": "another-boot 17", "namespace": "pid:[1]"}
    path.write_text(json.dumps({"process": json.dumps(elsewhere), "locked": True}))
    at = time.time() - age
    os.utime(path, (at, at))


def test_recent_renewal_by_another_machine_holds_the_lock(tmp_path):
    lock_of_another_machine(tmp_path, EXPIRY_SECONDS / 2)
    with pytest.raises(FolderLockedError, match=r"renewed the lock 3.* --take-over") as held:
        FolderLock(tmp_path)
    assert not held.value.is_certain
    FolderLock(tmp_path, take_over=True).release()
    lock_of_another_machine(tmp_path, EXPIRY_SECONDS + 1)
    FolderLock(tmp_path).release()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks(tmp_path, monkeypatch, error):
    def none(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(folder_lock.fcntl, "flock", none)
    lock = FolderLock(tmp_path)
    assert f"process {os.getpid()}" in lock_holder(tmp_path)
    lock.release()
    monkeypatch.setattr(folder_lock, "is_alive", lambda _: False)
    assert lock_holder(tmp_path) is None


def test_renewal(tmp_path):
    with FolderLock(tmp_path) as lock:
        os.utime(tmp_path / FILE, (1, 1))
        lock.renew()
        assert (tmp_path / FILE).stat().st_mtime > 1


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        FolderLock(tmp_path / "gone")
    assert lock_holder(tmp_path / "gone") is None


def test_folder_of_an_earlier_version(tmp_path):
    alive = process_identity.this_process()
    with pytest.raises(FolderLockedError):
        FolderLock(tmp_path, alive)
    FolderLock(tmp_path, alive.replace(f'"pid": {os.getpid()}', '"pid": 4194305')).release()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"process": 1}', b"null"])
def test_damaged_lock_is_free(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    FolderLock(tmp_path).release()
