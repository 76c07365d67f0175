"""Hostile names and broken files: a training is recorded whole, and no number is read that was not written."""

from __future__ import annotations

import json
import resource
import zipfile

import keras
import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlflow_hp
from mlflow_hp.history import (
    EPOCHS_FILE,
    STATISTICS,
    STEPS_FILE,
    HistoryWriter,
    Tensor,
    TrainingHistory,
    weight_snapshots,
)
from mlflow_hp.history.epoch_table import read_epochs
from tests.helpers.fits import X, Y, record

fuzzed = settings(max_examples=200, deadline=None, derandomize=True)


class Mean(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(keras.ops.mean(y_pred))


def test_a_training_with_hostile_names_is_recorded_whole(store):
    layers = ["a[0]", "a(0)", "a|b", "größe 🎉", "$\\frac$", "x" * 10_000, "..", "`{a}`"]
    metrics = ["../../evil", "<script>", "a|b", "$\\frac$", "🎉", "m" * 10_000]
    model = keras.Sequential(
        [keras.Input((3,)), *(keras.layers.Dense(1, name=name) for name in layers), keras.layers.Dense(1, name="out")]
    )
    made = [Mean(name=name) for name in metrics]
    model.compile("sgd", "mse", metrics=made, run_eagerly=True)  # TensorFlow's graphs refuse such names
    fitted = record(
        model, X, Y, mlflow_hp.TrainingRecorder(weights="statistics", metrics="all"), epochs=2, validation_split=0.2
    )
    run = store.get_run(fitted.run_id)
    assert "mlflow_hp.recording_error" not in run.data.tags
    assert {f"{name}/{kind}" for name in [*layers, "out"] for kind in ("kernel", "bias")} == {
        tensor.name for tensor in fitted.history.tensors
    }
    assert {*metrics, "loss"} <= set(fitted.history.epochs)
    weights_of = [name for name in run.data.metrics if name.startswith("weights/")]
    assert len([name for name in weights_of if "/norm" in name]) == 2 * len(layers)  # without the one that is cut
    assert len([name for name in weights_of if "xxx" in name]) == 2 * len(STATISTICS)
    assert {"evil", "_script_", "a_b", "__frac_", "_"} <= set(run.data.metrics)
    pictures = [item.path for item in store.list_artifacts(fitted.run_id, "plots")]
    assert len(pictures) == len([*metrics, "loss"]) + 1  # the losses by batch; the learning rate is constant
    assert all(path.startswith("plots/") and ".." not in path for path in pictures)


COLUMNS = {"step": "int64", "loss": "float64"}
TENSORS = [Tensor("dense/kernel", (3, 2), "float32", True), Tensor("scale", (), "bfloat16", False)]
SIZES = 4, 70, 2


def weights(k):
    rng = np.random.default_rng(k)
    kernel, scale = rng.normal(size=(k, 3, 2)).astype("float32"), rng.normal(size=k).astype(ml_dtypes.bfloat16)
    return {"dense/kernel": kernel, "scale": scale}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a small history, and its arrays."""
    folder, first = tmp_path_factory.mktemp("whole"), 0
    initial = {name: values[0] for name, values in weights(1).items()}
    with HistoryWriter(
        folder, columns=COLUMNS, tensors=TENSORS, weights="values", initial=initial, meta={"a": 1}
    ) as writer:
        for k in SIZES:
            steps = np.arange(first, first + k)
            writer.append({"step": steps, "loss": np.sin(steps)}, weights(k))
            first += k
    return (folder / STEPS_FILE).read_bytes(), arrays_of(TrainingHistory.open(folder))


def arrays_of(history):
    """All columns, without the row before the first step."""
    return dict(history.steps) | {tensor.name: history.weights(tensor.name)[1:] for tensor in history.tensors}


def tried(do):
    """What `do` gives, or None, and the words of its error."""
    try:
        return do(), ""
    except ValueError as error:
        return None, str(error)


def assert_sound(content, whole, folder):
    """Nothing but what was written is read: all of it, or the first chunks, or nothing."""
    folder.mkdir(exist_ok=True)
    (folder / STEPS_FILE).write_bytes(content)
    for check in (False, True):
        history, said = tried(lambda: TrainingHistory.open(folder, check=check))  # noqa: B023
        if history is None:
            assert STEPS_FILE in said
            continue
        assert (history.meta, history.tensors) == ({"a": 1}, tuple(TENSORS))
        found, said = tried(lambda: arrays_of(history))  # noqa: B023
        assert found is not None or (not check and "is damaged" in said)
        for name, values in (found or {}).items():
            assert len(values) in np.cumsum([0, *SIZES])
            assert values.tobytes() == whole[name][: len(values)].tobytes(), name


def altered(content, at, how, rng):
    data = bytearray(content)
    if how == "bit":
        data[at] ^= 1 << rng.integers(8)
    elif how == "zeros":
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif how == "length":
        data[at : at + 4] = [b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 4][rng.integers(3)][: len(data) - at]
    elif how == "lost":
        del data[at]
    return bytes(data)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["bit", "zeros", "length", "lost"])
def test_a_history_that_is_damaged_anywhere_gives_no_wrong_number(whole, tmp_path, how):
    content, arrays = whole
    rng, memory = np.random.default_rng(0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for at in range(rng.integers(16), len(content), 16):
        assert_sound(altered(content, at, how, rng), arrays, tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB; lengths may claim any number


def test_a_history_that_is_torn_at_any_byte_gives_the_whole_chunks_before(whole, tmp_path):
    content, arrays = whole
    for length in range(0, len(content), 11):
        assert_sound(content[:length], arrays, tmp_path)


@settings(fuzzed, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 5000), st.booleans())
def test_noise_is_no_history(whole, tmp_path, noise, at, behind):
    content, arrays = whole
    assert_sound(content[:at] + noise + (content[at + len(noise) :] if behind else b""), arrays, tmp_path)


def test_damage_is_told_when_it_is_read_and_left_out_when_asked_for(whole, tmp_path):
    content, arrays = whole
    kernel = arrays["dense/kernel"][10:11].tobytes()
    assert content.count(kernel) == 1
    (tmp_path / STEPS_FILE).write_bytes(content.replace(kernel, kernel[:-1] + bytes([kernel[-1] ^ 1])))
    history = TrainingHistory.open(tmp_path)
    assert history.n_steps == 76
    assert history.steps["loss"].tobytes() == arrays["loss"].tobytes()
    with pytest.raises(ValueError, match=r"'dense/kernel' in its rows 5 to 74 differs from .*check=True"):
        history.weights("dense/kernel")
    sound = TrainingHistory.open(tmp_path, check=True)
    assert (sound.n_steps, sound.complete) == (4, False)
    assert sound.weights("dense/kernel")[1:].tobytes() == arrays["dense/kernel"][:4].tobytes()


def test_a_history_without_checksums_is_read_as_before(tmp_path):
    head = {"version": 1, "columns": {"step": "int64"}, "tensors": [], "weights": "none", "meta": {}}
    schema = pa.schema([("step", pa.int64())], {"mlflow_hp": json.dumps(head)})
    with pa.OSFile(str(tmp_path / STEPS_FILE), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for values in ([None], [0, 1], [2]):
            stream.write_batch(pa.record_batch([pa.array(values, pa.int64())], schema=schema))
    for check in (False, True):
        history = TrainingHistory.open(tmp_path, check=check)
        assert (history.steps["step"].tolist(), history.complete) == ([0, 1, 2], True)


ODD = ["values", "O", "M8[s]", "int64", "finfo", "V8", "i4,i4"]
HEADS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "shape", "dtype"]), inner),
    max_leaves=8,
)


@settings(fuzzed, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["version", "columns", "tensors", "weights", "meta"]), HEADS)
def test_a_head_of_another_making_is_refused(tmp_path, key, value):
    tensor = {"name": "k", "shape": [2], "dtype": "float32", "trainable": True}
    head = {
        "version": 1,
        "columns": {"step": "int64"},
        "tensors": [tensor],
        "weights": "values",
        "meta": {},
        key: value,
    }
    schema = pa.schema([("step", pa.int64()), ("k", pa.list_(pa.float32(), 2))])
    schema = schema.with_metadata({"mlflow_hp": json.dumps(head | {key: value})})
    with pa.OSFile(str(tmp_path / STEPS_FILE), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        arrays = [pa.array([0, 0], pa.int64()), pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))]
        stream.write_batch(pa.record_batch(arrays, schema=schema))
    history, said = tried(lambda: TrainingHistory.open(tmp_path))
    assert (history is None) == (STEPS_FILE in said)
    if history is not None:
        assert key == "meta" or value in (1, "values", {"step": "int64"})
        assert history.weights("k").tolist() == [[1, 2], [3, 4]]


CELLS = st.sampled_from(
    ["epoch", "loss", "0", "1", "2.5", "nan", "inf", "1e400", "-1", "1_0", "", " 1", "٣", '"', "\0", "a,b", "1e20"]
)


@settings(fuzzed, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS | st.text(max_size=3), max_size=3).map(",".join), max_size=5), st.binary(max_size=8))
def test_any_table_of_epochs_is_read_or_refused(tmp_path, lines, noise):
    path = tmp_path / EPOCHS_FILE
    text = "\n".join(["epoch,loss", "0,0.5", *lines]).encode(errors="surrogatepass")
    for content in (text + b"\n", text + noise, noise + text, text[: len(text) // 2]):
        path.write_bytes(content)
        found, said = tried(lambda: read_epochs(path).columns)
        if found is None:
            assert EPOCHS_FILE in said
            continue
        assert len({len(column) for column in found.values()}) <= 1
        if content.startswith(b"epoch,loss\n0,0.5\n"):
            assert (found["epoch"][0], found["loss"][0]) == (0, 0.5)


def test_names_of_epochs_come_back_whatever_is_in_them(tmp_path):
    names = ["a,b", 'a"b', "a\nb", "a\r\nb", "a\u2028b", "a\x0bb", " ", "x" * 10_000, "<script>", "epoch "]
    initial = {name: values[0] for name, values in weights(1).items()}
    with HistoryWriter(
        tmp_path, columns=COLUMNS, tensors=TENSORS, weights="values", initial=initial, meta={}
    ) as writer:
        writer.append_epoch({"epoch": 0, **{name: i for i, name in enumerate(names[:5])}})
        writer.append_epoch({"epoch": 1, **{name: i for i, name in enumerate(names)}})
    found = TrainingHistory.open(tmp_path).epochs
    assert list(found) == ["epoch", *names]
    assert [found[name][1] for name in names] == list(range(len(names)))


def test_snapshots_that_are_damaged_anywhere_give_no_wrong_number(tmp_path):
    path, rng = tmp_path / weight_snapshots.FILE, np.random.default_rng(0)
    made = weight_snapshots.Snapshots(
        np.array([0, 2, 4]), {"a/k": np.arange(12, dtype=np.float32).reshape(3, 2, 2)}, 2, 4
    )
    weight_snapshots.save(made, path)
    content = path.read_bytes()
    for at in range(0, len(content), 5):
        for how in ("bit", "length", "torn"):
            path.write_bytes(content[:at] if how == "torn" else altered(content, at, how, rng))
            found, said = tried(lambda: weight_snapshots.load(path))
            if found is None:
                assert weight_snapshots.FILE in said
                continue
            assert found.tensors["a/k"].tobytes() == made.tensors["a/k"].tobytes()
            assert (found.steps.tolist(), found.every, found.n_steps) == ([0, 2, 4], 2, 4)


def test_snapshots_that_would_unpack_to_anything_are_refused(tmp_path):
    path = tmp_path / weight_snapshots.FILE
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("head.npy", bytes(10**7))
    with pytest.raises(ValueError, match="its arrays are compressed"):
        weight_snapshots.load(path)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / weight_snapshots.FILE
    np.savez(path, head=np.array([{"version": 1}], dtype=object), steps=np.arange(2))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        weight_snapshots.load(path)
