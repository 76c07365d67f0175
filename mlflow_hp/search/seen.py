"""What a process has loaded and read by the time that a fit has ended.

Python tells of each file that is opened (`sys.addaudithook`). Files that are opened for reading while a fit is computed
count, unless Python, a library that is being imported, or MLflow opens them, or the process has written them before.
What is read without Python's ``open`` is not seen: by TensorFlow's own readers (``tf.io``, ``tf.data``'s of files), by
h5py, by databases, and by processes that a fit starts.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.sources import content, is_installed, library, loaded, place_of, roots

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/run/", "/usr/", "/lib")
RECORDING = ("mlflow", "mlflow_hp")
TRANSPARENT = ("numpy", "pandas", "joblib")
"""Libraries that open files for others."""
FOR_IMPORTS = ("importlib.metadata", "importlib_metadata", "pkgutil", "linecache", "inspect")
"""What these open is code, which is known already, or tells what is installed."""
ABSENT = ""
"""Digest of a file that is not there."""
MOST_BYTES = 4 * 2**30
"""Larger files are not read again to know them."""


class Seen(NamedTuple):
    """What a process has loaded and read.

    Attributes
    ----------
    modules : dict of str to tuple of str
        Name of each of the user's modules -> digest and place, as `sources` says them.
    files : dict of str to str
        Place -> digest; of a folder that was listed, the place ends in ``/``.
    """

    modules: dict[str, tuple[str, str]]
    files: dict[str, str]


_lock = threading.Lock()
_active: dict[int, int] = {}
"""Threads in which fits are being computed, and how many."""
_is_installed = False
_read: dict[str, str | None] = {}
"""Paths; of folders, which end in a separator, with the digest of the names that were in them."""
_written: set[str] = set()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Note the files that are read inside the block, in this thread or by code of the user's in another."""
    global _is_installed  # noqa: PLW0603
    thread = threading.get_ident()
    with _lock:
        if not _is_installed:
            with contextlib.suppress(Exception):  # another hook may refuse it
                sys.addaudithook(_hook)
                _is_installed = True
        _active[thread] = _active.get(thread, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _active[thread] -= 1
            if not _active[thread]:
                del _active[thread]


def seen() -> Seen | None:
    """What this process has loaded, and read in all fits so far; None where that can't be known."""
    try:
        return _seen() if _is_installed else None
    except Exception:  # noqa: BLE001 - the fit has gone well; it is not kept for a later process
        return None


def _seen() -> Seen:
    folders = roots()
    files = {}
    for path, listed in list(_read.items()):
        place, digest = place_of(path, folders), file_digest(path)
        if listed is not None and listed != digest:  # the fits write into this folder
            continue
        files[place + "/" if path.endswith(os.sep) and not place.endswith("/") else place] = digest
    return Seen(modules(), files)


def modules() -> dict[str, tuple[str, str]]:
    """The user's modules that are loaded: digest and place."""
    return {name: _known_module(name, id(module), file) for name, (module, file) in loaded().items()}


def forget_modules() -> None:
    """Look at modules again that have been looked at."""
    _known_module.cache_clear()


def file_digest(path: str | Path) -> str:
    """A digest of what is in a file, or of the names in a folder, whose path ends in a separator."""
    path = str(path)
    try:
        if path.endswith(os.sep):
            return hashlib.sha256(
                repr(sorted(each.name for each in Path(path).iterdir())).encode(errors="surrogatepass")
            ).hexdigest()[:16]
        facts = Path(path).stat()
        return _digest(path, (facts.st_mtime_ns, facts.st_size, facts.st_ino))
    except OSError:
        return ABSENT


@functools.lru_cache(maxsize=8192)
def _known_module(name: str, _: int, file: str) -> tuple[str, str]:
    return content(sys.modules[name], file).digest, place_of(file, roots())


@functools.lru_cache(maxsize=65536)
def _digest(path: str, stamp: tuple[int, int, int]) -> str:
    if stamp[1] > MOST_BYTES:
        return f"? {stamp[1]} bytes"
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def _hook(event: str, arguments: Any) -> None:
    if not _active or event not in ("open", "os.listdir", "os.scandir"):
        return
    with contextlib.suppress(Exception):  # nothing of it may reach who opens
        _note(event, arguments)


def _note(event: str, arguments: Any) -> None:
    path = arguments[0]
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if path is None or isinstance(path, int):
        return
    path = os.path.abspath(path)  # noqa: PTH100 - links are not followed
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            _written.add(path)  # by a fit: what it then holds is not from outside
            _read.pop(path, None)
            return
    else:
        path = path.rstrip(os.sep) + os.sep
    if path in _read or path in _written or path.startswith(FILES_OF_THE_SYSTEM) or is_installed(path):
        return
    if not path.endswith(".pyc") and _is_of_the_fit():
        _read[path] = None if event == "open" else file_digest(path)


def _is_of_the_fit() -> bool:
    """Whether the user's code, or a library for the fit that is computed in this thread, opens a file."""
    frame: Any = sys._getframe(3)
    is_active, is_nearest = threading.get_ident() in _active, True
    while frame is not None and frame.f_globals.get("__name__") != f"{__package__}.task":
        name = str(frame.f_globals.get("__name__"))
        top = name.partition(".")[0]
        if name.startswith(FOR_IMPORTS) or frame.f_code.co_filename.startswith("<frozen importlib"):
            return False
        if library(name) is None:
            return True
        if is_nearest and top not in TRANSPARENT and top not in sys.stdlib_module_names:
            is_nearest = False
            if top in RECORDING:
                return False
        frame = frame.f_back
    return is_active
