"""Pictures of classified data: their numbers by equality, their drawing by smoke."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mlflow_hp.plots import classification, figure

RNG = np.random.default_rng(6)


def drawn(axes, tmp_path):
    """The picture's height and width, after a look that something is on it."""
    with Image.open(figure.save(axes, tmp_path / "picture.png")) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 5
    return pixels.shape


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_samples_are_of_as_many_labels_as_there_are():
    x = np.arange(12.0).reshape(6, 2)
    info = classification.samples_info(x, ["b", "b", "a", "b", "c", "a"], features=["u", "v"], n=4)
    assert info.labels == ["a", "b", "b", "c"]
    np.testing.assert_array_equal(info.values, x[[2, 0, 1, 4]])
    assert info.features == ["u", "v"]
    fewer = classification.samples_info(x, ["b", "b", "a", "b", "c", "a"], n=2)
    np.testing.assert_array_equal(fewer.values, x[[2, 0]])
    assert len(classification.samples_info(x, list("bbabca"), n=50).values) == 6


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "100", "-3"], ["-3", "9", "10", "100"]),
        (["2.5", "1e+03", "0.1", "20"], ["0.1", "2.5", "20", "1e+03"]),
        (["b", "10", "9", "a"], ["10", "9", "a", "b"]),
    ],
)
def test_labels_that_are_numbers_are_in_their_order(labels, order):
    info = classification.samples_info(np.arange(4.0)[:, None], labels)
    assert info.labels == order
    np.testing.assert_array_equal(info.values[:, 0], [labels.index(label) for label in order])


@pytest.mark.parametrize("shape", [(8, 8), (6, 5, 3), (4, 7, 1), (3, 4, 2), (3, 4, 4), (2, 3, 2, 2), (90, 3), (2, 400)])
def test_pictures(shape, tmp_path):
    x = RNG.uniform(size=(17, int(np.prod(shape))))
    labels = [str(index % 7) for index in range(17)]
    info = classification.samples_info(x, labels, shape)
    assert info.values.shape == (10, *shape)
    np.testing.assert_array_equal(info.values[0], x[0].reshape(shape))
    axes = classification.draw_samples(info)
    assert [text.get_text() for text in axes.texts] == info.labels
    assert len(axes.images) == 10
    shown = axes.images[3].get_array()
    coloured = len(shape) == 3 and shape[2] in (3, 4)
    expected = info.values[3] if coloured else info.values[3].reshape(*shape[:2], -1).mean(axis=2)
    np.testing.assert_allclose(shown, expected)
    drawn(axes, tmp_path)


def test_grey_is_on_one_scale_for_all_pictures():
    x = np.repeat([[0.0], [0.25], [1.0]], 4, axis=1)
    axes = classification.draw_samples(classification.samples_info(x, ["a", "b", "c"], (2, 2)))
    assert {image.get_clim() for image in axes.images} == {(0.0, 1.0)}


def test_pictures_do_not_overlap():
    axes = classification.draw_samples(
        classification.samples_info(RNG.uniform(size=(10, 300)), list("abcdefghij"), (100, 3))
    )
    boxes = [image.get_extent() for image in axes.images]
    for index, (left, right, bottom, top) in enumerate(boxes):
        assert left < right
        assert bottom < top
        for other in boxes[:index]:
            assert right <= other[0] or other[1] <= left or top < other[2] or other[3] < bottom
        assert axes.get_xlim()[0] < left < right < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < bottom < top < axes.get_ylim()[1]


@pytest.mark.parametrize("width", [1, 13, 200])
def test_a_table(width, tmp_path):
    x = RNG.normal(size=(30, width))
    features = [f"feature {index}" for index in range(width)]
    info = classification.samples_info(x, [f"class {index % 3}" for index in range(30)], features=features)
    assert info.values.shape == (10, width)
    axes = classification.draw_samples(info)
    assert ticks(axes.yaxis) == info.labels
    if width <= 40:
        assert ticks(axes.xaxis) == features
    low, high = axes.images[0].get_clim()
    assert high == -low == np.abs(info.values).max()
    drawn(axes, tmp_path)


def test_a_table_of_zeros(tmp_path):
    drawn(
        classification.draw_samples(
            classification.samples_info(np.zeros((3, 2)), ["a", "b", "c"], features=["u", "v"])
        ),
        tmp_path,
    )


def test_confusion_counts_by_true_and_predicted_class():
    true, predicted = RNG.integers(0, 5, 400), RNG.integers(0, 5, 400)
    names = list("abcde")
    counts = classification.confusion_info(true, predicted, names).counts
    for row in range(5):
        for column in range(5):
            assert counts[row, column] == sum((true == row) & (predicted == column))
    assert classification.confusion_info(np.array([0, 0, 1]), np.array([1, 1, 0]), ["a", "b", "c"]).counts.tolist() == [
        [0, 2, 0],
        [1, 0, 0],
        [0, 0, 0],
    ]


def test_a_confusion_matrix_says_shares_counts_and_how_many_are_right(tmp_path):
    info = classification.confusion_info(np.array([0] * 8 + [1] * 4), np.array([0] * 6 + [1] * 5 + [0]), ["no", "yes"])
    axes = classification.draw_confusion(info)
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0.25, 0.75]])
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "6"), ((1, 0), "2"), ((0, 1), "1"), ((1, 1), "3"),
    }  # fmt: skip
    assert "75.0% of 12 samples right" in [text.get_text() for text in axes.figure.texts]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    drawn(axes, tmp_path)


@pytest.mark.parametrize("n", [10, 30, 100])
def test_confusion_of_many_classes(n, tmp_path):
    true = RNG.integers(0, n, 900)
    axes = classification.draw_confusion(
        classification.confusion_info(true, (true + (true % 3 == 0)) % n, list(map(str, range(n))))
    )
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == list(map(str, range(n)))
    assert bool(axes.texts) == (n <= 20)
    drawn(axes, tmp_path)


def test_a_class_that_never_comes_up(tmp_path):
    axes = classification.draw_confusion(
        classification.confusion_info(np.array([0, 0]), np.array([0, 2]), ["a", "b", "c"])
    )
    assert np.isfinite(axes.images[0].get_array()).all()
    drawn(axes, tmp_path)


def test_names_so_long_that_no_room_would_be_left(tmp_path):
    names = [f"a name that goes on and on, as questions in surveys do when nobody edits them: {n}" for n in range(12)]
    matrix = classification.draw_confusion(classification.confusion_info(np.arange(12), np.arange(12), names))
    table = classification.draw_samples(classification.samples_info(RNG.normal(size=(12, 12)), names, features=names))
    for axes in (matrix, table):
        shown = ticks(axes.xaxis)
        assert len(set(shown)) == 12
        assert max(map(len, shown)) == classification.MAX_NAME_LENGTH
        assert shown[7].endswith("them: 7")
        height, width = drawn(axes, tmp_path)
        box = axes.get_window_extent()
        assert box.width > 0.4 * width
        assert box.height > 0.4 * height


def test_axes_that_are_given_are_drawn_on():
    for draw, info in (
        (classification.draw_confusion, classification.confusion_info(np.zeros(1, int), np.zeros(1, int), ["a", "b"])),
        (classification.draw_samples, classification.samples_info(RNG.normal(size=(3, 4)), list("abc"), (2, 2))),
        (
            classification.draw_samples,
            classification.samples_info(RNG.normal(size=(3, 2)), list("abc"), features=["u", "v"]),
        ),
    ):
        axes = figure.new_axes()
        assert draw(info, axes) is axes
