"""Pictures in .npz files, here or at a URL: their scaling, and each fault that is refused."""

from __future__ import annotations

import http.server
import io
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from projects.datasets import unsplit
from tests.helpers.needs import needs_file
from tests.helpers.samples import load, npz, parts, pictures, refused, rows_of
from tests.helpers.tutorial_data import SHARED

MNIST = SHARED / "mnist_10k.npz"


@needs_file(MNIST)
def test_mnist():
    loaded = load(data=str(MNIST))
    with np.load(MNIST) as kept:
        np.testing.assert_array_equal(loaded.x_test, kept["x_test"].reshape(-1, 784) / np.float32(255))
        np.testing.assert_array_equal(loaded.y_test, kept["y_test"])
        both = np.concatenate([loaded.x_train, loaded.x_validation])
        assert rows_of(np.round(both * 255).astype(np.uint8)) == rows_of(kept["x_train"].reshape(-1, 784))
    assert [len(part) for part in parts(loaded)] == [6400, 1600, 2000]
    few = load(data=str(MNIST), max_samples=1000)
    assert abs(sum(map(len, parts(few))) - 1000) <= 2
    assert len(few.x_test) == pytest.approx(200, abs=1)
    assert few.digest == loaded.digest


@pytest.mark.parametrize(
    ("dtype", "high", "by"),
    [
        (np.uint8, 256, 255),
        (np.uint8, 17, 255),
        (np.uint8, 2, 1),
        (np.uint16, 4096, "max"),
        (np.int64, 256, "max"),
        (np.int32, 17, "max"),
        (np.float64, 256, "max"),
        (np.float32, 2, 1),
    ],
)
def test_pixels_are_scaled(tmp_path, dtype, high, by):
    x_train, x_test = pictures(40, dtype=dtype, high=high), pictures(10, dtype=dtype, high=high)
    loaded = load(**npz(tmp_path, x_train=x_train, x_test=x_test))
    full = max(x_train.max(), x_test.max()) if by == "max" else by
    np.testing.assert_allclose(loaded.x_test, x_test.reshape(10, 12) / full, rtol=1e-6)
    assert max(part.max() for part in parts(loaded)) <= 1
    assert loaded.image_shape == (4, 3)


def test_float_pixels_in_0_to_1_stay(tmp_path):
    x = np.random.default_rng(0).random((50, 4, 3)) * 0.4
    loaded = load(**npz(tmp_path, x_train=x[:40], x_test=x[40:]))
    np.testing.assert_array_equal(loaded.x_test, x[40:].reshape(10, 12).astype(np.float32))


def test_colours_rows_and_columns_of_labels(tmp_path):
    x = pictures(50, (4, 3, 3))
    y = np.arange(50)[:, None] % 3 + 7
    loaded = load(**npz(tmp_path, x_train=x[:40], x_test=x[40:], y_train=y[:40], y_test=y[40:]))
    assert (loaded.image_shape, loaded.x_train.shape[1]) == ((4, 3, 3), 36)
    assert loaded.classes == ["7", "8", "9"]
    rows = np.random.default_rng(0).normal(5, 3, (50, 2))
    y = np.arange(50) % 3 > 0
    loaded = load(**npz(tmp_path, x_train=rows[:40], x_test=rows[40:], y_train=y[:40], y_test=y[40:]))
    assert loaded.classes == ["False", "True"]
    assert (loaded.image_shape, loaded.features) == (None, ["x0", "x1"])
    np.testing.assert_allclose(loaded.x_train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(loaded.x_train.std(axis=0), 1, atol=1e-6)
    refused("column 'x0' of .* varies by too little", **npz(tmp_path, x_train=rows[:40] * 1e-300, x_test=rows[40:]))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": None}, "has no x_train, but y_train, x_test, y_test: it has to hold"),
        ({"x_train": np.array([[1], [2, 3]], dtype=object)}, "holds pickled objects, .* may run code"),
        ({"x_train": np.empty((0, 4, 3), np.uint8), "y_train": np.empty(0, int)}, "x_train is uint8 .0, 4, 3."),
        ({"x_test": np.empty((10, 0, 3), np.uint8)}, "x_test is uint8 .10, 0, 3."),
        ({"x_train": np.arange(40)}, "x has to be numbers of shape"),
        ({"x_train": np.full((40, 4, 3), "a")}, "x has to be numbers of shape"),
        ({"y_train": np.arange(39)}, r"x_train is uint8 \(40, 4, 3\) and y_train int64 \(39,\); y has to be"),
        ({"y_test": np.arange(10.0)}, "y_test float64 .*a whole number for each sample"),
        ({"y_test": np.eye(10, dtype=int)}, "y has to be a whole number for each sample"),
        ({"x_test": pictures(10, (3, 3))}, "their samples of one size"),
        ({"x_test": pictures(10) / 255}, "x_train is uint8 .* x_test float64 .* of one type"),
        ({"x_train": pictures(40) - 128.0, "x_test": pictures(10) * 1.0}, "pixels from -127 to 252: shift"),
        ({"x_train": pictures(40) * np.nan, "x_test": pictures(10) * 1.0}, "are NaN, infinite or over"),
        ({"x_train": pictures(40) * 1e300, "x_test": pictures(10) * 1.0}, "are NaN, infinite or over"),
        ({"y_train": np.ones(40, int), "y_test": np.ones(10, int)}, "has only one class, '1'"),
        ({"y_train": np.zeros(40, int)}, "no sample of class '1' is left to train on"),
    ],
)
def test_an_npz_that_can_not_be_trained_on(tmp_path, arrays, said):
    refused(said, **npz(tmp_path, **arrays))


def test_files_that_are_no_npz(tmp_path):
    path = Path(npz(tmp_path)["data"])
    whole = path.read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("readme.txt", "hello")
    texts = io.BytesIO()
    with zipfile.ZipFile(texts, "w") as archive:
        for name in unsplit.PARTS:
            archive.writestr(name, "hello")
    single = io.BytesIO()
    np.save(single, np.arange(3))
    for content, said in (
        (b"", "is not a complete .npz file"),
        (b"a,b\n1,2\n", "is not a complete .npz file"),
        (pickle.dumps([1]), "is not a complete .npz file"),
        (single.getvalue(), "is not a complete .npz file"),
        (whole[: len(whole) // 2], "is not a complete .npz file"),
        (whole[:60] + bytes(60) + whole[120:], "cannot be read as .npz .*: write it again"),
        (zipped.getvalue(), "has no x_train, but readme.txt"),
        (texts.getvalue(), "x_train in it is not a NumPy array"),
    ):
        path.write_bytes(content)
        refused(said, data=str(path))
    path.write_bytes(whole)
    assert len(load(data=str(path)).x_test) == 10


def test_an_npz_that_unpacks_to_too_much(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x_train=np.zeros((40, 500, 100), np.uint8), y_train=np.arange(40) % 3,
                        x_test=np.zeros((10, 500, 100), np.uint8), y_test=np.arange(10) % 3)  # fmt: skip
    monkeypatch.setenv("MLFLOW_HP_LARGEST_GB", "0.001")
    assert path.stat().st_size < 20_000
    refused("unpacks to 0.0025 GB or more, and 0.001 are allowed: .*MLFLOW_HP_LARGEST_GB", data=str(path))
    monkeypatch.setenv("MLFLOW_HP_LARGEST_GB", "0.003")
    assert len(load(data=str(path)).x_test) == 10
    monkeypatch.setenv("MLFLOW_HP_LARGEST_GB", "much")
    refused("MLFLOW_HP_LARGEST_GB='much' has to be a number of GB", data=str(path))
    monkeypatch.setenv("MLFLOW_HP_LARGEST_GB", "1e-6")
    assert len(load(**npz(tmp_path, x_train=pictures(40, (50, 60)), x_test=pictures(10, (50, 60)))).x_test) == 10


def test_no_file(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    refused("is a folder", data=str(tmp_path))
    refused("is a folder", data=str(tmp_path / "folder.npz"))
    refused("there is no file", data=str(tmp_path / "none.npz"))
    refused("there is no file", data="mnits")
    refused("only http and https", data="s3://bucket/a.npz")
    refused("cannot be read .*too long", data="a" * 300)


def test_a_url(tmp_path):
    content = Path(npz(tmp_path)["data"]).read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.npz?download=1" else 404)
            self.end_headers()
            if self.path == "/a.npz?download=1":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert load(data=f"{base}/a.npz?download=1").digest == load(**npz(tmp_path)).digest
        refused("does not answer .*Not Found", data=f"{base}/b.npz")
        server.shutdown()
    refused("does not answer", data="http://[broken/a.npz")
