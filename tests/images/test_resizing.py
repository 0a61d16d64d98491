"""Resizing without torch gives torch's values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_rrr.images.resizing import NumpyResizer
from sklearn_rrr.images.sources import TorchResizer

sides = st.integers(1, 130)


def resize_with_torch(pixels, size):
    return TorchResizer.resize(pixels, size).permute(0, 2, 3, 1).numpy()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), sides, sides, st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_gives_the_values_of_torch(n, height, width, size, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    resized = NumpyResizer().resize(pixels, size)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, resize_with_torch(pixels, size))
    fractions = rng.random((n, height, width, 3), dtype=np.float32)
    resized = NumpyResizer().resize(fractions, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, resize_with_torch(fractions, size), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9000), (9000, 1), (700, 1100), (2, 3000)])
@pytest.mark.parametrize("size", [8, 96, 224])
def test_large_and_extreme_shapes(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    expected = resize_with_torch(pixels, size)
    np.testing.assert_array_equal(NumpyResizer().resize(pixels, size), expected)
    turned = pixels[:, ::-1].transpose(0, 2, 1, 3)  # not contiguous
    expected = resize_with_torch(turned, size)
    np.testing.assert_array_equal(NumpyResizer().resize(turned, size), expected)


def test_the_right_size_is_not_copied():
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    assert NumpyResizer().resize(pixels, 8) is pixels


def test_joins_batches():
    whole, fractions = np.full((1, 2, 2, 3), 51, np.uint8), np.full((1, 2, 2, 3), 0.5, np.float32)
    assert NumpyResizer().join([whole, whole]).dtype == np.uint8
    both = NumpyResizer().join([whole, fractions])
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[:, 0, 0, 0], [0.2, 0.5], rtol=1e-6)


def test_counts_threads():
    assert NumpyResizer(3).count_threads() == 3
    assert NumpyResizer().count_threads() >= 1
