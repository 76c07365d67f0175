"""The user's modules, identified by the content of their source.

A module is the user's if it does not lie where Python or its packages are installed. The compiled source is compared,
so that comments and formatting do not count. Settings that only control recording or parallelism do not count either:
the keywords of ``record_search``; ``n_jobs``, ``pre_dispatch`` and ``verbose`` of a ``...SearchCV``; and values
assigned to a name ``resume``.
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

import psutil

from mlflow_hp.search.resume.bytecode import all_digests, code_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.machinery import ModuleSpec

LIBRARIES = ("sklearn", "numpy", "scipy", "pandas", "joblib", "keras", "tensorflow", "scikeras", "mlflow", "mlflow_hp")
"""Libraries wherever they are installed, even from a checkout."""
UNKNOWN = "?"
"""Digest of a module whose file has changed since it was loaded, or is unreadable."""
PARALLELISM = ("n_jobs", "pre_dispatch", "verbose")
"""Arguments of a search that do not count."""


class ModuleSource(NamedTuple):
    """Content of a module's file: a digest of the parts that count, and the code if it is Python."""

    digest: str
    code: types.CodeType | None = None


def library(module: str | None) -> str | None:
    """Name of a module if it belongs to Python or a library; None if it is the user's."""
    name = module or "builtins"
    if name.partition(".")[0] in LIBRARIES or name in sys.builtin_module_names:
        return name
    loaded_module = sys.modules.get(name)
    if loaded_module is None or not issubclass(type(loaded_module), types.ModuleType):
        return None
    file = _file(loaded_module)
    if file is None:
        origin = getattr(_variables(loaded_module).get("__spec__"), "origin", None)
        package = name.rpartition(".")[0]
        return name if origin in ("frozen", "built-in") or (package and library(package)) else None
    return name if is_installed(file) else None


@functools.cache
def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or an installed package."""
    parts = file.replace("\\", "/").split("/")
    return "site-packages" in parts or "dist-packages" in parts or _under(file, _installed()) is not None


def loaded() -> dict[str, tuple[Any, str]]:
    """The user's loaded modules that have a file: name -> module and file."""
    return {name: (module, file) for name, module, file in _user_modules() if file is not None}


def without_file() -> set[str]:
    """Names of the user's loaded modules that have no file."""
    return {name for name, _, file in _user_modules() if file is None}


_classified: dict[str, tuple[int, bool, str | None]] = {}
_listed: tuple[Any, list[tuple[str, Any, str | None]]] = None, []
"""Names and modules of `sys.modules`, and what `_user_modules` returned for them."""


def _user_modules() -> list[tuple[str, Any, str | None]]:
    """The user's loaded modules: name, module and file; cached until `sys.modules` changes."""
    global _listed  # noqa: PLW0603
    modules = dict(sys.modules)
    state = list(modules), list(modules.values())  # lists compare by identity first: fast, for thousands of modules
    cached_state, user_modules = _listed
    if state == cached_state:
        return user_modules
    user_modules = []
    for name, module in modules.items():
        classified = _classified.get(name)
        if classified is None or classified[0] != id(module):
            classified = _classified[name] = id(module), *_classify(name, module)
        if classified[1]:
            user_modules.append((name, module, classified[2]))
    _listed = state, user_modules
    return user_modules


def _classify(name: str, module: Any) -> tuple[bool, str | None]:
    """Whether a module is the user's, and its file."""
    if issubclass(type(module), types.ModuleType):  # not isinstance: lazy modules fake __class__
        is_users = name != "__mp_main__" and library(name) is None
        return is_users, _file(module) if is_users else None
    spec = None if name.partition(".")[0] in LIBRARIES else _find(name)  # a module replaced itself by an object
    file = None if spec is None else spec.origin
    is_users = file is not None and Path(file).is_absolute() and not is_installed(file)
    return is_users, file if is_users else None


def _find(name: str) -> ModuleSpec | None:
    """Find the module that a name would import, without importing it."""
    spec, path = None, None
    with contextlib.suppress(ImportError, ValueError):
        parts = name.split(".")
        for n in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:n]), path)
            path = None if spec is None else spec.submodule_search_locations
            if spec is None:
                break
    return spec


def content(module: Any, file: str) -> ModuleSource:
    """Content of a loaded module; digest ``UNKNOWN`` if its file has changed since."""
    source = of_file(file, _variables(module).get("__loader__"), str(_variables(module).get("__name__")))
    return source if source.digest != UNKNOWN and _is_as_loaded(module, file, source) else ModuleSource(UNKNOWN)


def content_now(name: str, place: str) -> str | None:
    """Digest of a module as it is loaded or would be imported now; None if there is no such module.

    Parameters
    ----------
    name : str
    place : str
        Earlier place of its file (see `place_of`), used if the name is not found.
    """
    if name in (user_modules := loaded()):
        return content(*user_modules[name]).digest
    spec = _find(name)
    if spec is not None and spec.origin is not None:
        return of_file(spec.origin, spec.loader, name).digest
    digests = {of_file(str(file), None, name).digest for file in files_at(place)}
    return digests.pop() if len(digests) == 1 else None


def place_of(file: str, folders: list[str]) -> str:
    """Place of a file: its path relative to the one of `folders` that contains it, else the absolute path."""
    root = _under(file, folders)
    return file if root is None else Path(os.path.relpath(file, root)).as_posix()


def files_at(place: str) -> list[Path]:
    """Files that now exist at a place, in any of the roots."""
    if Path(place).is_absolute():
        return [Path(place)] if os.path.lexists(place) else []
    return [path for path in {Path(root, place): None for root in roots()} if os.path.lexists(path)]


def roots(modules: Mapping[str, tuple[Any, str]] | None = None) -> list[str]:
    """Root folders of the user's program: of ``__main__``, of its other modules, and the working directory.

    Parameters
    ----------
    modules : mapping, optional
        As from `loaded`. Defaults to the modules loaded now.
    """
    folders: dict[str, None] = {}
    if modules is None:
        modules = loaded()
    for name in sorted(modules, key=lambda name: (name != "__main__", name)):
        module, file = modules[name]
        folder = Path(file).parent
        if _variables(module).get("__path__") is not None:  # a package
            folder = folder.parent
        for _ in range(name.count(".")):
            folder = folder.parent
        folders[str(folder)] = None
    folders[str(Path.cwd())] = None
    return [root for root in folders if root != str(Path(root).parent)]


def outside(modules: Mapping[str, types.ModuleType]) -> dict[str, tuple[Any, str]]:
    """The user's modules among `modules` that are not in `sys.modules`: name -> module and file."""
    files = {name: _file(module) for name, module in modules.items() if sys.modules.get(name) is not module}
    return {name: (modules[name], file) for name, file in files.items() if file is not None and not is_installed(file)}


def _file(module: Any) -> str | None:
    file = _variables(module).get("__file__")
    return os.path.abspath(file) if isinstance(file, str) else None  # noqa: PTH100 - links are not followed


def _variables(module: Any) -> dict[str, Any]:
    """A module's variables, without triggering a lazy module to load itself."""
    try:
        return object.__getattribute__(module, "__dict__")
    except AttributeError:  # an object in place of a module
        return {}


def _under(file: str, folders: Any) -> str | None:
    return next((each for each in folders if file.startswith(each.rstrip(os.sep) + os.sep)), None)


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    return tuple({each for path in paths for each in (path, os.path.realpath(path))})


def of_file(file: str, loader: Any = None, name: str = "") -> ModuleSource:
    """Content of a file with code; digest ``UNKNOWN`` if it is unreadable."""
    try:
        stat = Path(file).stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    except OSError:  # in an archive, or gone
        stamp = None
    try:
        return _read(file, stamp) if stamp else _read_from_archive(loader, name)
    except (OSError, ImportError, SyntaxError, ValueError):
        return ModuleSource(UNKNOWN)


@functools.lru_cache(maxsize=4096)
def _read(file: str, stamp: Any) -> ModuleSource:  # noqa: ARG001 - part of the cache's key
    raw = Path(file).read_bytes()
    if not file.endswith((".py", ".pyw")) and b"\0" in raw[:4096]:  # compiled: an extension or bytecode
        return ModuleSource(hashlib.sha256(raw).hexdigest()[:16])
    try:
        return _compiled(raw)
    except (SyntaxError, ValueError):  # not Python
        return ModuleSource(hashlib.sha256(raw).hexdigest()[:16])


def _read_from_archive(loader: Any, name: str) -> ModuleSource:
    """Content of a module in an archive."""
    source = loader.get_source(name) if hasattr(loader, "get_source") else None
    if source is not None:
        return _compiled(source)
    code = loader.get_code(name) if hasattr(loader, "get_code") else None
    return ModuleSource(UNKNOWN) if code is None else ModuleSource(code_digest(code), code)


def _compiled(source: bytes | str) -> ModuleSource:
    whole = counted = compile(source, "", "exec", dont_inherit=True)
    words = source.decode(errors="replace") if isinstance(source, bytes) else source
    if any(word in words.lower() for word in ("record_search", "searchcv", "resume")):
        tree = _WithoutSettings().visit(ast.parse(source))
        counted = compile(ast.fix_missing_locations(tree), "", "exec", dont_inherit=True)
    return ModuleSource(code_digest(counted), whole)


class _WithoutSettings(ast.NodeTransformer):
    """Removes settings of recording and parallelism from a module."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called == "record_search":
            node.keywords = [each for each in node.keywords if each.arg == "search"]
        elif called.endswith("SearchCV"):
            node.keywords = [each for each in node.keywords if each.arg not in PARALLELISM]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if len(names) == len(node.targets) and all(name.lower() == "resume" for name in names):
            node.value = ast.Constant(None)
        return node


def _is_as_loaded(module: Any, file: str, source: ModuleSource) -> bool:
    """Whether the functions of a loaded module are those of its file; true if the file is older than the process."""
    if source.code is None or type(_variables(module).get("__loader__")) is not SourceFileLoader:
        return True  # pytest and others rewrite the code
    try:
        stat = Path(file).stat()
    except OSError:
        return True
    if max(stat.st_mtime, stat.st_ctime) < _process_start():
        return True
    members = list(_variables(module).values())
    members += [each for kind in members if isinstance(kind, type) for each in list(vars(kind).values())]
    codes = [
        each.__code__ for each in (getattr(member, "__func__", member) for member in members)
        if isinstance(each, types.FunctionType) and each.__globals__ is _variables(module)
    ]  # fmt: skip
    in_file = all_digests(source.code)
    return all(code_digest(code) in in_file for code in codes if Path(code.co_filename).name == Path(file).name)


@functools.cache
def _process_start() -> float:
    """Start of this process, at most two seconds early, in seconds since the epoch; 0 if unknown."""
    try:
        return psutil.Process().create_time() - 2
    except psutil.Error:
        return 0.0
