"""Uncommitted changes of the program's code, logged to its topmost run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlflow

from mlflow_hp._notice import warn
from mlflow_hp.tracking import git_repository, provenance
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.nesting import ancestors
from mlflow_hp.tracking.seal import seal
from mlflow_hp.tracking.tags import UNCOMMITTED_SEAL_TAG, UNCOMMITTED_TAG


def uncommitted() -> str | None:
    """Return the patch of the program's uncommitted changes, see `git_repository.patch_of`; None if there are none."""
    repository = git_repository.find() if provenance.is_on() else None
    if repository is None or not (repository.changed or repository.untracked):
        return None
    return git_repository.patch_of(repository)


def log_code(run_id: str, tracking_uri: str | None = None) -> None:
    """Log the uncommitted changes of the program's code to a run, or to the topmost run that it is nested in.

    They become the artifact `UNCOMMITTED_FILE`, which the tag ``mlflow_hp.uncommitted`` names; a run that has one
    keeps it. An error becomes a warning.

    Parameters
    ----------
    run_id : str
        Id of the run.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the active tracking URI.
    """
    try:
        patch = uncommitted()
        if patch is not None:
            log_patch(mlflow.MlflowClient(tracking_uri), run_id, patch)
    except Exception as error:  # noqa: BLE001 - the training continues
        warn(
            f"run {run_id} lacks the uncommitted changes of its code ({type(error).__name__}: {error}); "
            "commit them before a run that is to be repeated",
            stacklevel=0,  # one place for all callers, so that it is shown once
        )


def log_patch(client: mlflow.MlflowClient, run_id: str, patch: str) -> None:
    """Log a patch as `log_code` does; errors are raised.

    Parameters
    ----------
    client : MlflowClient
        Client of the run's store.
    run_id : str
        Id of the run.
    patch : str
        As from `uncommitted`.
    """
    run = client.get_run(run_id)
    for ancestor in ancestors(client, run):
        run = ancestor
    if UNCOMMITTED_TAG in run.data.tags:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(UNCOMMITTED_FILE).name)
        path.write_bytes(patch.encode(errors="surrogateescape"))
        client.log_artifact(run.info.run_id, str(path), str(Path(UNCOMMITTED_FILE).parent))
    repository = git_repository.find()
    if digest := seal("patch", None if repository is None else repository.commit, patch):
        client.set_tag(run.info.run_id, UNCOMMITTED_SEAL_TAG, digest)
    client.set_tag(run.info.run_id, UNCOMMITTED_TAG, UNCOMMITTED_FILE)
