"""The same picture in any two forms gives the same probabilities, or the same error."""

import tempfile
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch.utils.data import Dataset

from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def files(images, suffix="png"):
    """Return paths of files, which a list in the folder's name keeps alive."""
    folder = Path(tempfile.mkdtemp(dir=files.folder))
    paths = [folder / f"{i}.{suffix}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def deep(X):
    return X * np.uint16(257)


# Functions of a uint8 array of gray images (n, h, w).
FORMS = {
    "array": lambda X: X,
    "colour": lambda X: np.repeat(X[..., None], 3, 3),
    "fortran": np.asfortranarray,
    "list": list,
    "PIL": lambda X: [Image.fromarray(x) for x in X],
    "palette": lambda X: [Image.fromarray(x).convert("P") for x in X],
    "png": files,
    "bmp": lambda X: files(X, "bmp"),
    "str": lambda X: list(map(str, files(X))),
    "series": lambda X: pd.Series(files(X), dtype=object),
    "int64": lambda X: X.astype(int),
    "unit": lambda X: X / 255,
    "unit32": lambda X: (X / 255).astype(np.float32),
    "a hair too much": lambda X: X / 255 * (1 + 4e-16) - 1e-12,  # fault 63
    "bytes as floats": lambda X: X.astype(float),
    "16 bits": deep,
    "16-bit files": lambda X: files(deep(X)),  # fault 64
    "16-bit PIL": lambda X: [Image.fromarray(x) for x in deep(X)],
    "float PIL": lambda X: [Image.fromarray((x / 255).astype(np.float32)) for x in X],
    "float TIFF": lambda X: files((X / 255).astype(np.float32), "tiff"),
    "tensor": torch.tensor,
    "list of tensors": lambda X: list(torch.tensor(X)),
    "Dataset": lambda X: Items(list(X)),
    "Dataset of floats": lambda X: Items(list(X / 255)),
    "Dataset of bytes as floats": lambda X: Items(list(X.astype(float))),
    "Dataset of labelled files": lambda X: Items([(str(p), "a") for p in files(X)]),  # fault 66
    "Dataset of 16 bits": lambda X: Items(list(deep(X))),
    "items of a Dataset": lambda X: [(x, 1, "name") for x in X],  # fault 66
}
pictures = st.tuples(st.integers(2, 4), st.integers(5, 9), st.integers(5, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 255))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    files.folder = tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def learnt(digits):
    clf = RRRNetClassifier("tiny", weights=None, blocks=(1, 1, 1, 1), image_size=16, max_epochs=1)
    return clf.fit(*digits)


def with_full_range(X):
    X = X.copy()
    X[0, 0, :2] = 0, 255
    return X


@pytest.mark.filterwarnings("ignore:Pixels are assumed", "ignore:16-bit pixels are")
@settings(max_examples=30, deadline=None)
@given(X=pictures, names=st.lists(st.sampled_from(sorted(FORMS)), min_size=2, max_size=2))
def test_predictions_do_not_depend_on_the_form(learnt, folder, X, names):
    X = with_full_range(X)
    one, other = (learnt.predict_proba(FORMS[name](X)) for name in names)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Pixels are assumed", "ignore:16-bit pixels are")
@pytest.mark.parametrize("name", sorted(FORMS))
def test_fits_do_not_depend_on_the_form(small, folder, digits, name):
    X, y = with_full_range(digits[0][:40]), digits[1][:40]
    expected = small(max_epochs=1).fit(X, y).predict_proba(X)
    form = FORMS[name](X)
    fitted = small(max_epochs=1).fit(form, y)
    np.testing.assert_array_equal(fitted.predict_proba(form), expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: X / 255 * 3.5, r"range \[0, 3\.5\], which is neither"),
        (lambda X: X / 255.0 - 0.5, "Negative values"),
        (lambda X: X * 2.0, r"range \[0, 510\]"),
        (lambda X: np.where(X == 255, np.nan, X / 255), "contains NaN"),
    ],
    ids=["between", "normalised", "too large", "NaN"],
)
@pytest.mark.parametrize(
    "form",
    [
        lambda X: X,
        list,
        lambda X: [Image.fromarray(x.astype(np.float32)) for x in X],
        lambda X: files(X.astype(np.float32), "tiff"),
        lambda X: Items(list(X)),
        torch.tensor,
    ],
    ids=["array", "list", "PIL", "files", "Dataset", "tensor"],
)
def test_errors_do_not_depend_on_the_form(small, folder, digits, spoil, message, form):
    X, y = with_full_range(digits[0][:8]), digits[1][:8]
    with pytest.raises(ValueError, match=message):
        small().fit(form(spoil(X)), y)


# ----------------------------------------------------------- uint8 that is not 0 to 255


DARK = ["array", "colour", "list", "PIL", "png", "tensor", "Dataset", "Dataset of PIL"]
FEW = FORMS | {
    "Dataset of PIL": lambda X: Items(FORMS["PIL"](X)),
    "Dataset of files": lambda X: Items(list(map(str, files(X)))),
}
DARK += ["Dataset of files"]


@pytest.fixture(scope="module")
def of_few_levels(digits):
    """Classifiers by the type and white level of what they were fitted on."""
    X, y = with_full_range(digits[0][:40]), digits[1][:40]
    forms = {"floats to 16": X // 16 + X // 255.0, "floats to 1": (X > 99) * 1.0, "bool": X > 99}
    forms |= {"mode 1": [Image.fromarray(x) for x in X > 99]}
    make = {"weights": None, "blocks": (1, 1, 1, 1), "image_size": 16, "max_epochs": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: RRRNetClassifier("tiny", **make, random_state=0).fit(form, y)
            for name, form in forms.items()
        }


@pytest.mark.parametrize("fitted", ["floats to 16", "floats to 1", "bool", "mode 1"])
@pytest.mark.parametrize("name", DARK)
def test_uint8_within_the_range_of_fit_is_read_by_it(of_few_levels, folder, digits, fitted, name):
    white = 16 if fitted == "floats to 16" else 1
    X = np.where(with_full_range(digits[0][:5]) > 99, white, 0).astype(np.uint8)
    clf = of_few_levels[fitted]
    expected = clf.predict_proba(X.astype(float))
    np.testing.assert_allclose(clf.predict_proba(X.astype(int)), expected, rtol=1e-6)
    with pytest.warns(UserWarning, match=f"up to {white} only. They are divided by {white}"):
        probabilities = clf.predict_proba(FEW[name](X))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Pixels are assumed")
@pytest.mark.parametrize("form", [list, lambda X: Items(list(X)), FORMS["float PIL"]])
def test_a_blank_image_among_digits_is_whole_numbers(small, digits, form):
    X, y = np.float32(digits[0][:40] // 16), digits[1][:40]
    X[3], X[0, 0, 0] = 0, 16
    form = form(X * 255) if form is FORMS["float PIL"] else form(X)  # which divides by 255
    expected = small(max_epochs=1).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(small(max_epochs=1).fit(form, y).predict_proba(form), expected)


@pytest.mark.parametrize("name", DARK)
def test_brighter_uint8_keeps_its_white_level(of_few_levels, folder, digits, name):
    clf, X = of_few_levels["bool"], np.where(digits[0][:5] > 99, 255, 0).astype(np.uint8)
    np.testing.assert_allclose(clf.predict_proba(FEW[name](X)), clf.predict_proba(X > 0))


def test_the_exported_classifier_reads_dark_uint8_alike(of_few_levels, folder, digits, tmp_path):
    clf = of_few_levels["floats to 16"]
    export_onnx(clf, tmp_path / "a.onnx")
    light = OnnxClassifier(tmp_path / "a.onnx")
    for X, name in product((digits[0][:5] // 16, digits[0][:5]), ("array", "list", "PIL", "png")):
        with warnings.catch_warnings(record=True) as of_both:
            warnings.simplefilter("always")
            expected, found = (each.predict_proba(FEW[name](X)) for each in (clf, light))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert len(of_both) == (2 if X.max() < 16 else 0)
        assert len({str(w.message) for w in of_both}) <= 1


@pytest.mark.parametrize("name", ["array", "list", "PIL", "png", "Dataset", "Dataset of PIL"])
@pytest.mark.parametrize("white", [1, 16])
def test_nearly_black_uint8_in_fit_is_told_once(small, folder, digits, name, white):
    X, y = np.where(digits[0][:40] > 99, white, 0).astype(np.uint8), digits[1][:40]
    with pytest.warns(UserWarning, match=f"up to {white} only, but their white level") as caught:
        small(max_epochs=1).fit(FEW[name](X), y)
    assert len(caught) == 1


# --------------------------------------------------------------- Datasets, as arrays are


@pytest.mark.parametrize("fitted", ["floats to 16", "uint8"])
def test_a_dataset_gets_the_warnings_of_an_array(of_few_levels, learnt, digits, fitted):
    X = with_full_range(digits[0][:5]) // 16 + digits[0][:5] // 255.0
    if fitted == "floats to 16":
        clf, X, message = of_few_levels[fitted], X / 16, "Unscaled, the images are nearly black"
    else:
        clf, message = learnt, "are divided by 255"
    with pytest.warns(UserWarning, match=message) as of_array:
        expected = clf.predict_proba(X)
    with pytest.warns(UserWarning, match=message) as of_items:
        probabilities = clf.predict_proba(Items(list(X)))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6, atol=1e-9)
    assert [str(w.message) for w in of_items] == [str(w.message) for w in of_array]


def test_dark_floats_of_a_dataset_follow_the_bright_ones_before(learnt):
    X = np.stack([np.full((8, 8), 200.0), np.full((8, 8), 0.5)])
    with pytest.warns(UserWarning, match="are divided by 255"):
        expected = learnt.predict_proba(X)
    with pytest.warns(UserWarning, match="are divided by 255"):
        np.testing.assert_allclose(learnt.predict_proba(Items(list(X))), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"divided by 1, but by all images .* white level is 255"):
        learnt.predict_proba(Items(list(X[::-1])))


@pytest.mark.parametrize("first", [np.zeros((8, 8), bool), np.zeros((8, 8)), np.ones((8, 8), "u1")])
def test_the_first_item_of_a_dataset_does_not_decide_alone(of_few_levels, digits, first):
    clf, X = of_few_levels["floats to 1"], with_full_range(digits[0][:5])
    items = [first, *X]
    np.testing.assert_allclose(clf.predict_proba(Items(items)), clf.predict_proba(items))


@pytest.mark.parametrize(
    ("late", "message"),
    [
        (lambda X: X // 16 * 1.0, "divided by 255, but by all images .* white level is 1"),
        (lambda X: X * np.uint16(16), "divided by 65535, but .* white level is 4095"),
        (lambda X: X * 1.0, None),
        (lambda X: X / 255, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Pixels are assumed", "ignore:.* repeat an earlier image")
def test_late_items_of_a_dataset_are_measured(small, digits, late, message):
    X, y = np.tile(digits[0], (3, 1, 1)), np.tile(digits[1], 3)
    X[260:, 0, 0] = 255  # 256 items are measured before
    items = Items([*X[:260], *late(X[260:])])
    if message is not None:
        with pytest.raises(ValueError, match=message):
            small(max_epochs=1).fit(items, y)
        return
    probabilities = small(max_epochs=1).fit(items, y).predict_proba(X[:9])
    np.testing.assert_array_equal(probabilities, small(max_epochs=1).fit(X, y).predict_proba(X[:9]))
