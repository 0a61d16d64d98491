"""Files of fitted classifiers: saved without pickle, exported to ONNX."""

import json
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx, load, save
from sklearn_rrr.classifiers import base
from sklearn_rrr.deployment.model_files import make_metadata
from sklearn_rrr.deployment.onnx_export import resize_like_torch

LABELS = {
    "strings": np.array(["ant", "bee", "ünï", "d"]),
    "integers": np.array([7, -3, 11, 2]),
    "booleans": np.array([True, False, True, False]),
    "objects": np.array(["a", "b", "c", "d"], dtype=object),
}


@pytest.fixture(scope="module")
def fitted(digits):
    images, labels = digits
    clf = RRRNetClassifier(
        "tiny", weights=None, n_branches=2, max_epochs=2, precision="fp32", random_state=0
    )
    return clf.fit(images, LABELS["strings"][labels])


@pytest.mark.parametrize("kind", LABELS)
def test_loaded_classifier_predicts_the_same(small, digits, tmp_path, kind):
    images, labels = digits
    clf = small(blocks=(2, 1, 1, 1), split="aligned", validation_fraction=0.2)
    clf.fit(images, LABELS[kind][labels])
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    check_is_fitted(again)
    np.testing.assert_array_equal(again.predict_proba(images), clf.predict_proba(images))
    np.testing.assert_array_equal(again.predict(images), clf.predict(images))
    assert again.classes_.dtype == clf.classes_.dtype
    assert again._image_format == clf._image_format
    assert again.get_params() == clf.get_params()
    assert vars(again).keys() == vars(clf).keys() - {"_net"}
    assert again.fine_tuning_ == clf.fine_tuning_
    assert again.module_.arguments == clf.module_.arguments
    pd.testing.assert_frame_equal(again.history_, clf.history_)


@pytest.mark.parametrize(
    ("backbone", "head_features", "split_at", "n_branches"),
    [
        pytest.param("tiny_mobile", "last", "conv2_x", 2, marks=pytest.mark.slow),
        pytest.param("tiny_mobile", "all", "conv2_x", 1, marks=pytest.mark.slow),
        ("tiny_mobile", "all", "conv4_x", 2),
        pytest.param("tiny", "all", "conv4_x", 2, marks=pytest.mark.slow),
    ],
)
def test_any_backbone_and_head_in_files(
    small, digits, tmp_path, backbone, head_features, split_at, n_branches
):
    X, y = digits
    form = {"backbone": backbone, "split_at": split_at, "n_branches": n_branches}
    clf = small(**form, head_features=head_features, head_init="ridge", max_epochs=1).fit(X, y)
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), rtol=1e-4, atol=1e-6)
    assert again.module_.arguments == clf.module_.arguments
    again.partial_fit(X, y)
    export_onnx(clf, tmp_path / "a.onnx")
    images = np.random.default_rng(0).integers(0, 256, (5, 19, 23, 3), dtype=np.uint8)
    for engine in ("onnxruntime", "openvino"):
        light = OnnxClassifier(tmp_path / "a.onnx", engine=engine)
        np.testing.assert_allclose(
            light.predict_branches(images), clf.predict_branches(images), atol=1e-4
        )


def test_loaded_classifier_trains_on(small, digits, tmp_path):
    images, labels = digits
    clf = small(trainable="branches").fit(images, labels)
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors").partial_fit(images, labels)
    assert not any(p.requires_grad for p in again.module_.stump.parameters())
    clf.partial_fit(images, labels)
    np.testing.assert_allclose(
        again.predict_proba(images), clf.predict_proba(images), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("form", ["rows", "paths", "frame", "vectors", "channels first"])
def test_every_form_of_input_is_remembered(small, digits, digit_paths, tmp_path, form):
    rows = digits[0].reshape(len(digits[0]), -1)
    X, y = {
        "rows": (rows / rows.max(), digits[1]),
        "paths": digit_paths,
        "vectors": (rows[:, :16] - 100.0, digits[1]),
        "channels first": (np.repeat(digits[0][:, None], 3, axis=1), digits[1]),
        "frame": (pd.DataFrame(rows[:, :64], columns=[f"p{i}" for i in range(64)]), digits[1]),
    }[form]
    clf = small(class_weight={0: 2.0, 1: 1, 2: 1, 3: 1}).fit(X, y)
    save(clf, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(
        load(tmp_path / "a.safetensors").predict_proba(X), clf.predict_proba(X)
    )


def test_loads_in_a_fresh_process(small, digits, tmp_path):
    clf = small(backbone="synth50", image_size=16, max_epochs=1).fit(*digits)
    clf.set_params(n_branches=5, blocks=None)  # what was fitted counts
    save(clf, tmp_path / "a.safetensors")
    np.save(tmp_path / "x.npy", digits[0][:5])
    code = (
        "import sys, numpy as np; from sklearn_rrr import load;"
        "print(load(sys.argv[1]).predict(np.load(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.safetensors", tmp_path / "x.npy"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(clf.predict(digits[0][:5]))


def test_file_is_safetensors_and_replaces_an_older_one(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    save(fitted, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    tensors = load_file(path)
    n_parameters = sum(t.numel() for t in fitted.module_.state_dict().values())
    assert sum(t.numel() for t in tensors.values()) == n_parameters
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["sklearn_rrr"])["estimator"] == "RRRNetClassifier"


class Mine(RRRNetClassifier):
    """A class that load cannot know."""


def test_what_cannot_be_saved(fitted, small, digits, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(NotFittedError):
        save(small(), path)
    with pytest.raises(TypeError, match=r"must be a classifier of sklearn_rrr.*LogisticRegression"):
        save(LogisticRegression(), path)
    own = Mine("tiny", weights=None, max_epochs=1, random_state=0).fit(*digits)
    with pytest.raises(TypeError, match="does not support the class Mine"):
        save(own, path)
    for write in (save, export_onnx):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            write(fitted, tmp_path / "no" / "a.safetensors")
        with pytest.raises(IsADirectoryError, match="is a folder; give the path"):
            write(fitted, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_are_code_are_refused_until_they_are_none(small, digits, tmp_path):
    path = tmp_path / "a.safetensors"
    clf = small(random_state=np.random.RandomState(0), augmentation=torch.sin, max_epochs=1)
    clf.fit(*digits)
    with pytest.raises(TypeError, match=r"`fine_tuning` contains a .*plain value, or use joblib"):
        save(clf, path)
    with pytest.raises(TypeError, match="`random_state` contains a RandomState"):
        save(clf.set_params(fine_tuning__augmentation=None), path)
    save(clf.set_params(random_state=0), path)
    again = load(path)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), clf.predict_proba(digits[0]))
    again.partial_fit(*digits)
    again.classes_ = np.array(["2026-01-01"], dtype="datetime64[D]")
    with pytest.raises(TypeError, match=r"`classes_` contains a ndarray.*Use joblib\.dump"):
        save(again, path)


def test_routing_and_skipped_images_do_not_stand_in_the_way(small, digits, tmp_path):
    images = [*digits[0][:20], np.zeros((8, 8, 7), np.uint8)]
    labels = [*digits[1][:20], 0]
    with config_context(enable_metadata_routing=True):
        clf = small(on_bad_file="skip").set_fit_request(sample_weight=True)
    with pytest.warns(UserWarning, match="1 image"):
        clf.fit(images, labels)
    save(clf, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").skipped_ == [None]


def test_other_files_are_refused(fitted, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is not a file"):
        load(tmp_path / "nothing")
    pickled = tmp_path / "a.joblib"
    joblib.dump(fitted, pickled)
    with pytest.raises(ValueError, match=r"is damaged .*Nothing in it was executed.*joblib\.load"):
        load(pickled)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match=r"was not written by sklearn_rrr\.save"):
        load(other)
    path = tmp_path / "a.safetensors"
    save(fitted, path)
    monkeypatch.setitem(base.VERSIONS, "torch", "99")
    with pytest.warns(UserWarning, match=r"was saved with torch \d.* \(now 99\)"):
        load(path)


def read(path):
    """Return the content and the tensors of a saved file."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["sklearn_rrr"]), load_file(path)


TENSORS = {
    "'head.bias' is missing|'head.bias'": {"head.bias": None},
    "'more' is unexpected": {"more": torch.zeros(1)},
    "the description of the network": {"head.bias": torch.zeros(1, 4)},
    r"has the shape \(1,\), not": {"stump.1.weight": torch.zeros(1)},
    "NaN or infinite": {"head.bias": torch.full((2, 4), torch.nan)},
    "cannot be loaded": {"stump.1.num_batches_tracked": torch.zeros(3, dtype=torch.long)},
}


@pytest.mark.parametrize("match", TENSORS)
def test_damaged_tensors_are_refused(fitted, tmp_path, match):
    save(fitted, tmp_path / "a.safetensors")
    content, tensors = read(tmp_path / "a.safetensors")
    tensors = {k: v for k, v in (tensors | TENSORS[match]).items() if v is not None}
    save_file(tensors, tmp_path / "b.safetensors", make_metadata(json.dumps(content), tensors))
    with pytest.raises(ValueError, match=match):
        load(tmp_path / "b.safetensors")


def put(value, *keys):
    """Return a function that puts a value into nested dicts."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


ARGUMENTS = {"n_classes": 4, "blocks": [1, 1, 1, 1], "n_branches": 2}
CONTENTS = {
    "another estimator": put("os.system", "estimator"),
    "no estimator": put(None, "estimator"),
    "an unknown backbone": put("none", "network", "backbone"),
    "an unknown record": put({"eval": "1"}, "state", "classes_"),
    "an empty record": put({}, "state", "classes_"),
    "a short pair": put({"dict": [[1]]}, "state", "classes_"),
    "fewer classes": put({"array": [1], "dtype": "<i8"}, "state", "classes_"),
    "numbers out of range": put({"array": [300], "dtype": "|u1"}, "state", "classes_"),
    "dtype of dates": put({"array": [3], "dtype": "<M8[D]"}, "state", "classes_"),
    "a method's name": put("x", "state", "predict"),
    "no arguments": put(None, "network", "arguments"),
    "other branches": put(
        {"dict": list((ARGUMENTS | {"n_branches": 0}).items())}, "network", "arguments"
    ),
    "many classes": put(
        {"dict": list((ARGUMENTS | {"n_classes": 10**13}).items())}, "network", "arguments"
    ),
    "many blocks": put(
        {"dict": list((ARGUMENTS | {"blocks": [10**6, 1, 1, 1]}).items())}, "network", "arguments"
    ),
    "unknown positions of blocks": put(
        {"dict": list((ARGUMENTS | {"blocks": [[0, 7], [0], [0], [0]]}).items())},
        *("network", "arguments"),
    ),
    "blocks of three phases": put(
        {"dict": list((ARGUMENTS | {"blocks": [1, 1, 1]}).items())}, "network", "arguments"
    ),
    "an unknown argument": put(
        {"dict": list((ARGUMENTS | {"x": 0}).items())}, "network", "arguments"
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_damaged_headers_are_refused(fitted, tmp_path, name):
    path = tmp_path / "a.safetensors"
    save(fitted, path)
    content, tensors = read(path)
    CONTENTS[name](content)
    save_file(tensors, path, make_metadata(json.dumps(content), tensors))
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be loaded: .*saved by another"):
        load(path)


@pytest.mark.parametrize("header", ["[" * 100_000, "{", "[]"])
def test_headers_that_are_no_json_are_refused(tmp_path, header):
    tensors = {"x": torch.zeros(1)}
    save_file(tensors, tmp_path / "a.safetensors", make_metadata(header, tensors))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["classes_", "max_epochs", "_image_format"])
def test_headers_that_lack_something_are_refused(fitted, tmp_path, name):
    path = tmp_path / "a.safetensors"
    save(fitted, path)
    content, tensors = read(path)
    del content["state"][name]
    save_file(tensors, path, make_metadata(json.dumps(content), tensors))
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        load(path)


def test_loading_draws_no_random_numbers(fitted, tmp_path):
    save(fitted, tmp_path / "a.safetensors")
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load(tmp_path / "a.safetensors")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("shape", [(128, 128), (100, 77), (8, 8), (1, 50), (333, 32), (640, 480)])
@pytest.mark.parametrize("size", [32, 64])
def test_resizes_as_torch_does(shape, size):
    numbers = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, *shape, 3), dtype=torch.uint8, generator=numbers)
    expected = F.interpolate(
        images.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True
    )
    differs = (resize_like_torch(images.float(), size) - expected.float()).abs()
    assert differs.max() <= 1
    assert differs.mean() < 1e-3


def test_fractions_remain_unless_resized():
    images = torch.rand((2, 32, 32, 3), generator=torch.Generator().manual_seed(0)) * 255
    expected = images.permute(0, 3, 1, 2)
    torch.testing.assert_close(resize_like_torch(images, 32), expected, rtol=0, atol=2**-15)


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    export_onnx(fitted, path)
    return path


@pytest.mark.parametrize("shape", [(8, 8, 3), (30, 21, 3), (16, 16, 3), (9, 40)])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_export_predicts_as_the_classifier(fitted, exported, shape, engine):
    X = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    clf = OnnxClassifier(exported, engine=engine)
    np.testing.assert_allclose(clf.predict_proba(X), fitted.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(clf.predict(X), fitted.predict(X))
    branches = clf.predict_branches(X)
    assert branches.shape == (5, 2, 4)
    np.testing.assert_allclose(branches.mean(1), clf.predict_proba(X), atol=1e-6)


@pytest.mark.slow
def test_export_leaves_the_classifier_as_it_was(fitted, digits, tmp_path):
    before = fitted.predict_proba(digits[0])
    module = fitted.module_
    state = {key: value.clone() for key, value in module.state_dict().items()}
    export_onnx(fitted, tmp_path / "a.onnx")
    assert fitted.module_ is module
    assert not module.training
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), before)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_what_cannot_be_exported(small, digits, tmp_path, monkeypatch):
    with pytest.raises(NotFittedError):
        export_onnx(small(), tmp_path / "a.onnx")
    clf = small(max_epochs=1).fit(*digits)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        export_onnx(clf, tmp_path / "a.onnx")
