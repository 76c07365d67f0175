"""Values that code refers to: variables of modules, functions, classes, the environment.

Which variables a function reads is not decidable; this takes more than it reads, as far as names show: the global
variables named in its code, and of each module that it names or receives, the variables whose names appear in its code
or in strings that it may use. Where code computes names (``getattr``, ``vars``), all variables count.
"""

from __future__ import annotations

import decimal
import os
import re
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn

from mlflow_hp.search.resume.bytecode import reads
from mlflow_hp.search.resume.fingerprint import PLAIN, Fingerprinter, NoFingerprintError, short
from mlflow_hp.search.resume.sources import library, loaded, without_file

if TYPE_CHECKING:
    from collections.abc import Collection

COMPUTED = {"getattr", "attrgetter", "vars", "globals", "locals", "eval", "exec", "__dict__", "__getattribute__"}
"""Names with which code can read variables whose names it computes."""
OF_OBJECTS = {"getattr", "attrgetter", "__dict__", "__getattribute__"}
"""Those of them that read from an object, not from the function's own module."""
IMPORTS = {"import_module", "__import__", "modules"}
ENVIRONMENT = {"environ", "environb", "getenv"}
MACHINE_VARIABLES = re.compile(
    "(HOME|USER|LOGNAME|HOST|HOSTNAME|PWD|OLDPWD|PATH|SHELL|TERM|DISPLAY|TMP|TEMP|TMPDIR|CUDA_VISIBLE_DEVICES|"
    "(SLURM|PBS|LSB|SGE|_?MLFLOW|XDG)_.*)"
)
"""Environment variables that say where a program runs, not what it computes."""
SESSION_VARIABLES = re.compile(
    "(_|SHLVL|COLUMNS|LINES|LS_COLORS|COLORTERM|WINDOWID|PS1|LESS.*|VIRTUAL_ENV.*|PYTHON.*|PYTEST_.*|"
    "(SSH|TERM|VSCODE|DBUS|GIT|CONDA|GNOME|KDE|TMUX|JPY|TF_CPP)_.*)"
)
"""Environment variables that differ between sessions; they count only if code names them."""
DEFAULT_SETTINGS: dict[str, dict[str, Any]] = {
    "sklearn.get_config": {
        "assume_finite": False,
        "array_api_dispatch": False,
        "enable_metadata_routing": False,
        "skip_parameter_validation": False,
        "transform_output": "default",
    },
    "numpy.geterr": {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
    "decimal.getcontext": {"prec": 28, "rounding": decimal.ROUND_HALF_EVEN},
}
"""Settings of a process, of other libraries than Keras, that bear on results -> their defaults."""
VARIABLE = re.compile("[A-Z][A-Z0-9]*_[A-Z0-9_]*")
NAME_BESIDE_ENVIRONMENT = re.compile("[A-Z][A-Z0-9_]+")
"""Name of a variable, in a function that reads the environment."""


def digest(value: Any) -> str:
    """Digest of a value and of everything that its code refers to; the same for equal values in another process.

    Raises
    ------
    NoFingerprintError
        If a part of it cannot be fingerprinted.
    """
    fingerprinter = Fingerprinter()
    fingerprint = fingerprinter.of(value)
    return short((fingerprint, sorted(referenced_values(fingerprinter).items())))


def referenced_values(fingerprinter: Fingerprinter) -> dict[str, str]:
    """Digests of everything that the code met by a fingerprinter refers to.

    Returns
    -------
    dict of str to str
        Name with its module (``helpers.WIDTH``) -> digest; the environment as ``os.environ['WIDTH']``.

    Raises
    ------
    NoFingerprintError
        If one of the values cannot be fingerprinted; the message names the variable.
    """
    entries: dict[str, str] = {}
    while new := sorted((key, location) for key, location in _variables(fingerprinter).items() if key not in entries):
        for key, (module, name, is_certain) in new:
            try:
                entries[key] = short(fingerprinter.of_code(_values(fingerprinter)[module][name]))
            except NoFingerprintError as error:
                if is_certain:
                    raise NoFingerprintError(f"{key}: {error}") from error
                entries[key] = "unknown"
    for name, digests in fingerprinter.entries.items():
        entries[f"{name}()"] = short(digests)
    entries |= {f"os.environ[{name!r}]": short(os.environ.get(name)) for name in _environment(fingerprinter)}
    return entries | _settings(fingerprinter)


def _values(fingerprinter: Fingerprinter) -> dict[str, dict[str, Any]]:
    """Variables of the modules that were met themselves or through one of their functions."""
    homes = {name: each.__globals__ for name, each in zip(_homes(fingerprinter), fingerprinter.functions, strict=True)}
    return {**_modules(fingerprinter), **homes}


def _homes(fingerprinter: Fingerprinter) -> list[str]:
    """Module of each function that was met; a numbered placeholder for code compiled without a module."""
    numbers: dict[int, int] = {}
    homes = []
    for each in fingerprinter.functions:
        name = each.__globals__.get("__name__")
        homes.append(str(name or f"<namespace {numbers.setdefault(id(each.__globals__), len(numbers))}>"))
    return homes


def _variables(fingerprinter: Fingerprinter) -> dict[str, tuple[str, str, bool]]:
    """Module and name of each variable that may be read, and whether the code names it."""
    located: dict[str, tuple[str, str, bool]] = {}

    def add(module: str, variables: dict[str, Any], names: Collection[str], everything: bool) -> None:
        for name, value in list(variables.items()):
            if (everything or name in names) and _counts(name, value):
                is_named = name in names or located.get(f"{module}.{name}", (module, name, False))[2]
                located[f"{module}.{name}"] = module, name, is_named

    code_reads = [(each.__globals__, reads(each.__code__)) for each in fingerprinter.functions]
    for home, (variables, read) in zip(_homes(fingerprinter), code_reads, strict=True):
        add(home, variables, read.variables, bool(read.names & (COMPUTED - OF_OBJECTS)))
    names = {name for _, read in code_reads for name in read.names | read.strings} | fingerprinter.strings
    for module, variables in _modules(fingerprinter).items():
        add(module, variables, names, bool(names & COMPUTED))
    return located


def _modules(fingerprinter: Fingerprinter) -> dict[str, dict[str, Any]]:
    """The user's modules that code names or receives, with their variables."""
    met = {name: vars(module) for name, module in fingerprinter.modules.items()}
    if not fingerprinter.functions:
        return met
    code_reads = [reads(each.__code__) for each in fingerprinter.functions]
    imports = {name.lstrip(".") for read in code_reads for name in read.imports}
    if any(read.names & IMPORTS for read in code_reads):
        imports |= {name.lstrip(".") for read in code_reads for name in read.strings} | fingerprinter.strings
    last_parts = {each.rpartition(".")[2] for each in imports}
    matching = {name for name in {*loaded(), *without_file()} if name.rpartition(".")[2] in last_parts}
    parents = {name[:index] for name in matching for index, letter in enumerate(name) if letter == "."}
    imported = {name: sys.modules.get(name) for name in matching | parents}
    real_modules = {name: module for name, module in imported.items() if issubclass(type(module), types.ModuleType)}
    return {**{name: vars(module) for name, module in real_modules.items() if library(name) is None}, **met}


def _counts(name: str, value: Any) -> bool:
    """Whether a variable bears on results: not ``resume``, which controls recording, nor most dunders."""
    dunder = name.startswith("__") and name.endswith("__")
    return name.lower() != "resume" and (
        not dunder or ((name == "__file__" or isinstance(value, PLAIN)) and name != "__doc__")
    )


def _environment(fingerprinter: Fingerprinter) -> list[str]:
    """Environment variables that code may read, set or not: by name or prefix if it has any, else all."""
    code_reads = [reads(each.__code__) for each in fingerprinter.functions]
    if not (fingerprinter.asks_environment or any(read.names & ENVIRONMENT for read in code_reads)):
        return []
    strings = {name for read in code_reads for name in read.strings} | fingerprinter.strings
    names = {name for name in strings if name in os.environ or VARIABLE.fullmatch(name)}
    near = {name for read in code_reads if read.names & ENVIRONMENT for name in read.strings}
    names |= {name for name in near if NAME_BESIDE_ENVIRONMENT.fullmatch(name)}
    prefixes = tuple(name for name in names if name.endswith("_"))
    if names:
        names |= {name for name in os.environ if prefixes and name.startswith(prefixes)}
    else:  # the names are computed
        names = {name for name in os.environ if not SESSION_VARIABLES.fullmatch(name)}
    return sorted(name for name in names if not MACHINE_VARIABLES.fullmatch(name))


def _settings(fingerprinter: Fingerprinter) -> dict[str, str]:
    """Global settings of Keras; those of other libraries where they are not the default ones."""
    settings = {
        f"{source}.{name}": short(value)
        for source, values in _changed_settings().items()
        for name, value in values.items()
    }
    keras: Any = sys.modules.get("keras")
    if keras is None or not fingerprinter.packages & {"keras", "tensorflow", "scikeras"}:
        return settings
    config = keras.config
    of_keras = (config.backend(), config.floatx(), config.epsilon(), config.image_data_format(),
                str(config.dtype_policy().name))  # fmt: skip
    return {**settings, "keras.config": short(of_keras)}


def _changed_settings() -> dict[str, dict[str, Any]]:
    """Settings that bear on results, of scikit-learn, NumPy and decimal, where they differ from the default ones."""
    values = {
        "sklearn.get_config": sklearn.get_config(),
        "numpy.geterr": np.geterr(),
        "decimal.getcontext": {"prec": decimal.getcontext().prec, "rounding": decimal.getcontext().rounding},
    }
    return {
        source: {name: values[source][name] for name, usual in defaults.items() if values[source].get(name) != usual}
        for source, defaults in DEFAULT_SETTINGS.items()
    }
