"""Which process records a run, and whether it is still there."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


def this_process() -> str:
    """Host, id and start of this process, as the tag ``mlflow_hp.process``."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())})


def is_here(process: str) -> bool:
    """Whether a process that the tag tells of ran on this host."""
    return bool(_read(process).get("host") == socket.gethostname())


def is_alive(process: str) -> bool:
    """Whether a process of this host still runs: its id may have gone to another, but not its start."""
    known = _read(process)
    started = _started(known.get("pid", -1))
    return started is not None and started == known.get("started")


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
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return _started_elsewhere(pid) if not Path("/proc/self/stat").exists() else None
    except (ProcessLookupError, ValueError):
        return None
    return None if state in "ZX" else f"{boot} {fields[18]}"


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
