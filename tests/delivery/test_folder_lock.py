"""The lock of a folder: whoever lives keeps it, whatever its host is called, and whoever has died does not."""

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
from mlflow_hp.delivery.folder_lock import FILE, SILENT_SECONDS, FolderLock, HeldError, held_by
from mlflow_hp.tracking import process_identity

HOLDER = """
    import sys, time
    from pathlib import Path
    from mlflow_hp.delivery.folder_lock import FolderLock
    lock = FolderLock(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock; its group can be started in other namespaces."""
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
    """How to start a process under another host name or with other process ids; skips where that is not allowed."""
    command = ["unshare", *which, "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("namespaces can't be made here")
    return command


def test_it_is_held_by_one(tmp_path):
    with FolderLock(tmp_path):
        assert f"process {os.getpid()} on {socket.gethostname()}" in held_by(tmp_path)
        with pytest.raises(HeldError) as held:
            FolderLock(tmp_path, take_over=True)
        assert held.value.is_certain
    assert held_by(tmp_path) is None
    FolderLock(tmp_path).release()


def test_a_probe_changes_nothing(tmp_path):
    FolderLock(tmp_path).release()
    before = (tmp_path / FILE).read_bytes(), (tmp_path / FILE).stat().st_mtime_ns
    assert held_by(tmp_path) is None
    assert ((tmp_path / FILE).read_bytes(), (tmp_path / FILE).stat().st_mtime_ns) == before


def test_a_living_process_keeps_it_and_a_killed_one_does_not(tmp_path, holder):
    holding = holder()
    assert f"process {holding.pid} on" in held_by(tmp_path)
    end(holding)
    assert held_by(tmp_path) is None


@pytest.mark.parametrize("which", [("--uts",), ("--pid",), ("--uts", "--pid", "--mount-proc")], ids=" ".join)
def test_in_another_container_it_is_held_until_that_dies(tmp_path, holder, which):
    holding = holder(*in_other_namespaces(*which))
    assert held_by(tmp_path) is not None
    with pytest.raises(HeldError):
        FolderLock(tmp_path)
    end(holding)
    until = time.monotonic() + 30
    while held_by(tmp_path) is not None and time.monotonic() < until:
        time.sleep(0.05)  # the kernel ends what was in the namespace
    FolderLock(tmp_path).release()


def test_the_host_name_does_not_matter(tmp_path, monkeypatch, holder):
    holding = holder()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert held_by(tmp_path) is not None
    end(holding)
    assert held_by(tmp_path) is None


FORKS = """
    import os, sys
    from pathlib import Path
    from mlflow_hp.delivery.folder_lock import FolderLock, held_by
    folder = Path(sys.argv[1])
    lock = FolderLock(folder)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)  # lives on when the lock is given back
        os._exit(0)
    before = held_by(folder)
    lock.release()
    print(before is not None, held_by(folder))
    os.write(writing, b"x")
    os.waitpid(child, 0)
"""


def test_a_forked_child_does_not_hold_it(tmp_path):
    program = [sys.executable, "-c", textwrap.dedent(FORKS), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True None\n", done.stderr


def of_another_machine(tmp_path, silent):
    """A lock as it looks when a machine whose locks we do not see has taken it, and shown life `silent` seconds ago."""
    FolderLock(tmp_path).release()
    path = tmp_path / FILE
    elsewhere = {"host": socket.gethostname(), "pid": os.getpid(), "started": "another-boot 17", "namespace": "pid:[1]"}
    path.write_text(json.dumps({"process": json.dumps(elsewhere), "locked": True}))
    at = time.time() - silent
    os.utime(path, (at, at))


def test_another_machine_is_believed_its_sign_of_life(tmp_path):
    of_another_machine(tmp_path, SILENT_SECONDS / 2)
    with pytest.raises(HeldError, match=r"gave a sign of life 3.* --take-over") as held:
        FolderLock(tmp_path)
    assert not held.value.is_certain
    FolderLock(tmp_path, take_over=True).release()
    of_another_machine(tmp_path, SILENT_SECONDS + 1)
    FolderLock(tmp_path).release()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, monkeypatch, error):
    def none(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(folder_lock.fcntl, "flock", none)
    lock = FolderLock(tmp_path)
    assert f"process {os.getpid()}" in held_by(tmp_path)
    lock.release()
    monkeypatch.setattr(folder_lock, "is_alive", lambda _: False)
    assert held_by(tmp_path) is None


def test_it_shows_life(tmp_path):
    with FolderLock(tmp_path) as lock:
        os.utime(tmp_path / FILE, (1, 1))
        lock.beat()
        assert time.time() - (tmp_path / FILE).stat().st_mtime < 60


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        FolderLock(tmp_path / "gone")
    assert held_by(tmp_path / "gone") is None


def test_a_folder_of_an_earlier_version(tmp_path):
    alive = process_identity.this_process()
    with pytest.raises(HeldError):
        FolderLock(tmp_path, alive)
    FolderLock(tmp_path, alive.replace(f'"pid": {os.getpid()}', '"pid": 4194305')).release()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"process": 1}', b"null"])
def test_a_lock_that_is_damaged_is_nobodys(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    FolderLock(tmp_path).release()
