"""White levels: what a dtype says, what values suggest, what fit settled."""

import warnings

import numpy as np
import pytest

from sklearn_rrr.images.brightness import (
    WhiteLevels,
    find_kind,
    find_span,
    to_unit,
)
from sklearn_rrr.images.white_levels import settle_levels


def settle(*arrays, fitted=None):
    spans = [find_span(np.asarray(values)) for values in arrays]
    levels, notes = settle_levels(spans, fitted)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return levels


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("bool", "bool"),
        ("uint8", "uint8"),
        ("<u2", "16 bits"),
        (">u2", "16 bits"),
        ("int64", "integer"),
        ("i1", "integer"),
        ("f4", "float"),
    ],
)
def test_kinds_of_numbers(dtype, kind):
    assert find_kind(np.dtype(dtype)) == kind


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0, 1], 1),
        ([0.0, 1.0], 1),
        ([0.0, 0.0], 1),
        ([0, 16], 16),
        ([0.0, 7.0, 16.0], 16),
        ([0, 17], 255),
        ([0.0, 16.5], 255),
        ([0.0, 255.0], 255),
        ([-1e-9, 1.0000000000000002], 1),  # fault 63: rounding of computations
        (np.float32([0, 1.0000001]), 1),
        (np.float16([0, 1.001]), 1),
        ([-1e-5, 255.0001], 255),
    ],
)
@pytest.mark.filterwarnings("ignore:Pixels are assumed")
def test_white_level_of_numbers(values, scale):
    assert settle(values) == WhiteLevels(scale)


@pytest.mark.parametrize(
    ("high", "level"),
    [(0, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383), (65535, 65535)],
)
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_white_level_of_16_bits(high, level, dtype):  # faults 6 and 64
    with pytest.warns(UserWarning, match=f"16-bit pixels are divided by {level}, by their largest"):
        assert settle(np.array([0, high], dtype)) == WhiteLevels(None, level)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, np.nan], "X contains NaN; pixels must be finite"),
        ([0, np.inf], "X contains infinity; pixels must be finite"),
        ([-0.5, 1], r"range \[-0.5, 1\], but pixels must lie in .* Scale them"),
        ([0, 256], r"range \[0, 256\], but .* must lie in \[0, 1\] or \[0, 255\]. Divide"),
        ([0.0, 1.1], r"range \[0, 1.1\], which is neither .* so its white level is unknown"),
        ([0.5, 16.0], r"range \[0, 16\], which is neither"),  # 16 is for whole numbers only
    ],
)
def test_refused(values, message):  # faults 2, 3 and 63
    with pytest.raises(ValueError, match=message):
        settle(values)


def test_floats_and_integers_together_are_refused():
    with pytest.raises(ValueError, match="Some images of X are floats and some are integers"):
        settle([0.5], [1])


@pytest.mark.parametrize(("values", "scale"), [([0.5], 1), ([1], 255), ([16], 255)])
def test_after_8_bits_integers_are_8_bits(values, scale):
    # A dark image alone is read as it would be in company.
    assert settle(values, fitted=WhiteLevels()).scale == scale


@pytest.mark.parametrize(
    ("values", "fitted", "scale", "message"),
    [
        ([255.0], None, 255, "divided by 255"),  # fault 4, at predict
        ([12.5], None, 255, "divided by 255"),
        ([1.0], 255, 255, "nearly black"),
    ],
)
def test_warnings_in_predict(values, fitted, scale, message):
    with pytest.warns(UserWarning, match=message):
        assert settle(values, fitted=WhiteLevels(fitted)).scale == scale


@pytest.mark.parametrize("values", [[16.0], [255.0], [1]])
def test_warnings_in_fit(values):  # fault 4
    with pytest.warns(UserWarning, match=rf"assumed to lie in \[0, {values[0]:g}\]"):
        assert settle(values).scale == values[0]


@pytest.mark.parametrize(
    ("values", "fitted"), [([255.0], WhiteLevels(1)), (np.uint16([5000]), WhiteLevels(1, 4095))]
)
def test_brighter_than_in_fit(values, fitted):
    with pytest.raises(ValueError, match="the estimator was fitted on pixels in"):
        settle(values, fitted=fitted)


@pytest.mark.parametrize("values", [[-1e-9, 0.5, 1 + 1e-9], np.float32([-1e-7, 0.5, 1.0000001])])
def test_rounding_is_clipped(values):  # fault 63
    np.testing.assert_array_equal(to_unit(np.asarray(values), WhiteLevels(1)), [0, 0.5, 1])


@pytest.mark.parametrize(("high", "scale"), [(1, 1), (16, 16), (1, 16), (9, 16)])
def test_dark_uint8_follows_the_white_level_of_fit(high, scale):
    with pytest.warns(UserWarning, match=f"up to {high} only. They are divided by {scale}, as "):
        levels = settle(np.uint8([0, high]), fitted=WhiteLevels(scale))
    assert levels == WhiteLevels(scale, byte_scale=scale)
    np.testing.assert_allclose(to_unit(np.uint8([0, high]), levels), [0, high / scale])


@pytest.mark.parametrize(("high", "scale"), [(0, 16), (17, 16), (2, 1), (1, 255), (16, None)])
def test_other_uint8_does_not(high, scale):
    assert settle(np.uint8([0, high]), fitted=WhiteLevels(scale)) == WhiteLevels(scale)


@pytest.mark.parametrize("high", [1, 16])
def test_dark_uint8_in_fit(high):
    with pytest.warns(UserWarning, match=f"up to {high} only, but their white level is 255"):
        assert settle(np.uint8([0, high])) == WhiteLevels()


def test_one_bright_pixel_among_many_images_is_found():
    X = np.zeros((300, 4, 4), np.uint8)
    X[299, 3, 3] = 200
    assert find_span(X).high == 200


def test_bool_alone_has_the_white_level_1():
    assert settle([True, False]) == WhiteLevels(1)
    assert settle([True, False], np.uint8([200])) == WhiteLevels()


def test_no_warning_for_8_bits_and_unit_floats():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settle(np.uint8([30]), [0.25, 1.0], [True]) == WhiteLevels(1)
