"""What a process has loaded and read by the time that a fit has ended.

Python tells of each file that is opened (`sys.addaudithook`). Files that are opened for reading while a fit is computed
count, unless Python, a library that is being imported, or MLflow opens them, or the process has written them before;
so do SQLite's databases, and the files that a command names which a fit starts. What is read in another way is not
seen: by TensorFlow's own readers (``tf.io``, ``tf.data``'s of files), by h5py, from a server, by a command.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.resume.sources import content, is_installed, library, loaded, of_file, outside, place_of, roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILES_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/run/", "/usr/", "/lib")
EVENTS = ("open", "os.listdir", "os.scandir", "sqlite3.connect", "subprocess.Popen")
TRANSPARENT = ("numpy", "pandas", "joblib")
"""Libraries that open files for others."""
FOR_IMPORTS = ("importlib.metadata", "importlib_metadata", "pkgutil", "linecache", "inspect")
"""What these open is code, which is known already, or tells what is installed."""
ABSENT = ""
"""Digest of a file that is not there."""
WORKER = "mlflow_hp.search.live.worker"
"""The module that computes a fit."""
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
    here = loaded()
    folders = roots(here)
    files = {}
    of_modules = {file for _, file in here.values()}  # these are known already
    for path, listed in [(path, listed) for path, listed in list(_read.items()) if path not in of_modules]:
        place, digest = place_of(path, folders), file_digest(path)
        if listed is not None and listed != digest:  # the fits write into this folder
            continue
        files[place + "/" if path.endswith(os.sep) and not place.endswith("/") else place] = digest
    return Seen(_places(_digests(here), folders), files)


def modules(further: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The user's modules that are loaded, and `further` ones: digest and place."""
    here = loaded()
    others = {name: (content(module, file).digest, file) for name, (module, file) in outside(further).items()}
    return _places({**others, **_digests(here)}, roots(here))


def _digests(here: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[str, str]]:
    return {name: (_known_digest(name, id(module), file), file) for name, (module, file) in here.items()}


def _places(found: Mapping[str, tuple[str, str]], folders: list[str]) -> dict[str, tuple[str, str]]:
    """Digests with the files' places from the one of `folders` that they lie below."""
    return {name: (digest, place_of(file, folders)) for name, (digest, file) in found.items()}


def forget_modules() -> None:
    """Look at modules again that have been looked at."""
    _known_digest.cache_clear()


def file_digest(path: str | Path) -> str:
    """A digest of what is in a file, or of the names in a folder, whose path ends in a separator."""
    path = str(path)
    try:
        if path.endswith(os.sep):
            return hashlib.sha256(
                repr(sorted(each.name for each in Path(path).iterdir())).encode(errors="surrogatepass")
            ).hexdigest()[:16]
        facts = Path(path).stat()
        if path.endswith((".py", ".pyc")):
            return of_file(path).digest
        return _digest(path, (facts.st_mtime_ns, facts.st_size, facts.st_ino))
    except OSError:
        return ABSENT


@functools.lru_cache(maxsize=8192)
def _known_digest(name: str, _: int, file: str) -> str:
    return content(sys.modules[name], file).digest


@functools.lru_cache(maxsize=65536)
def _digest(path: str, stamp: tuple[int, int, int]) -> str:
    if stamp[1] > MOST_BYTES:
        return f"? {stamp[1]} bytes"
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def _hook(event: str, arguments: Any) -> None:
    if not _active or event not in EVENTS:
        return
    with contextlib.suppress(Exception):  # nothing of it may reach who opens
        for path in _paths(event, arguments):
            _note(event, path, arguments)


def _paths(event: str, arguments: Any) -> list[Any]:
    """The paths that an event is about."""
    if event != "subprocess.Popen":
        return [arguments[0]]
    words = arguments[1].split() if isinstance(arguments[1], str) else arguments[1]
    paths = [Path(os.fsdecode(arguments[2] or "."), os.fsdecode(word)) for word in words]
    return [path for path in paths if path.is_file()]


def _note(event: str, path: Any, arguments: Any) -> None:
    if path is None or isinstance(path, int):
        return
    path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are not followed
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            _written.add(path)  # by a fit: what it then holds is not from outside
            _read.pop(path, None)
            return
    elif event in ("os.listdir", "os.scandir"):
        path = path.rstrip(os.sep) + os.sep
    if is_installed(path):
        return
    is_code = path.endswith((".py", ".pyc"))
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):  # one without a source
            path = importlib.util.source_from_cache(path)
    if path in _read or path in _written or path.startswith(FILES_OF_THE_SYSTEM) or not _is_of_the_fit(is_code):
        return
    may_be_written = event in ("os.listdir", "os.scandir", "sqlite3.connect")
    _read[path] = file_digest(path) if may_be_written else None


def _is_of_the_fit(is_code: bool) -> bool:
    """Whether the user's code, or a library for the fit that is computed in this thread, opens a file."""
    frame: Any = sys._getframe(3)
    is_active, is_nearest = threading.get_ident() in _active, True
    while frame is not None and frame.f_globals.get("__name__") != WORKER:
        name = str(frame.f_globals.get("__name__"))
        top = name.partition(".")[0]
        imports = frame.f_code.co_filename.startswith("<frozen importlib")
        if name.startswith(FOR_IMPORTS) or top == "mlflow" or (imports and not is_code):
            return False
        if not imports and library(name) is None:
            return True
        if is_nearest and top not in TRANSPARENT and top not in sys.stdlib_module_names:
            is_nearest = False
            if top == "mlflow_hp":
                return False
        frame = frame.f_back
    return is_active
