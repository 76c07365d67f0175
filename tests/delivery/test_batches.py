"""Batches: refused items are set aside; a server that refuses everything loses nothing."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from mlflow.entities import Metric, Param, RunData, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, PERMISSION_DENIED

from mlflow_hp.delivery.batches import BatchWriter, n_per_call
from mlflow_hp.tracking.tags import REFUSED_AT_TAG

ITEMS = [
    *(Param(f"p{i}", "v") for i in range(10)),
    *(RunTag(f"t{i}", "v") for i in range(10)),
    *(Metric(f"m{i}", float(i), 1000 + i, i) for i in range(40)),
]
TOO_LARGE = MlflowException("API request to /log-batch failed with error code 413 != 200. Response body: ''")
FORBIDDEN = MlflowException("no", PERMISSION_DENIED)


class Client:
    """Client that refuses calls by a function of the names in a call, and of the number of calls."""

    def __init__(self, refuses):
        self.refuses = refuses
        self.n = 0
        self.taken = []

    def log_batch(self, run_id, metrics, params, tags):
        items = [*metrics, *params, *tags]
        self.n += 1
        why = self.refuses([item.key for item in items], self.n)
        if why:
            raise why if isinstance(why, Exception) else MlflowException("no", INVALID_PARAMETER_VALUE)
        self.taken += [item for item in items if item.key != REFUSED_AT_TAG]


def write_items(refuses, items=ITEMS):
    """Write items; return the client, and the refused and the remaining items."""
    client, refused, left = Client(refuses), [], list(items)
    writer = BatchWriter(client, "run", lambda item, error: refused.append(item))
    try:
        error = writer.write(left)
    except Exception as raised:  # noqa: BLE001
        error = raised
    assert bool(left) == (error is not None)
    return client, refused, left


def names(items):
    return sorted(item.key for item in items)


def test_one_call_for_all():
    client, refused, left = write_items(lambda names, n: False)
    assert (client.n, refused, left) == (1, [], [])
    assert names(client.taken) == names(ITEMS)


@pytest.mark.parametrize("code", [INVALID_PARAMETER_VALUE, INTERNAL_ERROR])
@pytest.mark.parametrize("bad", [{"m7"}, {"p3"}, {"t9"}, {"m0", "m39", "p0", "t0"}, {item.key for item in ITEMS}])
def test_bad_items_are_found_and_the_rest_is_written(bad, code):
    client, refused, left = write_items(lambda names, n: MlflowException("no", code) if bad & set(names) else None)
    assert {item.key for item in refused} == bad
    assert left == []
    assert names([*client.taken, *refused]) == names(ITEMS)


def test_one_bad_value_among_thousands_is_found_in_few_calls():
    items = [Metric("loss", float(i), 1000 + i, i) for i in range(3000)]
    client, refused, left = [], [], list(items)

    class Picky(Client):
        def log_batch(self, run_id, metrics, params, tags):
            self.n += 1
            if any(metric.step == 1234 for metric in metrics):
                raise MlflowException("no", INVALID_PARAMETER_VALUE)
            self.taken += metrics

    client = Picky(None)
    assert BatchWriter(client, "run", lambda item, error: refused.append(item)).write(left) is None
    assert [item.step for item in refused] == [1234]
    assert sorted(item.step for item in client.taken) == [i for i in range(3000) if i != 1234]
    assert client.n < 50


def test_repeatedly_refused_name_is_set_aside_at_once():
    client, refused = Client(lambda names, n: "bad" in names), []
    writer = BatchWriter(client, "run", lambda item, error: refused.append(item))
    for step in range(10):
        before = client.n
        assert writer.write([Metric("bad", 1.0, 0, step)]) is None
    assert (len(refused), client.n - before) == (10, 2)


def test_run_that_accepts_nothing_gets_two_calls():
    client, refused, left = write_items(lambda names, n: True)
    assert (client.taken, refused, left) == ([], [], ITEMS)
    assert client.n == 2


@pytest.mark.parametrize("error", [OSError("gone"), FORBIDDEN, TOO_LARGE, MlflowException("no", INTERNAL_ERROR)])
def test_outage_is_not_a_refusal(error):
    client, refused, left = write_items(lambda names, n: error)
    assert (client.taken, refused, left) == ([], [], ITEMS)
    assert client.n == 2


@pytest.mark.parametrize("after", [2, 3, 5, 8, 13, 21, 34])
def test_outage_during_the_search_for_a_bad_item(after):
    client, refused, left = write_items(lambda names, n: n > after or "m7" in names)
    assert names(refused) in ([], ["m7"])
    assert names([*client.taken, *refused, *left]) == names(ITEMS)


@pytest.mark.parametrize("seed", range(20))
def test_occasional_failures_lose_nothing(seed):
    chance = random.Random(seed)  # noqa: S311
    client, refused, left = write_items(lambda names, n: chance.random() < 0.1)
    assert refused == []
    assert names([*client.taken, *left]) == names(ITEMS)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("items", [ITEMS, ITEMS[:1], ITEMS[-1:]])
def test_two_servers_in_turn_of_which_one_refuses_everything(items, first):
    client, refused, left = write_items(lambda names, n: n % 2 == first, items)
    assert refused == []
    assert names([*client.taken, *left]) == names(items)


def test_large_batches_are_split():
    client, refused, left = write_items(lambda names, n: TOO_LARGE if len(names) > 7 else None)
    assert (refused, left) == ([], [])
    assert names(client.taken) == names(ITEMS)


def test_single_item_that_is_too_large_is_set_aside():
    client, refused, left = write_items(lambda names, n: TOO_LARGE if "t3" in names else None)
    assert (names(refused), left) == (["t3"], [])
    assert names([*client.taken, *refused]) == names(ITEMS)


def test_forbidden_item_stays_and_blocks_nothing():
    """As by an application firewall that blocks a name, perhaps for a while."""
    client, refused, left = write_items(lambda names, n: FORBIDDEN if "p3" in names else None)
    assert (refused, names(left)) == ([], ["p3"])
    assert names([*client.taken, *left]) == names(ITEMS)


def test_param_that_the_program_has_logged_meanwhile_is_kept():
    class Has(Client):
        def get_run(self, run_id):
            return SimpleNamespace(data=RunData(params=[Param("p3", "other")]))

    client, refused = Has(lambda names, n: "p3" in names), []
    items = list(ITEMS)
    assert BatchWriter(client, "run", lambda item, error: refused.append(item)).write(items) is None
    assert (refused, items) == ([], [])


@pytest.mark.parametrize(
    ("n_params", "n_tags", "n_metrics", "expected"),
    [(0, 0, 5, 5), (0, 0, 5000, 990), (200, 0, 5, 90), (90, 200, 5, 180), (90, 90, 5000, 990), (0, 0, 0, 0)],
)
def test_items_per_call(n_params, n_tags, n_metrics, expected):
    items = [Param("p", "")] * n_params + [RunTag("t", "")] * n_tags + [Metric("m", 0, 0, 0)] * n_metrics
    assert n_per_call(items) == expected
