"""Routes of the page, all of them read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, Response, render_template, request
from mlflow.exceptions import MlflowException

from mlflow_hp._compat.mlflow import server_store
from mlflow_hp.compare import PARTS, gather, sections, to_json
from mlflow_hp.compare.comparability import group_runs
from mlflow_hp.compare.figures import line
from mlflow_hp.compare.judging import JUDGES
from mlflow_hp.errors import UserError
from mlflow_hp.server import notes, queries, request_args
from mlflow_hp.server.responses import accepts_gzip, add_headers, as_error, as_json
from mlflow_hp.server.run_routes import add_run_routes
from mlflow_hp.server.source import ReadableSource, plain_points
from mlflow_hp.tracking.tags import NOTE_TAG_PREFIX

if TYPE_CHECKING:
    from mlflow_hp.compare import RunFacts
    from mlflow_hp.compare.judging import Judge
    from mlflow_hp.compare.metric_history import Axis
    from mlflow_hp.server.permissions import ReadFilter
    from mlflow_hp.server.responses import StaticFiles

MAX_COMPARED_RUNS = 100
MAX_PIXELS = 4000
MAX_WINDOW = 100_001
AXES = ("step", "log", "time")
CACHE_FOR_A_YEAR = "private, max-age=31536000, immutable"


def page_blueprint(readable: ReadFilter, static: StaticFiles) -> Blueprint:
    """Make the Flask blueprint of the page.

    Parameters
    ----------
    readable : callable
        Reduces experiment ids to those that the sender of the request may read.
    static : StaticFiles
    """
    page = Blueprint("mlflow_hp", __name__, template_folder="templates")
    page.before_request(_refuse_unsupported_store)
    page.after_request(add_headers)
    page.register_error_handler(UserError, lambda error: as_error(str(error), 400))
    page.register_error_handler(MlflowException, lambda error: as_error(error.message, error.get_http_status_code()))

    @page.get("/")
    def index() -> Response:
        response = Response(render_template("mlflow_hp.html", version=static.version))
        response.headers["Cache-Control"] = "no-cache"
        return response

    for name in static.names:
        # One route per file: MLflow's basic authentication knows exact paths only.
        page.add_url_rule(f"/{static.version}/{name}", f"static {name.replace('.', ' ')}", _static_view(static, name))

    @page.get("/api/experiments")
    def experiments() -> Response:
        listed = queries.experiments(server_store())
        may_read = set(readable(item["id"] for item in listed))
        return as_json([item for item in listed if item["id"] in may_read])

    @page.get("/api/runs")
    def runs() -> Response:
        experiment_id = request_args.text("experiment")
        if not (queries.experiment_exists(server_store(), experiment_id) and readable([experiment_id])):
            return as_error(f"There is no experiment {request_args.quoted(experiment_id)} that you may read.", 404)
        return as_json(queries.runs(server_store(), experiment_id, _run_ids()))

    @page.get("/api/histories")
    def histories() -> Response:
        source = ReadableSource(server_store(), readable)
        pixels = min(max(request_args.integer("pixels") or 600, 1), MAX_PIXELS)
        start, end = request_args.integer("start"), request_args.integer("end")
        axis = cast("Axis", request_args.one_of("x", AXES))
        window = min(max(request_args.integer("smooth") or 1, 1), MAX_WINDOW)
        run_ids, metric = source.readable_runs(_run_ids()), request_args.text("metric")
        points = source.points(run_ids, metric, pixels, start, end, axis, window)
        return as_json({run_id: plain_points(of_run) for run_id, of_run in points.items()})

    @page.get("/api/notes")
    def shared_notes() -> Response:
        asked = request_args.texts("experiments")
        experiment_ids = [each for each in asked if queries.experiment_exists(server_store(), each)]
        shared = notes.read(server_store(), readable(experiment_ids))
        sender = request.authorization.username if request.authorization else None
        return as_json({"notes": shared, "tag": NOTE_TAG_PREFIX, "sender": sender})

    @page.get("/api/sections")
    def comparison() -> Response:
        source = ReadableSource(server_store(), readable)
        run_ids = source.readable_runs(_run_ids())
        parts = request_args.texts("parts")
        if unknown := [part for part in parts if part not in PARTS]:
            raise UserError(
                f"parts={request_args.quoted(unknown[0])} is not a part of a comparison: use {', '.join(PARTS)}"
            )
        metric, judge = request_args.text("metric") or None, cast("Judge", request_args.one_of("judge", JUDGES, "auto"))
        facts = gather(source, run_ids)
        compared = sections(facts, source, metric=metric, unfinished=True, judge=judge, parts=tuple(parts) or PARTS)
        return as_json({"sections": [to_json(section) for section in compared], "lines": _lines(facts, metric, judge)})

    add_run_routes(page, readable, static)
    return page


def _lines(facts: list[RunFacts], metric: str | None, judge: Judge) -> dict[str, dict[str, Any]]:
    """Line style of each run, by id: runs of the first group as in its figures, those of other groups after them."""
    runs = [run for group in group_runs(facts, metric, unfinished=True, judge=judge).groups for run in group.runs]
    return {run.run_id: line(index) for index, run in enumerate(runs)}


def _refuse_unsupported_store() -> Response | None:
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    if MLFLOW_ENABLE_WORKSPACES.get():
        return as_error("The page does not support workspaces: start the server without MLFLOW_ENABLE_WORKSPACES.", 501)
    if not hasattr(server_store(), "ManagedSessionMaker"):
        return as_error(
            "The page needs a database: start the server with --backend-store-uri sqlite:///FILE or postgresql://...",
            501,
        )
    return None


def _static_view(static: StaticFiles, name: str) -> Any:
    def send() -> Response:
        file = static.file(name)
        gzipped = accepts_gzip()
        response = Response(file.gzipped if gzipped else file.content, mimetype=file.mimetype)
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = CACHE_FOR_A_YEAR
        if gzipped:
            response.headers["Content-Encoding"] = "gzip"
        return response

    return send


def _run_ids() -> list[str]:
    """Ids of the requested runs."""
    run_ids = [run_id for run_id in request_args.texts("runs") if run_id.isalnum()]
    if len(run_ids) > MAX_COMPARED_RUNS:
        raise UserError(
            f"runs= names {len(run_ids)} runs: the page compares at most {MAX_COMPARED_RUNS}, `mlflow-hp compare` "
            "any number"
        )
    return run_ids
