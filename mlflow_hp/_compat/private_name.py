"""Private name of another library, checked before it is used."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._notice import warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class UnsupportedVersionError(Exception):
    """A private name of a library is missing, or not as expected.

    Parameters
    ----------
    problem : str
        Library, version, and the problem with the name.
    fallback : str
        Description of the fallback, as the end of a sentence.

    Attributes
    ----------
    problem : str
        As above.
    """

    def __init__(self, problem: str, fallback: str) -> None:
        super().__init__(f"{problem}; {fallback}")
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        return UnsupportedVersionError, (self.problem, str(self).removeprefix(f"{self.problem}; "))


class ExampleCall(NamedTuple):
    """Example of the arguments of a function; only their number and names matter."""

    arguments: Sequence[Any]
    named: Mapping[str, Any]


def call(*arguments: Any, **named: Any) -> ExampleCall:
    """Make an example of the arguments of a function."""
    return ExampleCall(arguments, named)


class PrivateName:
    """Private name of another library that this package uses.

    Parameters
    ----------
    library : str
        Name of the distribution, such as "scikit-learn".
    owner : str
        Full name of the module, or name of the class, that defines the name.
    name : str
        The private name.
    fallback : str
        Description of the fallback in a warning, as the end of a sentence.
    takes : ExampleCall, optional
        Arguments that it is called with, which its signature must accept. Defaults to None: it is not called.
    kind : type or tuple of types, optional
        Type that it must be an instance of. Defaults to any.
    """

    def __init__(
        self,
        library: str,
        owner: str,
        name: str,
        *,
        fallback: str,
        takes: ExampleCall | None = None,
        kind: type | tuple[type, ...] = object,
    ) -> None:
        self.library, self.owner, self.name, self.fallback = library, owner, name, fallback
        self.takes, self.kind = takes, kind
        self._checked_function: Any = None

    def of(self, holder: Any = None) -> Any:
        """Return the attribute of `holder`, or of the module `owner` if it is None.

        Raises
        ------
        UnsupportedVersionError
            If it is missing, has another type, or cannot be called as expected.
        """
        try:
            value = getattr(import_module(self.owner) if holder is None else holder, self.name)
        except (ImportError, AttributeError):
            raise self.unsupported("was not found") from None
        if not isinstance(value, self.kind):
            raise self.unsupported(f"is a {type(value).__name__}")
        if self.takes is not None:
            self._check_signature(getattr(value, "__func__", value), value)
        return value

    def call(self, holder: Any, *arguments: Any, **named: Any) -> Any:
        """Call the attribute of `holder`, or of its module if it is None; it must not call code of the user.

        Raises
        ------
        UnsupportedVersionError
            As `of`; or if the call raises an error.
        """
        function = self.of(holder)
        try:
            return function(*arguments, **named)
        except Exception as error:
            raise self.unsupported(f"raised {type(error).__name__}: {error}") from error

    def call_method(self, value: Any, method: str, *arguments: Any) -> Any:
        """Call a public method of `value`, which `of` has returned; it must not call code of the user.

        Raises
        ------
        UnsupportedVersionError
            If the call raises an error.
        """
        try:
            return getattr(value, method)(*arguments)
        except Exception as error:
            raise self.unsupported(f"raised {type(error).__name__}: {error}") from error

    def unsupported(self, problem: str) -> UnsupportedVersionError:
        """Make the error for a problem with the name."""
        return unsupported(self.library, f"{self.owner}.{self.name} {problem}", self.fallback)

    def _check_signature(self, function: Any, value: Any) -> None:
        if function is self._checked_function or self.takes is None:
            return
        try:
            inspect.signature(value).bind(*self.takes.arguments, **self.takes.named)
        except (TypeError, ValueError) as error:
            raise self.unsupported(f"cannot be called as expected: {error}") from None
        self._checked_function = function


def unsupported(library: str, problem: str, fallback: str) -> UnsupportedVersionError:
    """Make the error for a problem with the installed version of a library."""
    return UnsupportedVersionError(f"{library} {version_of(library)} is not supported: {problem}", fallback)


def version_of(library: str) -> str:
    """Return the version of an installed library."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # installed under another name, such as tensorflow-cpu
        return str(getattr(sys.modules.get(library), "__version__", "of an unknown version"))


def warn_once(error: UnsupportedVersionError | str) -> None:
    """Warn of an unsupported version, once in a process for each message."""
    message = str(error)
    if message not in issued_warnings:
        issued_warnings.add(message)
        warn(message)


issued_warnings: set[str] = set()
"""Messages that `warn_once` has issued in this process."""
