"""Which process records a run, and whether it is still there."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


def this_process() -> str:
    """Host, id, start and process namespace of this process, as the tag ``mlflow_hp.process``."""
    pid = os.getpid()
    known = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "namespace": _namespace()}
    return json.dumps({name: value for name, value in known.items() if value is not None})


def is_here(process: str) -> bool:
    """Whether a process that the tag tells of shares our process ids, so that `is_alive` can tell.

    Host names do not say so: containers and machines may share one, and a machine may change it.
    """
    known, namespace = _read(process), _namespace()
    if namespace is None:  # not on Linux
        return bool(known.get("host") == socket.gethostname())
    return is_of_this_kernel(process) and known.get("namespace", namespace) == namespace


def is_of_this_kernel(process: str) -> bool:
    """Whether a process ran on this machine since it was started, in a container or not."""
    boot = _boot()
    return boot is not None and str(_read(process).get("started")).startswith(f"{boot} ")


def is_alive(process: str) -> bool:
    """Whether a process that `is_here` still runs: its id may have gone to another, but not its start."""
    known = _read(process)
    started = _started(known.get("pid", -1))
    return started is not None and started == known.get("started")


def words(process: str) -> str:
    """What the tag says, for a message."""
    known = _read(process)
    return f"process {known.get('pid', '?')} on {known.get('host', 'an unknown host')}"


def _read(process: str) -> dict[str, object]:
    try:
        known = json.loads(process)
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _started(pid: object) -> str | None:
    """What no other process of this id shares; None where there is no process of this id, or one that has ended."""
    if not isinstance(pid, int) or pid < 0:
        return None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = _boot()
    except FileNotFoundError:
        return _started_elsewhere(pid) if not Path("/proc/self/stat").exists() else None
    except (ProcessLookupError, ValueError):
        return None
    return None if state in "ZX" else f"{boot} {fields[18]}"


def _boot() -> str | None:
    """What tells this start of this kernel from all others; None where it has no such id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    """What tells our process ids from those of other containers; None where there are no namespaces."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _started_elsewhere(pid: int) -> str | None:
    """The same where there is no /proc; without psutil, only whether there is a process of this id."""
    try:
        import psutil
    except ImportError:
        pass
    else:
        try:
            return str(psutil.Process(pid).create_time())
        except psutil.Error:
            return None
    if os.name != "posix":  # there, a signal 0 would interrupt it
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it belongs to somebody else
        pass
    return "unknown"
