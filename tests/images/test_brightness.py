"""Full brightness: what a dtype says, what values suggest, what fit settled."""

import numpy as np
import pytest

from sklearn_rrr.images.brightness import dtype_scale, full_scale, settle_scale
from sklearn_rrr.images.sources import ImageFormat


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("bool", 1), ("uint8", 255), ("<u2", 65535), (">u2", 65535), ("int64", None), ("f4", None)],
)
def test_dtype_scale(dtype, scale):
    assert dtype_scale(np.dtype(dtype)) == scale


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.uint8([0, 1]), 255),
        (np.uint16([0, 1]), 65535),
        ([0, 1], 1),
        ([0.0, 1.0], 1),
        ([0.0, 1.1], 16),
        ([0, 16], 16),
        ([0, 17], 255),
        ([0.0, 255.0], 255),
    ],
)
def test_full_scale(values, scale):
    assert full_scale(np.asarray(values)) == scale


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, np.nan], "X contains NaN; pixels must be finite"),
        ([0, np.inf], "X contains infinity; pixels must be finite"),
        ([-0.5, 1], r"range \[-0.5, 1\], but pixels must lie in .* Scale them"),
        ([0, 256], r"range \[0, 256\], but .* must lie in \[0, 1\] or \[0, 255\]. Divide"),
    ],
)
def test_full_scale_refuses(values, message):  # faults 2 and 3
    with pytest.raises(ValueError, match=message):
        full_scale(np.array(values))


@pytest.mark.parametrize(
    ("suggested", "is_float", "settled"), [(1, True, 1), (1, False, 255), (16, False, 255)]
)
def test_after_8_bits_integers_are_8_bits(suggested, is_float, settled):
    # A dark image alone is read as it would be in company.
    assert settle_scale(suggested, is_float, ImageFormat("array")) == settled


@pytest.mark.parametrize(
    ("suggested", "is_float", "fitted_scale", "settled", "message"),
    [
        (255, True, None, 255, "divided by 255"),  # fault 4, at predict
        (16, True, None, 255, "divided by 255"),
        (1, True, 255, 255, "nearly black"),
    ],
)
def test_settle_scale_warns(suggested, is_float, fitted_scale, settled, message):
    with pytest.warns(UserWarning, match=message):
        scale = settle_scale(suggested, is_float, ImageFormat("array", scale=fitted_scale))
    assert scale == settled


@pytest.mark.parametrize(("suggested", "is_float"), [(16, True), (255, True), (1, False)])
def test_settle_scale_warns_in_fit(suggested, is_float):  # fault 4
    with pytest.warns(UserWarning, match=rf"assumed to lie in \[0, {suggested}\]"):
        assert settle_scale(suggested, is_float, None) == suggested


def test_settle_scale_refuses_what_fit_did_not_see():
    with pytest.raises(ValueError, match=r"X has values in \[0, 255\].* fitted on .*\[0, 1\]"):
        settle_scale(255, True, ImageFormat("array", scale=1))
