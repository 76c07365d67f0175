"""Attributes of other libraries that are replaced while they are used, and restored after the last use."""

from __future__ import annotations

import contextlib
import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._forks import abandon_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Patch:
    """Replacement of an attribute of a class or module, in place while it has users.

    The first user installs it and the last one removes it; users may come and go in any order and in any thread. If
    other code has replaced our replacement in the meantime, its replacement stays. Ours, which it may call, then does
    nothing after the last use; the next user puts a new one on top.

    Parameters
    ----------
    name : str
        Name of the attribute.
    make : callable
        Original -> replacement.
    """

    lock = threading.RLock()  # for all: several may replace the same attribute

    def __init__(self, name: str, make: Callable[[Any], Any]) -> None:
        self._name = name
        self._make = make
        self._n_users = 0
        self._n_layers = 0
        abandon_in_child(self)

    def abandon(self) -> None:
        """Replace the lock in a forked child process, where a thread that holds it does not exist."""
        Patch.lock = threading.RLock()

    @contextlib.contextmanager
    def on(self, owner: Any) -> Iterator[None]:
        """Use the replacement inside the block; `owner`, always the same one, has the attribute."""
        self.enter(owner)
        try:
            yield
        finally:
            self.leave(owner)

    def enter(self, owner: Any) -> None:
        """Begin a use of the replacement."""
        with Patch.lock:
            self._put_on_top(owner)
            self._n_users += 1

    def restore(self, owner: Any) -> None:
        """Put the replacement in place again, if it has users and other code has just restored the original."""
        with Patch.lock:
            top = self._top_layer(owner)
            if self._n_users and (top is None or top.patch is not self):
                self._n_layers = 0
                self._put_on_top(owner)

    def _put_on_top(self, owner: Any) -> None:
        top = self._top_layer(owner)
        if top is None or top.patch is not self:
            original = self._current(owner)
            replacement = self._make(original)
            replacement._mlflow_hp_layer = _Replacement(self, replacement, original, self._name in vars(owner))
            setattr(owner, self._name, replacement)
            self._n_layers += 1

    def leave(self, owner: Any) -> None:
        """End a use of the replacement; remove all on top that are not in use."""
        with Patch.lock:
            self._n_users -= 1
            while (layer := self._top_layer(owner)) is not None and not layer.patch._n_users:
                if layer.is_own:
                    setattr(owner, self._name, layer.original)
                else:
                    delattr(owner, self._name)
                layer.patch._n_layers -= 1

    def _current(self, owner: Any) -> Any:
        return vars(owner).get(self._name) or getattr(owner, self._name)

    def _top_layer(self, owner: Any) -> _Replacement | None:
        """Return the replacement in place, if it is one of ours, of whatever patch."""
        current = self._current(owner)
        layer = getattr(current, "_mlflow_hp_layer", None)  # `functools.wraps` copies it into wrappers of ours
        return layer if layer is not None and layer.replacement is current else None


class _Replacement(NamedTuple):
    """Patch, replacement, its original, and whether the original was an attribute of the owner itself."""

    patch: Patch
    replacement: Any
    original: Any
    is_own: bool


class MethodPatch(Patch):
    """Replacement of a method of a class, in place while it has users.

    Each call acts once, also if replacements of ours are both above and below a replacement by other code.

    Parameters
    ----------
    name : str
        Name of the method.
    act : callable
        Called instead of the method, with the original method before the arguments.
    """

    def __init__(self, name: str, act: Callable[..., Any]) -> None:
        super().__init__(name, self._around)
        self._act = act
        self._acted_for: ContextVar[Any] = ContextVar(f"mlflow_hp_{name}", default=None)

    def _around(self, original: Any) -> Any:
        is_lowest = not self._n_layers

        @functools.wraps(original)
        def replacement(*arguments: Any, **named: Any) -> Any:
            instance = arguments[0] if arguments else None
            if not self._n_users:
                return original(*arguments, **named)
            has_acted = instance is not None and self._acted_for.get() is instance
            token = self._acted_for.set(None if is_lowest else instance)
            try:
                if has_acted:  # in a replacement of ours above this one
                    return original(*arguments, **named)
                return self._act(original, *arguments, **named)
            finally:
                self._acted_for.reset(token)

        return replacement
