"""Bad input, end to end: each numbered fault gets an error with a cure, or a right result."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from PIL import Image
from scipy import sparse

RNG = np.random.default_rng(0)


@pytest.fixture
def colour(digits):
    """40 digits, tinted (n, 8, 8, 3) uint8, and their labels."""
    images, labels = digits
    tint = RNG.integers(100, 256, (40, 1, 1, 3))
    return (images[:40, ..., None] * tint // 255).astype(np.uint8), labels[:40]


def assert_refused(estimator, X, y, message, kind=ValueError):
    """Assert that fit refuses, before any epoch."""
    with pytest.raises(kind, match=message):
        estimator.fit(X, y)
    assert not hasattr(estimator, "module_")


@pytest.mark.parametrize(
    ("change", "message", "kind"),
    [
        (lambda X: X[:0], "at least 1 sample", ValueError),  # fault 1
        (lambda X: [], r"0 sample\(s\)", ValueError),
        (lambda X: X[:0].reshape(0, 64), r"0 sample\(s\)", ValueError),
        (lambda X: pd.Series([], dtype=object), r"0 sample\(s\)", ValueError),
        (lambda X: np.where(X > 99, np.nan, X / 255), "X contains NaN", ValueError),  # 2
        (lambda X: np.where(X > 99, np.inf, X / 255), "X contains infinity", ValueError),
        (lambda X: X.reshape(-1, 64) * np.nan, "X contains NaN", ValueError),
        (lambda X: X / 255 - 0.5, r"range \[-0.5, .* Scale them", ValueError),  # fault 3
        (lambda X: X * 300.0, r"must lie in \[0, 1\] or \[0, 255\]. Divide", ValueError),
        (lambda X: X[..., None][..., [0, 0]], "1, 3 or 4 channels", ValueError),  # fault 9
        (lambda X: X[:, :3, :, None][..., [0] * 3], "first or last", ValueError),  # fault 8
        (lambda X: X[0], r"inconsistent numbers of samples: \[8, 120\]", ValueError),  # fault 10
        (lambda X: "digit.png", "got one str.* needs the batch axis", TypeError),
        (lambda X: Image.fromarray(X[0]), "got one Image.* needs the batch axis", TypeError),
        (lambda X: X + 1j, "Complex data not supported", ValueError),  # fault 11
        (lambda X: X.reshape(-1, 64) + 1j, "Complex data not supported", ValueError),
        (lambda X: sparse.csr_array(X.reshape(-1, 64)), "[Ss]parse", TypeError),
        (lambda X: None, "None|scalar", ValueError),
        (lambda X: (x for x in X), r"got a generator. Pass list\(X\)", TypeError),
        (lambda X: X[:, 0, 0], "Expected 2D array, got 1D", ValueError),
        (lambda X: X[:, None, None], "must have the shape", ValueError),
    ],
)
@pytest.mark.filterwarnings("ignore:Rows of 8 features")
def test_bad_arrays(small, digits, change, message, kind):
    X, y = digits
    assert_refused(small(), change(X), y, message, kind)


@pytest.mark.filterwarnings("ignore:Rows of 8 features")
def test_one_image_at_fit(small, colour):  # fault 10
    X, y = colour
    assert_refused(small(), X[0], y[:1], "inconsistent.* needs the batch axis")
    assert_refused(small(), X[0, ..., 0], y[:1], "inconsistent.* needs the batch axis")


def test_one_image_at_predict(small, digits, colour):  # fault 10
    X, y = colour
    fitted = small(max_epochs=1).fit(X, y)
    paired = small(max_epochs=1).fit(list(X), y)
    gray = small(max_epochs=1).fit(*digits)
    for estimator in (fitted, paired, gray):
        for image in (X[0], torch.tensor(X[0]), X[0, ..., :1]):
            with pytest.raises(ValueError, match=r"could be one image. .* needs the batch axis"):
                estimator.predict(image)
        with pytest.raises(ValueError, match=r"fitted on images.*needs the batch axis"):
            estimator.predict(X[0, ..., 0])
        assert estimator.predict(X[:1]).shape == (1,)
    for estimator in (fitted, paired):
        with pytest.raises(ValueError, match=r"could be one image. .* needs the batch axis"):
            estimator.predict(X[0].transpose(2, 0, 1))


def test_forms_of_one_array(small, digits, tmp_path, picture_dataset):  # faults 5, 12 and 14
    X, y = digits
    np.save(tmp_path / "X.npy", X)
    locked = X.copy()
    locked.setflags(write=False)
    forms = {
        "memory map": np.load(tmp_path / "X.npy", mmap_mode="r"),
        "read-only": locked,
        "Fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=0)[::2],
        "reversed": X[:, ::-1].copy()[:, ::-1],
        "tensor": torch.tensor(X),
        "list": list(X),
        "PIL": [Image.fromarray(image) for image in X],
        "nested lists": X.tolist(),
        "Dataset": picture_dataset(X, y),
        "int64": X.astype(int),
        "big-endian": X.astype(">i4"),
    }
    expected = small(max_epochs=1).fit(X, y).predict_proba(X)
    for name, form in forms.items():
        for target in (y, None) if name == "Dataset" else (y,):
            fitted = small(max_epochs=1).fit(form, target)
            np.testing.assert_array_equal(fitted.predict_proba(form), expected, name)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4"])
def test_unit_floats(small, digits, dtype):  # fault 5
    unit, y = digits[0] // 16 / np.float32(16), digits[1]
    expected = small().fit(unit, y).predict_proba(unit)
    probabilities = small().fit(unit.astype(dtype), y).predict_proba(unit.astype(dtype))
    np.testing.assert_array_equal(probabilities, expected)


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (1, "f4", r"assumed to lie in \[0, 255\] and are divided by 255"),  # fault 4
        (257, "u2", "16-bit pixels are divided by 65535"),  # fault 6
    ],
)
def test_scaled_with_a_warning(small, digits, scale, dtype, message):
    X, y = digits
    unit = X / np.float32(255)
    expected = small().fit(unit, y).predict_proba(unit)
    with pytest.warns(UserWarning, match=message):
        probabilities = (
            small().fit(X.astype(dtype) * scale, y).predict_proba(X.astype(dtype) * scale)
        )
    np.testing.assert_array_equal(probabilities, expected)


def test_bool(small, digits):  # fault 5
    X, y = digits
    expected = small().fit((X > 99) * 1.0, y).predict_proba((X > 99) * 1.0)
    probabilities = small().fit(X > 99, y).predict_proba(X > 99)
    np.testing.assert_array_equal(probabilities, expected)


def test_channels_first_or_last(small, colour):  # fault 8
    X, y = colour
    first = X.transpose(0, 3, 1, 2)
    fitted, mirrored = small().fit(X, y), small().fit(first, y)
    expected = fitted.predict_proba(X)
    for estimator in (fitted, mirrored):
        for form in (X, first, list(first)):
            np.testing.assert_array_equal(estimator.predict_proba(form), expected)


def test_gray_and_alpha(small, digits):  # fault 9
    X, y = digits
    expected = small().fit(X, y).predict_proba(X)
    rgba = np.stack([X, X, X, np.full_like(X, 255)], axis=-1)
    for form in (X[..., None], X[:, None], np.stack([X] * 3, -1), rgba):
        np.testing.assert_array_equal(small().fit(form, y).predict_proba(form), expected)
    clear = np.stack([X, X, X, np.zeros_like(X)], axis=-1)
    fitted = small(max_epochs=1).fit(X, y)
    white = fitted.predict_proba(np.full_like(X, 255))
    np.testing.assert_array_equal(fitted.predict_proba(clear), white)


def test_mixed_sizes(small, digits):  # faults 7 and 33
    X, y = digits
    rng = np.random.default_rng(1)
    crops = [image[: rng.integers(5, 9), : rng.integers(5, 9)] for image in X]
    crops[:2] = [np.full((1, 1), 9, np.uint8), np.full((1, 10_000), 9, np.uint8)]
    y = np.array([y[0], y[0], *y[2:]])
    objects = np.empty(len(crops), dtype=object)
    objects[:] = crops
    expected = small().fit(crops, y).predict_proba(crops)
    assert expected.shape == (120, 4)
    np.testing.assert_array_equal(expected[0], expected[1])
    np.testing.assert_array_equal(small().fit(objects, y).predict_proba(objects), expected)


def test_other_size_at_predict(small, digits):  # fault 13
    X, y = digits
    fitted = small().fit(X, y)
    doubled = X.repeat(2, axis=1).repeat(2, axis=2)
    assert fitted.predict_proba(doubled).shape == (120, 4)
    np.testing.assert_array_equal(
        fitted.predict_proba(doubled), fitted.predict_proba(list(doubled))
    )
    rows = small().fit(X.reshape(-1, 64), y)
    with pytest.raises(ValueError, match=r"X has 49 features, but .* is expecting 64 features"):
        rows.predict(X[:, :7, :7].reshape(-1, 49))


def test_scale_of_fit_holds_at_predict(small, digits):  # faults 3 and 4
    X, y = digits
    unit = small(max_epochs=1).fit(X / 255, y)
    with pytest.raises(ValueError, match=r"fitted on pixels in \[0, 1\]. Scale X like"):
        unit.predict(X * 1.0)
    eight = small(max_epochs=1).fit(X, y)
    dark = np.minimum(X, 1)
    np.testing.assert_array_equal(eight.predict_proba(dark.astype(int)), eight.predict_proba(dark))
    with pytest.warns(UserWarning, match="divided by 255"):
        assert eight.predict(X * 1.0).shape == (120,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_are_finite_whatever_scikit_learn_assumes(small, value):  # fault 2
    X, y = RNG.normal(size=(40, 12)), np.arange(40) % 2
    spoilt = np.where(np.arange(12) == 3, value, X)
    kind = "NaN" if np.isnan(value) else "infinity"
    with sklearn.config_context(assume_finite=True):
        fitted = small(max_epochs=1, image_shape=(1, -1)).fit(X, y)
        for call in (fitted.predict, lambda rows: small(image_shape=(1, -1)).fit(rows, y)):
            with pytest.raises(ValueError, match=f"X contains {kind}; pixels must be finite"):
                call(spoilt)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensors_on_cuda(small, digits, device):  # fault 14
    X, y = digits
    expected = small(device=device).fit(X, y).predict_proba(X)
    moved = torch.tensor(X, device="cuda")
    for form in (moved, list(moved)):
        probabilities = small(device=device).fit(form, y).predict_proba(form)
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)
