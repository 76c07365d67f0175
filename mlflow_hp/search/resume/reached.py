"""What code reads: the variables of modules, by value, the functions and classes, the environment.

Which variables a function reads is not decidable; what is looked at is more than it reads, as far as names show. A
function reads the global variables that its code names, and of a module that it names or is given, the variables whose
names its code or a text in its reach spells; all of them where code asks by computed names (``getattr``, ``vars``).
"""

from __future__ import annotations

import os
import re
import sys
import types
from typing import TYPE_CHECKING, Any

from mlflow_hp.search.resume.bytecode import reads
from mlflow_hp.search.resume.fingerprint import PLAIN, Look, NoFingerprintError, short
from mlflow_hp.search.resume.sources import library, loaded, without_file

if TYPE_CHECKING:
    from collections.abc import Collection

COMPUTED = {"getattr", "attrgetter", "vars", "globals", "locals", "eval", "exec", "__dict__", "__getattribute__"}
OF_OBJECTS = {"getattr", "attrgetter", "__dict__", "__getattribute__"}
IMPORTS = {"import_module", "__import__", "modules"}
ENVIRONMENT = {"environ", "environb", "getenv"}
OF_THE_MACHINE = re.compile(
    "(HOME|USER|LOGNAME|HOST|HOSTNAME|PWD|OLDPWD|PATH|SHELL|TERM|DISPLAY|TMP|TEMP|TMPDIR|CUDA_VISIBLE_DEVICES|"
    "(SLURM|PBS|LSB|SGE|MLFLOW|XDG)_.*)"
)
"""Variables that say where a program runs, not what it computes."""
OF_THE_SESSION = re.compile(
    "(_|SHLVL|COLUMNS|LINES|LS_COLORS|COLORTERM|WINDOWID|PS1|LESS.*|VIRTUAL_ENV.*|PYTHON.*|PYTEST_.*|"
    "(SSH|TERM|VSCODE|DBUS|GIT|CONDA|GNOME|KDE|TMUX|JPY|TF_CPP)_.*)"
)
"""Variables that differ from one session to the next; they count where code names them."""
VARIABLE = re.compile("[A-Z][A-Z0-9]*_[A-Z0-9_]*")


def digest(value: Any) -> str:
    """A short text that is the same for equal values, in another process too.

    Raises
    ------
    NoFingerprintError
        Where that can't be done.
    """
    look = Look()
    found = look.at(value)
    return short((found, sorted(reached(look).items())))


def reached(look: Look) -> dict[str, str]:
    """What the code that `look` has met depends on.

    Returns
    -------
    dict of str to str
        Name with its module (``helpers.WIDTH``) -> digest; the environment as ``os.environ['WIDTH']``.

    Raises
    ------
    NoFingerprintError
        Where something of it can't be known again; it says which variable.
    """
    entries: dict[str, str] = {}
    while new := sorted((key, facts) for key, facts in _variables(look).items() if key not in entries):
        for key, (module, name, is_certain) in new:
            try:
                entries[key] = short(look.of_code(_values(look)[module][name]))
            except NoFingerprintError as error:
                if is_certain:
                    raise NoFingerprintError(f"{key}: {error}") from error
                entries[key] = "unknown"
    for name, digests in look.entries.items():
        entries[f"{name}()"] = short(digests)
    entries |= {f"os.environ[{name!r}]": short(os.environ.get(name)) for name in _environment(look)}
    return entries | _settings(look)


def _values(look: Look) -> dict[str, dict[str, Any]]:
    """The variables of the modules that were met, or whose functions were."""
    homes = {name: each.__globals__ for name, each in zip(_homes(look), look.functions, strict=True)}
    return {**_modules(look), **homes}


def _homes(look: Look) -> list[str]:
    """The module of each function that was met; a name by number where a program has compiled it for itself."""
    numbers: dict[int, int] = {}
    homes = []
    for each in look.functions:
        name = each.__globals__.get("__name__")
        homes.append(str(name or f"<namespace {numbers.setdefault(id(each.__globals__), len(numbers))}>"))
    return homes


def _variables(look: Look) -> dict[str, tuple[str, str, bool]]:
    """Module and name of the variables that are read, and whether that is certain."""
    found: dict[str, tuple[str, str, bool]] = {}

    def add(module: str, variables: dict[str, Any], names: Collection[str], everything: bool) -> None:
        for name, value in list(variables.items()):
            if (everything or name in names) and _counts(name, value):
                certain = name in names or found.get(f"{module}.{name}", (module, name, False))[2]
                found[f"{module}.{name}"] = module, name, certain

    read = [(each.__globals__, reads(each.__code__)) for each in look.functions]
    for home, (variables, its) in zip(_homes(look), read, strict=True):
        add(home, variables, its.variables, bool(its.names & (COMPUTED - OF_OBJECTS)))
    names = {name for _, its in read for name in its.names | its.strings} | look.strings
    for module, its_variables in _modules(look).items():
        add(module, its_variables, names, bool(names & COMPUTED))
    return found


def _modules(look: Look) -> dict[str, dict[str, Any]]:
    """The user's modules that code names or is given, with their variables."""
    met = {name: vars(module) for name, module in look.modules.items()}
    if not look.functions:
        return met
    found = [reads(each.__code__) for each in look.functions]
    named = {name.lstrip(".") for read in found for name in read.imports}
    if any(read.names & IMPORTS for read in found):
        named |= {name.lstrip(".") for read in found for name in read.strings} | look.strings
    last = {each.rpartition(".")[2] for each in named}
    written = {name for name in {*loaded(), *without_file()} if name.rpartition(".")[2] in last}
    parents = {name[:place] for name in written for place, letter in enumerate(name) if letter == "."}
    imported = {name: sys.modules.get(name) for name in written | parents}
    theirs = {name: module for name, module in imported.items() if issubclass(type(module), types.ModuleType)}
    return {**{name: vars(module) for name, module in theirs.items() if library(name) is None}, **met}


def _counts(name: str, value: Any) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return name.lower() != "resume" and (
        not dunder or ((name == "__file__" or isinstance(value, PLAIN)) and name != "__doc__")
    )


def _environment(look: Look) -> list[str]:
    """The variables of the environment that code may read, set or not: by name, by the beginning of one, else all."""
    found = [reads(each.__code__) for each in look.functions]
    if not (look.asks_environment or any(read.names & ENVIRONMENT for read in found)):
        return []
    strings = {name for read in found for name in read.strings} | look.strings
    names = {name for name in strings if name in os.environ or VARIABLE.fullmatch(name)}
    beginnings = tuple(name for name in names if name.endswith("_"))
    if names:
        names |= {name for name in os.environ if beginnings and name.startswith(beginnings)}
    else:  # by computed names
        names = {name for name in os.environ if not OF_THE_SESSION.fullmatch(name)}
    return sorted(name for name in names if not OF_THE_MACHINE.fullmatch(name))


def _settings(look: Look) -> dict[str, str]:
    """What Keras has been told for all models."""
    keras: Any = sys.modules.get("keras")
    if keras is None or not look.packages & {"keras", "tensorflow", "scikeras"}:
        return {}
    config = keras.config
    settings = (config.backend(), config.floatx(), config.epsilon(), config.image_data_format(),
                str(config.dtype_policy().name))  # fmt: skip
    return {"keras.config": short(settings)}
