"""No test depends on how fast the machine is: it waits for events, and pytest-timeout ends what hangs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLOCK = re.compile(r"\bsleep\(|\b(?:monotonic|perf_counter|process_time)\(|\.(?:wait|join)\(\d")
ALLOWED = {
    "tests/delivery/test_slow_store.py": (3, "a store that accepts everything slowly"),
    "tests/delivery/test_interrupts.py": (1, "a thread that is interrupted lets the main thread take the signal"),
    "tests/delivery/test_refusals.py": (3, "a back-off; a slow server"),
    "tests/helpers/failing_proxy.py": (1, "a server that is slow"),
    "tests/helpers/score_table.py": (1, "fits that take their time, in a search with a limit of it"),
    "tests/helpers/waiting.py": (1, "the pause between two looks"),
    "tests/projects/test_data.py": (1, "an address that hands over its bytes slowly"),
    "tests/projects/test_samples_keras.py": (3, "an address that hangs for all its addresses"),
    "tests/analysis/test_forecast.py": (2, "the time of the processor, of which only the order counts"),
    "tests/search/test_search.py": (1, "the pause between two looks, which an event ends"),
    "tests/search/test_search_budget.py": (1, "a clock of its own in place of the real one"),
    "tests/sync/test_sync_at_once.py": (
        2,
        "calls that take their time; a process that goes on to its next write",
    ),
    "tests/sync/test_sync_lock.py": (2, "calls that take their time, so that others come between"),
    "tests/test_team.py": (1, "a server gets some time to end before it is killed"),
    "tests/training/test_recording_errors.py": (1, "a store so slow that it is told"),
}
"""File -> how often it sleeps or reads a clock for seconds that pass, and why that does not decide what comes out."""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_what_is_listed_sleeps(path):
    if path == Path(__file__):
        return
    found = CLOCK.findall(path.read_text(encoding="utf-8"))
    allowed, _ = ALLOWED.get(str(path.relative_to(ROOT)), (0, ""))
    assert len(found) == allowed, found
