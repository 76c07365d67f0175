"""The way from MLflow's own UI to the page: its page gets one small script that shows a link.

MLflow's UI has no place for others' tabs. The script reads the address alone, and touches nothing of the UI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask, Response


def link_from_stock_ui(app: Flask, path: str, version: str) -> None:
    """Have the page that MLflow serves at `path` load the script of a version that links to ours."""
    from flask import request

    script = f'<script src="hp/{version}/link.js" defer></script></body>'.encode()

    @app.before_request
    def as_if_new() -> None:
        if request.path == path:  # a browser may still have MLflow's own, without the script
            for header in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"):
                request.environ.pop(header, None)

    @app.after_request
    def with_script(response: Response) -> Response:
        if request.path == path and response.status_code == 200 and response.mimetype == "text/html":
            response.direct_passthrough = False
            response.set_data(response.get_data().replace(b"</body>", script, 1))
            response.headers["Cache-Control"] = "no-cache"
            response.headers.remove("ETag")
            response.headers.remove("Last-Modified")
        return response
