"""Server applications with the page, for `mlflow server --app-name`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.mlflow import MAY_READ_RUNS, SERVER_STORE, runs_under_uvicorn
from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError
from mlflow_hp._extras import needed_by
from mlflow_hp.errors import UserError
from mlflow_hp.server.mlflow_ui_link import add_link_to_mlflow_ui
from mlflow_hp.server.permissions import AUTH_FUNCTIONS, allow_all, readable_by_sender
from mlflow_hp.server.responses import StaticFiles
from mlflow_hp.server.routes import page_blueprint

if TYPE_CHECKING:
    from flask import Flask

    from mlflow_hp.server.permissions import ReadFilter


def create_app() -> Any:
    """Create MLflow's server with the page at ``/hp/``, open to everyone who reaches it (``--app-name mlflow-hp``).

    Returns
    -------
    object
        An ASGI application under uvicorn, MLflow's default; a WSGI application under gunicorn and waitress.

    Examples
    --------
    >>> from mlflow_hp.server import create_app
    >>> callable(create_app)  # MLflow calls it: mlflow server --app-name mlflow-hp
    True
    """
    from mlflow.server import app

    add_page(app, allow_all)
    if runs_under_uvicorn():
        from mlflow.server.fastapi_app import create_fastapi_app

        return create_fastapi_app(app)
    return app


def create_app_with_basic_auth() -> Any:
    """Create MLflow's server with basic authentication and the page (``--app-name mlflow-hp-basic-auth``).

    The page shows a user nothing of an experiment that they may not read, and answers 401 without a login.

    Returns
    -------
    object
        An ASGI application under uvicorn, MLflow's default; a WSGI application under gunicorn and waitress.

    Raises
    ------
    UserError
        If MLflow is too old to tell which experiments a user may read.

    Examples
    --------
    >>> from mlflow_hp.server import create_app_with_basic_auth
    >>> callable(create_app_with_basic_auth)  # MLflow calls it: mlflow server --app-name mlflow-hp-basic-auth
    True
    """
    from mlflow.server import app, auth

    if missing := [name for name in AUTH_FUNCTIONS if not hasattr(auth, name)]:
        raise UserError(
            f"mlflow.server.auth of this MLflow has no {missing[0]}, which the page needs to find out what a user may "
            "read: install a newer MLflow, or serve the page without logins (--app-name mlflow-hp)"
        )
    _demand(MAY_READ_RUNS)
    paths = add_page(app, readable_by_sender)
    auth.BEFORE_REQUEST_VALIDATORS = _Validators(auth.BEFORE_REQUEST_VALIDATORS, paths)
    return auth.create_app(app)


class _Validators(dict[Any, Any]):
    """MLflow's validators by path and method, and one for the page's routes, of which some have an id of a run."""

    def __init__(self, validators: dict[Any, Any], paths: list[str]) -> None:
        super().__init__(validators)
        self._patterns = [re.compile(re.sub("<[^>]+>", "[0-9a-zA-Z]+", re.escape(path))) for path in paths]

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the validator of a path and method."""
        path, method = key
        if method == "GET" and any(pattern.fullmatch(path) for pattern in self._patterns):
            return allow_every_user
        return super().get(key, default)


def _demand(name: PrivateName) -> None:
    """Refuse to start where MLflow lacks a name: what a user may read is not guessed."""
    try:
        name.of()
    except UnsupportedVersionError as error:
        raise UserError(str(error)) from error


def allow_every_user() -> bool:
    """Let every logged-in user reach the page's routes, which filter by experiment themselves."""
    return True


@needed_by("the page")
def add_page(app: Flask, readable: ReadFilter) -> list[str]:
    """Add the page to MLflow's Flask application, whose host checks then cover it.

    Returns
    -------
    list of str
        Paths of all routes of the page.

    Raises
    ------
    UserError
        The server of this version of MLflow does not give its store.
    """
    from mlflow.server.handlers import STATIC_PREFIX_ENV_VAR

    _demand(SERVER_STORE)
    prefix = os.environ.get(STATIC_PREFIX_ENV_VAR, "").rstrip("/")
    static = StaticFiles()
    page = page_blueprint(readable, static)
    app.register_blueprint(page, url_prefix=f"{prefix}/hp")
    add_link_to_mlflow_ui(app, f"{prefix}/", static.version)
    return [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith(f"{page.name}.")]
