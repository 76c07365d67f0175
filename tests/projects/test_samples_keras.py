"""Keras' own pictures: from its cache, or downloaded and checked."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from projects.datasets import downloads, files
from tests.helpers.samples import load, parts, pictures, refused


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """Keras' cache is an empty folder."""
    import keras.src.backend.config as config

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "datasets"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_from_keras_cache(name, monkeypatch):
    import keras

    x, y = pictures(30, (28, 28)), np.arange(30) % 10
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: ((x[:20], y[:20]), (x[20:], y[20:])))
    monkeypatch.setitem(files.KERAS_FILES, name, {})
    loaded = load(data=name, validation_size=0.5)
    np.testing.assert_array_equal(loaded.x_test, x[20:].reshape(10, 784).astype(np.float32) / 255)
    assert [len(part) for part in parts(loaded)] == [10, 10, 10]
    assert (loaded.image_shape, loaded.source) == ((28, 28), name)


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [("mnist", "mnist.npz", "."), ("fashion_mnist", "t10k-images-idx3-ubyte.gz", "fashion-mnist")],
)
def test_without_the_internet(name, file, folder, no_cache, monkeypatch, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/keras/"
        monkeypatch.setattr(files, "KERAS_ADDRESS", address)
        capfd.readouterr()
        message = refused("not in Keras' cache .*Connection refused", data=name)
    assert file in message
    assert f"into {(no_cache / folder).resolve()}, or give data" in message
    assert message.count(address.removesuffix("/")) == 1
    assert capfd.readouterr() == ("", "")
    assert not [path for path in no_cache.rglob("*") if path.is_file()]


def test_a_network_that_hangs(no_cache, monkeypatch):
    """A host has some twenty addresses; where a firewall drops packets, each takes the whole timeout."""

    def hang(_, timeout, *__, **___):
        time.sleep(20 * timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib3.util.connection.create_connection", hang)
    monkeypatch.setattr(downloads, "URL_SECONDS", 0.2)
    begin = time.monotonic()
    refused("timed out after 0.4 s", data="mnist")
    assert time.monotonic() - begin < 2  # one address after the other would take 4 s


def test_what_keras_has_is_checked_and_downloaded_once(no_cache, monkeypatch):
    import keras

    content, asked = b"as it has to be", []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers.pop())

        def log_message(self, *_):
            pass

    monkeypatch.setitem(files.KERAS_FILES, "mnist", {"folder/a.npz": f"sha256={hashlib.sha256(content).hexdigest()}"})
    kept = no_cache / "folder" / "a.npz"
    x, y = pictures(30, (28, 28)), np.arange(30) % 10
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((x[:20], y[:20]), (x[20:], y[20:])))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(files, "KERAS_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
        answers = [b"something else"]
        refused("does not match its checksum: SHA256 hash of downloaded file .a.npz.", data="mnist")
        assert not kept.exists()
        answers = [content]
        for _ in range(2):
            assert len(load(data="mnist", validation_size=0.5).x_test) == 10
        kept.write_bytes(b"altered since")
        answers = [content]
        load(data="mnist", validation_size=0.5)
        server.shutdown()
    assert kept.read_bytes() == content
    assert asked == ["/folder/a.npz"] * 3
    assert [path.name for path in kept.parent.iterdir()] == ["a.npz"]
