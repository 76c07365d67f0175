"""Data for networks: digits, Keras' pictures, .npz files and tables, and everything that they can get wrong."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import pickle
import socket
import threading
import time
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tutorial_data import SHARED

from mlflow_hp.errors import UserError
from projects.datasets import downloads, files, samples

MNIST = SHARED / "mnist_10k.npz"
DEFAULTS = {p.name: p.read(p.default) for p in samples.PARAMETERS} | {"seed": 0}


def load(**settings):
    return samples.load(DEFAULTS | settings)


def parts(loaded):
    return loaded.x_train, loaded.x_validation, loaded.x_test


def rows_of(*arrays):
    """Digests of all rows of all arrays, sorted."""
    return sorted(hashlib.sha256(np.ascontiguousarray(row)).hexdigest() for array in arrays for row in array)


def refused(said, **settings):
    """The message of the error, which has to fit in a line or two of a terminal."""
    with pytest.raises(UserError, match=said) as told:
        load(**settings)
    assert len(str(told.value)) < 600
    assert "\n" not in str(told.value)
    return str(told.value)


def csv(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"data": str(path)}


def table(tmp_path, y):
    """A CSV with the target `y` and two features, one of them the row's number."""
    lines = [f"{i},{i * i},{value}\n" for i, value in enumerate(y)]
    return csv(tmp_path, "a,b,target\n" + "".join(lines))


def pictures(n, shape=(4, 3), dtype=np.uint8, high=256):
    return np.random.default_rng(n).integers(0, high, (n, *shape)).astype(dtype)


def npz(tmp_path, name="pictures.npz", **arrays):
    """An .npz of 40 + 10 pictures of 3 classes, but for the `arrays` given; None leaves one out."""
    made = {
        "x_train": pictures(40), "y_train": np.arange(40) % 3, "x_test": pictures(10), "y_test": np.arange(10) % 3
    } | arrays  # fmt: skip
    path = tmp_path / name
    np.savez(path, **{name: values for name, values in made.items() if values is not None})
    return {"data": str(path)}


def test_digits():
    loaded = load()
    assert [len(part) for part in parts(loaded)] == [1149, 288, 360]
    assert loaded.x_train.shape == (1149, 64)
    assert (loaded.image_shape, loaded.classes, loaded.features) == ((8, 8), list("0123456789"), [])
    assert (loaded.x_train.dtype, loaded.y_train.dtype) == (np.float32, np.int64)
    assert (loaded.x_train.min(), loaded.x_train.max()) == (0, 1)
    assert sum(loaded.counts.values()) == 1797
    assert loaded.sizes == "1149 samples to train on, 288 to validate, 360 to test"


def test_parts_are_disjoint_and_together_everything():
    from sklearn.datasets import load_digits

    everything = load_digits().data / 16
    loaded = load()
    labelled = [np.column_stack([x, y]) for x, y in zip(parts(loaded), loaded[1:6:2], strict=True)]
    assert rows_of(*labelled) == rows_of(np.column_stack([everything, load_digits().target]))
    assert len(np.unique(everything, axis=0)) == len(everything)  # so that a row twice would have been seen


def test_the_split_is_the_seeds():
    one, same, other = load(), load(), load(seed=1)
    for a, b in zip(parts(one), parts(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.digest, one.split_digest) == (same.digest, same.split_digest)
    assert one.digest == other.digest
    assert one.split_digest != other.split_digest
    assert not np.array_equal(one.x_train, other.x_train)


def test_classes_have_the_same_shares_in_each_part():
    loaded = load()
    everywhere = np.array(list(loaded.counts.values())) / 1797
    for y in (loaded.y_train, loaded.y_validation, loaded.y_test):
        np.testing.assert_allclose(np.bincount(y) / len(y), everywhere, atol=1 / len(y))


@pytest.mark.parametrize("n", [100, 500, 1796])
def test_a_quick_look(n):
    loaded = load(max_samples=n)
    assert abs(sum(map(len, parts(loaded))) - n) <= 2
    assert all(len(np.unique(y)) == 10 for y in (loaded.y_train, loaded.y_test))
    assert loaded.digest == load().digest
    assert load(max_samples=100_000).split_digest == load().split_digest


def test_too_quick_a_look():
    assert "raise max_samples" in refused("no sample of class '.' is left to train on", max_samples=10)


# Keras' loader


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
    def fail(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(downloads, "open_url", fail)
    capfd.readouterr()
    message = refused("not in Keras' cache .*no route to host", data=name)
    assert file in message
    assert f"into {(no_cache / folder).resolve()}, or give data" in message
    assert message.count("https://storage.googleapis.com/") == 1
    assert capfd.readouterr() == ("", "")
    assert not no_cache.exists()


def test_a_network_that_hangs(no_cache, monkeypatch):
    """A host has some twenty addresses; where a firewall drops packets, each takes the whole timeout."""

    def hang(_, timeout, *__, **___):
        time.sleep(20 * timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(downloads, "URL_SECONDS", 0.2)
    begin = time.monotonic()
    refused("timed out after 0.4 s", data="mnist")
    assert time.monotonic() - begin < 2  # one address after the other would take 4 s


def test_what_keras_has_is_checked_and_downloaded_once(no_cache, monkeypatch):
    import keras

    content, asked = b"as it has to be", []
    digest = f"sha256={hashlib.sha256(content).hexdigest()}"
    monkeypatch.setitem(files.KERAS_FILES, "mnist", {"folder/a.npz": digest})
    monkeypatch.setattr(files, "KERAS_ADDRESS", "https://example.org/")
    monkeypatch.setattr(downloads, "open_url", lambda url, _: asked.append(url) or answers.pop())
    kept = no_cache / "folder" / "a.npz"
    x, y = pictures(30, (28, 28)), np.arange(30) % 10
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((x[:20], y[:20]), (x[20:], y[20:])))
    answers = [io.BytesIO(b"something else")]
    refused(f"is not what was asked for: its sha256 is {hashlib.sha256(b'something else').hexdigest()}", data="mnist")
    assert not kept.exists()
    answers = [io.BytesIO(content)]
    for _ in range(2):
        assert len(load(data="mnist", validation_size=0.5).x_test) == 10
    kept.write_bytes(b"altered since")
    answers = [io.BytesIO(content)]
    load(data="mnist", validation_size=0.5)
    assert kept.read_bytes() == content
    assert asked == ["https://example.org/folder/a.npz"] * 3
    assert [path.name for path in kept.parent.iterdir()] == ["a.npz"]


# .npz files


@pytest.mark.skipif(not MNIST.exists(), reason="mnist_10k.npz is not here")
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
        ({"x_train": pictures(40) * np.nan, "x_test": pictures(10) * 1.0}, "are NaN, infinite or past"),
        ({"x_train": pictures(40) * 1e300, "x_test": pictures(10) * 1.0}, "are NaN, infinite or past"),
        ({"y_train": np.ones(40, int), "y_test": np.ones(10, int)}, "has one class alone, '1'"),
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
        for name in samples.PARTS:
            archive.writestr(name, "hello")
    single = io.BytesIO()
    np.save(single, np.arange(3))
    for content, said in (
        (b"", "is no whole .npz file"),
        (b"a,b\n1,2\n", "is no whole .npz file"),
        (pickle.dumps([1]), "is no whole .npz file"),
        (single.getvalue(), "is no whole .npz file"),
        (whole[: len(whole) // 2], "is no whole .npz file"),
        (whole[:60] + bytes(60) + whole[120:], "can't be read as .npz .*: write it anew"),
        (zipped.getvalue(), "has no x_train, but readme.txt"),
        (texts.getvalue(), "x_train in it is no array"),
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
    refused("can't be read .*too long", data="a" * 300)


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


# tables


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["cat", "dog", "über"] * 10, ["cat", "dog", "über"]),
        ([5, 3, 10] * 10, ["3", "5", "10"]),
        ([True, False] * 15, ["False", "True"]),
        ([7, 8] * samples.LEAST_OF_A_CLASS, ["7", "8"]),
        (list(range(samples.MOST_CLASSES)) * 10, [str(i) for i in range(samples.MOST_CLASSES)]),
    ],
)
def test_classes(tmp_path, y, classes):
    settings = table(tmp_path, y)
    loaded = load(**settings)
    assert loaded.classes == classes
    assert loaded.features == ["a", "b"]
    assert loaded.counts == {name: len(y) // len(classes) for name in classes}
    assert loaded.y_train.dtype == np.int64
    everywhere = load_rows(loaded)
    np.testing.assert_array_equal([loaded.classes[label] for label in everywhere], list(map(str, y)))


def load_rows(loaded):
    """All labels in the order of the file, which is that of the feature "a"."""
    a = np.concatenate([part[:, 0] for part in parts(loaded)])
    return np.concatenate([loaded.y_train, loaded.y_validation, loaded.y_test])[np.argsort(a)]


@pytest.mark.parametrize(
    "y",
    [
        np.arange(30) / 8,
        np.arange(samples.MOST_CLASSES + 1).repeat(2),
        [1.0, 2.0] * 15,
        np.arange(10).repeat(samples.LEAST_OF_A_CLASS - 1),
    ],
)
def test_numbers_to_predict(tmp_path, y):
    loaded = load(**table(tmp_path, y))
    assert (loaded.classes, loaded.y_train.dtype, loaded.counts) == ([], np.float32, {})
    np.testing.assert_array_equal(load_rows(loaded), np.asarray(y, np.float32))
    assert abs(sum(map(len, parts(load(max_samples=20, **table(tmp_path, y))))) - 20) <= 1


def test_standardised_by_the_training_part(tmp_path):
    n = 50
    values = np.random.default_rng(0).normal(7, 3, n)
    lines = "".join(f"{value!r},0.1,{i % 2 == 0},{i % 2}\n" for i, value in enumerate(values.tolist()))
    loaded = load(**csv(tmp_path, "a,constant,flag,target\n" + lines))
    column = np.concatenate([part[:, 0] for part in parts(loaded)]).astype(float)
    assert loaded.x_train[:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert loaded.x_train[:, 0].std() == pytest.approx(1, abs=1e-6)
    assert abs(column.mean()) > 1e-3  # so the others had no part in it
    slope, offset = np.polyfit(np.sort(column), np.sort(values), 1)
    np.testing.assert_allclose(np.sort(column) * slope + offset, np.sort(values), atol=1e-5)
    assert all(np.abs(part[:, 1]).max() < 1e-6 for part in parts(loaded))


def test_one_rare_class_makes_no_numbers_of_the_others(tmp_path):
    settings = table(tmp_path, [0, 1] * 100 + [2])
    seeds = range(20)
    told = []
    for seed in seeds:
        try:
            assert load(seed=seed, **settings).classes == ["0", "1", "2"]
        except UserError as error:
            told.append(str(error))
    assert 0 < len(told) < len(seeds)
    assert all("no sample of class '2' is left to train on: lower test_size" in message for message in told)
    assert all("write them as 1.0" in message for message in told)


def test_the_index_that_pandas_writes_is_no_feature(tmp_path):
    lines = "".join(f"{i},{i % 7},{i % 2}\n" for i in range(1, 31))
    assert load(**csv(tmp_path, ",a,target\n" + lines)).features == ["a"]
    lines = "".join(f"{i % 5},{i % 7},{i % 2}\n" for i in range(30))
    assert load(**csv(tmp_path, ",a,target\n" + lines)).features == ["Unnamed: 0", "a"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    lines = "".join(f"{i},{i % 2}\n" for i in range(30))
    assert load(**csv(tmp_path, b"\xef\xbb\xbfa,target\n" + lines.encode())).features == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,target\n", "has a head and no rows"),
        ("a,target\n1,2.5\n", "is 2.5 in all rows"),
        ("a,target\n1,2\n3,4\n", "has 2 samples: too few for the shares asked for; lower test_size"),
        ("a,b\n1,2\n3,4\n", "target='target': .* has the columns a, b; choose one"),
        ("target\n1\n2\n", "has only the column 'target': features are needed"),
        ("a,target\nred,1\nblue,2\n", "column 'a' of .* is 'red' in row 1 .of 2 .*features.* have to be numbers"),
        ("a,target\n1,1\n,2\n", "column 'a' of .* is missing in row 2"),
        ("a,target\n1,1\n1e39,2\n", r"column 'a' of .* is 1e\+39 in row 2"),
        ("a,target\n1,1\n2,\n", "target='target' of .* is missing in row 2"),
        ("a,target\n1,x\n2,\n", "target='target' of .* is missing in row 2"),
        ("a;target\n1;1\n2;2\n", "has semicolons between its columns .'a;target'.: write it with commas"),
        ("a\ttarget\n1\t1\n2\t2\n", "has tabs between its columns"),
        ("a,target,target\n1,1,1\n2,2,2\n", "has it twice, and one gives the other away"),
        ("a,target\n1,1\n2,inf\n", "column 'target' of .* is inf in row 2"),
        ("a,target\n1,x\n2,x\n3,x\n", "target='target' of .* is x in all rows: choose a target"),
        ("a,target\n1,7\n2,7\n3,7\n", "target='target' of .* is 7 in all rows: choose a target"),
        ("a,target\n1,1.5\n2,o.5\n3,2\n", "column 'target' of .* is 'o.5' in row 2 .of 1 such"),
        ("a,target\n1,x\n2,y\n3,z\n", "column 'target' of .* is 'x' in row 1 .*target beside classes"),
        (b"a,target\n1,caf\xe9\n2,x\n", "is not text in UTF-8: save it as such"),
        ("a,target\n1,2,3\n1,2,3\n", "more values in its rows"),
    ],
)
def test_a_csv_that_can_not_be_trained_on(tmp_path, text, said):
    refused(said, **csv(tmp_path, text))


def test_log_input(store, tmp_path):
    import mlflow

    settings = table(tmp_path, ["cat", "dog"] * 15)
    for data, source in (("digits", "code"), (settings["data"], "local")):
        loaded = load(data=data)
        with mlflow.start_run() as run:
            samples.log_input(loaded, data)
        kept = store.get_run(run.info.run_id)
        (logged,) = kept.inputs.dataset_inputs
        assert (logged.dataset.name, logged.dataset.digest) == (Path(data).name, loaded.digest)
        assert logged.dataset.source_type == source
        n = len(loaded.x_train), len(loaded.x_validation), len(loaded.x_test), loaded.x_train.shape[1]
        names = ("data/n_train", "data/n_validation", "data/n_test", "data/n_features")
        assert kept.data.metrics == dict(zip(names, n, strict=True))
        counts = mlflow.artifacts.load_text(f"{kept.info.artifact_uri}/class_counts.json")
        assert json.loads(counts) == loaded.counts
    assert str(tmp_path) in logged.dataset.source
    with mlflow.start_run() as run:
        samples.log_input(loaded, "https://me:pa55@example.org/folder/a.csv?rows=5&token=t0ken")
    (logged,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert logged.dataset.name == "a.csv"
    assert json.loads(logged.dataset.source) == {"url": "https://me:***@example.org/folder/a.csv?rows=5&token=***"}
