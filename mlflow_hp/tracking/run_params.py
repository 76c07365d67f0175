"""Params of runs: logged once each, or kept in a tag until their run ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlflow.entities import LifecycleStage, Param
from mlflow.exceptions import MlflowException

from mlflow_hp._notice import warn
from mlflow_hp.tracking.tags import PARAMS_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow

PARAMS_AT_ONCE = 100
"""Params that MLflow accepts in one call."""


def waiting_params(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the params that are to be logged when their run ends.

    Parameters
    ----------
    tags : mapping of str to str
        Tags of the run.

    Returns
    -------
    dict of str to str
        Name -> value.
    """
    try:
        waiting = json.loads(tags.get(PARAMS_TAG, "{}"))
    except ValueError:  # truncated, or set by another program
        return {}
    return {str(k): str(v) for k, v in waiting.items()} if isinstance(waiting, dict) else {}


def params_of(data: mlflow.entities.RunData) -> dict[str, str]:
    """Return the params of a run, including those to be logged when it ends.

    Parameters
    ----------
    data : RunData
        Data of the run.

    Returns
    -------
    dict of str to str
        Name -> value.
    """
    return waiting_params(data.tags) | data.params


def log_params(client: mlflow.MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Log params to a run; values that another program has logged meanwhile are kept.

    A param that MLflow refuses for another reason is left out, with a warning.

    Parameters
    ----------
    client : MlflowClient
        Client of the run's store.
    run_id : str
        Id of the run.
    params : mapping of str to str
        Name -> value.
    """
    pending = dict(params)
    while pending:
        batch = dict(list(pending.items())[:PARAMS_AT_ONCE])
        try:
            client.log_batch(run_id, params=[Param(*item) for item in batch.items()])
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            run = client.get_run(run_id)
            if run.info.lifecycle_stage == LifecycleStage.DELETED:
                raise
            settled = run.data.params
            if not settled.keys() & pending.keys():
                if len(batch) > 1:  # one by one, so that the others are logged
                    for name, value in batch.items():
                        log_params(client, run_id, {name: value})
                else:
                    warn(f"MLflow refuses the param {next(iter(batch))!r} of run {run_id}: {error.message}")
                settled = batch
            pending = {name: value for name, value in pending.items() if name not in settled}
        else:
            pending = {name: value for name, value in pending.items() if name not in batch}
