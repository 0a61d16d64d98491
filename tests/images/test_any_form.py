"""The same picture in any two forms gives the same probabilities, or the same error."""

import tempfile
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

from sklearn_rrr import RRRNetClassifier


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
