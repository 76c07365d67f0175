"""Table of epochs: spreadsheets open it, and damage never changes a number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_hp.history import EPOCHS_FILE, HistoryWriter, TrainingHistory, write_epochs
from mlflow_hp.history.epoch_table import EpochsWriter, read_epochs

EPOCHS = [
    {"epoch": 0, "loss": 0.1 + 0.2},
    {"epoch": 1, "loss": float("nan"), "val_loss": float("-inf")},
    {"epoch": 2, "val_loss": 1e-300, 'a, "b"\n': 7.0},
    {"epoch": 3, "loss": 0.25},
]


@pytest.fixture
def path(tmp_path):
    table = EpochsWriter(tmp_path / EPOCHS_FILE)
    for row in EPOCHS:
        table.append(row)
    return tmp_path / EPOCHS_FILE


def bits(columns, n=None):
    return {name: np.asarray(values[:n]).tobytes() for name, values in columns.items()}


def is_beginning(found, whole):
    """Return whether a table equals the first lines of another; it may have more or fewer columns."""
    n = len(next(iter(found.values()), ()))
    return not n or bits(found) == bits(whole, n)


def test_epochs_written_one_by_one(path):
    found = read_epochs(path)
    assert found.intact
    assert list(found.columns) == ["epoch", "loss", "val_loss", 'a, "b"\n']
    assert found.columns["epoch"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.columns["val_loss"], [np.nan, -np.inf, 1e-300, np.nan])


def test_rewriting_gives_the_same_file(path, tmp_path):
    write_epochs(tmp_path / "again.csv", EPOCHS)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_pandas_reads_the_table(path):
    table = pd.read_csv(path, index_col="epoch")
    assert table["loss"].iloc[0] == pytest.approx(0.1 + 0.2, rel=1e-15)  # pandas 2 rounds the last bit
    assert list(table.columns[:-1]) == ["loss", "val_loss", 'a, "b"\n']
    assert table.columns[-1].startswith("xxh3:")


def test_table_without_checksums(tmp_path):
    path = tmp_path / EPOCHS_FILE
    path.write_text('epoch,loss,"a, b"\n0,0.5,\n1,0.25,inf\n')
    columns, is_intact = read_epochs(path)
    assert is_intact
    assert columns["loss"].tolist() == [0.5, 0.25]
    assert columns["a, b"][1] == np.inf


def test_torn_line_is_left_out_and_foreign_line_refused(path, tmp_path):
    text = path.read_bytes()
    path.write_bytes(text[:-3])
    columns, is_intact = read_epochs(path)
    assert (columns["epoch"].tolist(), is_intact) == ([0, 1, 2], True)
    path.write_bytes(text + b"4,0.5,,\n")
    with pytest.raises(ValueError, match=r"epochs\.csv is damaged: its line of epoch number 4"):
        read_epochs(path)
    for line in ("1,low", "1"):
        path.write_text(f"epoch,loss\n0,0.5\n{line}\n")
        with pytest.raises(ValueError, match=r"epochs\.csv has a line that is not a number under each name"):
            read_epochs(path)


def test_flipped_bits_are_detected_or_harmless(path):
    content, whole = path.read_bytes(), read_epochs(path).columns
    unseen = 0
    for at in range(len(content)):
        for bit in range(8):
            broken = bytearray(content)
            broken[at] ^= 1 << bit
            path.write_bytes(broken)
            try:
                found = read_epochs(path)
            except ValueError as error:
                assert EPOCHS_FILE in str(error)  # noqa: PT017 - most, not all, are errors
            else:
                unseen += 1
                assert is_beginning(found.columns, whole), (at, bit)
                assert len(found.columns["epoch"]) >= len(EPOCHS) - 1
    assert unseen <= 16  # in the last line's end, which then counts as cut off, and in quotes that mean the same


def test_lost_duplicated_and_swapped_lines_are_detected(path):
    head, rest = path.read_bytes().split(b"\n0,")
    lines = [b"0," + line + b"\n" if not i else line + b"\n" for i, line in enumerate(rest.splitlines())]
    for chosen in ([0, 2, 3], [0, 0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 3]):
        path.write_bytes(head + b"\n" + b"".join(lines[i] for i in chosen))
        with pytest.raises(ValueError, match=r"epochs\.csv is damaged.*check=True"):
            read_epochs(path)


def test_check_reads_the_part_before_the_damage(tmp_path):
    columns = {"step": "int64"}
    with HistoryWriter(tmp_path, columns=columns, tensors=[], weights="none", initial=None, meta={}) as writer:
        writer.append({"step": np.arange(3)}, {})
        for i in range(3):
            writer.append_epoch({"epoch": i, "loss": i + 0.5})
    path = tmp_path / EPOCHS_FILE
    path.write_bytes(path.read_bytes().replace(b"\n1,1.5", b"\n1,1.4"))
    with pytest.raises(ValueError, match=r"line of epoch number 1 \(0-based\) differs from what was written"):
        TrainingHistory.open(tmp_path)
    intact = TrainingHistory.open(tmp_path, check=True)
    assert (intact.n_steps, intact.n_epochs, intact.complete) == (3, 1, False)
    assert intact.epochs["loss"].tolist() == [0.5]
    path.write_bytes(path.read_bytes().replace(b"loss", b"gain"))
    assert TrainingHistory.open(tmp_path, check=True).n_epochs == 0


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=30), st.integers(0, 250), st.integers(0, 250))
def test_noise_never_changes_a_number(tmp_path, noise, start, end):
    path = tmp_path / EPOCHS_FILE
    write_epochs(path, EPOCHS)
    text, whole = path.read_bytes(), read_epochs(path).columns
    path.write_bytes(text[:start] + noise + text[end:])
    for check in (False, True):
        try:
            found = read_epochs(path, check=check)
        except ValueError as error:
            assert EPOCHS_FILE in str(error)  # noqa: PT017 - noise may also change nothing
        else:
            assert is_beginning(found.columns, whole)


def test_no_table_without_epochs(tmp_path, path):
    write_epochs(path, [])
    assert not path.exists()
    write_epochs(path, [])
    assert read_epochs(path).columns == {}


@pytest.mark.parametrize("text", ["crc32:32d70693\n", ""])
def test_table_without_columns_of_earlier_versions(tmp_path, text):
    (tmp_path / EPOCHS_FILE).write_text(text)
    assert read_epochs(tmp_path / EPOCHS_FILE) == ({}, True)
