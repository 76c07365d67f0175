"""Link from MLflow's own UI to the page.

MLflow's UI has no hook for extra tabs, so its HTML gets a small script that shows a link. The script only reads the
URL; it does not touch the UI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask, Response


def add_link_to_mlflow_ui(app: Flask, path: str, version: str) -> None:
    """Add the script of the given `version` to the HTML that MLflow serves at `path`."""
    from flask import request

    script = f'<script src="hp/{version}/link.js" defer></script></body>'.encode()

    @app.before_request
    def ignore_browser_cache() -> None:
        if request.path == path:  # the browser may have cached MLflow's HTML without the script
            for header in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"):
                request.environ.pop(header, None)

    @app.after_request
    def add_script(response: Response) -> Response:
        if request.path == path and response.status_code == 200 and response.mimetype == "text/html":
            response.direct_passthrough = False
            response.set_data(response.get_data().replace(b"</body>", script, 1))
            response.headers["Cache-Control"] = "no-cache"
            response.headers.remove("ETag")
            response.headers.remove("Last-Modified")
        return response
