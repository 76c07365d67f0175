"""Private names of libraries as another version might have them: the libraries themselves still work."""

from __future__ import annotations

import importlib

import mlflow_hp.search.record_search  # noqa: F401 - and with it all that looks up names when it is imported
from mlflow_hp._compat import private_name

OTHER = "mlflow_hp_other"
FORMS = {
    "gone": "was not found",
    "called in another way": "cannot be called as expected: missing a required argument: 'other'",
    "raising": "raised ZeroDivisionError",
    "something else": "",
}
"""How a name may change, and what is said of it."""


def change(patch, name, form, owner=None):
    """Have a `PrivateName` mean another one of its `owner` (None: of its module), which is as `form` says.

    Returns
    -------
    str
        The beginning of what is told.
    """

    def other(*_, other, **__):
        return other

    def raising(*_, **__):
        1 / 0  # noqa: B018

    there = {"raising": raising, "called in another way": other, "something else": lambda *_, **__: object()}
    patch.setattr(name, "name", OTHER)
    patch.setattr(private_name, "issued_warnings", set())
    if form in there:
        owner = importlib.import_module(name.owner) if owner is None else owner
        patch.setattr(owner, OTHER, there[form], raising=False)
    version = private_name.version_of(name.library)
    return f"{name.library} {version} is not supported: {name.owner}.{OTHER} {FORMS[form]}"
