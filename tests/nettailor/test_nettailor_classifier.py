"""NetTailorClassifier: student, results, wrong use, and what estimators must do."""

import copy
import json
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.model_selection import GridSearchCV

from sklearn_rrr import (
    FineTuning,
    NetTailorClassifier,
    OnnxClassifier,
    TailoringFineTuning,
    cost_report,
    export_onnx,
    load,
    save,
)
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.deployment.model_files import make_metadata, read
from sklearn_rrr.nettailor.nettailor_classifier import PUBLISHED
from sklearn_rrr.nettailor.paths import BLOCK
from sklearn_rrr.nettailor.penalty import residual_blocks
from tests.nettailor.small_settings import PLAIN, SMALL


def test_universal_blocks_are_those_of_the_backbone(fitted, weights):
    """... and not the teacher's, who learned; stem and blocks keep every bit."""
    backbone = make_backbone("tiny")
    backbone.load_state_dict(weights)
    originals = dict(enumerate((b for phase in backbone.phases for b in phase), 1))
    blocks = {path[0] for path in fitted.module_.paths if path[1] == BLOCK}
    assert blocks
    for number in blocks:
        block = fitted.module_.branches.nodes[str(number)].block
        for name, weight in block.named_parameters():
            assert torch.equal(weight, originals[number].get_parameter(name)), name
        assert not torch.equal(block.bn1.running_mean, originals[number].bn1.running_mean)
    assert torch.equal(fitted.module_.stump[0].weight, backbone.conv1.weight)
    assert not torch.equal(fitted.teacher_.module_.stump[0].weight, backbone.conv1.weight)


def test_the_network_is_static_and_smaller(fitted):
    module = fitted.module_
    assert module.arguments["static"] is True
    assert not [name for name, _ in module.named_parameters() if "logits" in name]
    row = fitted.results_[fitted.results_.kept].iloc[0]
    assert row.removed == 6 - len(residual_blocks(module))
    assert row.parameters == fitted.n_parameters_ < fitted.teacher_.n_parameters_
    report = cost_report({"teacher": fitted.teacher_, "student": fitted}, repeats=1)
    assert report.n_parameters.student == row.parameters
    assert report.macs.student == row.macs < report.macs.teacher
    assert report.megabytes.student < report.megabytes.teacher


def test_results_hold_a_row_for_each_student(fitted):
    results = fitted.results_
    columns = ["asked", "removed", "proxies", "parameters", "macs", "score", "within", "kept"]
    assert results.columns.tolist() == columns
    assert results.asked.tolist() == [1, 3]
    assert (results.removed >= results.asked).all()
    assert results.parameters.is_monotonic_decreasing
    assert results.within.all()
    assert results.kept.tolist() == [False, True]  # the leanest


def test_alphas_describe_every_path(fitted):
    alphas = fitted.alphas_
    assert len(alphas) == 6 + 1 + 2 + 4 * 3
    np.testing.assert_allclose(alphas.groupby("node").alpha.sum(), 1, rtol=1e-6)
    blocks = alphas[alphas.kind == "block"]
    assert (blocks.source == blocks.node - 1).all()
    assert alphas.cost.sum() > 0
    assert alphas.kept.sum() == len(fitted.module_.paths)


def test_published_settings():
    clf = NetTailorClassifier(**PUBLISHED)
    settings = clf._check_parameters() or clf.get_params()
    assert (settings["complexity_weight"], settings["teacher_weight"]) == (0.3, 10.0)
    tuning = TailoringFineTuning.published()
    assert (tuning.optimizer, tuning.learning_rate) == ("sgd", 0.1)


def test_published_settings_fit(make, digits):
    clf = make(**PUBLISHED | {"max_epochs": 5, "epochs_per_step": 1, "tolerance": 1.0}).fit(*digits)
    used = clf._settings_used
    assert (used.optimizer, used.learning_rate, used.max_epochs) == ("sgd", pytest.approx(0.01), 1)
    assert used.undecayed == ("*.logits",)
    assert clf.teacher_.fine_tuning.learning_rate is None


# -------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_skips": 0}, "`n_skips` must be an int of at least 1; got 0"),
        ({"complexity_weight": -1}, "`complexity_weight` must be a number"),
        ({"teacher_weight": -1}, "`teacher_weight` must be a number"),
        ({"attention_threshold": 2}, r"`attention_threshold` must be a number in \[0, 1\]"),
        ({"tolerance": -0.1}, "`tolerance` must be"),
        ({"optimizer": "adam"}, "`optimizer` must be one of 'adamw', 'sgd'"),
        ({"epochs_per_step": 0}, "`epochs_per_step` must be an int"),
        ({"n_jobs": 0}, "`n_jobs` must be None or an int other than 0; got 0"),
        ({"attention_lr_factor": 0}, "`attention_lr_factor` must be"),
        ({"retrain_lr_factor": 0}, "`retrain_lr_factor` must be"),
        ({"n_removed": 7}, r"`n_removed` must be an int in \[0, 6\]; got 7. The backbone 'tiny'"),
        ({"n_removed": [1, -1]}, "`n_removed` must be an int"),
        ({"n_removed": []}, "`n_removed` must be an int or a non-empty list"),
        ({"n_removed": "all"}, "`n_removed` must be an int"),
        ({"n_removed": None, "validation_fraction": None}, "leaves no images to choose"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_read(make, parameters, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make(**parameters).fit("no images", None)


def test_a_failed_fit_leaves_nothing(fitted, digits):
    clf = copy.deepcopy(fitted)
    with pytest.raises(ValueError, match="`n_skips`"):
        clf.set_params(n_skips=0).fit(*digits)
    clf.set_params(n_skips=3, teacher_weight=1e38)
    with pytest.raises(ValueError, match="The training loss became"):
        clf.fit(*digits)
    assert not hasattr(clf, "module_")
    assert not hasattr(clf, "results_")


# --------------------------------------------------------------- estimators, files, ONNX


@pytest.mark.parametrize("n_removed", [pytest.param(3, marks=pytest.mark.slow), 12])
def test_inverted_residuals_and_files(digits, tmp_path, n_removed):
    """The default teacher has the head of the student, whatever a classifier's would read."""
    X, y = digits
    settings = SMALL | {"backbone": "tiny_mobile", "weights": None, "n_removed": n_removed}
    tuning = TailoringFineTuning(augmentation="none", head_features="all", head_init="ridge")
    clf = NetTailorClassifier(**settings, fine_tuning=tuning).fit(X, y)
    assert clf.teacher_.module_.head_features == clf.module_.head_features == "last"
    assert len(residual_blocks(clf.module_)) <= 12 - n_removed
    save(clf, tmp_path / "a")
    np.testing.assert_array_equal(load(tmp_path / "a").predict_proba(X), clf.predict_proba(X))
    export_onnx(clf, tmp_path / "a.onnx")
    light = OnnxClassifier(tmp_path / "a.onnx")
    np.testing.assert_allclose(light.predict_proba(X), clf.predict_proba(X), atol=1e-4)


def test_basic_blocks_and_strings(digits):
    X, y = digits
    names = np.array(["zero", "one", "two", "three"])[y]
    settings = SMALL | {"backbone": "tiny_basic", "weights": None, "n_removed": 2}
    clf = NetTailorClassifier(**settings, fine_tuning=PLAIN)
    assert set(clf.fit(X, names).predict(X)) <= set(names)
    assert clf.predict_branches(X).shape == (120, 1, 4)


def test_it_learns(digits):
    tuning = FineTuning(learning_rate=0.01, augmentation="none")
    settings = {"weights": None, "max_epochs": 8, "fine_tuning": tuning, "n_removed": 2}
    clf = NetTailorClassifier(**SMALL | settings).fit(*digits)
    assert clf.score(*digits) > 0.8


def test_fits_are_repeated(make, digits):
    first, second = (make().fit(*digits).predict_proba(digits[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_clone_and_search(make, digits):
    grid = {"n_removed": [1, 3], "n_skips": [2]}
    search = GridSearchCV(make(), grid, cv=2, error_score="raise").fit(*digits)
    assert search.best_estimator_.n_skips == 2
    assert search.predict(digits[0]).shape == (120,)
    assert not hasattr(make(), "partial_fit")
    with pytest.raises(AttributeError, match="has no partial_fit"):
        _ = make().partial_fit


def test_pickles_and_joblib(fitted, digits, tmp_path):
    expected = fitted.predict_proba(digits[0])
    joblib.dump(fitted, tmp_path / "a")
    for again in (joblib.load(tmp_path / "a"), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(again.predict_proba(digits[0]), expected)
    assert again.net_.module_ is again.module_


def test_saves_without_pickle(fitted, digits, tmp_path):
    save(fitted, tmp_path / "a")
    again = load(tmp_path / "a")
    np.testing.assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))
    assert again.get_params() == fitted.get_params()
    assert again.module_.arguments == fitted.module_.arguments
    pd.testing.assert_frame_equal(again.results_, fitted.results_)
    pd.testing.assert_frame_equal(again.alphas_, fitted.alphas_)
    public = {name for name in vars(fitted) if not name.startswith("_")}
    assert public - vars(again).keys() == {"teacher_"}
    assert again.task_delta_.keys() == fitted.task_delta_.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"paths": [{"tuple": [1, "block"]}]},
        {"paths": [{"tuple": [1, 10**9]}]},
        {"paths": None},
        {"static": False},
        {"n_classes": 10**12},
        {"n_skips": 10**12},
        {"unknown": 1},
    ],
)
def test_damaged_files_are_refused(fitted, tmp_path, change):
    path = tmp_path / "a.safetensors"
    save(fitted, path)
    content, _ = read(path)
    pairs = dict(content["network"]["arguments"]["dict"]) | change
    content["network"]["arguments"] = {"dict": list(pairs.items())}
    tensors = load_file(path)
    save_file(tensors, path, make_metadata(json.dumps(content), tensors))
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be loaded"):
        load(path)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_exports_to_onnx(fitted, digits, tmp_path, engine):
    export_onnx(fitted, tmp_path / "a.onnx")
    proba = OnnxClassifier(tmp_path / "a.onnx", engine=engine).predict_proba(digits[0])
    np.testing.assert_allclose(proba, fitted.predict_proba(digits[0]), atol=1e-4)
