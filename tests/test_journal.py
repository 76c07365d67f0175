"""The journal: what was appended comes back, and of a broken one the part that is whole."""

from __future__ import annotations

import errno
import os

import pytest

from mlflow_hp import journal
from mlflow_hp.journal import FILE, Journal, JournalError, read

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
    write = os.write

    def full(file, line):
        write(file, line[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            kept.append(RECORDS[0])
    kept.append(RECORDS[1])
    kept.close()
    assert read(tmp_path) == ({"journal": 1, **HEAD}, [RECORDS[1]], 0, None)


def test_others_can_not_read_it(folder):
    assert (folder / FILE).stat().st_mode & 0o077 == 0
