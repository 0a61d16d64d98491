"""Exported classifiers with int8 convolutions predict almost as the classifier does."""

import sys

import numpy as np
import onnx
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    BasisScalingPruner,
    ChannelPruner,
    NetTailorClassifier,
    OnnxClassifier,
    RRRNetClassifier,
    export_onnx,
)

COMMON = {"backbone": "synth50", "image_size": 32, "random_state": 0}
QUICK = {"n_steps": 1, "epochs_per_step": 1}


@pytest.fixture(scope="module")
def many_digits():
    """800 digits of 10 classes as uint8 images, and their labels; the last 200 are for tests."""
    data = load_digits()
    return (data.images[:800] * 15.9).astype(np.uint8), data.target[:800]


@pytest.fixture(scope="module")
def fitted(many_digits):
    images, labels = many_digits
    clf = RRRNetClassifier(**COMMON, blocks=(1, 1, 1, 1), n_branches=2, max_epochs=4)
    return clf.fit(images[:600], labels[:600])


@pytest.fixture(scope="module")
def files(fitted, many_digits, tmp_path_factory):
    """The same classifier, exported in float32 and with int8 convolutions."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(fitted, folder / "float.onnx")
    export_onnx(fitted, folder / "int8.onnx", calibration_images=many_digits[0][:100])
    return folder / "float.onnx", folder / "int8.onnx"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_predictions_are_nearly_those_of_the_classifier(fitted, files, many_digits, engine):
    X, y = many_digits[0][600:], many_digits[1][600:]
    light = OnnxClassifier(files[1], engine=engine)
    expected, found = fitted.predict_proba(X), light.predict_proba(X)
    assert light.classes_.tolist() == list(range(10))
    assert fitted.score(X, y) > 0.8
    assert light.score(X, y) > fitted.score(X, y) - 0.03
    assert np.abs(found - expected).max() > 1e-4
    assert np.abs(found - expected).mean() < 0.01
    branches = light.predict_branches(X)
    np.testing.assert_allclose(branches.mean(1), found, atol=1e-6)


def test_only_convolutions_are_quantised(files):
    before, after = map(onnx.load, files)
    makers = {name: node.op_type for node in after.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in after.graph.initializer}
    convolutions = [node for node in after.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in before.graph.node)
    for node in convolutions:
        assert [makers[name] for name in node.input] == ["DequantizeLinear"] * 3
    scales = [tensor for name, tensor in weights.items() if name.endswith("weight_scale")]
    assert len(scales) == len(convolutions)
    assert all(scale.dims for scale in scales)  # one scale a channel
    for kind in ("MatMul", "Einsum", "Softmax"):
        names = [name for node in after.graph.node if node.op_type == kind for name in node.input]
        assert names
        assert "DequantizeLinear" not in {makers.get(name) for name in names}
    assert files[1].stat().st_size < 0.5 * files[0].stat().st_size


def test_images_are_read_as_in_prediction(fitted, files, many_digits, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(100)]
    for path, image in zip(paths, many_digits[0], strict=False):
        Image.fromarray(image).save(path)
    export_onnx(fitted, tmp_path / "a.onnx", calibration_images=paths)
    X = many_digits[0][600:]
    expected = OnnxClassifier(files[1]).predict_proba(X)
    np.testing.assert_allclose(OnnxClassifier(tmp_path / "a.onnx").predict_proba(X), expected)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ([], r"0 sample\(s\)"),
        (["missing.png"], r"missing\.png': no such file"),
        (np.full((2, 8, 8), -1.0), "Negative values"),
    ],
    ids=["none", "no file", "negative"],
)
def test_images_that_cannot_be_used(fitted, tmp_path, images, match):
    with pytest.raises(ValueError, match=match):
        export_onnx(fitted, tmp_path / "a.onnx", calibration_images=images)
    assert not list(tmp_path.iterdir())


def test_needs_onnxruntime(fitted, many_digits, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn_rrr.deployment.onnx_quantization", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
        export_onnx(fitted, tmp_path / "a.onnx", calibration_images=many_digits[0][:100])


NETWORKS = {
    "default": lambda clf: RRRNetClassifier(image_size=64, random_state=0),
    "many branches": lambda clf: RRRNetClassifier(
        **COMMON, blocks=(1, 1, 1, 1), n_branches=8, max_epochs=6
    ),
    "channels pruned": lambda clf: ChannelPruner(FrozenEstimator(clf), target=0.6, **QUICK),
    "bases pruned": lambda clf: BasisScalingPruner(FrozenEstimator(clf), target=0.6, **QUICK),
    "tailored": lambda clf: NetTailorClassifier(**COMMON, max_epochs=6, n_removed=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(fitted, many_digits, tmp_path, name):
    images, labels = many_digits
    estimator = NETWORKS[name](fitted).fit(images[:600], labels[:600])
    export_onnx(estimator, tmp_path / "float.onnx")
    export_onnx(estimator, tmp_path / "int8.onnx", calibration_images=images[:100])
    size = (tmp_path / "int8.onnx").stat().st_size
    assert size < 0.5 * (tmp_path / "float.onnx").stat().st_size
    expected = estimator.score(images[600:], labels[600:])
    assert expected > 0.5
    for engine in ("onnxruntime", "openvino"):
        light = OnnxClassifier(tmp_path / "int8.onnx", engine=engine)
        assert light.score(images[600:], labels[600:]) > expected - 0.03
