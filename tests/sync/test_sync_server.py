"""The same to a real server on PostgreSQL."""

from __future__ import annotations

import time

import pytest

from mlflow_hp.sync.stores import connect
from tests.helpers.synced_runs import (
    POINTS,
    Counting,
    bring,
    brought,
    check_all_kinds,
    check_counts,
    record,
    record_all_kinds,
    verified,
)


@pytest.mark.thorough
@pytest.mark.slow
def test_to_a_server_on_postgresql(server, tracking_uri, tmp_path):
    """The same to a real server, broken off a few times, and back into an empty store."""
    stores, name = connect(server, tracking_uri), f"server {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri())
    model = record_all_kinds(stores.source, experiment)
    sent = 0
    for calls in (3, 9, 12):
        counting = Counting(stores.target, calls)
        with pytest.raises(RuntimeError, match="the line is dead"):
            bring(stores._replace(target=counting), name)
        sent += counting.points
    assert sent + bring(stores, name).points == POINTS
    check_all_kinds(stores, name, model, tmp_path)
    check_counts(verified(stores, name))
    assert bring(stores, name).unchanged == 5
    back = connect(f"sqlite:///{tmp_path}/back.db", server)
    assert bring(back, name).new == 5
    check_counts(verified(back, name))


@pytest.mark.thorough
@pytest.mark.slow
def test_names_that_a_url_cuts_are_told(server, tracking_uri, tmp_path):
    stores, name = connect(server, tracking_uri), f"names {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri())
    run_id = record(stores.source, experiment, "r").info.run_id
    for path in ("odd/a#b.txt", "odd/what?.txt", "odd/%41.txt", "odd/\u00e4 100% +&=;,@.txt"):
        stores.source.log_text(run_id, path, path)
    assert "rename 'odd/" in bring(stores, name).failed[run_id]
    copy = brought(stores, name)["r"]
    assert copy.info.status == "FINISHED"
    (path,) = [file.path for file in stores.target.list_artifacts(copy.info.run_id, "odd")]
    assert path == "odd/\u00e4 100% +&=;,@.txt"
    assert len(verified(stores, name).differences) == 3
    for file in ("a#b.txt", "what?.txt", "%41.txt"):
        (tmp_path / "source" / run_id / "artifacts" / "odd" / file).unlink()
    assert bring(stores, name).failed == {}
    assert verified(stores, name).differences == []
