"""Routes of the page of one run, all of them read-only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flask import Blueprint, Response, render_template

from mlflow_hp._compat.mlflow import server_store
from mlflow_hp.errors import UserError
from mlflow_hp.run_page.weights import histogram
from mlflow_hp.server import queries, recorded, request_args
from mlflow_hp.server.comparable_runs import comparable_runs
from mlflow_hp.server.responses import as_error, as_json
from mlflow_hp.server.source import ReadableSource

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mlflow_hp.server.permissions import ReadFilter
    from mlflow_hp.server.responses import StaticFiles

RUN_PATH = "/run/<run_id>"
"""Path of the page of a run, below that of the page."""
MAX_DESCENTS = 20
"""Descents on one surface."""


class UnknownRunError(UserError):
    """A run that does not exist, or may not be read: both look the same."""


def add_run_routes(page: Blueprint, readable: ReadFilter, static: StaticFiles) -> None:
    """Add the routes of the page of one run to the blueprint.

    Parameters
    ----------
    page : Blueprint
        The page.
    readable : callable
        Reduces experiment ids to those that the sender of the request may read.
    static : StaticFiles
    """
    page.register_error_handler(UnknownRunError, lambda error: as_error(str(error), 404))

    def runs(names: str) -> tuple[list[Run], ReadableSource]:
        source = ReadableSource(server_store(), readable)
        run_ids = [run_id for run_id in request_args.texts(names) if run_id.isalnum()]
        if len(run_ids) > MAX_DESCENTS:
            raise UserError(f"{names}= names {len(run_ids)} runs: at most {MAX_DESCENTS} are drawn on one surface")
        readable_runs = source.runs(run_ids)
        if not readable_runs:
            raise UnknownRunError(f"There is no run {request_args.quoted(','.join(run_ids))} that you may read.")
        return [readable_runs[run_id] for run_id in run_ids if run_id in readable_runs], source

    @page.get(RUN_PATH)
    def run_page(run_id: str) -> Response:
        if not re.fullmatch("[0-9a-zA-Z]{1,64}", run_id):
            return Response("This is no id of a run.", 404, mimetype="text/plain")
        response = Response(render_template("run.html", version=static.version, run_id=run_id))
        response.headers["Cache-Control"] = "no-cache"
        return response

    @page.get("/api/run")
    def run() -> Response:
        (of_run, *_), _ = runs("run")
        answer = recorded.run_summary(of_run)
        answer["children"] = queries.children(server_store(), of_run.info.run_id)
        return as_json(answer)

    @page.get("/api/training")
    def training() -> Response:
        (of_run, *_), source = runs("run")
        start, stop = request_args.integer("start"), request_args.integer("stop")
        fit = request_args.integer("fit") or 0
        return as_json({"training": recorded.training(of_run, source, fit, start, stop)})

    @page.get("/api/descent")
    def descent() -> Response:
        asked, source = runs("runs")
        shown = recorded.descents(asked, source)
        of_paths = [path["run"] for path in shown["paths"]] if shown else []
        drawn = source.runs([run_id for run_id in of_paths if run_id.isalnum()]).values()  # others are labels
        names = {each.info.run_id: each.info.run_name or each.info.run_id for each in [*asked, *drawn]}
        return as_json({"descent": shown, "names": names})

    @page.get("/api/comparable")
    def comparable() -> Response:
        (of_run, *_), source = runs("run")
        return as_json({"runs": comparable_runs(of_run, source), "at_most": MAX_DESCENTS})

    @page.get("/api/barriers")
    def barriers() -> Response:
        (of_run, *_), source = runs("run")
        return as_json({"barriers": recorded.barriers(of_run, source)})

    @page.get("/api/weights")
    def weights() -> Response:
        (of_run, *_), _ = runs("run")
        snapshots = recorded.weights_of(of_run, request_args.integer("fit") or 0)
        tensor, step = request_args.text("tensor"), request_args.integer("step")
        return as_json({"weights": None if snapshots is None else histogram(snapshots, tensor, step)})
