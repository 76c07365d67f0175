"""Scripts in MLflow's own UI: links to the page, and the view of trainings as the first that a user sees.

MLflow's UI has no hook for extra tabs, so its HTML gets two small scripts. ``link.js`` shows the links; it only reads
the URL and where MLflow's main part ends. ``workflow.js`` stores the default of the switch between GenAI and model
training, where a user has chosen neither: MLflow decides by that what it shows of an experiment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask, Response


def add_link_to_mlflow_ui(app: Flask, path: str, version: str) -> None:
    """Add the scripts of the given `version` to the HTML that MLflow serves at `path`."""
    from flask import request

    added = {  # the first one runs before MLflow's script, which is deferred
        b"</head>": f'<script src="hp/{version}/workflow.js"></script></head>',
        b"</body>": f'<script src="hp/{version}/link.js" defer></script></body>',
    }

    @app.before_request
    def ignore_browser_cache() -> None:
        if request.path == path:  # the browser may have cached MLflow's HTML without the script
            for header in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"):
                request.environ.pop(header, None)

    @app.after_request
    def add_scripts(response: Response) -> Response:
        if request.path == path and response.status_code == 200 and response.mimetype == "text/html":
            response.direct_passthrough = False
            html = response.get_data()
            for mark, script in added.items():
                html = html.replace(mark, script.encode(), 1)
            response.set_data(html)
            response.headers["Cache-Control"] = "no-cache"
            response.headers.remove("ETag")
            response.headers.remove("Last-Modified")
        return response
