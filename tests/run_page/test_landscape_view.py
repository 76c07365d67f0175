"""The surface of a computed landscape as the page draws it, and the paths on it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlflow_hp.analysis.surfaces.landscape_file import StoredLandscape, StoredPath
from mlflow_hp.run_page.landscape_view import landscape_view

A, B = np.linspace(-1, 1, 5), np.linspace(0, 4, 9)
PATH = StoredPath("path", "0f3a", np.array([0, 5]), np.array([0.25, -3.0]), np.array([3.1, 0.0]))


def stored(loss, **changed):
    return StoredLandscape(A, B, loss, (PATH,), "principal", (0.7, 0.2), 600)._replace(**changed)


def test_a_path_lies_on_the_surface():
    loss = 10 ** (2 * A[None, :] + B[:, None])  # linear as a logarithm, so that bilinear is exact
    shown = landscape_view(stored(loss))
    assert (shown["kind"], shown["height"]) == ("landscape", "log10 of the loss")
    np.testing.assert_allclose(shown["z"], np.log10(loss), atol=1e-4)
    (path,) = shown["paths"]
    assert (path["run"], path["steps"], path["x"]) == ("0f3a", [0, 5], [0.25, -3.0])
    assert path["z"] == pytest.approx([2 * 0.25 + 3.1, -2.0])  # the second is outside: height of the edge
    assert "90% of it" in shown["words"]


def test_a_loss_that_is_not_positive_is_shown_itself():
    shown = landscape_view(stored(A[None, :] + 0 * B[:, None]))
    assert (shown["height"], shown["z"][0][0]) == ("loss", -1.0)


def test_what_is_not_finite_is_a_hole():
    loss = np.ones((9, 5))
    loss[0, 0] = np.nan
    shown = landscape_view(stored(loss))
    assert shown["z"][0][0] is None
    json.dumps(shown, allow_nan=False)


def test_random_directions_explain_no_share_of_the_variance():
    shown = landscape_view(stored(np.ones((9, 5)), variance_shares=None, kind="random"))
    assert "random" in shown["words"]
    assert shown["labels"] == ["random direction 1", "random direction 2"]
