"""Runs in MLflow: finding the one to record into, its tags and names."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp._notice import warn
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import provenance
from mlflow_hp.tracking.home import local_home as local_home  # noqa: PLC0414 - for others
from mlflow_hp.tracking.names import distinct_metric_names
from mlflow_hp.tracking.params_and_tags import DESCRIPTION, texts
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


PROCESS_TAG = "mlflow_hp.process"
"""Tag with the process that records, or recorded last."""

_NAMES_OF_STORES = ("databricks", "databricks-uc", "uc")
"""Tracking URIs that are no paths, though they look like one."""

SECONDS_TO_ANSWER = 10.0
"""How long the start of a recording waits for what MLflow says of its run."""

PARAMS_TAG = "mlflow_hp.params"
"""Tag with the params that wait for the end of a run, as a JSON object."""

PARAMS_AT_ONCE = 100
"""Params that MLflow takes in one call."""

CODE_TAG = "mlflow_hp.uncommitted"
"""Tag with the artifact path of the uncommitted changes of a run's code."""

CODE_SEAL_TAG = "mlflow_hp.uncommitted_seal"
"""Tag with the `mlflow_hp.tracking.seal` on them."""

DEEPEST = 100
"""How many levels of nesting are followed."""

_NOT_TO_BE_HAD = (400, 403, 404)


def find_run(run_id: str | None = None) -> mlflow.entities.Run | None:
    """The run to record into: the one with `run_id`, else the active one; None where the store does not answer now.

    Raises
    ------
    UserError
        Where no run is active, or the store has none with `run_id`.
    """
    active = mlflow.active_run()
    chosen = run_id_of(run_id)
    try:
        ensure_reachable()
        return within(SECONDS_TO_ANSWER, lambda: mlflow.MlflowClient().get_run(chosen))
    except MlflowException as error:
        is_known = active is not None and active.info.run_id == chosen
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" or is_known:
            return None
        raise UserError(
            f"run_id={run_id!r} is not in the tracking store {masked(mlflow.get_tracking_uri())}: {error.message}; "
            "check the id, and the store with mlflow.set_tracking_uri or MLFLOW_TRACKING_URI"
        ) from error
    except (UserError, TimeoutError, OSError):
        return None


def run_id_of(run_id: str | None = None) -> str:
    """The id of the run to record into: `run_id`, else that of the active run.

    Raises
    ------
    UserError
        Where there is none.
    """
    if run_id is not None:
        return run_id
    active = mlflow.active_run()
    if active is None:
        raise UserError(
            "no MLflow run to record into: start one around the training, "
            "`with mlflow.start_run(): model.fit(...)`, or name one, `TrainingRecorder(run_id=...)`"
        )
    return str(active.info.run_id)


def absolute_uri(uri: str) -> str:
    """A tracking URI that means the same store from any folder: paths of SQLite files and folders made absolute."""
    scheme, sign, rest = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and rest.startswith("///") and not rest.startswith("////"):
        path, mark, query = rest.removeprefix("///").partition("?")
        if path in ("", ":memory:") or path.startswith("file:"):
            return uri
        return f"{scheme}:///{Path(path).absolute()}{mark}{query}"
    if uri in _NAMES_OF_STORES:
        return uri
    if not sign or Path(uri).drive:
        return str(Path(uri).absolute())
    if scheme == "file" and not rest.startswith("/"):
        return Path(rest).absolute().as_uri()
    return uri


def missing_store(uri: str) -> str | None:
    """The file or folder of a local store that is not there; MLflow would make an empty one. None for any other."""
    scheme, _, rest = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and rest.startswith("////"):
        path = Path(rest.removeprefix("///").partition("?")[0])
    elif scheme == "file":
        path = Path(unquote(urlsplit(uri).path))
    elif uri.startswith("/"):
        path = Path(uri)
    else:
        return None
    return None if path.exists() else str(path)


def run_tags(kind: str, **more: str) -> dict[str, str]:
    """Tags that say what a run is and what repeats it.

    Parameters
    ----------
    kind : {"training", "search", "candidate", "fold", "sweep", "comparison"}
        Value of the tag ``mlflow_hp.kind``.
    **more : str
        Further tags, without the prefix ``mlflow_hp.``.

    Returns
    -------
    dict of str to str
        ``mlflow_hp.kind``, ``.process``, and those of `provenance.tags`, which the plugin sets too, but not
        for runs that an ``MlflowClient`` or ``mlflow run`` creates.
    """
    tags = {"kind": kind, "process": this_process(), **provenance.tags(), **more}
    return {f"mlflow_hp.{name}": value for name, value in tags.items()}


def ancestors(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> Iterator[mlflow.entities.Run]:
    """The runs that `run` is nested in, nearest first, each once.

    A parent is a tag that anybody may set to anything: the walk ends at a run that it has met already, at one that is
    missing, deleted or not to be read, and at `DEEPEST` levels.

    Raises
    ------
    MlflowException
        Where the store does not answer.
    """
    return chain(run, functools.partial(_readable, client))


def chain(run: mlflow.entities.Run, find: Callable[[str], mlflow.entities.Run | None]) -> Iterator[mlflow.entities.Run]:
    """`ancestors` among the runs that `find` gives by id; it gives None where the walk is to end."""
    seen = {run.info.run_id}
    for _ in range(DEEPEST):
        parent_id = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        parent = find(parent_id) if parent_id and parent_id not in seen else None
        if parent is None:
            return
        run = parent
        seen.add(run.info.run_id)
        yield run


def _readable(client: mlflow.MlflowClient, run_id: str) -> mlflow.entities.Run | None:
    """A run; None where it is missing, deleted or not to be read."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.get_http_status_code() in _NOT_TO_BE_HAD:
            return None
        raise
    return None if run.info.lifecycle_stage == LifecycleStage.DELETED else run


def log_code(run_id: str, tracking_uri: str | None = None) -> None:
    """Log what the program's repository holds beside its commit to a run, or to the topmost that it is nested in.

    It becomes the artifact `provenance.DIFF_PATH`, and the tag ``mlflow_hp.uncommitted`` names it; a run that has one
    keeps it. Where that fails, a warning tells, and there is no error.
    """
    try:
        patch = provenance.uncommitted()
        if patch is not None:
            bring_code(mlflow.MlflowClient(tracking_uri), run_id, patch)
    except Exception as error:  # noqa: BLE001 - the training goes on
        warn(
            f"run {run_id} lacks the uncommitted changes of its code ({type(error).__name__}: {error}); "
            "commit them before a run that is to be repeated",
            stacklevel=0,  # once, whoever calls
        )


def bring_code(client: mlflow.MlflowClient, run_id: str, patch: str) -> None:
    """Log a patch as `log_code` does; what fails is raised."""
    run = client.get_run(run_id)
    for above in ancestors(client, run):
        run = above
    if CODE_TAG in run.data.tags:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(provenance.DIFF_PATH).name)
        path.write_bytes(patch.encode(errors="surrogateescape"))
        client.log_artifact(run.info.run_id, str(path), str(Path(provenance.DIFF_PATH).parent))
    if sealed := provenance.seal_of_patch(patch):
        client.set_tag(run.info.run_id, CODE_SEAL_TAG, sealed)
    client.set_tag(run.info.run_id, CODE_TAG, provenance.DIFF_PATH)


def items_once(
    run: mlflow.entities.Run, params: Mapping[str, object] | None = None, tags: Mapping[str, str] | None = None
) -> list[Param | RunTag]:
    """Those of `params` and `tags` that `run` does not have yet: what it has stays as it was spelled.

    What MLflow cuts, as ``mlflow run`` may have let it, is logged whole as artifacts. Tags of the run with secrets are
    replaced; of a param with one, which can't be, a warning tells.
    """
    new_params, new_tags = texts("params", params or {}), texts("tags", tags or {})
    known = run.data.params
    lacking = {name: value for name, value in new_tags.values.items() if name not in run.data.tags}
    lacking |= {name: masked(value) for name, value in run.data.tags.items() if masked(value) != value}
    leaked = [name for name, value in known.items() if masked(value) != value]
    if leaked:
        warn(
            f"run {run.info.run_id} got a password or token in its param {leaked[0]!r} before this program "
            "began, as `mlflow run` logs what it is given, and MLflow takes no param back: delete the run, and put a "
            f"reference in place of the secret, such as -P {leaked[0]}='https://host/x.csv?token=$TOKEN'",
            stacklevel=0,  # once, whoever calls
        )
    for path, text in (new_params.whole | new_tags.whole).items():
        mlflow.MlflowClient().log_text(run.info.run_id, text, path)
    return [
        *(Param(name, value) for name, value in new_params.values.items() if name not in known),
        *(RunTag(*item) for item in lacking.items()),
    ]


def log_once(
    run: mlflow.entities.Run,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log `items_once`; a param that the run gets from somebody else meanwhile stays as it was spelled there."""
    items, client = items_once(run, params, tags), mlflow.MlflowClient()
    if own := [item for item in items if isinstance(item, RunTag)]:
        client.log_batch(run.info.run_id, tags=own)
    log_params(client, run.info.run_id, {item.key: item.value for item in items if isinstance(item, Param)})


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set `tags` of a run; what is too long for MLflow is kept whole in an artifact."""
    made = texts("tags", tags)
    _log(run_id, {}, made.values, made.whole)


def set_description(run_id: str, markdown: str) -> None:
    """Make `markdown` the description of a run, as MLflow's UI shows it; a long one is whole in ``description.md``."""
    set_tags(run_id, {DESCRIPTION: markdown})


def log_numbers(run_id: str, numbers: Mapping[str, float]) -> None:
    """Log single metrics of a run, at step 0."""
    now = round(time.time() * 1000)
    metrics = [Metric(mapped, numbers[name], now, 0) for name, mapped in distinct_metric_names(numbers).items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=metrics)


def waiting_params(tags: Mapping[str, str]) -> dict[str, str]:
    """The params of a run that wait for its end, by its `tags`."""
    try:
        waiting = json.loads(tags.get(PARAMS_TAG, "{}"))
    except ValueError:  # cut, or not ours
        return {}
    return {str(k): str(v) for k, v in waiting.items()} if isinstance(waiting, dict) else {}


def params_of(data: mlflow.entities.RunData) -> dict[str, str]:
    """The params of a run, those included that wait for its end."""
    return waiting_params(data.tags) | data.params


def log_params(client: mlflow.MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Log params to a run; one that it gets from somebody else meanwhile stays as it was spelled there.

    One that MLflow refuses for another reason is left out, and a warning tells.
    """
    left = dict(params)
    while left:
        some = dict(list(left.items())[:PARAMS_AT_ONCE])
        try:
            client.log_batch(run_id, params=[Param(*item) for item in some.items()])
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            run = client.get_run(run_id)
            if run.info.lifecycle_stage == LifecycleStage.DELETED:
                raise
            known = run.data.params
            if not known.keys() & left.keys():
                if len(some) > 1:  # one by one, so that the others are logged
                    for name, value in some.items():
                        log_params(client, run_id, {name: value})
                else:
                    warn(f"run {run_id} does not take the param {next(iter(some))!r}: {error.message}")
                known = some
            left = {name: value for name, value in left.items() if name not in known}
        else:
            left = {name: value for name, value in left.items() if name not in some}


def _log(run_id: str, params: Mapping[str, str], tags: Mapping[str, str], artifacts: Mapping[str, str]) -> None:
    client = mlflow.MlflowClient()
    if tags:
        client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])
    log_params(client, run_id, params)
    for path, text in artifacts.items():
        client.log_text(run_id, text, path)


def upload(run_id: str, folder: Path | str, artifact_path: str | None = None) -> None:
    """Bring what is in `folder` to a run's artifacts, below `artifact_path`.

    Raises
    ------
    UserError
        Where the artifact store can't be written.
    """
    client = mlflow.MlflowClient()
    try:
        client.log_artifacts(run_id, str(folder), artifact_path)
    except (OSError, MlflowException) as error:
        where = masked(client.get_run(run_id).info.artifact_uri)
        raise UserError(
            f"the artifact store {where} can't be written ({type(error).__name__}: {error}); the run keeps its "
            "metrics. Mend it, or name another: `mlflow experiments create -n NAME --artifact-location FOLDER`, "
            "then MLFLOW_EXPERIMENT_NAME=NAME"
        ) from error


def local_folder(run_id: str, kind: str = "training") -> Path:
    """A new folder of this machine for what one training, or search, of a run records before MLflow has it.

    Raises
    ------
    OSError
        Where it can't be made.
    """
    parent = local_home() / run_id
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}_", dir=parent))


def remove_local(folder: Path) -> None:
    """Remove a `local_folder`, and that of its run where it was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def training_path(fit: int) -> str:
    """Artifact path of the history of a run's fit number `fit` (0-based)."""
    return "training" if fit == 0 else f"training/fit_{fit}"
