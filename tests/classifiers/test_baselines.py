"""The paper's models: what learns, what stays, and the settings as published."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_rrr import FineTuningClassifier, LastLayerClassifier, RRRNetClassifier, load, save
from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.classifiers.baselines import PUBLISHED, paper_models

TINY = {"backbone": "tiny", "max_epochs": 2, "batch_size": 16, "augmentation": None}
TINY |= {"precision": "fp32", "random_state": 0}


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
    grid = {"learning_rate": [0.01, 0.001]}
    best = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, y).best_estimator_
    save(best, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), best.predict(X))
    best.partial_fit(X, y)
    with pytest.raises(ValueError, match="`max_epochs` must be an int"):
        clf.set_params(max_epochs=0).fit(X, y)


def test_the_five_models():
    models = paper_models(backbone="resnet152", max_epochs=7)
    assert list(models) == list("ABCDE")
    assert isinstance(models["A"], LastLayerClassifier)
    assert isinstance(models["B"], FineTuningClassifier)
    assert all(m.backbone == "resnet152" and m.max_epochs == 7 for m in models.values())
    assert {k: models[k].dropout for k in "CDE"} == {"C": 0.0, "D": 0.05, "E": 0.0}
    assert [models[k].n_branches for k in "CDE"] == [1, 1, 8]
    with pytest.raises(TypeError, match="`n_branches` tells the models apart"):
        paper_models(n_branches=3)


def test_published_settings():
    """Section 4.2 and appendix C; they are what "auto" means for torchvision's backbones."""
    assert PUBLISHED == {
        "trainable": "branches",
        "split": "paper",
        "sampling": "independent",
        "head_init": "random",
        "augmentation": "paper",
        "lr_schedule": "constant",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "batch_size": 32,
        "max_epochs": 300,
        "ema_epochs": 60,
        "image_size": 128,
    }
    recommended = FineTuning()
    for name in PUBLISHED.keys() & vars(recommended).keys():
        assert PUBLISHED[name] == getattr(recommended, name)
    assert recommended.steps * 32 / 400 == PUBLISHED["max_epochs"]
    with pytest.raises(TypeError, match="no parameter `max_epoch`"):
        paper_models(max_epoch=3)


def test_models_as_published(digits, weights):
    """[C]: frozen stump, branches of the pre-trained kernels with fresh norms."""
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1, "image_size": 16}
    models = paper_models(**PUBLISHED | TINY | {"weights": weights} | still)
    fitted = {name: model.fit(*digits) for name, model in models.items() if name in "CE"}
    assert all(clf.module_.is_frozen("stump") for clf in fitted.values())
    kernels = fitted["C"].module_.branches[0][0].conv1.weight
    torch.testing.assert_close(kernels, weights["layer3.0.conv1.weight"], atol=1e-6, rtol=0)
    assert (fitted["C"].module_.branches[0][0].bn1.weight - 1).abs().max() < 1e-6
    assert fitted["E"].module_.n_branches == 8
    assert isinstance(models["E"], RRRNetClassifier)
