"""The routes of the page: all of them only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, render_template
from mlflow.exceptions import MlflowException

from mlflow_hp.compare import PARTS, gather, sections, to_json
from mlflow_hp.compare.comparability import grouped
from mlflow_hp.compare.figures import line
from mlflow_hp.errors import UserError
from mlflow_hp.server import queries, request_args
from mlflow_hp.server.responses import accepts_packed, as_error, as_json, with_headers
from mlflow_hp.server.source import ReadableSource, plain_points

if TYPE_CHECKING:
    from mlflow_hp.compare import RunFacts
    from mlflow_hp.server.permissions import Readable
    from mlflow_hp.server.responses import StaticFiles

RUNS_COMPARED_AT_MOST = 100
PIXELS_AT_MOST = 4000
A_YEAR = "private, max-age=31536000, immutable"


def page_blueprint(readable: Readable, static: StaticFiles) -> Blueprint:
    """The page's routes, for an application of MLflow's server.

    Parameters
    ----------
    readable : callable
        Which experiments the sender of the request may read.
    static : StaticFiles
    """
    page = Blueprint("mlflow_hp", __name__, template_folder="templates")
    page.before_request(_what_the_page_needs)
    page.after_request(with_headers)
    page.register_error_handler(UserError, lambda error: as_error(str(error), 400))
    page.register_error_handler(MlflowException, lambda error: as_error(error.message, error.get_http_status_code()))

    @page.get("/")
    def index() -> Response:
        response = Response(render_template("mlflow_hp.html", version=static.version))
        response.headers["Cache-Control"] = "no-cache"
        return response

    for name in static.names:
        # Each has a route of its own: MLflow's basic-auth knows only whole paths.
        page.add_url_rule(f"/{static.version}/{name}", f"static {name.replace('.', ' ')}", _sender(static, name))

    @page.get("/api/experiments")
    def experiments() -> Response:
        listed = queries.experiments(_store())
        may_read = set(readable(item["id"] for item in listed))
        return as_json([item for item in listed if item["id"] in may_read])

    @page.get("/api/runs")
    def runs() -> Response:
        experiment_id = request_args.text("experiment")
        if not (queries.is_there(_store(), experiment_id) and readable([experiment_id])):
            return as_error(f"There is no experiment {request_args.shown(experiment_id)} that you may read.", 404)
        return as_json(queries.runs(_store(), experiment_id, _run_ids()))

    @page.get("/api/histories")
    def histories() -> Response:
        source = ReadableSource(_store(), readable)
        pixels = min(max(request_args.integer("pixels") or 600, 1), PIXELS_AT_MOST)
        start, end = request_args.integer("start"), request_args.integer("end")
        points = source.points(source.readable_runs(_run_ids()), request_args.text("metric"), pixels, start, end)
        return as_json({run_id: plain_points(own) for run_id, own in points.items()})

    @page.get("/api/sections")
    def compared() -> Response:
        source = ReadableSource(_store(), readable)
        run_ids = source.readable_runs(_run_ids())
        asked = request_args.texts("parts")
        if unknown := [part for part in asked if part not in PARTS]:
            raise UserError(
                f"parts={request_args.shown(unknown[0])} is not a part of a comparison: there are {', '.join(PARTS)}"
            )
        metric = request_args.text("metric") or None
        facts = gather(source, run_ids)
        wanted = sections(facts, source, metric=metric, unfinished=True, parts=tuple(asked) or PARTS)
        return as_json({"sections": [to_json(section) for section in wanted], "lines": _lines(facts, metric)})

    return page


def _lines(facts: list[RunFacts], metric: str | None) -> dict[str, dict[str, Any]]:
    """The line of each run, by id: in the first group that of its figures, in others one that is still free."""
    runs = [run for group in grouped(facts, metric, unfinished=True).groups for run in group.runs]
    return {run.run_id: line(index) for index, run in enumerate(runs)}


def _what_the_page_needs() -> Response | None:
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    if MLFLOW_ENABLE_WORKSPACES.get():
        return as_error("The page does not know workspaces: it works on servers without MLFLOW_ENABLE_WORKSPACES.", 501)
    if not hasattr(_store(), "ManagedSessionMaker"):
        return as_error(
            "The page reads a database: start the server with --backend-store-uri sqlite:///... or such.", 501
        )
    return None


def _store() -> Any:
    from mlflow.server.handlers import _get_tracking_store

    return _get_tracking_store()


def _sender(static: StaticFiles, name: str) -> Any:
    def send() -> Response:
        file = static.file(name)
        packed = accepts_packed()
        response = Response(file.packed if packed else file.content, mimetype=file.mimetype)
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = A_YEAR
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        return response

    return send


def _run_ids() -> list[str]:
    """The runs that are asked for, ids with commas between them."""
    run_ids = [run_id for run_id in request_args.texts("runs") if run_id.isalnum()]
    if len(run_ids) > RUNS_COMPARED_AT_MOST:
        raise UserError(
            f"runs= names {len(run_ids)} runs: the page compares {RUNS_COMPARED_AT_MOST} at most, `mlflow-hp compare` "
            "any number"
        )
    return run_ids
