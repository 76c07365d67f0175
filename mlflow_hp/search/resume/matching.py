"""Searches that go on where an earlier process left them: which one it is, and whether it is the same."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.search.naming import space_of
from mlflow_hp.search.resume import previous_run, seen
from mlflow_hp.search.resume.fingerprint import Look, NoFingerprintError, short
from mlflow_hp.search.resume.manifest import Manifest, differences, load
from mlflow_hp.search.resume.reached import reached
from mlflow_hp.search.resume.sources import UNKNOWN
from mlflow_hp.tracking.process_identity import is_here
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 2
"""Of the tags; part of every key."""
LEFT = "mlflow_hp.code_left"
"""The tag with the id of the manifest of what was otherwise when the search ended."""
DIGEST = "mlflow_hp.digest_"
"""Begins the names of the tags that say what a search is."""
NOT_RESUMABLE = "mlflow_hp.not_resumable"
"""The tag that says why a search can't be resumed."""
PARTS = {
    "space": "the search space or another setting of the search",
    "estimator": "the estimator's parameters",
    "code": "the code of yours that is loaded, or the values that it reads",
    "cv": "cv",
    "scoring": "scoring or return_train_score",
    "versions": "the versions of the libraries",
    "data": "the data, or what else was given to fit",
}
"""What a search is told by, and what each part is called in words."""
NOT_SPACE = ("estimator", "cv", "scoring", "refit", "n_jobs", "pre_dispatch", "verbose", "error_score",
             "return_train_score")  # fmt: skip


def find(search: Any, resume: bool | str) -> previous_run.Past | None:
    """What there is of `search` from an earlier process.

    Parameters
    ----------
    search : BaseSearchCV
        As it was then.
    resume : bool or str
        The id of its parent run; True for the latest in the active experiment that has not finished; False for none.

    Returns
    -------
    Past or None
        None where nothing unfinished is there to go on with, or not asked for.

    Raises
    ------
    UserError
        Where it can't be gone on with, or a living process records it now.
    """
    if resume is False:
        return None
    if resume is not True and not isinstance(resume, str):
        raise UserError(f"resume={resume!r} is neither True nor the id of a parent run")
    identity = identify(search)
    if isinstance(identity, str):
        raise UserError(f"resume={resume!r}: this search can't be resumed: {identity}")
    run = _named(resume) if isinstance(resume, str) else _latest(identity)
    if run is None:
        return None
    run_id, tags = run.info.run_id, run.data.tags
    if previous_run.is_recorded(run):
        raise UserError(
            f"the run {run_id} can't be resumed: the process that records it still runs "
            f"({tags.get(previous_run.PROCESS)}); wait for its end, or end it first"
        )
    if f"{DIGEST}code" not in tags:
        reason = tags.get(NOT_RESUMABLE, "it holds no search that record_search has recorded")
        raise UserError(f"resume={resume!r}: the run {run_id} can't be resumed: {reason}")
    if _format(tags) != FORMAT:
        raise UserError(
            f"resume={resume!r}: the run {run_id} can't be resumed: it was recorded by an earlier version of "
            "mlflow_hp, which did not note all the code that its scores follow from; leave resume out to start anew"
        )
    if differing := _differing(run, identity):
        raise other(run_id, differing, tags, identity.parts)
    process = tags.get(previous_run.PROCESS, "")
    if resume is True and run.info.status == "RUNNING" and not is_here(process):
        raise UserError(
            f"the run {run_id} was begun on another machine ({process}), and is running as far as is known; where that "
            f"machine is lost, pass resume={run_id!r}"
        )
    return previous_run.read(mlflow.MlflowClient(), run)


class Identity(NamedTuple):
    """By what a search is known again, besides its data.

    Attributes
    ----------
    parts : dict of str to str
        Digests; ``kind`` is what the user would call the same search, ``versions`` is JSON.
    manifest : Manifest
        What is loaded, and in reach of the search.
    """

    parts: dict[str, str]
    manifest: Manifest


def identify(search: Any) -> Identity | str:
    """By what a search is known again; or, as one text, why it can't be."""
    if (why := _why_not(search)) is not None:
        return why
    try:
        look, given = Look(), search.get_params(deep=False)
        kind = (
            ("class", _name(type(search))),
            ("class", _name(type(search.estimator))),
            sorted({k for p in space_of(search) for k in p}),
        )
        parts = {
            "kind": kind,
            "space": look.at({k: v for k, v in given.items() if k not in NOT_SPACE}),
            "estimator": look.at(search.estimator),
            "cv": "an iterator" if hasattr(search.cv, "__next__") else look.at(search.cv),
            "scoring": (look.at(given["scoring"]), given["return_train_score"]),
        }
        values = reached(look)
        seen.forget_modules()
        manifest = Manifest(seen.modules(look.modules), values)
        if files := [place for digest, place in manifest.modules.values() if digest == UNKNOWN]:
            return f"what was loaded of {', '.join(files)} is not known: changed since, or not to be read"
        digests = {name: short(part) for name, part in parts.items()}
        return Identity({**digests, "versions": _versions(look.packages)}, manifest)
    except NoFingerprintError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - objects of the user's may raise anything when they are looked at
        return f"something in it can't be known again: {type(error).__name__}: {error}"


def begun(earlier: previous_run.Past, now: Manifest, suffix: str = "") -> tuple[Manifest, list[str]]:
    """What a search began with in an earlier process, and what differs now, in words.

    Parameters
    ----------
    earlier : Past
        What the process has left.
    now : Manifest
        Of this process.
    suffix : str
        Of the names of the tags of a further fit.
    """
    id_then = earlier.tags[f"{DIGEST}code{suffix}"]
    if id_then == now.id:
        return now, []
    client = mlflow.MlflowClient()
    then = load(client, earlier.run_id, id_then)
    if then is None:
        return now, [f"what it was is not known: the manifest {id_then} of the run is missing"]
    return then, differences(then, load(client, earlier.run_id, earlier.tags.get(f"{LEFT}{suffix}", "")), now)


def other(
    run_id: str, differing: Mapping[str, list[str]], tags: Mapping[str, str], parts: Mapping[str, str]
) -> UserError:
    """The refusal of a search that is another in some of the `PARTS`, each with what it is in detail."""
    details = dict(differing)
    if "versions" in details:
        details["versions"] = [f"{tags.get(f'{DIGEST}versions')}, now {parts['versions']}"]
    words = [f"{PARTS[name]} ({', '.join(known)})" if known else PARTS[name] for name, known in details.items()]
    return UserError(
        f"the run {run_id} can't be resumed, its results would not be those of this search; what differs: "
        f"{'; '.join(words)}. Go on with what it was then, or leave resume out to start anew"
    )


def _why_not(search: Any) -> str | None:
    """Why the search would not compute the same folds again; None where it would."""
    cv = search.cv
    if hasattr(cv, "random_state") and getattr(cv, "shuffle", True) and cv.random_state is None:
        return f"cv={type(cv).__name__} shuffles without a seed, so the folds would be others; give it a random_state"
    draws = hasattr(search, "param_distributions") or getattr(search, "resource", None) == "n_samples"
    if draws and getattr(search, "random_state", 0) is None:
        what = "combinations" if hasattr(search, "param_distributions") else "rows"
        return f"{type(search).__name__} draws other {what} each time; give it a random_state"
    return None


def _named(run_id: str) -> mlflow.entities.Run:
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"resume={run_id!r} is not in the tracking store {masked(mlflow.get_tracking_uri())}: {error.message}; "
            "pass the id of the parent run of a recorded search, or True for the latest that has not finished"
        ) from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"resume={run_id!r} is deleted; `mlflow runs restore --run-id {run_id}` brings it back")
    return run


def _latest(identity: Identity) -> mlflow.entities.Run | None:
    """The latest unfinished search of this kind: one that is the same, where there is one."""
    active = mlflow.active_run()
    found: Any = mlflow.search_runs(
        experiment_ids=None if active is None else [active.info.experiment_id],
        filter_string=f"attributes.status != 'FINISHED' and tags.`{DIGEST}kind` = '{identity.parts['kind']}'",
        order_by=["attributes.start_time DESC"],
        max_results=100,
        output_format="list",
    )
    same = (run for run in found if not _differing(run, identity))
    return next(same, found[0] if found else None)


def _differing(run: mlflow.entities.Run, identity: Identity) -> dict[str, list[str]]:
    """The parts that differ, and what of the code."""
    tags, parts = run.data.tags, identity.parts
    differing: dict[str, list[str]] = {
        name: []
        for name in PARTS
        if name in parts and name != "versions" and tags.get(f"{DIGEST}{name}") != parts[name]
    }
    then, now = (json.loads(each) for each in (tags.get(f"{DIGEST}versions", "{}"), parts["versions"]))
    if any(now.get(name) != version for name, version in then.items()) or not then:
        differing["versions"] = []
    if not differing and (words := begun(previous_run.Past(run.info.run_id, tags, {}), identity.manifest)[1]):
        differing["code"] = words
    return differing


def _format(tags: Mapping[str, str]) -> Any:
    try:
        return json.loads(tags.get(f"{DIGEST}versions", "{}")).get("format")
    except ValueError:
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _versions(packages: set[str]) -> str:
    names = {"sklearn", "numpy", *packages} | ({"keras", "tensorflow"} if "scikeras" in packages else set())
    known = {name: getattr(sys.modules.get(name), "__version__", None) for name in sorted(names)}
    versions = {name: str(version) for name, version in known.items() if version is not None}
    return json.dumps({"python": ".".join(map(str, sys.version_info[:2])), **versions, "format": FORMAT})
