"""The lock that a recording holds on its folder: whoever holds it is alive, whatever its host or process id is called.

It is a lock of the operating system (flock) on the file ``lock``, which the kernel gives back when its holder dies, in
any container. Where that kernel is not ours, or the file system has no locks, the file's time of modification tells:
its holder renews it every few seconds.
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
from mlflow_hp.tracking.process_identity import is_alive, is_here, is_of_this_kernel, this_process, words

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

FILE = "lock"
BEAT_SECONDS = 5.0
"""How often a holder renews the time of its lock."""
SILENT_SECONDS = 60.0
"""A holder on another machine that has not renewed it for so long is taken for dead."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class HeldError(Exception):
    """Another holds the lock; the message says who, and what is known of it.

    Attributes
    ----------
    is_certain : bool
        False where only a recent sign of life says so: then `FolderLock` takes it with ``take_over=True``.
    """

    def __init__(self, message: str, *, is_certain: bool) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class _Holder(NamedTuple):
    """What the lock's file says: the process, and whether its file system gave it a lock of the operating system."""

    process: str
    locked: bool


class FolderLock:
    """Takes the lock of a folder, and holds it until `release` or the end of the process.

    A forked child does not hold it.

    Parameters
    ----------
    folder : Path
        It has to be there.
    process : str, optional
        Who has recorded there, for folders without a lock, as earlier versions made them.
    take_over : bool
        Whether to take it from a holder of whom only a sign of life is known.
    probe : bool
        Whether to hold it for no longer than it takes to see that nobody else does, and to say nothing of it.

    Raises
    ------
    HeldError
        Where another holds it, also in this process.
    FileNotFoundError
        Where the folder is gone.
    OSError
        Where the lock can't be written.
    """

    def __init__(
        self, folder: Path, process: str | None = None, *, take_over: bool = False, probe: bool = False
    ) -> None:
        self._path = folder / FILE
        is_new = not self._path.exists()
        if is_new and process is not None and is_here(process) and is_alive(process):
            raise HeldError(f"{words(process)} records there", is_certain=True)
        self._file = self._path.open("rb" if probe else "a+b", buffering=0)
        try:
            self._take(take_over=take_over, probe=probe)
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
        """Give it back; a second time, do nothing."""
        _heartbeat.remove(self)
        if fcntl is not None and not self._file.closed:
            with contextlib.suppress(OSError):  # a child that was forked a moment ago may have it open still
                fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()

    def forget(self) -> None:
        """Have this process, forked from the holder, not hold it."""
        self._file.close()

    def beat(self) -> None:
        """Show that the holder is alive."""
        with contextlib.suppress(OSError, ValueError):  # the folder is gone, or it was released meanwhile
            os.utime(self._file.fileno())

    def _take(self, *, take_over: bool, probe: bool) -> None:
        locked = self._lock()
        holder = _read(self._file)
        if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
            raise FileNotFoundError(errno.ENOENT, "its lock was replaced meanwhile", str(self._path))
        if holder is not None and not take_over:
            _refuse_living(holder, self._path)
        if probe:
            return
        self._file.truncate(0)
        self._file.write(json.dumps({"process": this_process(), "locked": locked}).encode())

    def _lock(self) -> bool:
        """Whether the operating system has given it to us; False where this file system has no locks."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(self._file)
            whose = words(holder.process) if holder else "a process"
            raise HeldError(f"{whose} holds it", is_certain=True) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        return True


def held_by(folder: Path, process: str | None = None) -> str | None:
    """Who holds the lock of a folder, in words, without a change to it; None where nobody does.

    Parameters
    ----------
    folder : Path
    process : str, optional
        As for `FolderLock`.
    """
    try:
        with FolderLock(folder, process, probe=True):
            return None
    except HeldError as held:
        return str(held)
    except OSError:
        return None  # gone, or of nobody who could write it


def _read(file: Any) -> _Holder | None:
    """What was written last; None where nothing was, or it can't be read."""
    try:
        file.seek(0)
        known = json.loads(file.read())
        return _Holder(str(known["process"]), bool(known["locked"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_living(holder: _Holder, path: Path) -> None:
    """Raise HeldError where a holder may live although the operating system gives us the lock, or has none."""
    if is_of_this_kernel(holder.process) and holder.locked:
        return  # this kernel would not have given it to us
    if is_here(holder.process):
        if is_alive(holder.process):
            raise HeldError(f"{words(holder.process)} holds it", is_certain=True)
        return
    silent = _now(path.parent) - path.stat().st_mtime
    if silent < SILENT_SECONDS:
        raise HeldError(
            f"{words(holder.process)} gave a sign of life {max(silent, 0):.0f} s ago; if it does not live, it is taken "
            f"for dead {SILENT_SECONDS:.0f} s after the last one, or at once with --take-over",
            is_certain=False,
        )


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


class _Heartbeat:
    """Has the locks that this process holds show life, by a thread that is there as long as one is held."""

    def __init__(self) -> None:
        self.abandon()
        abandon_in_child(self)

    def abandon(self) -> None:
        """In a forked child: hold nothing."""
        for lock in list(getattr(self, "_locks", ())):
            lock.forget()
        self._locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._lock = threading.RLock()  # a lock may be given back by a destructor that interrupts who takes another

    def add(self, lock: FolderLock) -> None:
        with self._lock:
            self._locks.add(lock)
            if self._thread is None:
                self._idle = threading.Event()
                arguments = (self._idle,)
                self._thread = threading.Thread(target=self._beat, args=arguments, name="mlflow_hp-beat", daemon=True)
                self._thread.start()

    def remove(self, lock: FolderLock) -> None:
        with self._lock:
            self._locks.discard(lock)
            if not self._locks and self._thread is not None:
                self._idle.set()
                self._thread.join(1.0)
                self._thread = None

    def _beat(self, idle: threading.Event) -> None:
        while not idle.wait(BEAT_SECONDS):
            for lock in list(self._locks):
                lock.beat()


_heartbeat = _Heartbeat()
