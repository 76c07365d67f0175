"""Checksums: every change on disk is detected, and files of earlier versions are still read and checked."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_hp.delivery import journal
from mlflow_hp.history import EPOCHS_FILE, STEPS_FILE, HistoryWriter, Tensor, TrainingHistory
from mlflow_hp.history.checksums import CRC_VERSION, column_checksum, is_intact, text_checksum
from mlflow_hp.history.epoch_table import read_epochs
from mlflow_hp.history.schema import CHECK, VERSION

VERSION_1 = Path(__file__).with_name("version_1")
"""History of 12 steps in 3 chunks, and 3 epochs, in version 1 of the format, with CRC-32 checksums."""


def write_now(folder):
    """Write the same history in the current version of the format."""
    old = TrainingHistory.open(VERSION_1)
    tensors = [Tensor("dense/kernel", (2, 3), "float32", True), Tensor("dense/bias", (3,), "float32", True)]
    weights = {tensor.name: old.weights(tensor.name) for tensor in tensors}
    columns = {name: values for name, values in old.steps.items() if name in ("step", "batch_loss", "learning_rate")}
    with HistoryWriter(
        folder, columns={name: values.dtype.name for name, values in columns.items()}, tensors=tensors,
        weights="values", initial={name: values[0] for name, values in weights.items()}, meta=old.meta,
    ) as writer:  # fmt: skip
        for first in (0, 4, 8):
            rows = slice(first, first + 4)
            writer.append(
                {name: values[rows] for name, values in columns.items()},
                {name: values[1:][rows] for name, values in weights.items()},
            )
        for epoch in range(3):
            row = {name: float(values[epoch]) for name, values in old.epochs.items()}
            writer.append_epoch({name: value for name, value in row.items() if value == value})
    return folder


@pytest.fixture(params=["version 1", "now"])
def folder(request, tmp_path):
    if request.param == "now":
        return write_now(tmp_path / "history")
    return Path(shutil.copytree(VERSION_1, tmp_path / "history"))


def test_both_versions_read_the_same(tmp_path):
    for folder in (VERSION_1, write_now(tmp_path / "new")):
        history = TrainingHistory.open(folder, check=True)
        assert (history.n_steps, history.n_epochs, history.complete) == (12, 3, True)
        assert history.meta == {"run_id": "a run", "first_step": 0}
        np.testing.assert_array_equal(history.steps["batch_loss"], (1 / np.arange(1, 13)).astype(np.float32))
        np.testing.assert_array_equal(history.weights("dense/bias")[1:, 0], -np.arange(12.0))
        np.testing.assert_array_equal(history.epochs["val_loss"], [np.nan, 0.5, 0.5])
    kept = [(VERSION_1 / name).read_bytes() for name in (STEPS_FILE, EPOCHS_FILE)]
    assert b"crc32:" in kept[1]
    assert (format_version(VERSION_1), format_version(tmp_path / "new")) == (CRC_VERSION, VERSION)


def format_version(folder):
    with pa.ipc.open_stream(folder / STEPS_FILE) as stream:
        return json.loads(stream.schema.metadata[b"mlflow_hp"])["version"]


@pytest.mark.sampled(2)
def test_flipped_bits_of_the_steps_are_detected(folder):
    """Reading raises, or returns the original numbers, perhaps fewer."""
    path = folder / STEPS_FILE
    whole, before = path.read_bytes(), TrainingHistory.open(folder)
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            history = TrainingHistory.open(folder)
            for name, values in history.steps.items():
                np.testing.assert_array_equal(values, before.steps[name][: history.n_steps])
            for name in ("dense/kernel", "dense/bias"):
                np.testing.assert_array_equal(history.weights(name), before.weights(name)[: history.n_steps + 1])
        except ValueError as error:
            assert STEPS_FILE in str(error)  # noqa: PT017 - many changes leave the numbers as they are


def test_flipped_bits_of_the_epochs_are_detected(folder):
    path = folder / EPOCHS_FILE
    whole, before = path.read_bytes(), read_epochs(path).columns
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                found = read_epochs(path).columns
            except ValueError as error:
                assert EPOCHS_FILE in str(error)  # noqa: PT017 - the end of the last line may go
            else:
                assert list(found) == list(before)
                for name, values in found.items():
                    np.testing.assert_array_equal(values, before[name][: len(values)])


def test_changes_that_cancel_out_in_version_1_are_detected():
    numbers = np.arange(1000, dtype=np.uint64)
    other = numbers.copy()
    other[[3, 4]] = other[[4, 3]]
    assert column_checksum(numbers, CRC_VERSION) == column_checksum(other, CRC_VERSION)  # why there is a version 2
    assert column_checksum(numbers, VERSION) != column_checksum(other, VERSION)


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_texts_are_checked_with_either_checksum(text, place):
    for checksum in (f"{zlib.crc32(text):08x}".encode(), text_checksum(text).encode()):
        assert is_intact(text, checksum)
        place %= len(checksum)
        assert not is_intact(text, checksum[:place] + b"g" + checksum[place + 1 :])
        assert not is_intact(text, checksum[:-1])
        assert not is_intact(text + b"x", checksum)


def test_journal_of_version_1_is_read_and_appended_to(tmp_path):
    records = [{"journal": 1, "run_id": "a"}, {"params": {"x": "1"}}]
    texts = [json.dumps(record).encode() for record in records]
    (tmp_path / journal.FILE).write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))
    with_more = journal.Journal.reopen(tmp_path)
    with_more.append({"params": {"y": "2"}})
    with_more.close()
    entries = journal.read(tmp_path)
    assert entries.records == [{"params": {"x": "1"}}, {"params": {"y": "2"}}]
    assert not entries.problem


def test_checksum_of_the_header(tmp_path):
    with pa.ipc.open_stream(write_now(tmp_path / "history") / STEPS_FILE) as stream:
        metadata = stream.schema.metadata
    assert metadata[CHECK].decode() == text_checksum(metadata[b"mlflow_hp"])
