"""Predictions from an exported file, without torch."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx
from sklearn_rrr.deployment import onnx_classifier
from sklearn_rrr.deployment.onnx_files import SEAL, seal


@pytest.fixture(scope="module")
def exported(digits, tmp_path_factory):
    images, labels = digits
    clf = RRRNetClassifier("tiny", weights=None, max_epochs=2, n_branches=1, random_state=0)
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    export_onnx(clf.fit(images, labels * 10), path)
    return path


def test_needs_no_torch(exported, tmp_path):
    """Nor anything else that only training needs: importing it would raise."""
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.full((9, 9), 99, np.uint16)).save(tmp_path / "cat" / "1.png")
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "skorch", "safetensors", "pandas"):
            raise ImportError(f"{{name}} is missing")
sys.meta_path.insert(0, Missing())
import numpy as np
from PIL import Image
from sklearn_rrr import OnnxClassifier, load_image_folder
clf = OnnxClassifier({str(exported)!r})
gray = np.zeros((2, 9, 7), np.uint8)
for X in (gray, gray > 0, gray / 255, list(gray), gray.tolist(), list(map(Image.fromarray, gray))):
    assert clf.predict(X).shape == (2,)
assert clf.predict(load_image_folder({str(tmp_path)!r}).paths).shape == (1,)
try:
    clf.predict(np.zeros((2, 63)))
except ValueError as error:
    assert "fitted on images" in str(error)
else:
    raise AssertionError("rows were accepted")
assert not {{"torch", "pandas"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_is_a_classifier(exported, digits):
    clf = OnnxClassifier(exported)
    assert clf.classes_.tolist() == [0, 10, 20, 30]
    assert clf.image_size_ == 16
    probabilities = clf.predict_proba(digits[0])
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    expected = (clf.predict(digits[0]) == digits[1] * 10).mean()
    assert clf.score(digits[0], digits[1] * 10) == expected
    assert get_scorer("neg_log_loss")(clf, digits[0], digits[1] * 10) < 0


def test_images_come_as_arrays_lists_and_pictures(exported, digits):
    clf, images = OnnxClassifier(exported), digits[0][:3]
    expected = clf.predict_proba(images)
    for same in (
        list(images),
        [Image.fromarray(image) for image in images],
        np.repeat(images[..., None], 3, axis=3),
        images[..., None],
    ):
        np.testing.assert_allclose(clf.predict_proba(same), expected, atol=1e-6)
    mixed = [images[0], np.zeros((20, 30, 3), np.uint8)]
    np.testing.assert_allclose(clf.predict_proba(mixed)[0], expected[0], atol=1e-6)
    many = np.repeat(images, 30, axis=0)
    np.testing.assert_allclose(clf.predict_proba(many), np.repeat(expected, 30, axis=0), atol=1e-6)


def test_pictures_are_turned_upright(exported, digits):
    clf, image = OnnxClassifier(exported), Image.fromarray(digits[0][0])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90 degrees
    turned = io.BytesIO()
    image.save(turned, "png", exif=exif)
    upright = np.rot90(digits[0][0], -1)[None]
    np.testing.assert_allclose(
        clf.predict_proba([Image.open(turned)]), clf.predict_proba(upright), atol=1e-6
    )


def test_pictures_are_decoded_as_for_training(exported, digits, tmp_path):
    """Every colour mode of 8 bits, and files; transparency on white."""
    clf, image = OnnxClassifier(exported), Image.fromarray(digits[0][0]).convert("RGB")
    for mode in ("RGBA", "LA", "P", "CMYK", "1", "HSV"):
        same = np.asarray(image.convert(mode).convert("RGB"))[None]
        np.testing.assert_allclose(
            clf.predict_proba([image.convert(mode)]), clf.predict_proba(same), atol=1e-6
        )
    clear = image.convert("RGBA")
    clear.putalpha(0)
    white = clf.predict_proba(np.full((1, 8, 8), 255, np.uint8))
    for form in ([clear], np.asarray(clear)[None]):
        np.testing.assert_allclose(clf.predict_proba(form), white, atol=1e-6)
    clear.save(tmp_path / "clear.png")
    image.save(tmp_path / "image.png")
    paths = [tmp_path / "image.png", str(tmp_path / "clear.png")]
    expected = np.concatenate([clf.predict_proba([image]), white])
    for form in (paths, np.array(paths, dtype=object), pd.Series(paths)):
        np.testing.assert_allclose(clf.predict_proba(form), expected, atol=1e-6)


def test_files_that_cannot_be_used(exported, digits, tmp_path):
    clf = OnnxClassifier(exported)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png': is not an image of a known format"):
        clf.predict([tmp_path / "text.png"])
    with pytest.raises(ValueError, match=r"2 of 70 image\(s\).*\n.*text\.png.*\n.*no such file"):
        clf.predict([tmp_path / "text.png", *digits[0][:68], "missing.png"])
    frames = [Image.fromarray(image) for image in digits[0][:2]]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"several frames, such as .*two\.gif"):
        clf.predict([tmp_path / "two.gif"])


def test_works_where_scikit_learn_wants_a_fitted_classifier(exported, digits):
    clf = OnnxClassifier(exported)
    assert is_classifier(clf)
    check_is_fitted(clf)
    assert clf.fit() is clf
    expected = clf.predict(digits[0])
    pipeline = make_pipeline(FunctionTransformer(), OnnxClassifier(exported))
    np.testing.assert_array_equal(pipeline.predict(digits[0]), expected)
    frozen = FrozenEstimator(clone(clf)).fit(digits[0], digits[1])
    np.testing.assert_array_equal(frozen.predict(digits[0]), expected)


def test_pickles(exported, digits):
    clf = OnnxClassifier(exported, n_threads=1)
    expected = clf.predict_proba(digits[0])
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(again.predict_proba(digits[0]), expected, atol=1e-6)


def test_follows_its_parameters_and_its_file(exported, digits, tmp_path):
    path = tmp_path / "a.onnx"
    shutil.copy(exported, path)
    clf = OnnxClassifier(path)
    expected = clf.predict_proba(digits[0])
    clf.engine = "openvino"
    other = clf.predict_proba(digits[0])
    np.testing.assert_allclose(other, expected, atol=1e-5)
    clf.n_threads = 0
    with pytest.raises(ValueError, match="`n_threads` must be an int >= 1"):
        clf.predict(digits[0])
    model = onnx.load(exported)
    for entry in model.metadata_props:
        if entry.key == "classes":
            entry.value = json.dumps({"array": list("abcd"), "dtype": "<U1"})
    path.write_bytes(seal(model.SerializeToString()))
    os.utime(path, ns=(1, 1))
    assert clf.set_params(n_threads=None).classes_.tolist() == list("abcd")


@pytest.mark.parametrize("replaced", ["moved", "overwritten"])
def test_follows_a_file_whose_time_is_kept(exported, digits, tmp_path, replaced):
    """As after ``cp -p`` or ``rsync -t``, here with a file of the same size."""
    path, other = tmp_path / "a.onnx", tmp_path / "b.onnx"
    shutil.copy(exported, path)
    content = exported.read_bytes()
    body = content[: content.rindex(SEAL)].replace(b"[0, 10, 20, 30]", b"[5, 15, 25, 35]")
    other.write_bytes(seal(body))
    for each in (path, other):
        os.utime(each, (1e9, 1e9))
    clf = OnnxClassifier(path)
    assert set(clf.predict(digits[0])) <= {0, 10, 20, 30}
    if replaced == "moved":
        os.replace(other, path)
    else:
        shutil.copy2(other, path)
    assert path.stat().st_mtime == 1e9
    assert path.stat().st_size == len(content)
    assert set(clf.predict(digits[0])) <= {5, 15, 25, 35}
    assert clf.classes_.tolist() == [5, 15, 25, 35]


def test_labels_are_of_the_same_file_as_probabilities(exported, digits, tmp_path, monkeypatch):
    expected = OnnxClassifier(exported).predict(digits[0])
    path = tmp_path / "a.onnx"
    shutil.copy(exported, path)
    read = onnx_classifier.read_batches

    def remove_meanwhile(*form):
        yield from read(*form)
        path.unlink()

    monkeypatch.setattr(onnx_classifier, "read_batches", remove_meanwhile)
    np.testing.assert_array_equal(OnnxClassifier(path).predict(digits[0]), expected)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_more_threads_than_processors(exported, digits, engine):
    """A million threads would never start."""
    expected = OnnxClassifier(exported, engine=engine).predict_proba(digits[0])
    for n_threads in (10**6, 2**40):
        clf = OnnxClassifier(exported, engine=engine, n_threads=n_threads)
        np.testing.assert_allclose(clf.predict_proba(digits[0]), expected, atol=1e-5)


def test_signals_arrive_after_openvino_models_came_and_went(exported):
    """Each OpenVINO of a process leaves a stack for signals behind that is no longer there."""
    code = f"""
import signal, threading
import numpy as np
from sklearn_rrr import OnnxClassifier
def work():
    clf = OnnxClassifier({str(exported)!r}, engine="openvino")
    clf.predict(np.zeros((2, 9, 9), np.uint8))
    return [clf]
first, second = work(), work()
for models in (first, second):
    thread = threading.Thread(target=models.clear)
    thread.start()
    thread.join()
caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
signal.raise_signal(signal.SIGTERM)
assert caught
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bf16_is_another_arithmetic(exported, digits):
    clf = OnnxClassifier(exported, engine="openvino", precision="bf16")
    expected = OnnxClassifier(exported, engine="openvino").predict_proba(digits[0])
    rough = clf.predict_proba(digits[0])
    np.testing.assert_allclose(rough, expected, atol=0.05)
    if torch.cpu.get_capabilities().get("avx512_bf16"):
        assert np.abs(rough - expected).max() > 1e-5


def test_errors(exported, digits, tmp_path, monkeypatch):
    for parameters, match in (
        ({"engine": "tensorrt"}, "`engine` must be one of 'onnxruntime', 'openvino'"),
        ({"engine": np.array(["onnxruntime"])}, "`engine` must be one of .*; got array"),
        ({"precision": "int8"}, "`precision` must be one of 'fp32', 'bf16'"),
        ({"precision": "bf16"}, "'bf16' needs `engine`='openvino'"),
    ):
        with pytest.raises(ValueError, match=match):
            OnnxClassifier(exported, **parameters).predict(digits[0])
    with pytest.raises(ValueError, match="is not a file"):
        OnnxClassifier(tmp_path / "no.onnx").predict(digits[0])
    assert not hasattr(OnnxClassifier(tmp_path / "no.onnx"), "classes_")
    (tmp_path / "text.onnx").write_text("no")
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=rf"text\.onnx cannot be run by {engine}"):
            OnnxClassifier(tmp_path / "text.onnx", engine=engine).predict(digits[0])
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match="was not written by"):
            OnnxClassifier(tmp_path / "bare.onnx", engine=engine).predict(digits[0])
    clf = OnnxClassifier(exported)
    for X, match in (
        (digits[0][0], r"X is 2-D, with shape \(8, 8\), but the estimator was fitted on images"),
        (np.zeros((8, 8, 3), np.uint8), r"could be one image.*batch axis: X\[np.newaxis\]"),
        (np.zeros((0, 8, 8), np.uint8), r"at least 1 sample and 1 pixel; got \(0, 8, 8\)"),
        (np.zeros((2, 0, 8), np.uint8), r"at least 1 sample and 1 pixel; got \(2, 0, 8\)"),
        (np.zeros((2, 8, 8, 2), np.uint8), "must have 1, 3 or 4 channels"),
        (np.full((2, 8, 8), 300), r"the range \[300, 300\]"),
        (np.full((2, 8, 8), -1.0), "Negative values"),
        (np.full((2, 8, 8), np.nan), "contains NaN"),
        (np.array([["a"]]), "no such file"),
        (["a.png"], r"a\.png': no such file"),
        (np.array(["a.png"]), r"a\.png': no such file"),
        ([], r"0 sample\(s\)"),
    ):
        with pytest.raises(ValueError, match=match):
            clf.predict(X)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        OnnxClassifier(exported).predict(digits[0])
