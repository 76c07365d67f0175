"""Data sets, and everything that a CSV can get wrong."""

from __future__ import annotations

import http.server
import socket
import threading

import numpy as np
import pandas as pd
import pytest
from conftest import ADVERTISING

from mlflow_hp.errors import UserError
from projects import data

DEFAULTS = {
    "data": "diabetes", "feature": "bmi", "target": "target", "test_size": 0.2, "seed": 0, "standardize": False
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


@pytest.mark.skipif(not ADVERTISING.exists(), reason="Advertising.csv is not here")
def test_advertising():
    loaded = load(data=str(ADVERTISING), feature="TV", target="sales")
    assert len(loaded.x_train) == 160


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("", {}, "is empty: name a CSV file"),
        ("a,b\n", {}, "has a head and no rows"),
        ("a,b\n1,2\n", {}, "has 1 row: .*0 of them would be left to train on"),
        ("a,b\n1,2\n3,4\n", {}, "has 2 rows: with test_size=0.2, 1 of them"),
        ("a,b\n1,2\n3,4\n5,6\n", {"feature": "c"}, "feature='c': .* has the columns a, b"),
        ("a,b\n1,2\n3,4\n5,6\n", {"target": "c"}, "target='c': .* has the columns a, b"),
        ("a,b\n1,2\n3,4\n5,6\n", {"target": "a"}, "feature and target are both 'a'"),
        ("a,b\n1,2\nx,4\n5,6\n", {}, "column 'a' of .* is 'x' in row 2 "),
        ("a,b\n1,2\n3,\n5,6\n", {}, "column 'b' of .* is missing in row 2 "),
        ("a,b\n1,2\n3,inf\n5,6\n", {}, "column 'b' of .* is inf in row 2 "),
        ("a,b\n1,2\n1,4\n1,6\n1,7\n", {}, "feature='a' has the same value, 1, in all rows"),
        ("a,b\n1,2\n3,1e300\n5,6\n", {}, "column 'b' of .* is 1e.300 in row 2 "),
        ("a,b\n1,2,7\n3,4,7\n5,6,7\n", {}, "more values in its rows than columns in its head"),
        (b"\xff\xfe\x00\x01\x80", {}, "can't be read as CSV"),
        ('a,b\n"1,2\n', {}, "can't be read as CSV"),
    ],
)
def test_a_csv_that_can_not_be_trained_on(tmp_path, text, settings, said):
    with pytest.raises(UserError, match=said):
        load(**{"data": csv(tmp_path, text), "feature": "a", "target": "b"} | settings)


def test_of_many_columns_the_first_are_named(tmp_path):
    head = ",".join(f"c{i}" for i in range(1000))
    with pytest.raises(UserError, match=r"c0, c1, .* \.\.\.$") as told:
        load(data=csv(tmp_path, f"{head}\n{head}\n"))
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
        monkeypatch.setattr(data, "URL_SECONDS", 0.2)
        with pytest.raises(UserError, match=r"does not answer .*timed out"):
            load(data=f"http://127.0.0.1:{port}/a.csv")
    with pytest.raises(UserError, match="does not answer"):
        load(data="http://no such host/a.csv")


def test_a_url():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.csv" else 404)
            self.end_headers()
            if self.path == "/a.csv":
                self.wfile.write(b"a,b\n1,2\n2,4\n3,6\n")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert len(load(data=f"{base}/a.csv", feature="a", target="b").x_train) == 2
        with pytest.raises(UserError, match=r"does not answer .*Not Found"):
            load(data=f"{base}/b.csv", feature="a", target="b")
        server.shutdown()


def test_log_input(store, tmp_path):
    import mlflow

    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    path = csv(tmp_path, "a,b\n1,3\n2,4\n")
    with mlflow.start_run() as run:
        data.log_input(table, "b", path)
    (logged,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert logged.dataset.name == "table.csv"
    assert logged.dataset.digest
    assert str(tmp_path) in logged.dataset.source
