"""Journal: records round-trip, and the part before a damage is read."""

from __future__ import annotations

import json
import os
import resource
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_hp.delivery import journal, training_journal
from mlflow_hp.delivery.journal import FILE, Journal, JournalError, read

HEADER = {"run_id": "1"}
RECORDS = [{"epoch": 0, "loss": float("inf")}, {"text": 'a\nb "c" ü 🙂'}, {"chunk": 1, "values": [0.1, -1e300, None]}]


@pytest.fixture
def folder(tmp_path):
    with Journal(tmp_path, HEADER) as kept:
        assert [kept.append(record) for record in RECORDS] == [0, 1, 2]
        os.fsync(kept)
        kept.acknowledge(2)
    return tmp_path


def test_records_round_trip(folder):
    found = read(folder)
    assert found == ({"journal": journal.VERSION, **HEADER}, RECORDS, 2, None)


def test_reading_while_appending(tmp_path):
    with Journal(tmp_path, HEADER) as kept:
        kept.append(RECORDS[0])
        assert read(tmp_path).records == RECORDS[:1]
        kept.append(RECORDS[1])
        assert read(tmp_path).records == RECORDS[:2]


def test_journal_torn_at_any_byte(folder):
    whole = (folder / FILE).read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole)):
        (folder / FILE).write_bytes(whole[:size])
        n = sum(size > end for end in ends)
        if not n:
            with pytest.raises(JournalError, match="nothing can be recovered"):
                read(folder)
            continue
        found = read(folder)
        assert found.records == RECORDS[: n - 1]
        assert found.n_acknowledged <= len(found.records)
        assert (found.problem is None) == (size - 1 in ends)


def test_flipped_bits_are_detected(folder):
    whole = (folder / FILE).read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    for place in range(ends[0] + 1, len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        (folder / FILE).write_bytes(broken)
        found = read(folder)
        n_intact = sum(end < place for end in ends) - 1
        assert found.records == RECORDS[:n_intact]
        assert "torn or altered" in found.problem


@pytest.mark.parametrize("length", [None, -1, -30, 60])
def test_repeated_journal_loses_nothing(folder, length):
    """The file is followed by its own content, or by the beginning of that."""
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content + content[:length])
    header, records, n_acknowledged, problem = read(folder)
    assert (header, records, n_acknowledged) == ({"journal": journal.VERSION, **HEADER}, RECORDS, 2)
    assert "nothing is lost, as " in problem
    Journal.reopen(folder).close()
    assert (folder / FILE).read_bytes() == content


def test_second_journal_in_one_file_is_reported_as_damage(folder):
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content * 2)
    with (folder / FILE).open("ab") as file:
        file.write(content.splitlines(keepends=True)[1])
    entries = read(folder)
    assert entries.records == RECORDS
    assert "torn or altered: the next 5 lines" in entries.problem


@pytest.mark.parametrize("text", [b"", b"\n", b"nothing\n", b"00000000 {}\n", b"\x00" * 4096])
def test_other_files(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(JournalError, match="nothing can be recovered"):
        read(tmp_path)


def test_newer_version_of_a_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "VERSION", journal.VERSION + 1)
    Journal(tmp_path, HEADER).close()
    monkeypatch.undo()
    with pytest.raises(JournalError, match="version 3, above 2: upgrade"):
        read(tmp_path)


def test_damaged_acknowledgements_count_as_none(folder):
    (folder / journal.ACKNOWLEDGED_FILE).write_bytes(b"\xff\xfe")
    assert read(folder).n_acknowledged == 0


def test_failed_append_leaves_no_trace(tmp_path):
    kept = Journal(tmp_path, HEADER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size + 10, hard))
    try:
        with pytest.raises(OSError, match=r"only 10 of .* bytes could be written"):
            kept.append(RECORDS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept.append(RECORDS[1])
    kept.close()
    assert read(tmp_path) == ({"journal": journal.VERSION, **HEADER}, [RECORDS[1]], 0, None)


def test_only_the_user_can_read_it(folder):
    assert (folder / FILE).stat().st_mode & 0o077 == 0


TRAINING = {
    "run_id": "1",
    "tracking_uri": "sqlite:///x.db",
    "process": "{}",
    "fit": 0,
    "metrics_every": 1,
    "report": True,
}
STEPS = [
    {"params": {"optimizer": "SGD"}, "tags": {}},
    {"chunk": {"rows": 10, "end": 4711}},
    {"epoch": {"epoch": 0, "loss": float("nan")}, "time": 1_700_000_000_000},
    {"a kind of": "record that is not known"},
    {"ended": {"time": 1.7e9, "whole": True}},
]
fuzzed = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_as_training(folder, content):
    """Read a file of this content as the journal of a training; return the entries, or None and the error message."""
    (folder / FILE).write_bytes(content)
    try:
        return training_journal.validated(read(folder)), ""
    except JournalError as error:
        return None, str(error)


def write_whole(folder):
    (folder / FILE).unlink(missing_ok=True)
    with Journal(folder, TRAINING) as kept:
        for record in STEPS:
            kept.append(record)
        kept.acknowledge(4)
    return (folder / FILE).read_bytes()


@fuzzed
@given(st.binary(max_size=60), st.integers(0, 500), st.integers(0, 500), st.binary(max_size=30))
def test_only_the_part_before_the_damage_is_used(tmp_path, noise, start, end, acknowledged):
    content = write_whole(tmp_path)
    damaged = content[:start] + noise + content[max(start, end) :]
    (tmp_path / journal.ACKNOWLEDGED_FILE).write_bytes(acknowledged)
    found, said = read_as_training(tmp_path, damaged)
    if found is None:
        assert "journal" in said
        return
    assert repr(found.header) == repr({"journal": journal.VERSION, **TRAINING})
    assert repr(found.records) == repr(STEPS[: len(found.records)])
    assert 0 <= found.n_acknowledged <= len(found.records)
    assert found.problem or content.startswith(damaged)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["epoch", "rows", "end", "whole", "loss", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@fuzzed
@given(
    st.sampled_from(["journal", *TRAINING]),
    st.sampled_from(["chunk", "epoch", "params", "tags", "ended", "time"]),
    ANYTHING,
    st.booleans(),
)
def test_invalid_records_with_valid_checksums(tmp_path, header_field, record_field, value, in_header):
    """The records before the invalid one are used."""
    header = {"journal": journal.VERSION, **TRAINING, **({header_field: value} if in_header else {})}
    other = {**next((record for record in STEPS if record_field in record), {}), record_field: value}
    texts = [json.dumps(record).encode() for record in (header, *STEPS[:2], other)]
    found, said = read_as_training(tmp_path, b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))
    if found is None:
        assert in_header
        assert "journal" in said
        return
    assert repr(found.records[:2]) == repr(STEPS[:2])
    assert len(found.records) == 3 or found.problem.startswith("record 2 of the journal")
    if len(found.records) == 3 and "chunk" in other:
        assert min(other["chunk"]["rows"], other["chunk"]["end"]) >= 0
    if len(found.records) == 3 and "epoch" in other:
        assert other["epoch"]["epoch"] >= 0
