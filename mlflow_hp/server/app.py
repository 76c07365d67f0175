"""The server applications with the page, as `mlflow server --app-name` wants them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError
from mlflow_hp.server.mlflow_ui_link import link_from_stock_ui
from mlflow_hp.server.permissions import ASKED_OF_MLFLOW, everything, readable_by_sender
from mlflow_hp.server.responses import StaticFiles
from mlflow_hp.server.routes import page_blueprint

if TYPE_CHECKING:
    from flask import Flask

    from mlflow_hp.server.permissions import Readable


def create_app() -> Any:
    """MLflow's server with the page at ``/hp/``, for everyone who reaches it (``--app-name mlflow-hp``).

    Returns
    -------
    An ASGI application under uvicorn, MLflow's default; a WSGI one under gunicorn and waitress.
    """
    from mlflow.environment_variables import _MLFLOW_SGI_NAME
    from mlflow.server import app

    add_page(app, everything)
    if _MLFLOW_SGI_NAME.get() == "uvicorn":
        from mlflow.server.fastapi_app import create_fastapi_app

        return create_fastapi_app(app)
    return app


def create_app_with_basic_auth() -> Any:
    """MLflow's server with its basic authentication and the page (``--app-name mlflow-hp-basic-auth``).

    Who may not read an experiment sees nothing of it on the page; who does not log in gets 401.

    Returns
    -------
    An ASGI application under uvicorn, MLflow's default; a WSGI one under gunicorn and waitress.

    Raises
    ------
    UserError
        MLflow is too old to be asked which experiments a user may read.
    """
    from mlflow.server import app, auth

    if missing := [name for name in ASKED_OF_MLFLOW if not hasattr(auth, name)]:
        raise UserError(
            f"mlflow.server.auth of this MLflow has no {missing[0]}, by which the page asks what a user may read: "
            "install a newer MLflow, or serve the page without logins (--app-name mlflow-hp)"
        )
    for path in add_page(app, readable_by_sender):
        auth.BEFORE_REQUEST_VALIDATORS[(path, "GET")] = any_user
    return auth.create_app(app)


def any_user() -> bool:
    """What MLflow asks, after the login, before a route of the page: the routes themselves leave out what is hidden."""
    return True


def add_page(app: Flask, readable: Readable) -> list[str]:
    """Add the page to a Flask application, on which MLflow has its checks of the host already.

    Returns
    -------
    list of str
        The paths of all routes of the page.
    """
    from mlflow.server.handlers import STATIC_PREFIX_ENV_VAR

    prefix = os.environ.get(STATIC_PREFIX_ENV_VAR, "").rstrip("/")
    static = StaticFiles()
    app.register_blueprint(page_blueprint(readable, static), url_prefix=f"{prefix}/hp")
    link_from_stock_ui(app, f"{prefix}/", static.version)
    return [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("mlflow_hp.")]
