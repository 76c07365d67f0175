"""The lock of a target: one synchronization holds it, and that of a killed one expires."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.sync import lock
from mlflow_hp.sync.lock import Lock
from mlflow_hp.tracking.tags import SYNC_CLAIM_TAG_PREFIX
from tests.helpers.waiting import wait_for


class Tags:
    """The tags of one experiment, as a store keeps them: each call takes its time, and others come between."""

    def __init__(self):
        self.tags = {}

    def _wait(self):
        time.sleep(random.random() * 0.004)  # noqa: S311

    def get_experiment(self, _):
        self._wait()
        tags = dict(self.tags)
        self._wait()
        return SimpleNamespace(tags=tags)

    def set_experiment_tag(self, _, key, value):
        self._wait()
        self.tags[key] = value
        self._wait()

    def delete_experiment_tag(self, _, key):
        self._wait()
        if self.tags.pop(key, None) is None:
            raise MlflowException("no such tag")


class WithoutDeleting(Tags):
    def delete_experiment_tag(self, *_):
        raise MlflowException("unknown endpoint")


@pytest.mark.parametrize("store", [Tags, WithoutDeleting])
def test_only_one_holds_a_lock(store, monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.002)
    tags, inside, most, other = store(), [], [], Lock(store(), "1", "another")

    def work(_):
        for _ in range(4):
            with Lock(tags, "1", "a"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    with ThreadPoolExecutor(6) as pool, other:
        list(pool.map(work, range(6)))
    assert (len(most), max(most)) == (24, 1)
    assert {text for text in tags.tags.values() if text != "released"} == set()


def claim(tags, number, name="a"):
    tags.tags[f"{SYNC_CLAIM_TAG_PREFIX}{name}.killed"] = (
        f'{{"number": {number}, "beat": 3, "by": "ann\\u001b[2J on there"}}'
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [0, 1, 7])
def test_the_lock_of_a_killed_one_expires(monkeypatch, number):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1.5)
    tags, said = Tags(), []
    claim(tags, number)
    with Lock(tags, "1", "b"):
        assert len(tags.tags) == 2  # another lock is not touched
    with Lock(tags, "1", "a", said.append):
        assert len(tags.tags) == 1
    assert tags.tags == {}
    assert said == ["waiting for a sync by ann[2J on there, which copies the same runs to the target"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"number": -1, "beat": 1, "by": ""}', '{"number": "1"}', "\0"]
)
def test_a_claim_that_cannot_be_read_expires_too(monkeypatch, text):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.6)
    tags = Tags()
    tags.tags[f"{SYNC_CLAIM_TAG_PREFIX}a.x"] = text
    with Lock(tags, "1", "a"):
        assert len(tags.tags) == 1


def beats(tags):
    """How many signs of life the oldest claim has given."""
    return max(json.loads(text)["beat"] for text in tags.tags.values())


def test_who_lives_is_waited_for_however_long(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1.0)
    tags, order = Tags(), []

    def second():
        with Lock(tags, "1", "a"):
            order.append("second")

    with Lock(tags, "1", "a") as first:
        waiting = threading.Thread(target=second)
        waiting.start()
        wait_for(lambda: beats(tags) > 3 * 12)  # thrice the patience
        first.ensure_held()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_who_was_not_heard_of_stops(monkeypatch):
    """A suspended machine, or a line that was cut: another has begun in the meantime."""
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1.0)

    class Cut(Tags):
        cut = False

        def set_experiment_tag(self, *words):
            if self.cut and threading.current_thread().name == "mlflow-hp lock":
                raise OSError("no line")
            super().set_experiment_tag(*words)

    tags = Cut()
    with Lock(tags, "1", "a") as first:
        tags.cut = True
        with Lock(Tags(), "1", "a"):
            pass
        other = Tags()
        other.tags = tags.tags
        with Lock(other, "1", "a"):
            with pytest.raises(UserError, match="run the command again"):
                first.ensure_held()
            tags.cut = False
            before = beats(other)
            wait_for(lambda: beats(other) > before + 6)
            assert len(other.tags) == 1  # and does not come back
            with pytest.raises(UserError, match="run the command again"):
                first.ensure_held()
