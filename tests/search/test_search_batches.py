"""Batches: what MLflow refuses is told from a server that refuses everything, and nothing else is given up."""

from __future__ import annotations

import random

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mlflow_hp.delivery.batches import Batches

PROBE = ("tag", "key", "1")
ITEMS = [
    *(("metric", f"m{i}", float(i), 1.0 + i, i) for i in range(40)),
    *(("param", f"p{i}", "v") for i in range(10)),
    *(("tag", f"t{i}", "v") for i in range(10)),
]


class Client:
    """Takes what it is given, but for what a function refuses: of the names in a call, and of how many calls came."""

    def __init__(self, refuses):
        self.refuses = refuses
        self.n = 0
        self.taken = []

    def log_batch(self, run_id, metrics, params, tags):
        items = [("metric", m.key, m.value, m.timestamp / 1000, m.step) for m in metrics]
        items += [("param", p.key, p.value) for p in params] + [("tag", t.key, t.value) for t in tags]
        self.n += 1
        why = self.refuses([item[1] for item in items], self.n)
        if why:
            raise why if isinstance(why, Exception) else MlflowException("no", INVALID_PARAMETER_VALUE)
        self.taken += [item for item in items if item != PROBE]


def written(refuses):
    """What a client took, what was refused, and what is left, of all that was to be written."""
    client, refused = Client(refuses), []
    batches = Batches(client, "run", PROBE, lambda item, error: refused.append(item))
    left = batches.write(list(ITEMS))
    assert bool(left) == (batches.error is not None)
    return client, refused, left


def test_all_in_one_call():
    client, refused, left = written(lambda names, n: False)
    assert (client.n, refused, left) == (1, [], [])
    assert sorted(client.taken) == sorted(ITEMS)


@pytest.mark.parametrize("bad", [{"m7"}, {"p3"}, {"t9"}, {"m0", "m39", "p0", "t0"}, {item[1] for item in ITEMS}])
def test_what_is_bad_is_found_and_the_rest_written(bad):
    client, refused, left = written(lambda names, n: bad & set(names))
    assert {item[1] for item in refused} == bad
    assert left == []
    assert sorted([*client.taken, *refused]) == sorted(ITEMS)


def test_a_run_that_takes_nothing_keeps_everything_and_is_not_asked_for_each():
    client, refused, left = written(lambda names, n: True)
    assert (client.taken, refused, left) == ([], [], ITEMS)
    assert client.n == 2


@pytest.mark.parametrize("after", [2, 3, 5, 8, 13, 21, 34])
def test_a_server_that_fails_in_the_midst_of_the_search_for_what_is_bad(after):
    client, refused, left = written(lambda names, n: n > after or "m7" in names)
    assert [item[1] for item in refused] in ([], ["m7"])
    assert sorted([*client.taken, *refused, *left]) == sorted(ITEMS)


@pytest.mark.parametrize("seed", range(20))
def test_a_server_that_fails_now_and_then_has_nothing_given_up(seed):
    chance = random.Random(seed)  # noqa: S311
    client, refused, left = written(lambda names, n: chance.random() < 0.1)
    assert refused == []
    assert sorted([*client.taken, *left]) == sorted(ITEMS)


def test_a_server_that_takes_no_large_request_is_sent_small_ones():
    too_large = MlflowException("API request failed with error code 413 != 200. Response body: ''")
    client, refused, left = written(lambda names, n: too_large if len(names) > 7 else None)
    assert (refused, left) == ([], [])
    assert sorted(client.taken) == sorted(ITEMS)


def test_another_error_is_an_outage_at_once():
    client, refused, left = written(lambda names, n: OSError("gone"))
    assert (client.n, refused, left) == (1, [], ITEMS)
