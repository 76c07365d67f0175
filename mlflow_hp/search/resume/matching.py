"""Find the run to resume, and check that it recorded the same search."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.search.naming import space_of
from mlflow_hp.search.resume import dependencies, previous_run
from mlflow_hp.search.resume.fingerprint import Fingerprinter, NoFingerprintError, short
from mlflow_hp.search.resume.manifest import Manifest, differences, load
from mlflow_hp.search.resume.referenced import referenced_values
from mlflow_hp.search.resume.sources import UNKNOWN
from mlflow_hp.tracking.process_identity import is_here
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import CODE_LEFT_TAG, DIGEST_TAG_PREFIX, NOT_RESUMABLE_TAG, PROCESS_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 2
"""Version of the tags; part of every key."""
PARTS = {
    "space": "the search space or another setting of the search",
    "estimator": "the estimator's parameters",
    "code": "the code of yours that is loaded, or the values that it reads",
    "cv": "cv",
    "scoring": "scoring or return_train_score",
    "versions": "the versions of the libraries",
    "data": "the data, or another argument of fit",
}
"""Part that identifies a search -> its description in messages."""
NOT_SPACE = ("estimator", "cv", "scoring", "refit", "n_jobs", "pre_dispatch", "verbose", "error_score",
             "return_train_score")  # fmt: skip


def find_previous(search: Any, resume: bool | str, repeats: int) -> previous_run.PreviousRun | None:
    """Find the run of an earlier process that recorded `search`.

    Parameters
    ----------
    search : BaseSearchCV
        The same search.
    resume : bool or str
        The id of its parent run; True for the latest unfinished one in the active experiment; False for none.
    repeats : int
        Number of seeds of each fit.

    Returns
    -------
    PreviousRun or None
        None if `resume` is False, or True and there is no unfinished run.

    Raises
    ------
    UserError
        If the run cannot be resumed, or a living process is recording it.
    """
    if resume is False:
        return None
    if resume is not True and not isinstance(resume, str):
        raise UserError(f"resume={resume!r} is neither True nor the id of a parent run")
    identity = identify(search, repeats)
    if isinstance(identity, str):
        raise UserError(f"resume={resume!r}: this search cannot be resumed: {identity}")
    run = _named(resume) if isinstance(resume, str) else _latest(identity)
    if run is None:
        return None
    run_id, tags = run.info.run_id, run.data.tags
    if previous_run.is_recorded(run):
        raise UserError(
            f"the run {run_id} cannot be resumed: the process that records it still runs "
            f"({tags.get(PROCESS_TAG)}); wait until it ends, or end it first"
        )
    if f"{DIGEST_TAG_PREFIX}code" not in tags:
        reason = tags.get(NOT_RESUMABLE_TAG, "it holds no search recorded by record_search")
        raise UserError(f"resume={resume!r}: the run {run_id} cannot be resumed: {reason}")
    if _format(tags) != FORMAT:
        raise UserError(
            f"resume={resume!r}: the run {run_id} cannot be resumed: it was recorded by an earlier version of "
            "mlflow_hp, which did not note all the code that its scores depend on; leave out resume to start again"
        )
    if differing := _differing(run, identity):
        raise refusal(run_id, differing, tags, identity.parts)
    process = tags.get(PROCESS_TAG, "")
    if resume is True and run.info.status == "RUNNING" and not is_here(process):
        raise UserError(
            f"the run {run_id} was started on another machine ({process}) and may still be running there; if that "
            f"machine is lost, pass resume={run_id!r}"
        )
    return previous_run.read(mlflow.MlflowClient(), run)


class Identity(NamedTuple):
    """Identity of a search, without its data.

    Attributes
    ----------
    parts : dict of str to str
        Name -> digest; ``kind`` is equal for searches that a user would call the same, ``versions`` is JSON.
    manifest : Manifest
        The code and values that the search depends on.
    """

    parts: dict[str, str]
    manifest: Manifest


def identify(search: Any, repeats: int) -> Identity | str:
    """Compute the identity of a search with some seeds of each fit; or, as a string, the reason why it has none."""
    if (reason := _reason_not_repeatable(search)) is not None:
        return reason
    try:
        fingerprinter, params = Fingerprinter(), search.get_params(deep=False)
        kind = (
            ("class", _name(type(search))),
            ("class", _name(type(search.estimator))),
            sorted({name for part in space_of(search) for name in part}),
        )
        settings = {name: value for name, value in params.items() if name not in NOT_SPACE}
        if repeats > 1:
            settings["repeats of record_search"] = repeats
        parts = {
            "kind": kind,
            "space": fingerprinter.of(settings),
            "estimator": fingerprinter.of(search.estimator),
            "cv": "an iterator" if hasattr(search.cv, "__next__") else fingerprinter.of(search.cv),
            "scoring": (fingerprinter.of(params["scoring"]), params["return_train_score"]),
        }
        values = referenced_values(fingerprinter)
        dependencies.forget_modules()
        manifest = Manifest(dependencies.modules(fingerprinter.modules), values)
        if files := [place for digest, place in manifest.modules.values() if digest == UNKNOWN]:
            return f"the code loaded from {', '.join(files)} is unknown: the file has changed since, or is unreadable"
        digests = {name: short(part) for name, part in parts.items()}
        return Identity({**digests, "versions": _versions(fingerprinter.packages)}, manifest)
    except NoFingerprintError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a user's object may raise anything
        return f"a part of it cannot be fingerprinted: {type(error).__name__}: {error}"


def compare_code(previous: previous_run.PreviousRun, now: Manifest, suffix: str = "") -> tuple[Manifest, list[str]]:
    """Compare the code and values of this process with those at the start of the earlier one.

    Parameters
    ----------
    previous : PreviousRun
    now : Manifest
        Of this process.
    suffix : str
        Suffix of the tags of a further fit. Defaults to that of the first fit, "".

    Returns
    -------
    Manifest
        That of the earlier process, or `now` if it is unknown.
    list of str
        The differences.
    """
    start_id = previous.tags[f"{DIGEST_TAG_PREFIX}code{suffix}"]
    if start_id == now.id:
        return now, []
    client = mlflow.MlflowClient()
    start = load(client, previous.run_id, start_id)
    if start is None:
        return now, [f"the earlier code is unknown: the manifest {start_id} of the run is missing"]
    end = load(client, previous.run_id, previous.tags.get(f"{CODE_LEFT_TAG}{suffix}", ""))
    return start, differences(start, end, now)


def refusal(
    run_id: str, differing: Mapping[str, list[str]], tags: Mapping[str, str], parts: Mapping[str, str]
) -> UserError:
    """Make the error for a search that differs in some of the `PARTS`, with details of each."""
    details = dict(differing)
    if "versions" in details:
        details["versions"] = [f"{tags.get(f'{DIGEST_TAG_PREFIX}versions')}, now {parts['versions']}"]
    texts = [f"{PARTS[name]} ({', '.join(items)})" if items else PARTS[name] for name, items in details.items()]
    return UserError(
        f"the run {run_id} cannot be resumed, its results would not be those of this search; differences: "
        f"{'; '.join(texts)}. Restore what has changed, or leave out resume to start again"
    )


def _reason_not_repeatable(search: Any) -> str | None:
    """Reason why the search would not compute the same folds again; None if it would."""
    cv = search.cv
    if hasattr(cv, "random_state") and getattr(cv, "shuffle", True) and cv.random_state is None:
        return f"cv={type(cv).__name__} shuffles without a seed, so the folds would differ; give it a random_state"
    draws = hasattr(search, "param_distributions") or getattr(search, "resource", None) == "n_samples"
    if draws and getattr(search, "random_state", 0) is None:
        drawn = "candidates" if hasattr(search, "param_distributions") else "rows"
        return f"{type(search).__name__} draws different {drawn} each time; give it a random_state"
    return None


def _named(run_id: str) -> mlflow.entities.Run:
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"resume={run_id!r} is not in the tracking store {masked(mlflow.get_tracking_uri())}: {error.message}; "
            "pass the id of the parent run of a recorded search, or True for the latest unfinished one"
        ) from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"resume={run_id!r} is deleted; `mlflow runs restore --run-id {run_id}` restores it")
    return run


def _latest(identity: Identity) -> mlflow.entities.Run | None:
    """The latest unfinished run of the same search; failing that, of one of the same kind, to report differences."""
    active = mlflow.active_run()
    runs: Any = mlflow.search_runs(
        experiment_ids=None if active is None else [active.info.experiment_id],
        filter_string="attributes.status != 'FINISHED' "
        f"and tags.`{DIGEST_TAG_PREFIX}kind` = '{identity.parts['kind']}'",
        order_by=["attributes.start_time DESC"],
        max_results=100,
        output_format="list",
    )
    same = (run for run in runs if not _differing(run, identity))
    return next(same, runs[0] if runs else None)


def _differing(run: mlflow.entities.Run, identity: Identity) -> dict[str, list[str]]:
    """The parts that differ, each with details; of the code, the differing modules and values."""
    tags, parts = run.data.tags, identity.parts
    differing: dict[str, list[str]] = {
        name: []
        for name in PARTS
        if name in parts and name != "versions" and tags.get(f"{DIGEST_TAG_PREFIX}{name}") != parts[name]
    }
    before, now = (json.loads(each) for each in (tags.get(f"{DIGEST_TAG_PREFIX}versions", "{}"), parts["versions"]))
    if any(now.get(name) != version for name, version in before.items()) or not before:
        differing["versions"] = []
    if not differing:
        _, code_differences = compare_code(previous_run.PreviousRun(run.info.run_id, tags, {}), identity.manifest)
        if code_differences:
            differing["code"] = code_differences
    return differing


def _format(tags: Mapping[str, str]) -> Any:
    try:
        return json.loads(tags.get(f"{DIGEST_TAG_PREFIX}versions", "{}")).get("format")
    except ValueError:
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _versions(packages: set[str]) -> str:
    names = {"sklearn", "numpy", *packages} | ({"keras", "tensorflow"} if "scikeras" in packages else set())
    versions_found = {name: getattr(sys.modules.get(name), "__version__", None) for name in sorted(names)}
    versions = {name: str(version) for name, version in versions_found.items() if version is not None}
    return json.dumps({"python": ".".join(map(str, sys.version_info[:2])), **versions, "format": FORMAT})
