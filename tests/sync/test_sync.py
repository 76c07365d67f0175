"""Runs brought from store to store: all that they hold, once, whatever comes between."""

from __future__ import annotations

import contextlib
import itertools
import math

import numpy as np
import pytest
from mlflow.entities import (
    LoggedModelInput,
    Metric,
    Param,
)
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.sync import points
from mlflow_hp.sync.id_map import IdMap
from mlflow_hp.sync.stores import Stores, connect
from mlflow_hp.tracking.tags import SYNCED_FROM_TAG
from tests.helpers.synced_runs import (
    LARGEST,
    POINTS,
    START,
    Counting,
    bring,
    brought,
    check_all_kinds,
    check_counts,
    history,
    record,
    record_all_kinds,
    verified,
)


def test_all_that_a_run_holds(both, tmp_path):
    stores, name, experiment = both
    model = record_all_kinds(stores.source, experiment)
    report = bring(stores, name)
    assert (report.new, report.completed, report.unchanged, report.failed) == (5, 0, 0, {})
    check_all_kinds(stores, name, model, tmp_path)
    check_counts(verified(stores, name))


def test_again_writes_nothing(both):
    stores, name, experiment = both
    record_all_kinds(stores.source, experiment)
    bring(stores, name)
    for thorough in (False, True):
        counting = Counting(stores.target)
        report = bring(stores._replace(target=counting), name, thorough=thorough)
        assert (report.new, report.completed, report.unchanged) == (0, 0, 5)
        assert (report.points, report.files, counting.points) == (0, 0, 0)
        assert thorough or counting.calls == 0


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("calls", "lost"), [(1, True), (3, False), (4, True), (7, False)])
def test_interrupted_it_goes_on_where_it_was(both, tmp_path, calls, lost):
    """Broken off after every few calls, all is there once at last, and no point has been sent twice."""
    stores, name, experiment = both
    model = record_all_kinds(stores.source, experiment)
    sent, broken = 0, 0
    for attempt in itertools.count():
        assert attempt < 100, "it does not come to an end"
        counting = Counting(stores.target, calls, lost=lost)
        with contextlib.suppress(RuntimeError):
            report = bring(stores._replace(target=counting), name)
            break
        broken, sent = broken + 1, sent + counting.points
    assert broken > 2
    assert report.failed == {}
    sent += counting.points
    check_all_kinds(stores, name, model, tmp_path)
    check_counts(verified(stores, name))
    assert sent == POINTS


def test_a_running_run_is_completed_later(both):
    stores, name, experiment = both
    run = stores.source.create_run(experiment, START, run_name="r")
    stores.source.log_batch(run.info.run_id, [Metric("loss", 1.0, START + i, i) for i in range(10)])
    assert bring(stores, name).new == 1
    assert brought(stores, name)["r"].info.status == "RUNNING"
    stores.source.log_batch(
        run.info.run_id, [Metric("loss", 1.0, START + i, i) for i in range(5, 20)], [Param("a", "1")]
    )
    stores.source.set_terminated(run.info.run_id, "FAILED", START + 99)
    report = bring(stores, name)
    assert (report.new, report.completed, report.points) == (0, 1, 10)
    copy = brought(stores, name)["r"]
    assert (copy.info.status, copy.info.end_time, copy.data.params) == ("FAILED", START + 99, {"a": "1"})
    assert history(stores.target, copy, "loss") == [(i, START + i, 1.0) for i in range(20)]


def test_a_run_deleted_or_renamed_here_is_so_there(both):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    bring(stores, name)
    stores.source.update_run(run.info.run_id, name="s")
    stores.source.delete_run(run.info.run_id)
    bring(stores, name)
    assert brought(stores, name)["s"].info.lifecycle_stage == "deleted"
    stores.source.restore_run(run.info.run_id)
    stores.source.set_tag(run.info.run_id, "again", "yes")
    bring(stores, name)
    assert brought(stores, name)["s"].info.lifecycle_stage == "active"
    assert brought(stores, name)["s"].data.tags["again"] == "yes"
    assert verified(stores, name).differences == []


def test_an_experiment_renamed_there_keeps_its_copies(both):
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    bring(stores, name)
    stores.target.rename_experiment(stores.target.get_experiment_by_name(name).experiment_id, f"{name} of Ada")
    assert (report := bring(stores, name)).unchanged == 1
    assert report.new == 0


def test_named_runs_come_with_what_they_need(both):
    stores, name, experiment = both
    source = stores.source
    root = record(source, experiment, "root")
    middle = record(source, experiment, "middle", root)
    record(source, experiment, "leaf", middle)
    record(source, experiment, "sibling", root)
    maker = record(source, experiment, "maker")
    model = source.create_logged_model(experiment, "net", maker.info.run_id)
    source.log_inputs(middle.info.run_id, models=[LoggedModelInput(model.model_id)])
    bring(stores, None, [middle.info.run_id])
    there = brought(stores, name)
    assert there.keys() == {"root", "middle", "leaf", "maker"}
    for child, parent in (("leaf", "middle"), ("middle", "root")):
        assert there[child].data.tags["mlflow.parentRunId"] == there[parent].info.run_id
    bring(stores, name)
    there = brought(stores, name)
    assert there["sibling"].data.tags["mlflow.parentRunId"] == there["root"].info.run_id


def test_copies_of_copies_are_known(both, tmp_path):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    third = f"sqlite:///{tmp_path}/third.db"
    bring(stores, name)
    onward, direct = connect(third, stores.target_uri), connect(third, stores.source_uri)
    assert bring(onward, name).new == 1
    assert bring(direct, name).new == 0
    assert brought(onward, name)["r"].data.tags[SYNCED_FROM_TAG] == run.info.run_id
    home = Stores(stores.target, stores.source, stores.target_uri, stores.source_uri)
    before = stores.source.get_run(run.info.run_id)
    assert (report := bring(home, name)).copied_from_target == 1
    assert report.new == 0
    assert dict(stores.source.get_run(run.info.run_id).data) == dict(before.data)


def test_what_one_run_cannot_does_not_stop_the_others(both):
    stores, name, experiment = both
    bad, _ = record(stores.source, experiment, "bad"), record(stores.source, experiment, "good")

    class Refusing(Counting):
        def log_batch(self, run_id, **named):
            if self._client.get_run(run_id).info.run_name == "bad":
                raise MlflowException("too long\nand more")
            return self._client.log_batch(run_id, **named)

    report = bring(stores._replace(target=Refusing(stores.target)), name)
    assert report.failed == {bad.info.run_id: "too long"}
    assert report.new == 1
    assert [line for line in verified(stores, name).differences if bad.info.run_id not in line] == []
    assert bring(stores, name).completed == 1
    assert verified(stores, name).differences == []


def test_an_artifact_store_that_cannot_be_written(both, tmp_path):
    stores, name, experiment = both
    stores.source.log_text(record(stores.source, experiment, "r").info.run_id, "x", "a.txt")
    (tmp_path / "target").write_text("a file in place of the folder")
    with pytest.raises(UserError, match=r"the artifact store .* cannot be written"):
        bring(stores, name)
    (tmp_path / "target").unlink()
    assert bring(stores, name).completed == 1
    assert verified(stores, name).differences == []


def test_points_compare_as_the_stores_keep_them():
    same = points.bits([math.nan, math.inf, -math.inf, 0.0])
    assert (same == points.bits([-np.nan, LARGEST, -LARGEST, -0.0])).all()
    history = np.unique(np.array([(1, 5, 7), (0, 5, 7), (1, 5, 7)], points.POINT))
    assert history.tolist() == [(0, 5, 7), (1, 5, 7)]
    assert points.missing(history, history[1:]).tolist() == [(0, 5, 7)]
    assert points.missing(history, None).tolist() == history.tolist()


def test_identities_are_translated_whole():
    run, copy = "a" * 32, "b" * 32
    known = IdMap({run: copy, f"m-{run}": f"m-{copy}"})
    assert known.translate(f"{run}, m-{run}/x; {run}0 {'c' * 32}") == f"{copy}, m-{copy}/x; {run}0 {'c' * 32}"
