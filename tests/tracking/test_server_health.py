"""A server is asked as MLflow asks it: by its certificates, proxies, tokens and headers."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import logging
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import server_health
from mlflow_hp.tracking.server_health import ensure_reachable, within
from tests.helpers.failing_proxy import Proxy

SETTINGS = ["INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH", "USERNAME", "PASSWORD", "TOKEN"]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in [*(f"MLFLOW_TRACKING_{name}" for name in SETTINGS), "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy",
                 "HTTPS_PROXY", "https_proxy", "REQUESTS_CA_BUNDLE"]:  # fmt: skip
        monkeypatch.delenv(name, raising=False)


class Asked(Proxy):
    """A server that keeps what it is asked, and answers as told."""

    def __init__(self, status=200):
        super().__init__("")
        self.status, self.requests = status, []

    def answer(self, request, body):
        self.requests.append((request.path, dict(request.headers)))
        return self.status, "text/plain", b"OK"


@pytest.mark.parametrize(("status", "is_there"), [(200, True), (401, True), (403, True), (404, True), (500, False),
                                                  (503, False)])  # fmt: skip
def test_whoever_answers_is_there(status, is_there):
    with contextlib.closing(Asked(status)) as server:
        if is_there:
            ensure_reachable(server.uri)
        else:
            with pytest.raises(UserError, match=f"it answers {status}"):
                ensure_reachable(server.uri)


def test_a_path_before_the_server_is_kept():
    with contextlib.closing(Asked()) as server:
        ensure_reachable(f"{server.uri}/team/mlflow/")
    assert [path for path, _ in server.requests] == ["/team/mlflow/health"]


def test_it_asks_as_the_user_and_with_the_headers_of_plugins(monkeypatch):
    from mlflow.tracking.request_header import registry

    class Tenant(RequestHeaderProvider):
        def in_context(self):
            return True

        def request_headers(self):
            return {"X-Tenant": "blue"}

    providers = registry._request_header_provider_registry
    monkeypatch.setattr(providers, "_registry", [*providers._registry, Tenant()])
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    with contextlib.closing(Asked()) as server:
        ensure_reachable(server.uri)
    ((_, headers),) = server.requests
    assert headers["Authorization"] == "Bearer a-token"
    assert headers["X-Tenant"] == "blue"


def test_it_goes_through_the_proxy_and_past_it(monkeypatch):
    with contextlib.closing(Asked()) as proxy, contextlib.closing(Asked()) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.uri)
        ensure_reachable("http://tracking.example:5000")
        assert [path for path, _ in proxy.requests] == ["http://tracking.example:5000/health"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        ensure_reachable(server.uri)
        assert len(server.requests) == len(proxy.requests) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody has signed but itself."""
    import ipaddress

    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(certificate):
    """A server behind TLS; with a call, one that wants to see the client's certificate too."""
    with contextlib.ExitStack() as stack:

        def start(*, of_clients=False):
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

                def log_message(self, *_):
                    pass

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if of_clients:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(certificate)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.handle_error = lambda *_: None
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"https://127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_is_checked_as_mlflow_is_told_to(secure, certificate, monkeypatch):
    uri = secure()
    with pytest.raises(UserError, match=r"does not answer.*certificate"):
        ensure_reachable(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    ensure_reachable(uri)
    monkeypatch.delenv("MLFLOW_TRACKING_INSECURE_TLS")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    ensure_reachable(uri)


def test_it_shows_the_certificate_of_the_client(secure, certificate, monkeypatch):
    uri = secure(of_clients=True)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    with pytest.raises(UserError, match="does not answer"):
        ensure_reachable(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate))
    ensure_reachable(uri)


@pytest.mark.parametrize("uri", ["sqlite:///none.db", "databricks", "databricks://team", "file:///none", "./mlruns"])
def test_other_stores_are_taken_to_be_there(uri, monkeypatch):
    monkeypatch.setattr(server_health, "http_request", lambda *_, **__: pytest.fail("asked"))
    ensure_reachable(uri)


def test_what_does_not_come_back_in_time():
    comes_back = threading.Event()
    with pytest.raises(TimeoutError, match=r"not answered for 0\.2 s"):
        within(0.2, comes_back.wait)
    comes_back.set()
    assert within(60, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0)
    assert within(60, lambda: None) is None


def test_a_locked_database_is_not_printed_from_our_threads(caplog):
    logger = logging.getLogger("mlflow.store.db.utils")
    server_health.silence_locked_database()
    before = list(logger.filters)
    server_health.silence_locked_database()
    assert logger.filters == before
    ours = threading.Thread(target=logger.error, args=("database is locked",), name="mlflow_hp-sender")
    ours.start()
    ours.join()
    assert "locked" not in caplog.text
    logger.propagate, before = True, logger.propagate
    try:
        with caplog.at_level(logging.ERROR, logger.name):
            logger.error("database is locked")
    finally:
        logger.propagate = before
