"""Planes against a full singular value decomposition and least squares, coarse to fine against the full grid."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.surfaces import plane as planes
from mlflow_hp.analysis.surfaces.grid import coarse_to_fine
from mlflow_hp.analysis.surfaces.plane import principal_plane, project, random_plane, window
from mlflow_hp.errors import UserError
from mlflow_hp.history.weight_snapshots import Snapshots

SHAPES = {"conv/kernel": (3, 3, 2, 4), "conv/bias": (4,), "norm/gamma": (4,), "out/kernel": (8, 5)}
SIZE = 72 + 4 + 4 + 40


def run(matrix, shapes=None, every=1):
    """Snapshots whose flattened weights are the rows of a matrix (n, SIZE)."""
    matrix, tensors, done = np.asarray(matrix, np.float32), {}, 0
    for name, shape in (shapes or SHAPES).items():
        size = int(np.prod(shape))
        tensors[name] = matrix[:, done : done + size].reshape(len(matrix), *shape)
        done += size
    assert done == matrix.shape[1]
    return Snapshots(np.arange(len(matrix)) * every, tensors, every, (len(matrix) - 1) * every)


def flat(weights):
    return np.concatenate([np.ravel(values) for values in weights.values()])


def walk(n, seed=0, drift=0.3):
    rng = np.random.default_rng(seed)
    return (np.cumsum(rng.normal(size=(n, SIZE)) + drift * rng.normal(size=SIZE), axis=0)).astype(np.float32)


def directions(plane):
    return np.stack([flat(direction) for direction in plane.directions])


def check_principal(plane, matrix):
    centred = matrix.astype(float) - matrix.astype(float).mean(axis=0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(plane.variance_shares, (values**2 / (values**2).sum())[:2], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(np.abs(directions(plane) @ vectors[:2].T), np.eye(2), atol=1e-8)
    np.testing.assert_allclose(directions(plane) @ directions(plane).T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("n", [3, 40, 300])
def test_principal_directions_are_those_of_a_full_decomposition(n):
    matrix = walk(n)
    plane = principal_plane([run(matrix)])
    check_principal(plane, matrix)
    np.testing.assert_array_equal(flat(plane.origin), matrix[-1])
    assert {name: values.shape for name, values in plane.origin.items()} == SHAPES
    assert plane.kind == "principal"


def test_it_does_not_matter_how_the_columns_are_cut(monkeypatch):
    monkeypatch.setattr(planes, "BLOCK_BYTES", 40 * 8 * 7)
    check_principal(principal_plane([run(walk(40))]), walk(40))


def test_several_runs_share_a_plane_whose_origin_is_the_end_of_the_first():
    one, other = walk(30, 1), walk(50, 2)
    plane = principal_plane([run(one), run(other)])
    check_principal(plane, np.concatenate([one, other]))
    np.testing.assert_array_equal(flat(plane.origin), one[-1])


def test_many_snapshots_are_thinned_with_both_ends(monkeypatch):
    monkeypatch.setattr(planes, "MAX_SNAPSHOTS", 20)
    matrix = walk(500)
    plane = principal_plane([run(matrix), run(matrix)])
    chosen = matrix[np.linspace(0, 499, 10).astype(int)]
    check_principal(plane, np.concatenate([chosen, chosen]))


def test_a_straight_path_has_a_plane_too():
    straight = np.outer(np.linspace(0, 1, 20), np.arange(1.0, SIZE + 1))
    plane = principal_plane([run(straight)])
    assert plane.variance_shares[0] == pytest.approx(1)
    assert plane.variance_shares[1] < 1e-9
    np.testing.assert_allclose(directions(plane) @ directions(plane).T, np.eye(2), atol=1e-12)
    expected = np.arange(1.0, SIZE + 1) / np.linalg.norm(np.arange(1.0, SIZE + 1))
    np.testing.assert_allclose(np.abs(directions(plane)[0] @ expected), 1, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_path_that_does_not_move_has_a_plane_too(n):
    plane = principal_plane([run(np.full((n, SIZE), 0.1))])
    assert plane.variance_shares == (0.0, 0.0)
    np.testing.assert_allclose(directions(plane) @ directions(plane).T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(project(plane, run(np.full((n, SIZE), 0.1))), 0, atol=1e-12)


def test_a_path_that_diverges_counts_while_it_is_finite():
    matrix = walk(40)
    matrix[30, 5], matrix[31:] = np.inf, np.nan
    plane = principal_plane([run(matrix)])
    check_principal(plane, matrix[:30])
    np.testing.assert_array_equal(flat(plane.origin), matrix[29])
    along = project(plane, run(matrix))
    assert np.isfinite(along[:30]).all()
    assert np.isnan(along[30:]).all()
    with pytest.raises(UserError, match="not finite before"):
        principal_plane([run(np.full((3, SIZE), np.nan))])


def test_runs_of_other_architectures_are_refused_by_name():
    other = run(np.zeros((3, 4)), {"out/kernel": (2, 2)})
    with pytest.raises(UserError, match=r"conv/bias \(\(4,\) and none\).*out/kernel \(\(8, 5\) and \(2, 2\)\)"):
        principal_plane([run(walk(3)), other])
    with pytest.raises(UserError, match="conv/bias"):
        project(principal_plane([run(walk(3))]), other)
    with pytest.raises(UserError, match="1 trainable weights"):
        principal_plane([run(np.zeros((3, 1)), {"w": (1,)})])
    with pytest.raises(UserError, match="no snapshots"):
        principal_plane([])


def test_the_same_model_made_twice_has_other_layer_names():
    matrix = walk(30)
    renamed = run(matrix, {name.replace("/", "_7/"): shape for name, shape in SHAPES.items()})
    plane = principal_plane([run(walk(30, 1)), renamed])
    check_principal(plane, np.concatenate([walk(30, 1), matrix]))
    np.testing.assert_array_equal(project(plane, renamed), project(plane, run(matrix)))
    shuffled = dict(reversed(run(matrix).tensors.items()))
    np.testing.assert_array_equal(project(plane, run(matrix)._replace(tensors=shuffled)), project(plane, run(matrix)))


def test_random_directions_have_the_norms_of_the_filters():
    weights = {name: values[-1] for name, values in run(walk(3)).tensors.items()}
    weights["conv/kernel"][..., 2] = 0
    plane = random_plane(weights, 3)
    for direction in plane.directions:
        for channel in range(4):
            expected = np.linalg.norm(weights["conv/kernel"][..., channel])
            assert np.linalg.norm(direction["conv/kernel"][..., channel]) == pytest.approx(expected)
        for unit in range(5):
            expected = np.linalg.norm(weights["out/kernel"][:, unit])
            assert np.linalg.norm(direction["out/kernel"][:, unit]) == pytest.approx(expected)
        assert not direction["conv/bias"].any()
        assert not direction["norm/gamma"].any()
    np.testing.assert_array_equal(directions(plane), directions(random_plane(weights, 3)))
    assert not np.allclose(directions(plane), directions(random_plane(weights, 4)))
    assert (plane.kind, plane.variance_shares) == ("random", None)


@pytest.mark.parametrize("shape", [(1, 1), (5,)])
def test_too_few_weights_for_random_directions(shape):
    with pytest.raises(UserError, match="principal"):
        random_plane({"w": np.ones(shape)}, 0)


def test_coordinates_are_those_of_least_squares():
    matrix = walk(25)
    plane = random_plane({name: values[-1] for name, values in run(matrix).tensors.items()}, 0)
    assert abs(directions(plane)[0] @ directions(plane)[1]) > 0.1  # not orthogonal
    expected = np.linalg.lstsq(directions(plane).T, (matrix.astype(float) - matrix[-1]).T, rcond=None)[0].T
    np.testing.assert_allclose(project(plane, run(matrix)), expected, atol=1e-10)


def test_the_window_holds_all_paths():
    paths = [np.array([[0.0, 1.0], [2.0, 5.0]]), np.array([[-2.0, 3.0], [np.nan, 9.0]])]
    assert window(paths, 0.25) == ((-3.0, 3.0), (0.0, 6.0))
    assert window([np.array([[0.0, 7.0], [4.0, 7.0]])], 0.0) == ((0.0, 4.0), (5.0, 9.0))
    assert window([np.zeros((3, 2))], 0.0) == ((-0.5, 0.5), (-0.5, 0.5))
    with pytest.raises(UserError, match="finite"):
        window([np.full((3, 2), np.nan)], 0.1)


class Counted:
    """A function of points that notes how often each was asked for."""

    def __init__(self, function):
        self.function, self.calls, self.seen = function, 0, []

    def __call__(self, points):
        self.calls += 1
        self.seen += map(tuple, points)
        return self.function(points[:, 0], points[:, 1])


def both(function, a, b, tolerance):
    counted = Counted(function)
    losses, evaluated = coarse_to_fine(counted, a, b, tolerance)
    assert len(set(counted.seen)) == len(counted.seen) == evaluated
    assert counted.calls <= 5
    return losses, function(a[None, :], b[:, None]), evaluated


def smooth(a, b):
    return 0.05 + (1 - a) ** 2 + 3 * (b - a**2) ** 2


def kinked(a, b):
    return 0.1 + np.abs(a - 0.31) + np.maximum(0.0, 2 * b - a)


@pytest.mark.parametrize(
    ("function", "tolerance", "error", "share"),
    [(smooth, 0.02, 0.025, 0.22), (smooth, 1e-3, 2.8e-3, 0.41), (kinked, 0.02, 0.055, 0.29), (kinked, 0.3, 0.2, 0.16)],
)
def test_coarse_to_fine_against_the_full_grid(function, tolerance, error, share):
    """Largest relative error on 51 x 47 points, and the share of points that are evaluated."""
    losses, full, evaluated = both(function, np.linspace(-1, 1.5, 51), np.linspace(-1, 1.2, 47), tolerance)
    assert losses.shape == (47, 51)
    largest = np.abs(losses / full - 1).max()
    assert largest < error
    assert evaluated / full.size < share


def test_what_interpolates_exactly_is_hardly_evaluated():
    losses, full, evaluated = both(lambda a, b: np.exp(a**3 - b**2 * a), *[np.linspace(-2, 2, 49)] * 2, 1e-9)
    np.testing.assert_allclose(losses, full, rtol=1e-12)
    assert evaluated == 13**2 + 12**2


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 9, 10])
@pytest.mark.parametrize("m", [2, 5, 11])
def test_without_tolerance_every_point_is_exact(n, m):
    rng = np.random.default_rng(n)
    table = rng.uniform(1, 2, size=(m, n))
    losses, full, evaluated = both(lambda a, b: table[b.astype(int), a.astype(int)], np.arange(n), np.arange(m), 0.0)
    np.testing.assert_array_equal(losses, full)
    assert evaluated == full.size


def test_infinite_losses_stay_where_they_are():
    def cliff(a, b):
        with np.errstate(divide="ignore"):
            return np.where(a + b > 1, np.inf, 1 + a**2 + b**2)

    a = np.linspace(-2, 2, 51)
    losses, full, evaluated = both(cliff, a, a, 0.02)
    np.testing.assert_array_equal(np.isfinite(losses), np.isfinite(full))
    inside = np.isfinite(full)
    np.testing.assert_allclose(losses[inside], full[inside], rtol=0.05)
    assert evaluated < full.size
    nothing, _, _ = both(lambda a, b: a * b * np.nan, a, a, 0.02)
    assert not np.isfinite(nothing).any()


def test_losses_that_are_not_positive():
    a = np.linspace(-2, 2, 51)
    losses, full, evaluated = both(lambda a, b: np.sin(a) * np.cos(b) - 0.3, a, a, 0.001)
    np.testing.assert_allclose(losses, full, atol=0.003 * np.ptp(full))
    assert evaluated < full.size / 2
