"""What the scores of a search, or of a fold, follow from besides what the search is given: code, its data, files.

Manifests are kept in the parent run by an id that is made of their content: of the search one as it began, one as it
ended, and those of the folds that loaded or read more than was loaded when the search began. Short ones stand in a tag,
``mlflow_hp.manifest_<id>``, others are the artifact ``resume/<id>.json``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.resume import seen
from mlflow_hp.search.resume.fingerprint import short
from mlflow_hp.search.resume.sources import UNKNOWN, content_now, files_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow


TAG = "mlflow_hp.manifest_"
"""Begins the names of the tags that hold manifests."""
LONGEST_TAG = 5000


class Manifest(NamedTuple):
    """Digests of what counts.

    Attributes
    ----------
    modules : mapping of str to tuple of str
        Name -> digest of the content, and place of the file.
    values : mapping of str to str
        Variables, functions and classes that are in reach of the search.
    files : mapping of str to str
        Place -> digest of what was read.
    """

    modules: Mapping[str, tuple[str, str]] = {}
    values: Mapping[str, str] = {}
    files: Mapping[str, str] = {}

    @property
    def id(self) -> str:
        """Names it: the same for the same content, wherever the files lie; empty where it is."""
        modules = sorted((name, digest) for name, (digest, _) in self.modules.items())
        return short((modules, sorted(self.values.items()), sorted(self.files.items()))) if any(self) else ""

    @property
    def path(self) -> str:
        """Of the artifact."""
        return f"resume/{self.id}.json"

    def text(self) -> str:
        """As the run holds it."""
        return json.dumps(self._asdict(), separators=(",", ":"), sort_keys=True)

    def beyond(self, other: Manifest) -> Manifest:
        """What is not in `other`, or is something else there."""
        modules = {k: v for k, v in self.modules.items() if k not in other.modules or other.modules[k][0] != v[0]}
        values, files = (
            {k: v for k, v in mine.items() if theirs.get(k) != v}
            for mine, theirs in ((self.values, other.values), (self.files, other.files))
        )
        return Manifest(modules, values, files)


def load(client: mlflow.MlflowClient, run_id: str, manifest_id: str) -> Manifest | None:
    """The manifest of this id; None where the run does not have it."""
    import mlflow

    if not manifest_id:
        return Manifest()
    try:
        run = client.get_run(run_id)
        text = run.data.tags.get(f"{TAG}{manifest_id}")
        held = json.loads(text or mlflow.artifacts.load_text(f"{run.info.artifact_uri}/resume/{manifest_id}.json"))
        modules = {name: (digest, place) for name, (digest, place) in held["modules"].items()}
        found = Manifest(modules, held["values"], held["files"])
    except Exception:  # noqa: BLE001 - whatever an artifact store raises where there is nothing
        return None
    return found if found.id == manifest_id else None


def differences(then: Manifest, left: Manifest | None, now: Manifest) -> list[str]:
    """What makes a search that begins another than one that began before, in words.

    Parameters
    ----------
    then : Manifest
        As the search was begun.
    left : Manifest or None
        What was otherwise when its process ended it: what its fits did, such as to load a module or to fill a cache.
    now : Manifest
    """
    words, changed = [], set()
    for name in sorted({*then.modules, *now.modules}):
        was, is_now = (each.modules.get(name) for each in (then, now))
        digest = is_now and is_now[0]
        as_left = left is not None and is_now is not None and left.modules.get(name, ("", ""))[0] == digest
        if digest == UNKNOWN or not (digest == (was and was[0]) or as_left):
            changed.add(name)
            words.append(_module_in_words(name, was, is_now))
    for name in sorted({*then.values, *now.values}):
        value = now.values.get(name)
        as_left = left is not None and value is not None and left.values.get(name) == value
        within = any(name.startswith(f"{module}.") for module in changed)
        if value != then.values.get(name) and not as_left and not within:
            words.append(name)
    return words


def _module_in_words(name: str, was: Any, is_now: Any) -> str:
    if was is None:
        return f"{is_now[1]} (the module {name} was not loaded when the run was begun)"
    if is_now is None:
        return f"{was[1]} (the module {name} was loaded when the run was begun, and is not now)"
    return is_now[1] if is_now[0] != UNKNOWN else f"{is_now[1]} (changed since it was loaded)"


def changed(manifest: Manifest) -> list[str]:
    """The files of a fold's manifest that are not now what they were then."""
    words = []
    for name, (digest, place) in sorted(manifest.modules.items()):
        if digest == UNKNOWN or content_now(name, place) != digest:
            words.append(place)
    for place, digest in sorted(manifest.files.items()):
        slash = os.sep if place.endswith("/") else ""
        now = {seen.file_digest(f"{path}{slash}") for path in files_at(place)} or {seen.ABSENT}
        if now != {digest} or digest.startswith(UNKNOWN):
            words.append(place)
    return words
