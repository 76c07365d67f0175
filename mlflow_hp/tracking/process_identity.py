"""Identity of the process that records a run, as stored in a tag, and whether that process is still alive."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import psutil


def this_process() -> str:
    """Identify this process by host, process id, start and namespace: the value of the tag ``mlflow_hp.process``."""
    pid = os.getpid()
    fields = {"host": socket.gethostname(), "pid": pid, "started": _start_of(pid), "namespace": _namespace()}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def is_here(process: str) -> bool:
    """Whether the tag's process has the same process ids as this one, which `is_alive` depends on.

    Host names do not decide that: containers and machines may share one, and a machine may change its own.
    """
    fields, namespace = _fields(process), _namespace()
    if namespace is None:  # not on Linux
        return bool(fields.get("host") == socket.gethostname())
    return is_of_this_kernel(process) and fields.get("namespace", namespace) == namespace


def is_of_this_kernel(process: str) -> bool:
    """Whether the tag's process ran on this machine since it was booted, in a container or not."""
    boot_id = _boot_id()
    return boot_id is not None and str(_fields(process).get("started")).startswith(f"{boot_id} ")


def is_alive(process: str) -> bool:
    """Whether the tag's process, which `is_here`, still runs; a later process with its id has another start."""
    fields = _fields(process)
    started = _start_of(fields.get("pid", -1))
    return started is not None and started == fields.get("started")


def describe_process(process: str) -> str:
    """Describe the tag's process in a message."""
    fields = _fields(process)
    return f"process {fields.get('pid', '?')} on {fields.get('host', 'an unknown host')}"


def _fields(process: str) -> dict[str, object]:
    """Parse the tag; empty if it is not valid."""
    try:
        fields = json.loads(process)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _start_of(pid: object) -> str | None:
    """Start of the process with this id, different for each process that gets it; None if no process runs with it.

    On Linux it is counted from the boot of the kernel: psutil's `create_time` changes when the clock is set.
    """
    if not isinstance(pid, int) or pid < 0:
        return None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot_id = _boot_id()
    except FileNotFoundError:
        return _start_without_proc(pid) if not Path("/proc/self/stat").exists() else None
    except (ProcessLookupError, ValueError):
        return None
    return None if state in "ZX" else f"{boot_id} {fields[18]}"


def _boot_id() -> str | None:
    """Id of this boot of the machine; None if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    """Process namespace, which differs between containers; None if the system has none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _start_without_proc(pid: int) -> str | None:
    """Start of a process on a system without /proc."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None
