"""Both sides compared: whatever differs is named, and what can be mended is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_hp.tracking.tags import SYNCED_FROM_TAG
from tests.helpers.synced_runs import START, bring, brought, record, record_all_kinds, verified


def change_tag(client, run_id):
    client.set_tag(run_id, "colour", "blue")


def change_file(client, run_id):
    client.log_text(run_id, "worse", "plots/a.svg")


def add_file(client, run_id):
    client.log_text(run_id, "x", "b.svg")


def add_param(client, run_id):
    client.log_param(run_id, "b", "2")


def add_point(client, run_id):
    client.log_metric(run_id, "loss", 0.5, START, 1)


def end_otherwise(client, run_id):
    client.set_terminated(run_id, "KILLED", START + 5000)


def duplicate(client, run_id):
    run = client.get_run(run_id)
    client.create_run(run.info.experiment_id, START + 1, {SYNCED_FROM_TAG: run.data.tags[SYNCED_FROM_TAG]}, "duplicate")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("change", "kind", "line", "mended"),
    [
        (change_tag, None, "tag 'colour' differs: 'red' at the source, 'blue' at the target", True),
        (change_file, None, "artifact 'plots/a.svg' differs in content", True),
        (end_otherwise, None, "its 'status' differs: 'FINISHED' at the source, 'KILLED' at the target", True),
        (lambda client, run_id: client.delete_run(run_id), None, "its 'lifecycle' differs", True),
        (add_file, "artifacts", "artifact 'b.svg' is only at the target", False),
        (add_param, "params", "param 'b' is only at the target", False),
        (add_point, "metric points", "metric 'loss': 1 point more at the target", False),
        (duplicate, "runs", "is at the target 2 times", False),
    ],
)
def test_verifying_sees(both, change, kind, line, mended):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r", colour="red")
    stores.source.log_text(run.info.run_id, "bette", "plots/a.svg")
    bring(stores, name)
    copy = brought(stores, name)["r"].info.run_id
    assert verified(stores, name).differences == []
    change(stores.target, copy)
    found = verified(stores, name)
    assert len(found.differences) == 1
    assert line in found.differences[0]
    assert [name for name, (here, there) in found.counts.items() if here != there] == ([kind] if kind else [])
    bring(stores, name, thorough=True)
    assert bool(verified(stores, name).differences) is not mended


def test_verifying_sees_what_is_missing(both):
    stores, name, experiment = both
    record_all_kinds(stores.source, experiment)
    found = verified(stores, name)
    assert {there for _, there in found.counts.values()} == {0}
    assert sum("is not at the target" in line for line in found.differences) == 6
    bring(stores, name)
    model_id = brought(stores, name)["candidate"].outputs.model_outputs[0].model_id
    location = stores.target.get_logged_model(model_id).artifact_location
    Path(location.removeprefix("file://"), "weights.bin").unlink()
    (line,) = verified(stores, name).differences
    assert "model net" in line
    assert "artifact 'weights.bin' is missing" in line


def test_tags_added_there_are_left_alone(both):
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    bring(stores, name)
    stores.target.set_tag(brought(stores, name)["r"].info.run_id, "reviewed", "yes")
    assert verified(stores, name).differences == []
    bring(stores, name, thorough=True)
    assert brought(stores, name)["r"].data.tags["reviewed"] == "yes"
