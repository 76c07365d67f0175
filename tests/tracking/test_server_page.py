"""The address of the page of a run: where a server serves it, and nowhere else."""

from __future__ import annotations

import http.server
import threading

import pytest

from mlflow_hp.tracking.server_page import address_at, page_address


@pytest.fixture
def server():
    """A server that answers each path as it is told, and counts the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status, body, paths = 200, b"<title>Compare runs - mlflow_hp</title>", []

        def do_GET(self):
            self.paths.append(self.path)
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_):
            pass

    Handler.paths = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        Handler.uri = f"http://127.0.0.1:{served.server_port}"
        yield Handler
        served.shutdown()


def test_a_server_with_the_page_is_asked_once(server):
    assert page_address("a1", server.uri) == f"{server.uri}/hp/run/a1"
    assert page_address("b2", f"{server.uri}") == f"{server.uri}/hp/run/b2"
    assert page_address("", server.uri) == f"{server.uri}/hp/"
    assert server.paths == ["/hp/"]


def test_a_login_is_left_out(server):
    host = server.uri.removeprefix("http://")
    assert page_address("a1", f"http://me:secret@{host}") == f"{server.uri}/hp/run/a1"


@pytest.mark.parametrize(("status", "body"), [(404, b"mlflow_hp"), (200, b"<html>MLflow"), (401, b""), (500, b"")])
def test_a_server_without_it_has_no_address(server, status, body):
    server.status, server.body = status, body
    assert page_address("a1", server.uri) is None


def test_no_server_is_asked_for_a_database():
    assert page_address("a1", "sqlite:///mlflow.db") is None
    assert page_address("a1", "file:///tmp/x") is None


def test_a_server_that_is_down_has_no_address(server):
    assert page_address("a1", "http://127.0.0.1:9") is None


def test_a_prefix_stays():
    assert address_at("https://host/team/", "a1") == "https://host/team/hp/run/a1"
