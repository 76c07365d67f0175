"""Modules that a process has loaded and files that its fits have read.

An audit hook (`sys.addaudithook`) reports each file that is opened. It counts if a fit opens it for reading, unless
Python, a library being imported, or MLflow opens it, or the process has written it before. SQLite databases count too,
and files named in a command that a fit starts. Not seen are files that TensorFlow (``tf.io``, file datasets of
``tf.data``), h5py or a command reads itself, and anything from a server.
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

SYSTEM_FOLDERS = ("/proc/", "/sys/", "/dev/", "/etc/", "/run/", "/usr/", "/lib")
EVENTS = ("open", "os.listdir", "os.scandir", "sqlite3.connect", "subprocess.Popen")
TRANSPARENT = ("numpy", "pandas", "joblib")
"""Libraries that open files on behalf of their caller."""
FOR_IMPORTS = ("importlib.metadata", "importlib_metadata", "pkgutil", "linecache", "inspect")
"""Modules that open only code, which counts as a module already, or lists of installed packages."""
ABSENT = ""
"""Digest of a missing file."""
WORKER = "mlflow_hp.search.live.worker"
"""The module that computes a fit."""
MAX_BYTES = 4 * 2**30
"""Larger files are known by their size alone."""


class Dependencies(NamedTuple):
    """Modules that a process has loaded, and files that it has read.

    Attributes
    ----------
    modules : dict of str to tuple of str
        Name of each of the user's modules -> digest and place (see `sources.place_of`).
    files : dict of str to str
        Place -> digest; the place of a folder that was listed ends in ``/``.
    """

    modules: dict[str, tuple[str, str]]
    files: dict[str, str]


_lock = threading.Lock()
_active: dict[int, int] = {}
"""Thread id -> number of fits that it is computing."""
_hook_is_installed = False
_read: dict[str, str | None] = {}
"""Path -> digest when it was read, for folders (which end in a separator) and databases; None for files."""
_written: set[str] = set()


@contextlib.contextmanager
def watch_files() -> Iterator[None]:
    """Note the files read inside the block, by this thread or by the user's code in another."""
    global _hook_is_installed  # noqa: PLW0603
    thread = threading.get_ident()
    with _lock:
        if not _hook_is_installed:
            with contextlib.suppress(Exception):  # another hook may refuse it
                sys.addaudithook(_hook)
                _hook_is_installed = True
        _active[thread] = _active.get(thread, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _active[thread] -= 1
            if not _active[thread]:
                del _active[thread]


def dependencies() -> Dependencies | None:
    """Modules that this process has loaded and files that all its fits have read so far; None if unknown."""
    try:
        return _dependencies() if _hook_is_installed else None
    except Exception:  # noqa: BLE001 - the fit succeeded; a later process just cannot reuse it
        return None


def _dependencies() -> Dependencies:
    user_modules = loaded()
    folders = roots(user_modules)
    files = {}
    module_files = {file for _, file in user_modules.values()}  # they count as modules
    for path, at_reading in [(path, digest) for path, digest in list(_read.items()) if path not in module_files]:
        place, digest = place_of(path, folders), file_digest(path)
        if at_reading is not None and at_reading != digest:  # the fits write into this folder
            continue
        files[place + "/" if path.endswith(os.sep) and not place.endswith("/") else place] = digest
    return Dependencies(_with_places(_digests(user_modules), folders), files)


def modules(further: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Digest and place of each of the user's loaded modules, and of `further` ones."""
    user_modules = loaded()
    others = {name: (content(module, file).digest, file) for name, (module, file) in outside(further).items()}
    return _with_places({**others, **_digests(user_modules)}, roots(user_modules))


def _digests(user_modules: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[str, str]]:
    return {name: (_module_digest(name, id(module), file), file) for name, (module, file) in user_modules.items()}


def _with_places(digests: Mapping[str, tuple[str, str]], folders: list[str]) -> dict[str, tuple[str, str]]:
    """Replace the file of each module by its place relative to `folders`."""
    return {name: (digest, place_of(file, folders)) for name, (digest, file) in digests.items()}


def forget_modules() -> None:
    """Discard cached digests of modules."""
    _module_digest.cache_clear()


def file_digest(path: str | Path) -> str:
    """Digest of a file's content, or of the names in a folder, whose path ends in a separator."""
    path = str(path)
    try:
        if path.endswith(os.sep):
            return hashlib.sha256(
                repr(sorted(each.name for each in Path(path).iterdir())).encode(errors="surrogatepass")
            ).hexdigest()[:16]
        stat = Path(path).stat()
        if path.endswith((".py", ".pyc")):
            return of_file(path).digest
        return _digest(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except OSError:
        return ABSENT


@functools.lru_cache(maxsize=8192)
def _module_digest(name: str, _: int, file: str) -> str:
    return content(sys.modules[name], file).digest


@functools.lru_cache(maxsize=65536)
def _digest(path: str, stamp: tuple[int, int, int]) -> str:
    if stamp[1] > MAX_BYTES:
        return f"? {stamp[1]} bytes"
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def _hook(event: str, arguments: Any) -> None:
    if not _active or event not in EVENTS:
        return
    with contextlib.suppress(Exception):  # an error here would fail the user's open()
        for path in _paths(event, arguments):
            _note(event, path, arguments)


def _paths(event: str, arguments: Any) -> list[Any]:
    """Paths that an audit event refers to."""
    if event != "subprocess.Popen":
        return [arguments[0]]
    words = [arguments[1]] if isinstance(arguments[1], str) else list(map(os.fsdecode, arguments[1]))
    words += [part for word in words for part in word.split()]  # of a command for the shell
    paths = [Path(os.fsdecode(arguments[2] or "."), word) for word in words]
    return [path for path in paths if path.is_file()]


def _note(event: str, path: Any, arguments: Any) -> None:
    if path is None or isinstance(path, int):
        return
    path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are not followed
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            _written.add(path)  # by a fit: its content is no input
            _read.pop(path, None)
            return
    elif event in ("os.listdir", "os.scandir"):
        path = path.rstrip(os.sep) + os.sep
    if is_installed(path):
        return
    is_code = path.endswith((".py", ".pyc"))
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):  # compiled without a source
            path = importlib.util.source_from_cache(path)
    if path in _read or path in _written or path.startswith(SYSTEM_FOLDERS) or not _is_opened_by_fit(is_code):
        return
    may_be_written = event in ("os.listdir", "os.scandir", "sqlite3.connect")
    _read[path] = file_digest(path) if may_be_written else None


def _is_opened_by_fit(is_code: bool) -> bool:
    """Whether a file is opened by the user's code, or by a library for the fit in this thread."""
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
