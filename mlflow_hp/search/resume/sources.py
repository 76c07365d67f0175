"""The modules that the user wrote, each known by the content of its source.

A module is the user's where no library has brought it: it does not lie where Python or its packages are installed.
What is compared is the compiled source, so that comments and formatting do not count. What only says how a search is
recorded or spread over processors does not count either: the keywords of ``record_search``, ``n_jobs``,
``pre_dispatch`` and ``verbose`` of a ``...SearchCV``, and what is assigned to a name ``resume``.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import sys
import sysconfig
import types
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.resume.bytecode import code_digest, inner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.machinery import ModuleSpec

KNOWN = ("sklearn", "numpy", "scipy", "pandas", "joblib", "keras", "tensorflow", "scikeras", "mlflow", "mlflow_hp")
"""Libraries wherever they are installed."""
UNKNOWN = "?"
"""Digest of what has changed since it was loaded."""
NOT_COUNTED = ("n_jobs", "pre_dispatch", "verbose")


class Source(NamedTuple):
    """The content of a module's file: a digest of what counts, and its code, where it is Python's."""

    digest: str
    code: types.CodeType | None = None


def library(module: str | None) -> str | None:
    """The name of a module that no user wrote; None for one that a user did."""
    name = module or "builtins"
    if name.partition(".")[0] in KNOWN or name in sys.builtin_module_names:
        return name
    found = sys.modules.get(name)
    if found is None or not issubclass(type(found), types.ModuleType):
        return None
    file = _file(found)
    if file is None:
        origin = getattr(_facts(found).get("__spec__"), "origin", None)
        above = name.rpartition(".")[0]
        return name if origin in ("frozen", "built-in") or (above and library(above)) else None
    return name if is_installed(file) else None


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or an installed package."""
    parts = file.replace("\\", "/").split("/")
    return "site-packages" in parts or "dist-packages" in parts or _under(file, _installed()) is not None


def loaded() -> dict[str, tuple[Any, str]]:
    """The user's modules that are loaded and have a file: name -> module and file."""
    return {name: (module, file) for name, module, file in _written() if file is not None}


def without_file() -> set[str]:
    """The names of the user's modules that are loaded and were made by a program, not from a file."""
    return {name for name, _, file in _written() if file is None}


_looked_at: dict[str, tuple[int, bool, str | None]] = {}
_listed: tuple[Any, list[tuple[str, Any, str | None]]] = None, []


def _written() -> list[tuple[str, Any, str | None]]:
    """The user's modules that are loaded: name, module and file; looked for again where Python's list has changed."""
    global _listed  # noqa: PLW0603
    modules = dict(sys.modules)
    listed = tuple(modules), tuple(map(id, modules.values()))
    known, written = _listed
    if listed == known:
        return written
    written = []
    for name, module in modules.items():
        looked_at = _looked_at.get(name)
        if looked_at is None or looked_at[0] != id(module):
            looked_at = _looked_at[name] = id(module), *_look_at(name, module)
        if looked_at[1]:
            written.append((name, module, looked_at[2]))
    _listed = listed, written
    return written


def _look_at(name: str, module: Any) -> tuple[bool, str | None]:
    """Whether a module is the user's, and its file."""
    if issubclass(type(module), types.ModuleType):  # some only say that they are one
        written = name != "__mp_main__" and library(name) is None
        return written, _file(module) if written else None
    found = None if name.partition(".")[0] in KNOWN else _find(name)  # what a module has put in its own place
    file = None if found is None else found.origin
    written = file is not None and Path(file).is_absolute() and not is_installed(file)
    return written, file if written else None


def _find(name: str) -> ModuleSpec | None:
    """What would be imported by a name; nothing is imported."""
    found, path = None, None
    with contextlib.suppress(ImportError, ValueError):
        parts = name.split(".")
        for n in range(1, len(parts) + 1):
            found = PathFinder.find_spec(".".join(parts[:n]), path)
            path = None if found is None else found.submodule_search_locations
            if found is None:
                break
    return found


def content(module: Any, file: str) -> Source:
    """The content of a module that is loaded; with the digest "?" where its file has changed since."""
    source = of_file(file, _facts(module).get("__loader__"), str(_facts(module).get("__name__")))
    return source if source.digest != UNKNOWN and _is_as_loaded(module, file, source) else Source(UNKNOWN)


def content_now(name: str, place: str) -> str | None:
    """Digest of a module as it is or would be imported now; None where there is none of this name.

    Parameters
    ----------
    name : str
    place : str
        Where its file was, as `place_of` says it: looked at where the name is not found.
    """
    if name in (here := loaded()):
        return content(*here[name]).digest
    found = _find(name)
    if found is not None and found.origin is not None:
        return of_file(found.origin, found.loader, name).digest
    digests = {of_file(str(file), None, name).digest for file in files_at(place)}
    return digests.pop() if len(digests) == 1 else None


def place_of(file: str, folders: list[str]) -> str:
    """A file's path from the one of `folders` that it lies below; else its whole path."""
    root = _under(file, folders)
    return file if root is None else Path(os.path.relpath(file, root)).as_posix()


def files_at(place: str) -> list[Path]:
    """The files that are now where `place_of` said that one was."""
    if Path(place).is_absolute():
        return [Path(place)] if os.path.lexists(place) else []
    return [path for path in {Path(root, place): None for root in roots()} if os.path.lexists(path)]


def roots(modules: Mapping[str, tuple[Any, str]] | None = None) -> list[str]:
    """Folders of the user's program: those of its modules, the program's own first, then the working directory.

    Parameters
    ----------
    modules : mapping, optional
        As `loaded` gives them. Defaults to those that are loaded.
    """
    found: dict[str, None] = {}
    if modules is None:
        modules = loaded()
    for name in sorted(modules, key=lambda name: (name != "__main__", name)):
        module, file = modules[name]
        folder = Path(file).parent
        if _facts(module).get("__path__") is not None:  # a package
            folder = folder.parent
        for _ in range(name.count(".")):
            folder = folder.parent
        found[str(folder)] = None
    found[str(Path.cwd())] = None
    return [root for root in found if root != str(Path(root).parent)]


def outside(modules: Mapping[str, types.ModuleType]) -> dict[str, tuple[Any, str]]:
    """Of some modules, those of the user's that Python does not list as loaded: name -> module and file."""
    files = {name: _file(module) for name, module in modules.items() if sys.modules.get(name) is not module}
    return {name: (modules[name], file) for name, file in files.items() if file is not None and not is_installed(file)}


def _file(module: Any) -> str | None:
    file = _facts(module).get("__file__")
    return os.path.abspath(file) if isinstance(file, str) else None  # noqa: PTH100 - links are not followed


def _facts(module: Any) -> dict[str, Any]:
    """A module's variables; some load themselves when they are asked for an attribute."""
    try:
        return object.__getattribute__(module, "__dict__")
    except AttributeError:  # an object in the place of a module
        return {}


def _under(file: str, folders: Any) -> str | None:
    return next((each for each in folders if file.startswith(each.rstrip(os.sep) + os.sep)), None)


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    return tuple({each for path in paths for each in (path, os.path.realpath(path))})


def of_file(file: str, loader: Any = None, name: str = "") -> Source:
    """The content of a file with code; with the digest "?" where it can't be read."""
    try:
        facts = Path(file).stat()
        stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    except OSError:  # in an archive, or gone
        stamp = None
    try:
        return _read(file, stamp) if stamp else _ask(loader, name)
    except (OSError, ImportError, SyntaxError, ValueError):
        return Source(UNKNOWN)


@functools.lru_cache(maxsize=4096)
def _read(file: str, stamp: Any) -> Source:  # noqa: ARG001 - what is kept is kept for it
    raw = Path(file).read_bytes()
    if not file.endswith((".py", ".pyw")) and b"\0" in raw[:4096]:  # compiled: an extension, or Python's own
        return Source(hashlib.sha256(raw).hexdigest()[:16])
    try:
        return _compiled(raw)
    except (SyntaxError, ValueError):  # no Python
        return Source(hashlib.sha256(raw).hexdigest()[:16])


def _ask(loader: Any, name: str) -> Source:
    """The content of a module that lies in an archive."""
    source = loader.get_source(name) if hasattr(loader, "get_source") else None
    if source is not None:
        return _compiled(source)
    code = loader.get_code(name) if hasattr(loader, "get_code") else None
    return Source(UNKNOWN) if code is None else Source(code_digest(code), code)


def _compiled(source: bytes | str) -> Source:
    whole = counted = compile(source, "", "exec", dont_inherit=True)
    words = source.decode(errors="replace") if isinstance(source, bytes) else source
    if any(word in words.lower() for word in ("record_search", "searchcv", "resume")):
        tree = _Counted().visit(ast.parse(source))
        counted = compile(ast.fix_missing_locations(tree), "", "exec", dont_inherit=True)
    return Source(code_digest(counted), whole)


class _Counted(ast.NodeTransformer):
    """Leaves out what does not count."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called == "record_search":
            node.keywords = [each for each in node.keywords if each.arg == "search"]
        elif called.endswith("SearchCV"):
            node.keywords = [each for each in node.keywords if each.arg not in NOT_COUNTED]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if len(names) == len(node.targets) and all(name.lower() == "resume" for name in names):
            node.value = ast.Constant(None)
        return node


def _is_as_loaded(module: Any, file: str, source: Source) -> bool:
    """Whether the functions of a module are those of its file; known where that is older than the process."""
    if source.code is None or type(_facts(module).get("__loader__")) is not SourceFileLoader:
        return True  # pytest and others compile another code from it
    try:
        facts = Path(file).stat()
    except OSError:
        return True
    if max(facts.st_mtime, facts.st_ctime) < _began():
        return True
    members = list(_facts(module).values())
    members += [each for kind in members if isinstance(kind, type) for each in list(vars(kind).values())]
    codes = [
        each.__code__ for each in (getattr(member, "__func__", member) for member in members)
        if isinstance(each, types.FunctionType) and each.__globals__ is _facts(module)
    ]  # fmt: skip
    theirs = inner(source.code)
    return all(code_digest(code) in theirs for code in codes if Path(code.co_filename).name == Path(file).name)


@functools.cache
def _began() -> float:
    """When this process began, or a little earlier, in seconds since the epoch; 0 where that is not known."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        lines = Path("/proc/stat").read_text().splitlines()
        boot = int(next(line for line in lines if line.startswith("btime")).split()[1])
        return boot + ticks / os.sysconf("SC_CLK_TCK") - 2
    except (OSError, ValueError, StopIteration, IndexError):
        return 0.0
