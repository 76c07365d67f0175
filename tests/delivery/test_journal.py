"""The journal: what was appended comes back, and of a broken one the part that is whole."""

from __future__ import annotations

import errno
import json
import os
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.journal import FILE, Journal, JournalError, of_a_training, read

HEAD = {"run_id": "1"}
RECORDS = [{"epoch": 0, "loss": float("inf")}, {"text": 'a\nb "c" ü 🙂'}, {"chunk": 1, "values": [0.1, -1e300, None]}]


@pytest.fixture
def folder(tmp_path):
    with Journal(tmp_path, HEAD) as kept:
        assert [kept.append(record) for record in RECORDS] == [0, 1, 2]
        os.fsync(kept)
        kept.acknowledge(2)
    return tmp_path


def test_all_comes_back(folder):
    found = read(folder)
    assert found == ({"journal": 1, **HEAD}, RECORDS, 2, None)


def test_it_is_read_while_it_grows(tmp_path):
    with Journal(tmp_path, HEAD) as kept:
        kept.append(RECORDS[0])
        assert read(tmp_path).records == RECORDS[:1]
        kept.append(RECORDS[1])
        assert read(tmp_path).records == RECORDS[:2]


def test_torn_at_every_byte(folder):
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
        assert found.acknowledged <= len(found.records)
        assert (found.problem is None) == (size - 1 in ends)


def test_every_flipped_bit_is_seen(folder):
    whole = (folder / FILE).read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    for place in range(ends[0] + 1, len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        (folder / FILE).write_bytes(broken)
        found = read(folder)
        whole_ones = sum(end < place for end in ends) - 1
        assert found.records == RECORDS[:whole_ones]
        assert "torn or altered" in found.problem


@pytest.mark.parametrize("text", [b"", b"\n", b"nothing\n", b"00000000 {}\n", b"\x00" * 4096])
def test_what_is_no_journal(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(JournalError, match="nothing can be recovered"):
        read(tmp_path)


def test_a_newer_version(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "VERSION", 2)
    Journal(tmp_path, HEAD).close()
    monkeypatch.undo()
    with pytest.raises(JournalError, match="version 2, above 1: upgrade"):
        read(tmp_path)


def test_acknowledgements_that_are_broken_count_as_none(folder):
    (folder / journal.ACKNOWLEDGED_FILE).write_bytes(b"\xff\xfe")
    assert read(folder).acknowledged == 0


def test_what_can_not_be_appended_leaves_nothing_behind(tmp_path, monkeypatch):
    kept = Journal(tmp_path, HEAD)

    def full(file, line):
        file.write(line[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            kept.append(RECORDS[0])
    kept.append(RECORDS[1])
    kept.close()
    assert read(tmp_path) == ({"journal": 1, **HEAD}, [RECORDS[1]], 0, None)


def test_others_can_not_read_it(folder):
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
    """What is read of such a file, or None and the words of the error."""
    (folder / FILE).write_bytes(content)
    try:
        return of_a_training(read(folder)), ""
    except JournalError as error:
        return None, str(error)


def whole(folder):
    (folder / FILE).unlink(missing_ok=True)
    with Journal(folder, TRAINING) as kept:
        for record in STEPS:
            kept.append(record)
        kept.acknowledge(4)
    return (folder / FILE).read_bytes()


@fuzzed
@given(st.binary(max_size=60), st.integers(0, 500), st.integers(0, 500), st.binary(max_size=30))
def test_of_a_damaged_journal_nothing_but_its_beginning_is_used(tmp_path, noise, start, end, acknowledged):
    content = whole(tmp_path)
    damaged = content[:start] + noise + content[end:]
    (tmp_path / journal.ACKNOWLEDGED_FILE).write_bytes(acknowledged)
    found, said = read_as_training(tmp_path, damaged)
    if found is None:
        assert "journal" in said
        return
    assert repr(found.head) == repr({"journal": 1, **TRAINING})
    assert repr(found.records) == repr(STEPS[: len(found.records)])
    assert 0 <= found.acknowledged <= len(found.records)
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
def test_a_journal_of_another_making_is_refused_or_used_up_to_there(tmp_path, of_head, of_record, value, in_head):
    """Its checksums are right, and what stands in it is not what a recording writes."""
    head = {"journal": 1, **TRAINING, **({of_head: value} if in_head else {})}
    other = {**next((record for record in STEPS if of_record in record), {}), of_record: value}
    texts = [json.dumps(record).encode() for record in (head, *STEPS[:2], other)]
    found, said = read_as_training(tmp_path, b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))
    if found is None:
        assert in_head
        assert "journal" in said
        return
    assert repr(found.records[:2]) == repr(STEPS[:2])
    assert len(found.records) == 3 or found.problem.startswith("record 2 of the journal")
    if len(found.records) == 3 and "chunk" in other:
        assert min(other["chunk"]["rows"], other["chunk"]["end"]) >= 0
    if len(found.records) == 3 and "epoch" in other:
        assert other["epoch"]["epoch"] >= 0
