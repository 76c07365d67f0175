"""Lock of a recording's folder: held as long as the recording process lives, whatever its host or process id is called.

It is a lock of the operating system (flock) on the file ``lock``, which the kernel releases when the process dies, in
any container. For another machine, or a file system without locks, the file's modification time decides: the process
that holds the lock renews it every few seconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mlflow_hp._forks import abandon_in_child
from mlflow_hp.tracking.process_identity import describe_process, is_alive, is_here, is_of_this_kernel, this_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

FILE = "lock"
HEARTBEAT_SECONDS = 5.0
"""Interval at which the modification time of a held lock is renewed."""
EXPIRY_SECONDS = 60.0
"""Time without a heartbeat after which a lock of another machine expires."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class FolderLockedError(Exception):
    """Another process holds the lock; the message says which, and what is known of it.

    Attributes
    ----------
    is_certain : bool
        False if only a recent heartbeat says so: then `FolderLock` takes the lock with ``take_over=True``.
    """

    def __init__(self, message: str, *, is_certain: bool) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class _Holder(NamedTuple):
    """Content of the lock file: the process, and whether its file system has locks of the operating system."""

    process: str
    has_flock: bool


class FolderLock:
    """Lock of a folder, held until `release` or the end of the process.

    A forked child does not hold it.

    Parameters
    ----------
    folder : Path
        An existing folder.
    process : str, optional
        Process that recorded there, for folders of earlier versions, which have no lock. Defaults to None.
    take_over : bool
        Whether to take the lock from a process of which only a heartbeat is known. Defaults to False.
    probe : bool
        Whether to release the lock at once without writing anything, to see whether another process holds it. Defaults
        to False.

    Raises
    ------
    FolderLockedError
        If another process holds the lock, or another `FolderLock` of this process.
    FileNotFoundError
        If the folder does not exist any more.
    OSError
        If the lock cannot be written.
    """

    def __init__(
        self, folder: Path, process: str | None = None, *, take_over: bool = False, probe: bool = False
    ) -> None:
        self._path = folder / FILE
        is_new = not self._path.exists()
        if is_new and process is not None and is_here(process) and is_alive(process):
            raise FolderLockedError(f"{describe_process(process)} is recording there", is_certain=True)
        self._file = self._path.open("rb" if probe else "a+b", buffering=0)
        try:
            self._acquire(take_over=take_over, probe=probe)
        except BaseException:
            self._file.close()
            raise
        if probe:
            return
        _heartbeat.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock; idempotent."""
        try:
            _heartbeat.remove(self)
            if fcntl is not None and not self._file.closed:
                with contextlib.suppress(OSError):  # a child that was just forked may still have it open
                    fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:  # also where a signal raises meanwhile
            self._file.close()

    def close_in_child(self) -> None:
        """Close the file in a forked child without releasing the parent's lock."""
        self._file.close()

    def renew(self) -> None:
        """Renew the modification time."""
        with contextlib.suppress(OSError, ValueError):  # the folder was removed, or the lock released meanwhile
            os.utime(self._file.fileno())

    def _acquire(self, *, take_over: bool, probe: bool) -> None:
        has_flock = self._flock()
        holder = _read_holder(self._file)
        if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
            raise FileNotFoundError(errno.ENOENT, "its lock was replaced meanwhile", str(self._path))
        if holder is not None and not take_over:
            _raise_if_alive(holder, self._path)
        if probe:
            return
        self._file.truncate(0)
        self._file.write(json.dumps({"process": this_process(), "locked": has_flock}).encode())

    def _flock(self) -> bool:
        """Take the lock of the operating system; return False if this file system has no locks."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read_holder(self._file)
            process = describe_process(holder.process) if holder else "a process"
            raise FolderLockedError(f"{process} holds the lock", is_certain=True) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        return True


def lock_holder(folder: Path, process: str | None = None) -> str | None:
    """Describe the process that holds the lock of a folder, without changing it; None if none does.

    Parameters
    ----------
    folder : Path
        The folder.
    process : str, optional
        As for `FolderLock`. Defaults to None.
    """
    try:
        with FolderLock(folder, process, probe=True):
            return None
    except FolderLockedError as error:
        return str(error)
    except OSError:
        return None  # the folder was removed, or there is no lock


def _read_holder(file: Any) -> _Holder | None:
    """Read the lock file; None if it is empty or damaged."""
    try:
        file.seek(0)
        content = json.loads(file.read())
        return _Holder(str(content["process"]), bool(content["locked"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _raise_if_alive(holder: _Holder, path: Path) -> None:
    """Raise FolderLockedError if the process may be alive although this one could take the lock, or there is none."""
    if is_of_this_kernel(holder.process) and holder.has_flock:
        return  # then this kernel would have refused the lock
    if is_here(holder.process):
        if is_alive(holder.process):
            raise FolderLockedError(f"{describe_process(holder.process)} holds the lock", is_certain=True)
        return
    age = _file_system_time(path.parent) - path.stat().st_mtime
    if age < EXPIRY_SECONDS:
        process = describe_process(holder.process)
        raise FolderLockedError(
            f"{process} renewed the lock {max(age, 0):.0f} s ago; if that process is dead, the lock expires "
            f"{EXPIRY_SECONDS:.0f} s after the last renewal, or at once with --take-over",
            is_certain=False,
        )


def _file_system_time(folder: Path) -> float:
    """Current time by the clock of the folder's file system, in seconds since the epoch."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


class _Heartbeat:
    """Thread that renews all locks that this process holds; it runs as long as there is one."""

    def __init__(self) -> None:
        self.abandon()
        abandon_in_child(self)

    def abandon(self) -> None:
        """In a forked child: hold no lock."""
        for lock in list(getattr(self, "_locks", ())):
            lock.close_in_child()
        self._locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._is_idle = threading.Event()
        self._lock = threading.RLock()  # reentrant: a destructor may release a lock while this thread takes another

    def add(self, lock: FolderLock) -> None:
        with self._lock:
            self._locks.add(lock)
            if self._thread is None:
                self._is_idle = threading.Event()
                arguments = (self._is_idle,)
                self._thread = threading.Thread(target=self._run, args=arguments, name="mlflow_hp-beat", daemon=True)
                self._thread.start()

    def remove(self, lock: FolderLock) -> None:
        with self._lock:
            self._locks.discard(lock)
            if not self._locks and self._thread is not None:
                self._is_idle.set()
                self._thread.join(1.0)
                self._thread = None

    def _run(self, is_idle: threading.Event) -> None:
        while not is_idle.wait(HEARTBEAT_SECONDS):
            for lock in list(self._locks):
                lock.renew()


_heartbeat = _Heartbeat()
