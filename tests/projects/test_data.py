"""Data sets, and everything that a CSV can get wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_hp.errors import UserError
from projects.datasets import data, downloads
from tests.helpers.needs import needs_file
from tests.helpers.tutorial_data import ADVERTISING

DEFAULTS = {
    "data": "diabetes", "feature": "bmi", "target": "target", "test_size": 0.2, "seed": 0, "standardize": False,
    "header": "auto", "task": "auto",
}  # fmt: skip


def load(**settings):
    return data.regression(DEFAULTS | settings)


def csv(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_diabetes_in_its_own_units():
    loaded = load()
    assert loaded.x_train.shape == (353, 1)
    assert loaded.x_test.shape == (89, 1)
    assert loaded.x_train.dtype == np.float32
    assert 15 < loaded.x_train.min() < loaded.x_train.max() < 45  # kg per square metre


def test_the_split_is_the_seeds():
    one, same, other = load(), load(), load(seed=1)
    np.testing.assert_array_equal(one.x_train, same.x_train)
    assert (one.digest, one.split_digest) == (same.digest, same.split_digest)
    assert one.digest == other.digest
    assert one.split_digest != other.split_digest
    assert one.digest != load(feature="bp").digest
    values = np.sort(np.concatenate([one.x_train, one.x_test])[:, 0])
    np.testing.assert_array_equal(values, np.sort(one.table["bmi"].to_numpy().astype(np.float32)))


def test_standardised_by_the_training_part():
    raw, scaled = load(), load(standardize=True)
    assert scaled.x_train.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.x_train.std() == pytest.approx(1, abs=1e-6)
    x = raw.x_train.astype(float)
    np.testing.assert_allclose(scaled.x_test, (raw.x_test - x.mean()) / x.std(), atol=1e-5)
    assert "standardised" in scaled.feature
    np.testing.assert_array_equal(raw.y_train, scaled.y_train)


def test_a_csv_file(tmp_path):
    loaded = load(data=csv(tmp_path, "a,b\n1,2\n2,4\n3,6\n4,8\n5,10\n"), feature="a", target="b")
    commas = load(data=csv(tmp_path, "a,b\n1,2,\n2,4,\n3,6,\n4,8,\n5,10,\n"), feature="a", target="b")
    assert (len(loaded.x_train), len(loaded.x_test)) == (4, 1)
    np.testing.assert_array_equal(loaded.y_train, 2 * loaded.x_train[:, 0])
    assert commas.digest == loaded.digest


@needs_file(ADVERTISING)
def test_advertising():
    loaded = load(data=str(ADVERTISING), feature="TV", target="sales")
    assert len(loaded.x_train) == 160


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("", {}, "is empty: name a CSV file"),
        ("a,b\n", {}, "has a header and no rows"),
        ("a,b\n1,2\n", {}, "has 1 row: .*0 of them would be left to train on"),
        ("a,b\n1,2\n3,4\n", {}, "has 2 rows: with test_size=0.2, 1 of them"),
        ("a,b\n1,2\n3,4\n5,6\n", {"feature": "c"}, "feature='c': .* has the columns a, b"),
        ("a,b\n1,2\n3,4\n5,6\n", {"target": "c"}, "target='c': .* has the columns a, b"),
        ("a,b\n1,2\n3,4\n5,6\n", {"target": "a"}, "feature and target are both 'a'"),
        ("a,b\n1,2\nx,4\n5,6\n", {}, "column 'a' of .* is 'x' in row 2 "),
        ("a,b\n1,2\n3,\n5,6\n", {}, "has 2 rows: with test_size=0.2, 1 of them"),
        ("a,b\n1,\n3,\n5,\n", {}, "column 'b' of .* is missing in all rows: choose another"),
        ("a,b\n1,2\n3,4\n5,6\n", {"task": "classification"}, "task=classification: a line is fitted here"),
        ("a,b\n2020-01-02,2\n2020-01-03,4\n2020-01-04,6\n", {}, "column 'a' of .* has dates or times"),
        ("a,b\n1,2\n3,inf\n5,6\n", {}, "column 'b' of .* is inf in row 2 "),
        ("a,b\n1,2\n1,4\n1,6\n1,7\n", {}, "feature='a' has the same value, 1, in all rows"),
        ("a,b\n1,2\n3,1e300\n5,6\n", {}, "column 'b' of .* is 1e.300 in row 2 "),
        ("a,b\n1,2,7\n3,4,7\n5,6,7\n", {}, "more values in its rows than columns in its head"),
        (b"\xff\xfe\x00\x01\x80", {}, "cannot be read as CSV"),
        ('a,b\n"1,2\n', {}, "cannot be read as CSV"),
    ],
)
def test_a_csv_that_can_not_be_trained_on(tmp_path, text, settings, said):
    with pytest.raises(UserError, match=said):
        load(**{"data": csv(tmp_path, text), "feature": "a", "target": "b"} | settings)


def test_of_many_columns_the_first_are_named(tmp_path):
    head = ",".join(f"c{i}" for i in range(1000))
    with pytest.raises(UserError, match=r"c0, c1, .* \.\.\.; choose one of them$") as told:
        load(data=csv(tmp_path, f"{head}\n{head.replace('c', '')}\n"))
    assert len(str(told.value)) < 500


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere.csv"):
        load(data=str(tmp_path / "nowhere.csv"))
    with pytest.raises(UserError, match="is a folder"):
        load(data=str(tmp_path))


def test_a_url_that_does_not_answer(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf":{port}/a.csv' does not answer"):
            load(data=f"http://127.0.0.1:{port}/a.csv")
        taken.listen()
        monkeypatch.setattr(downloads, "URL_SECONDS", 0.2)
        with pytest.raises(UserError, match=r"does not answer .*timed out"):
            load(data=f"http://127.0.0.1:{port}/a.csv")
    with pytest.raises(UserError, match="does not answer"):
        load(data="https://no such host/a.csv")


CSV = b"a,b\n1,2\n2,4\n3,6\n"


@pytest.fixture
def server():
    """Answers with a CSV at /a.csv, and oddly at other addresses; `asked` are the requests it got."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            path = self.path.partition("?")[0]
            self.send_response({"/a.csv": 200, "/short.csv": 200, "/long.csv": 200, "/slow.csv": 200}.get(path, 404))
            if path.startswith("/to/"):
                self.send_header("Location", path.removeprefix("/to/"))
            if path == "/short.csv":
                self.send_header("Content-Length", "1000")
            if path == "/long.csv":
                self.send_header("Content-Length", "3000000000")
            self.end_headers()
            if path in ("/a.csv", "/short.csv"):
                self.wfile.write(CSV)
            while path == "/slow.csv" and not stop.wait(0.05):
                with contextlib.suppress(OSError):
                    self.wfile.write(b"a,b\n")

        def send_response(self, code, message=None):
            super().send_response(302 if self.path.startswith("/to/") else code, message)

        def log_message(self, *_):
            pass

    stop = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        stop.set()
        running.shutdown()


def refused(said, url):
    with pytest.raises(UserError, match=said) as told:
        load(data=url, feature="a", target="b")
    return str(told.value)


def test_a_url(server):
    base, asked = server
    assert len(load(data=f"{base}/a.csv", feature="a", target="b").x_train) == 2
    assert asked == [("/a.csv", None)]
    refused("does not answer .HTTP status 404: Not Found.", f"{base}/b.csv")


def test_a_url_with_a_digest(server):
    base, _ = server
    digest = hashlib.sha256(CSV).hexdigest()
    assert len(load(data=f"{base}/a.csv#sha256={digest}", feature="a", target="b").x_train) == 2
    refused(
        f"does not match its checksum: SHA256 hash .* expected sha256:0{{64}} but got {digest}",
        f"{base}/a.csv#sha256={'0' * 64}",
    )
    for other in ("sha256=", "sha256=12", "md5=0" * 8, "top"):
        refused("may end in #sha256= and the 64 digits", f"{base}/a.csv#{other}")


def test_secrets_in_a_url_are_sent_and_not_told(server, monkeypatch):
    base, asked = server
    monkeypatch.setenv("DATA_TOKEN", "t0ken-in-the-environment")
    url = f"{base.replace('//', '//me:pa%40ss@')}/a.csv?token=$DATA_TOKEN"
    loaded = load(data=url, feature="a", target="b")
    assert asked[0][1] == f"Basic {base64.b64encode(b'me:pa@ss').decode()}"
    assert asked[0][0] == "/a.csv?token=t0ken-in-the-environment"
    assert loaded.source == f"{base.replace('//', '//me:***@')}/a.csv?token=$DATA_TOKEN"
    for gone in (url.replace("a.csv", "b.csv"), url.replace("127.0.0.1", "127.0.0.1:no")):
        message = refused("does not answer", gone)
        assert "pa%40ss" not in message
        assert "t0ken-in" not in message


def test_what_others_could_change_is_refused(server):
    base, asked = server
    refused("leads to http://example.org, which others on the network.*https.*sha256", "http://example.org/a.csv")
    refused("leads to http://example.org", f"{base}/to/http://example.org/a.csv")
    refused("leads to ftp://example.org", f"{base}/to/ftp://example.org/a.csv")
    refused("leads to file://", f"{base}/to/file:///etc/passwd")
    refused("does not answer .Invalid IPv6 URL.", "http://[::1/a.csv")
    refused("leads to http://example.org", f"http://me:pw@example.org/a.csv#sha256={'0' * 64}")
    refused("does not answer", f"http://no-such-host.invalid/a.csv#sha256={'0' * 64}")
    asked.clear()
    assert len(load(data=f"{base.replace('//', '//me:pw@')}/to//a.csv", feature="a", target="b").x_train) == 2
    assert [password is None for _, password in asked] == [False, True]  # a redirect may lead anywhere


def test_passwords_of_other_programs_are_not_sent(server, tmp_path, monkeypatch):
    base, asked = server
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-curl\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for path in ("a.csv", "to//a.csv"):
        load(data=f"{base}/{path}", feature="a", target="b")
    assert [password for _, password in asked] == [None] * 3


def test_two_downloads_of_one_file_at_once(server, tmp_path):
    base, asked = server
    path, digest = tmp_path / "folder" / "a.csv", f"sha256={hashlib.sha256(CSV).hexdigest()}"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: downloads.retrieve(f"{base}/a.csv", path, digest), range(4)))
    assert path.read_bytes() == CSV
    assert list(path.parent.iterdir()) == [path]
    n_asked = len(asked)
    downloads.retrieve(f"{base}/a.csv", path, digest)
    assert len(asked) == n_asked  # it is there
    for torn in ("short", "b"):
        with pytest.raises(OSError, match=r"broke off|404"):
            downloads.retrieve(f"{base}/{torn}.csv", path, f"sha256={'0' * 64}")
    assert path.read_bytes() == CSV
    assert list(path.parent.iterdir()) == [path]


def test_a_download_has_limits(server, monkeypatch):
    base, _ = server
    refused("broke off after 16 of 1,000 bytes", f"{base}/short.csv")
    refused("has 3 GB or more, and 2 are allowed: .*MLFLOW_HP_LARGEST_GB", f"{base}/long.csv")
    monkeypatch.setenv("MLFLOW_HP_LARGEST_GB", "2e-8")
    refused("has 2.*e-08 GB or more", f"{base}/slow.csv")
    monkeypatch.delenv("MLFLOW_HP_LARGEST_GB")
    monkeypatch.setattr(downloads, "DOWNLOAD_SECONDS", 0.2)
    refused("not all of it came in 0.2 s", f"{base}/slow.csv")


ODD = ["", "nan", "inf", "1e999", '"', '"a', "\0", "\r", "0x1p3", "1_0", "True", "\ufeff", "a" * 200_000]
CELLS = st.one_of(st.text(max_size=8), st.floats().map(repr), st.integers().map(str), st.sampled_from(ODD))
NUMBERS = st.lists(st.tuples(*2 * [st.integers(-9, 9).map(str)]), min_size=4, max_size=9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(NUMBERS, st.lists(st.lists(CELLS, max_size=4), max_size=2), st.sampled_from(",,;\t"), st.binary(max_size=6))
def test_any_text_is_a_table_or_an_error_that_says_why(tmp_path_factory, good, odd, sign, noise):
    rows = [*good, *odd]
    text = "\n".join(sign.join(row) for row in [["a", "b"], *rows]).encode(errors="surrogatepass")
    for content in (text, text + b"\n" + noise, noise + text):
        loaded, said = trained_on(csv(tmp_path_factory.getbasetemp(), content))
        assert len(said) < 600
        if loaded is not None:
            assert np.isfinite(loaded.x_train).all()
            assert np.isfinite(loaded.y_train).all()
            assert len(loaded.table) <= content.count(b"\n") + content.count(b"\r")


def trained_on(path):
    """The data, or what the error says."""
    try:
        return load(data=path, feature="a", target="b"), ""
    except UserError as error:
        return None, str(error)


def test_log_input(store, tmp_path):
    import mlflow

    path = csv(tmp_path, "a,b\n1,3\n2,4\n3,5\n4,6\n")
    loaded = load(data=path, feature="a", target="b")
    with mlflow.start_run() as run:
        data.log_input(loaded, path)
    (logged,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert logged.dataset.name == "table.csv"
    assert logged.dataset.digest
    assert str(tmp_path) in logged.dataset.source
