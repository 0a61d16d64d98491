"""The paper's models: what learns, what stays, and the settings as published."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_rrr import (
    FineTuning,
    FineTuningClassifier,
    LastLayerClassifier,
    RRRNetClassifier,
    load,
    paper_models,
    save,
)
from sklearn_rrr.backbones.fine_tuning import DEFAULTS
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.classifiers.baselines import PUBLISHED

TINY = {"backbone": "tiny", "max_epochs": 2, "batch_size": 16}
TINY |= {"fine_tuning": FineTuning(augmentation="none"), "precision": "fp32", "random_state": 0}


def changed(clf, weights):
    """Return which of the backbone's tensors differ in a fitted whole network."""
    backbone = make_backbone("tiny")
    backbone.load_state_dict(weights)
    before = nn.Sequential(*backbone.stem, *backbone.phases[:2]).state_dict()
    before = {f"stump.{k}": v for k, v in before.items()}
    before |= {
        f"branches.{k}": v for k, v in nn.Sequential(*backbone.phases[2:]).state_dict().items()
    }
    after = clf.module_.state_dict()
    assert set(before) == {k for k in after if k.startswith(("stump", "branches"))}
    return {k for k, v in before.items() if not torch.equal(v, after[k])}


def test_only_the_last_layer_learns(digits, weights):
    clf = LastLayerClassifier(weights=weights, **TINY).fit(*digits)
    assert changed(clf, weights) == set()  # norm statistics neither
    assert clf.blocks_ == (2, 1, 2, 1)
    assert clf.trainable_ == "head"


def test_the_whole_network_learns(digits, weights):
    clf = FineTuningClassifier(weights=weights, **TINY).fit(*digits)
    assert clf.blocks_ == (2, 1, 2, 1)
    kernels = {name for name in clf.module_.state_dict() if "conv" in name and "head" not in name}
    assert kernels <= changed(clf, weights)
    assert clf.trainable_ == "all"


@pytest.mark.parametrize("model", [LastLayerClassifier, FineTuningClassifier])
def test_as_estimators(model, digits, tmp_path):
    X, y = digits
    clf = model(weights=None, **TINY)
    assert {"blocks", "n_branches", "ensemble"}.isdisjoint(clf.get_params())
    assert clone(clf).get_params() == clf.get_params()
    grid = {"fine_tuning__learning_rate": [0.01, 0.001]}
    best = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, y).best_estimator_
    save(best, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), best.predict(X))
    best.partial_fit(X, y)
    with pytest.raises(ValueError, match="`max_epochs` must be an int"):
        clf.set_params(max_epochs=-1).fit(X, y)


def test_the_five_models():
    models = paper_models(backbone="resnet152", max_epochs=7)
    assert list(models) == list("ABCDE")
    assert isinstance(models["A"], LastLayerClassifier)
    assert isinstance(models["B"], FineTuningClassifier)
    assert all(m.backbone == "resnet152" and m.max_epochs == 7 for m in models.values())
    assert {k: models[k].fine_tuning.dropout for k in "CDE"} == {"C": None, "D": 0.05, "E": None}
    assert [models[k].n_branches for k in "CDE"] == [1, 1, 8]
    with pytest.raises(TypeError, match="`n_branches` distinguishes the models"):
        paper_models(n_branches=3)
    with pytest.raises(TypeError, match="`dropout` distinguishes the models"):
        paper_models(fine_tuning=FineTuning(dropout=0.1))


def test_what_a_class_fixes_cannot_be_set(digits):
    with pytest.raises(ValueError, match=r"LastLayerClassifier trains 'head'; got .*'all'"):
        LastLayerClassifier(**TINY | {"fine_tuning": FineTuning(trainable="all")}).fit(*digits)


def test_published_settings_of_a_baseline_can_be_changed(digits):
    for published in ("published", FineTuning.published()):
        clf = FineTuningClassifier(**TINY | {"fine_tuning": published, "weights": None})
        assert clf.fit(*digits).fine_tuning_.trainable == "all"
    clf = FineTuningClassifier(**TINY | {"fine_tuning": "published", "weights": None})
    clf.set_params(fine_tuning__dropout=0.1).fit(*digits)
    assert (clf.fine_tuning_.dropout, clf.fine_tuning_.ema_epochs) == (0.1, 60)


def test_published_settings():
    """Section 4.2 and appendix C; they are what None means for torchvision's backbones."""
    assert PUBLISHED == {
        "fine_tuning": "published",
        "batch_size": 32,
        "max_epochs": 300,
        "image_size": 128,
    }
    published = FineTuning.published()
    assert (
        published.get_params().items()
        >= {
            "trainable": "branches",
            "split": "paper",
            "sampling": "independent",
            "head_init": "random",
            "augmentation": "paper",
            "lr_schedule": "constant",
            "learning_rate": 1e-3,
            "weight_decay": 0.01,
            "ema_epochs": 60,
        }.items()
    )
    own = {"sampling", "ema_epochs"}  # which cost more, and are no better
    for name in published.get_params().keys() - own:
        assert getattr(published, name) == getattr(DEFAULTS, name)
    assert published.steps * 32 / 400 == PUBLISHED["max_epochs"]
    with pytest.raises(TypeError, match="no parameter `max_epoch`"):
        paper_models(max_epoch=3)


def test_models_as_published(digits, weights):
    """[C]: frozen stump, branches of the pre-trained kernels with fresh norms."""
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "augmentation": "none"}
    tuning = replace(FineTuning.published(), **still)
    small = {"weights": weights, "max_epochs": 1, "image_size": 16, "fine_tuning": tuning}
    models = paper_models(**PUBLISHED | TINY | small)
    fitted = {name: model.fit(*digits) for name, model in models.items() if name in "CE"}
    assert all(clf.module_.is_frozen("stump") for clf in fitted.values())
    kernels = fitted["C"].module_.branches[0][0].conv1.weight
    torch.testing.assert_close(kernels, weights["layer3.0.conv1.weight"], atol=1e-6, rtol=0)
    assert (fitted["C"].module_.branches[0][0].bn1.weight - 1).abs().max() < 1e-6
    assert fitted["E"].module_.n_branches == 8
    assert isinstance(models["E"], RRRNetClassifier)
