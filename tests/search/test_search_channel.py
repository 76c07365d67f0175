"""Messages from a search's fits: in this process, from others, and where nobody listens."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from mlflow_hp.search.live.events import Outcome
from mlflow_hp.search.live.worker import FoldTask
from mlflow_hp.search.live.worker_channel import EventSender, Inbox
from tests.helpers.waiting import wait_for


def send_and_ask(address, results):
    sender = EventSender(address)
    for number in range(100):
        sender.send(number)
    results.put((sender.n_sent, sender.unsent, sender.ask("what")))


def in_another_process(address):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=send_and_ask, args=(address, results))
    process.start()
    answer = results.get()
    process.join()
    return answer


def test_from_another_process_in_order():
    got = []
    inbox = Inbox(got.append, answer=lambda about: f"{about}?")
    assert in_another_process(inbox.address(others=True)) == (100, [], "what?")
    wait_for(lambda: len(got) == 100)
    inbox.close()
    assert got == list(range(100))
    assert inbox.received == 100


def test_what_can_not_be_sent_is_kept():
    inbox = Inbox(print)
    nowhere = inbox.address()
    assert in_another_process(nowhere) == (0, list(range(100)), None)
    address = inbox.address(others=True)
    inbox.close()
    assert in_another_process(address) == (0, list(range(100)), None)


def test_in_this_process():
    got = []
    inbox = Inbox(got.append, answer=str)
    sender = EventSender(inbox.address())
    sender.send("a")
    assert (got, sender.ask(7)) == (["a"], "7")
    inbox.close()
    sender.send("too late")
    assert (got, sender.unsent, sender.ask(7)) == (["a"], [], None)


def test_a_task_tells_its_start_and_hands_back_its_outcome():
    got = []
    inbox = Inbox(got.append)
    before = time.time()
    outcome = FoldTask(3, divmod, inbox.address())(7, 2)
    assert isinstance(outcome, Outcome)
    assert (outcome.task, outcome.result, outcome.n_sent, outcome.events) == (3, (3, 1), 1, [])
    assert before <= outcome.started == got[0].time <= outcome.ended <= time.time()
    with pytest.raises(ZeroDivisionError):
        FoldTask(4, divmod, inbox.address())(1, 0)
    assert "ZeroDivisionError" in got[-1].traceback
    inbox.close()
