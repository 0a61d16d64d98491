"""OnnxClassifier accepts what the exported classifier accepts, and predicts the same."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import TensorDataset

from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx

TOLERANCE = 1e-4
RNG = np.random.default_rng(0)


def files(images, suffix="png"):
    folder = Path(tempfile.mkdtemp(dir=files.folder))
    paths = [folder / f"{i}.{suffix}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def gray(X):
    return X[..., 0].copy()


def deep(X):
    return gray(X) * np.uint16(257)


def with_alpha(X):
    return np.concatenate([X, X[..., :1]], axis=3)


def in_mode(mode):
    return lambda X: [Image.fromarray(x).convert(mode) for x in X]


def objects(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


# Functions of a uint8 array of RGB images (n, h, w, 3). The last ones spoil it.
FORMS = {
    "RGB": lambda X: X,
    "gray": gray,
    "gray channel": lambda X: X[..., :1],
    "RGBA": with_alpha,
    "channels first": lambda X: X.transpose(0, 3, 1, 2),
    "flipped": lambda X: X[:, ::-1, ::-1],
    "bool": lambda X: X > 99,
    "floats in [0, 1]": lambda X: X / 255,
    "float32 in [0, 1]": lambda X: (X / 255).astype(np.float32),
    "fractions": lambda X: (X / 255) ** 2,
    "fractions with alpha": lambda X: (with_alpha(X) / 255) ** 2,
    "fractions and bytes": lambda X: [*(X / 255) ** 2, *(X / 255)],
    "array of fractions and bytes": lambda X: np.concatenate([(X / 255) ** 2, X / 255]),
    "floats in [0, 255]": lambda X: X.astype(float),
    "int64": lambda X: X.astype(int),
    "nested lists": lambda X: X.tolist(),
    "uint16": deep,
    "12 bits": lambda X: gray(X) * np.uint16(16),
    "list": list,
    "objects": lambda X: objects(list(X)),
    "sizes": lambda X: [*X, X[0, :5, :3], gray(X)[0, :7], with_alpha(X)[0]],
    "PIL": in_mode("RGB"),
    **{f"PIL {mode}": in_mode(mode) for mode in ("1", "L", "LA", "P", "CMYK", "HSV", "F", "I")},
    "PIL I;16": lambda X: [Image.fromarray(x) for x in deep(X)],
    "PIL F in [0, 1]": lambda X: [Image.fromarray((x / 255).astype("f4")) for x in gray(X)],
    "png": files,
    "jpg": lambda X: files(X, "jpg"),
    "16-bit png": lambda X: files(deep(X)),
    "float tiff": lambda X: files((gray(X) / 255).astype(np.float32), "tiff"),
    "strings": lambda X: np.array(list(map(str, files(X)))),
    "Series": lambda X: pd.Series(files(X), dtype=object),
    "frame": lambda X: pd.DataFrame({"path": list(map(str, files(X)))}),
    "frame of PIL": lambda X: pd.DataFrame({"image": objects(in_mode("RGB")(X))}),
    "kinds": lambda X: [*files(X), *X, *in_mode("L")(X), *(X / 255)],
    "rows": lambda X: X.reshape(len(X), -1) / 255,
    "one image": lambda X: X[0],
    "negative": lambda X: X / 255 - 1,
    "NaN": lambda X: X * np.nan,
    "too large": lambda X: X * 4.0 + 256,
    "five channels": lambda X: X[..., [0, 1, 2, 0, 1]],
    "complex": lambda X: X * 1j,
    "no file": lambda X: [*files(X), "missing.png"],
    "a bad image": lambda X: [*X, None, X[0] - 1.5],
    "mode LAB": lambda X: [Image.new("LAB", (3, 4))] * len(X),
    "numbers": lambda X: [1, 2, 3],
    "two columns": lambda X: pd.DataFrame({"path": list(map(str, files(X))), "label": 1}),
    "nothing": lambda X: [],
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    files.folder = tmp_path_factory.mktemp("files")


def fit(X, y, folder, **parameters):
    """Return a fitted classifier and its exported twin."""
    clf = RRRNetClassifier("tiny", weights=None, max_epochs=1, random_state=0, **parameters)
    export_onnx(clf.fit(X, y), folder / "a.onnx")
    return clf, OnnxClassifier(folder / "a.onnx")


@pytest.fixture(scope="module")
def of_bytes(digits, tmp_path_factory):
    return fit(*digits, tmp_path_factory.mktemp("bytes"), max_image_pixels=300_000)


@pytest.fixture(scope="module")
def of_16_bits(digits, tmp_path_factory):
    images, labels = digits
    with pytest.warns(UserWarning, match="16-bit pixels are divided by 4095"):
        return fit(list(images * np.uint16(16)), labels, tmp_path_factory.mktemp("deep"))


def predict(estimator, X):
    """Return the probabilities, or the error, and the warnings."""
    name = type(estimator).__name__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            result = estimator.predict_proba(X)
        except (TypeError, ValueError) as error:
            message = str(error).replace(name, "The classifier")
            result = type(error), message
    return result, {str(warning.message).replace(name, "The classifier") for warning in caught}


def assert_same(pair, X):
    (expected, its_warnings), (found, warned) = (predict(each, X) for each in pair)
    assert warned == its_warnings
    if isinstance(expected, tuple):
        assert found == expected
    else:
        assert isinstance(found, np.ndarray), found
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    return expected


def draw(n, height, width, seed):
    """Return images with the full range of values."""
    X = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    X.flat[0], X.flat[-1] = 0, 255
    return X


sides = st.integers(1, 97)
pictures = st.builds(draw, st.integers(1, 3), sides, sides, st.integers(0, 2**32 - 1))


@settings(max_examples=200, deadline=None)
@given(X=pictures, name=st.sampled_from(sorted(FORMS)))
def test_every_form_and_size(of_bytes, X, name):
    assert_same(of_bytes, FORMS[name](X))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(X=pictures, name=st.sampled_from(sorted(FORMS)))
def test_every_form_and_size_after_16_bits(of_16_bits, X, name):
    assert_same(of_16_bits, FORMS[name](X))


@pytest.mark.parametrize("name", FORMS)
def test_forms(of_bytes, name):
    expected = assert_same(of_bytes, FORMS[name](draw(2, 21, 34, 0)))
    spoilt = list(FORMS).index(name) >= list(FORMS).index("rows")
    assert isinstance(expected, tuple) == spoilt


@pytest.mark.parametrize("size", [(37, 211), (300, 400), (427, 640), (16, 16)])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_photographs(of_bytes, size, engine):
    clf, light = of_bytes
    photographs = [image[: size[0], : size[1]] for image in load_sample_images().images]
    light = OnnxClassifier(light.path, engine=engine)
    for X in (np.stack(photographs), files(photographs, "jpg"), np.stack(photographs) / 256):
        assert_same((clf, light), X)


def test_more_than_a_batch(of_bytes):
    X = draw(70, 20, 9, 0)
    assert_same(of_bytes, X)
    assert_same(of_bytes, files(X))
    paths = ["lost.png", *files(X), "missing.png"]
    assert "2 of 72 image(s)" in assert_same(of_bytes, paths)[1]


def test_attributes(of_bytes):
    clf, light = of_bytes
    assert light.image_shape_in_ == clf.image_shape_in_ == (8, 8)
    assert not hasattr(light, "n_features_in_")
    assert not hasattr(light, "feature_names_in_")


@pytest.mark.parametrize(
    "make",
    [
        torch.tensor,
        lambda X: list(torch.tensor(X)),
        lambda X: [*X, torch.tensor(X[0])],
        lambda X: TensorDataset(torch.tensor(X)),
    ],
    ids=["tensor", "tensors", "some tensors", "Dataset"],
)
def test_torch_objects_are_refused(of_bytes, make):
    with pytest.raises(TypeError, match=r"no objects of torch; got a Tensor.*X\.numpy\(\)"):
        of_bytes[1].predict(make(draw(2, 9, 9, 0)))


def test_the_limit_of_pixels_is_that_of_the_classifier(of_bytes):
    X = [Image.new("L", (600, 500)), Image.new("L", (600, 501))]
    assert assert_same(of_bytes, X[:1]).shape == (1, 4)
    assert "300600 pixels, more than `max_image_pixels`=300000" in assert_same(of_bytes, X)[1]


# ---------------------------------------------------------------------------------- rows


def test_rows(digits, tmp_path):
    images, labels = digits
    colours = np.stack([np.pad(images / 255, [(0, 0), (0, 0), (0, 1)])] * 3, axis=1)
    rows = pd.DataFrame(colours.reshape(len(images), -1)).add_prefix("pixel")
    clf, light = pair = fit(rows, labels, tmp_path, image_shape=(3, 8, 9))
    assert light.image_shape_in_ == (8, 9, 3)
    assert light.n_features_in_ == 216
    assert light.feature_names_in_.tolist() == clf.feature_names_in_.tolist()
    X = RNG.random((5, 216))
    frame = pd.DataFrame(X, columns=clf.feature_names_in_)
    for form in (frame, frame * 0.5, frame.astype("float32"), X, X.tolist(), X > 0.5):
        assert isinstance(assert_same(pair, form), np.ndarray)
    for form in (frame.iloc[:, ::-1], frame.iloc[:, 1:], X[:, 1:], X * 255, X - 1, X[0]):
        assert isinstance(assert_same(pair, form), tuple)
    assert_same(pair, draw(2, 10, 2, 0))


@pytest.mark.slow
def test_rows_that_are_no_pixels(tmp_path):
    X = RNG.normal(size=(40, 12))
    pair = fit(X, X[:, 0] > 0, tmp_path, image_shape=(1, -1))
    for form in (X, X * 3, X.astype("float32"), X.astype(int), pd.DataFrame(X)):
        assert isinstance(assert_same(pair, form), np.ndarray)
    assert isinstance(assert_same(pair, X[:, 1:]), tuple)
