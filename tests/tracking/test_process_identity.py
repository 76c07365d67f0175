"""Which process recorded a run, and whether it still runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mlflow_hp.tracking.process_identity import is_alive, is_here, is_of_this_kernel, this_process

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")


@pytest.fixture(params=["this system", "a system without /proc"])
def system(request, monkeypatch):
    """This system as it is, and as if it had no /proc."""
    if request.param == "this system":
        return

    def hide(name):
        real = getattr(Path, name)

        def read(path, *words, **named):
            if path.is_relative_to("/proc"):
                raise FileNotFoundError(path)
            return real(path, *words, **named)

        monkeypatch.setattr(Path, name, read)

    hide("read_text")
    hide("readlink")
    monkeypatch.setattr(Path, "exists", lambda path: False)


def test_this_process(system):
    tag = this_process()
    assert is_here(tag)
    assert is_alive(tag)
    assert json.loads(tag)["host"] == socket.gethostname()
    assert not is_alive(json.dumps({**json.loads(tag), "started": "another time"}))  # the id has gone to another


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, "1", None, 1.5, True, []])
def test_an_id_of_no_process(system, pid):
    assert not is_alive(json.dumps({**json.loads(this_process()), "pid": pid}))


@needs_proc
def test_an_ended_process_is_not_alive_even_before_its_parent_has_waited_for_it():
    program = "from mlflow_hp.tracking.process_identity import this_process as t; print(t(), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as child:
        tag = child.stdout.readline()
        assert is_alive(tag)
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert not is_alive(tag)
    assert not is_alive(tag)
    assert is_here(tag)


@needs_proc
def test_what_earlier_versions_have_recorded_still_holds():
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    tag = {"host": "any", "pid": os.getpid(), "started": f"{boot} {started}"}
    assert is_here(json.dumps(tag))
    assert is_alive(json.dumps(tag))
    assert is_of_this_kernel(json.dumps(tag))
    elsewhere = json.dumps({**tag, "namespace": "pid:[1]"})  # in another container
    assert is_of_this_kernel(elsewhere)
    assert not is_here(elsewhere)
    assert not is_of_this_kernel(json.dumps({**tag, "started": f"another-boot {started}"}))


@needs_proc
def test_a_clock_that_is_set_changes_no_identity(monkeypatch):
    tag = this_process()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 0.0)
    assert this_process() == tag
