"""Names of a run's tensors: those of its first fit, whatever number Keras gives to the layers of a resumed training.

Keras numbers layers without a name by process: ``dense``, ``dense_1``. A model that is built again to resume a training
may so get other names. Tensors whose names, positions, shapes and dtypes agree except for these numbers are the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

from mlflow_hp.history.step_record import Layout, Rows, gradient_column
from mlflow_hp.tracking.tags import TENSORS_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.history import Tensor

MAX_TAG_LENGTH = 5000
"""Characters that every version of MLflow stores in a tag."""
_NUMBER = re.compile(r"(_\d+)+(?=/|$)")


def earlier_names(tensors: Sequence[Tensor], tags: Mapping[str, str]) -> dict[str, str]:
    """Map the names of tensors to those that an earlier fit of the run gave them; empty if they are the same, or new.

    Parameters
    ----------
    tensors : sequence of Tensor
        Tensors of the model, in order.
    tags : mapping of str to str
        Tags of the run.
    """
    names = _read(tags.get(TENSORS_TAG, "")).get(_signature(tensors), [])
    own = [tensor.name for tensor in tensors]
    return {} if names == own or len(names) != len(own) else dict(zip(own, names, strict=True))


def renamed(layout: Layout, names: Mapping[str, str]) -> Layout:
    """Rename the tensors of a layout, those that `names` has."""
    tensors = tuple(tensor._replace(name=names.get(tensor.name, tensor.name)) for tensor in layout.tensors)
    return Layout(_columns(layout.columns, names), tensors, layout.store, _tensors(layout.initial, names))


def renamed_rows(rows: Rows, names: Mapping[str, str]) -> Rows:
    """Rename the tensors of rows, those that `names` has."""
    return Rows(_columns(rows.columns, names), _tensors(rows.weights, names))


def _tensors(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _columns(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename the columns of the gradients of tensors."""
    of_gradients = {
        gradient_column(old, clipped=clipped): gradient_column(new, clipped=clipped)
        for old, new in names.items()
        for clipped in (False, True)
    }
    return {of_gradients.get(name, name): value for name, value in columns.items()}


def tags_with(tensors: Sequence[Tensor], tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tag that adds the names of tensors to those in the `tags` of a run; empty if nothing is new.

    The models of the earliest fits are left out if there are too many; a model with some thousand tensors has no tag.
    """
    models, signature = _read(tags.get(TENSORS_TAG, "")), _signature(tensors)
    if not tensors or signature in models:
        return {}
    models[signature] = [tensor.name for tensor in tensors]
    while models:
        text = json.dumps(models)
        if len(text) > MAX_TAG_LENGTH:
            text = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(text) <= MAX_TAG_LENGTH:
            return {TENSORS_TAG: text}
        del models[next(iter(models))]
    return {}


def _signature(tensors: Sequence[Tensor]) -> str:
    """Digest of what a tensor keeps when a model is built again."""
    parts = [(_NUMBER.sub("", tensor.name), list(tensor.shape), tensor.dtype) for tensor in tensors]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _read(text: str) -> dict[str, list[str]]:
    """Read the names of each model, by signature, from the tag; empty if it is not readable."""
    try:
        models = json.loads(text if text.startswith("{") else zlib.decompress(base64.b64decode(text)))
    except (ValueError, binascii.Error, zlib.error):
        return {}
    if not isinstance(models, dict):
        return {}
    return {key: names for key, names in models.items() if isinstance(names, list)}
