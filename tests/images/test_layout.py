"""What axes mean: rows, channels first or last, one image or many."""

import numpy as np
import pytest

from sklearn_rrr.images.image_format import ImageFormat
from sklearn_rrr.images.layout import array_shape, infer_row_shape, is_channels_first

GRAY = ImageFormat("array", (8, 8))
COLOUR = ImageFormat("array", (8, 8, 3))
COLOUR_FIRST = ImageFormat("array", (8, 8, 3), channels_first=True)
ITEMS = ImageFormat("items")


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((3, 8, 9), True),
        ((8, 9, 3), False),
        ((1, 8, 8), True),
        ((8, 9, 1), False),
        ((4, 8, 9), True),
        ((8, 9, 4), False),
        ((3, 4, 4), True),  # both ends could be channels: the square image wins
        ((3, 3, 4), False),
        ((1, 1, 3), False),
    ],
)
def test_channels(shape, first):  # faults 8 and 9
    assert is_channels_first(shape) is first


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 8, 3), (1, 9, 3), (4, 9, 1)])
def test_ambiguous_channels(shape):  # fault 8
    with pytest.raises(ValueError, match=r"first or last. Pass a list of PIL images"):
        is_channels_first(shape)


@pytest.mark.parametrize("shape", [(8, 8, 2), (2, 8, 8), (5, 6, 7)])
def test_number_of_channels(shape):  # fault 9
    with pytest.raises(ValueError, match="must have 1, 3 or 4 channels"):
        is_channels_first(shape)


@pytest.mark.parametrize(
    ("n_features", "image_shape", "expected"),
    [
        (64, None, ((8, 8), False)),
        (192, None, ((8, 8, 3), False)),
        (12, (3, 4), ((3, 4), False)),
        (12, (1, -1), ((1, 12), False)),
        (90, (6, 5, 3), ((6, 5, 3), False)),
        (60, (3, 4, 5), ((4, 5, 3), True)),
        (60, (3, 4, np.int64(-1)), ((4, 5, 3), True)),
    ],
)
def test_rows(n_features, image_shape, expected):
    assert infer_row_shape(n_features, image_shape) == expected


def test_rows_that_are_no_square():
    with pytest.warns(UserWarning, match=r"1 x n_features. Set `image_shape`"):
        assert infer_row_shape(10) == ((1, 10), False)


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        ((3, 5), "does not match rows of 16 features"),
        ((-1, -1), "with at most one -1"),
        ((4.0, 4), r"must be \(h, w\) or \(h, w, c\)"),
        (4, r"must be \(h, w\) or \(h, w, c\)"),
        ((0, 4), r"got \(0, 4\)"),
    ],
)
def test_bad_image_shape(image_shape, message):
    with pytest.raises(ValueError, match=message):
        infer_row_shape(16, image_shape)


@pytest.mark.parametrize(
    ("shape", "fitted", "expected"),
    [
        ((5, 8, 9), None, ((8, 9), False)),
        ((5, 8, 9, 3), None, ((8, 9, 3), False)),
        ((5, 3, 8, 9), None, ((8, 9, 3), True)),
        ((5, 3, 9, 3), COLOUR, ((3, 9, 3), False)),  # ambiguous alone, but fit saw the layout
        ((5, 3, 9, 3), COLOUR_FIRST, ((9, 3, 3), True)),
        ((5, 3, 8, 9), COLOUR, ((8, 9, 3), True)),
        ((3, 8, 8), GRAY, ((8, 8), False)),  # three gray images
        ((5, 8, 9), ITEMS, ((8, 9), False)),
    ],
)
def test_array(shape, fitted, expected):
    assert array_shape(np.zeros(shape), fitted) == expected


@pytest.mark.parametrize(
    ("shape", "fitted"),
    [
        ((8, 8, 3), COLOUR),
        ((3, 8, 8), COLOUR_FIRST),
        ((3, 8, 8), COLOUR),
        ((8, 8, 3), GRAY),
        ((8, 8, 1), GRAY),
        ((8, 8, 3), ITEMS),
        ((3, 8, 8), ITEMS),
        ((4, 8, 8), ITEMS),
    ],
)
def test_single_image(shape, fitted):  # fault 10
    with pytest.raises(ValueError, match=r"could be one image. .* needs the batch axis"):
        array_shape(np.zeros(shape), fitted)


@pytest.mark.parametrize("shape", [(0, 8, 8), (2, 0, 8), (2, 8, 8, 3, 1)])
def test_empty_or_too_many_axes(shape):  # fault 1
    with pytest.raises(ValueError, match="at least 1 sample and 1 pixel; got"):
        array_shape(np.zeros(shape))
