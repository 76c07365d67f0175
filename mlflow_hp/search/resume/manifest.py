"""Manifests: digests of the code, values and files that the scores of a search or a fold depend on.

The parent run holds manifests by an id that is a digest of their content: one of the start of the search, one of its
end, and one for each set of modules and files that folds loaded or read beyond the first. Short ones are a tag,
``mlflow_hp.manifest_<id>``, longer ones the artifact ``resume/<id>.json``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.resume import dependencies
from mlflow_hp.search.resume.fingerprint import short
from mlflow_hp.search.resume.sources import UNKNOWN, content_now, files_at
from mlflow_hp.tracking.artifact_paths import RESUME_FOLDER
from mlflow_hp.tracking.tags import MANIFEST_TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow


LONGEST_TAG = 5000
"""Longest result of a fold that is a tag, in characters."""
LONGEST_MANIFEST_TAG = 500
"""Longest manifest that is a tag, in characters."""


class Manifest(NamedTuple):
    """Digests of everything that scores depend on besides the search's arguments.

    Attributes
    ----------
    modules : mapping of str to tuple of str
        Name -> digest of the content, and place of the file.
    values : mapping of str to str
        Name of a variable, function or class that the search refers to -> digest.
    files : mapping of str to str
        Place of a file that was read -> digest.
    """

    modules: Mapping[str, tuple[str, str]] = {}
    values: Mapping[str, str] = {}
    files: Mapping[str, str] = {}

    @property
    def id(self) -> str:
        """Digest of the content, independent of the files' places; empty for an empty manifest."""
        modules = sorted((name, digest) for name, (digest, _) in self.modules.items())
        return short((modules, sorted(self.values.items()), sorted(self.files.items()))) if any(self) else ""

    @property
    def path(self) -> str:
        """Path of the artifact."""
        return f"{RESUME_FOLDER}/{self.id}.json"

    def text(self) -> str:
        """JSON of the manifest, as the run holds it."""
        return json.dumps(self._asdict(), separators=(",", ":"), sort_keys=True)

    def beyond(self, other: Manifest) -> Manifest:
        """Entries that are missing in `other` or have another digest there."""
        modules = {k: v for k, v in self.modules.items() if k not in other.modules or other.modules[k][0] != v[0]}
        values, files = (
            {k: v for k, v in digests.items() if other_digests.get(k) != v}
            for digests, other_digests in ((self.values, other.values), (self.files, other.files))
        )
        return Manifest(modules, values, files)


def load(client: mlflow.MlflowClient, run_id: str, manifest_id: str) -> Manifest | None:
    """Load a manifest of a run by its id; None if the run does not have it."""
    import mlflow

    if not manifest_id:
        return Manifest()
    try:
        run = client.get_run(run_id)
        text = run.data.tags.get(f"{MANIFEST_TAG_PREFIX}{manifest_id}")
        content = json.loads(text or mlflow.artifacts.load_text(f"{run.info.artifact_uri}/resume/{manifest_id}.json"))
        modules = {name: (digest, place) for name, (digest, place) in content["modules"].items()}
        manifest = Manifest(modules, content["values"], content["files"])
    except Exception:  # noqa: BLE001 - each artifact store raises its own error for a missing file
        return None
    return manifest if manifest.id == manifest_id else None


def differences(start: Manifest, end: Manifest | None, now: Manifest) -> list[str]:
    """List the differences between a search that starts now and one that an earlier process recorded, as text.

    Parameters
    ----------
    start : Manifest
        As the earlier search started.
    end : Manifest or None
        Entries that differed at its end: the effects of its fits, such as a loaded module or a filled cache. They are
        no differences if this process has them at its start.
    now : Manifest
    """
    texts, changed = [], set()
    for name in sorted({*start.modules, *now.modules}):
        before, after = (manifest.modules.get(name) for manifest in (start, now))
        digest = after and after[0]
        as_at_end = end is not None and after is not None and end.modules.get(name, ("", ""))[0] == digest
        if digest == UNKNOWN or not (digest == (before and before[0]) or as_at_end):
            changed.add(name)
            texts.append(_module_text(name, before, after))
    for name in sorted({*start.values, *now.values}):
        value = now.values.get(name)
        as_at_end = end is not None and value is not None and end.values.get(name) == value
        in_changed_module = any(name.startswith(f"{module}.") for module in changed)
        if value != start.values.get(name) and not as_at_end and not in_changed_module:
            texts.append(name)
    return texts


def _module_text(name: str, before: Any, after: Any) -> str:
    if before is None:
        return f"{after[1]} (the module {name} was not loaded when the run started)"
    if after is None:
        return f"{before[1]} (the module {name} was loaded when the run started, and is not now)"
    return after[1] if after[0] != UNKNOWN else f"{after[1]} (changed since it was loaded)"


def changed_files(manifest: Manifest) -> list[str]:
    """Places of a fold's modules and files that have changed since."""
    places = []
    for name, (digest, place) in sorted(manifest.modules.items()):
        if digest == UNKNOWN or content_now(name, place) != digest:
            places.append(place)
    for place, digest in sorted(manifest.files.items()):
        slash = os.sep if place.endswith("/") else ""
        now = {dependencies.file_digest(f"{path}{slash}") for path in files_at(place)} or {dependencies.ABSENT}
        if now != {digest} or digest.startswith(UNKNOWN):
            places.append(place)
    return places
