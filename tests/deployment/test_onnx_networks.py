"""OnnxClassifier predicts as the exported classifier, for every kind of network and any size."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import (
    BasisScalingPruner,
    BlockPruner,
    BlockSelector,
    ChannelPruner,
    FineTuning,
    NetTailorClassifier,
    OnnxClassifier,
    ProgressiveKernelPruner,
    RRRNetClassifier,
    SnapshotEnsemble,
    export_onnx,
)
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.networks.stacked_net import StackedNet

SIZES = [(16, 16), (5, 7), (37, 211), (97, 31), (48, 48)]
COMMON = {"backbone": "tiny", "max_epochs": 1, "precision": "fp32", "random_state": 0}
QUICK = {"n_steps": 1, "epochs_per_step": 1}


def classify(**parameters):
    return RRRNetClassifier(**COMMON | {"weights": None, "blocks": (1, 1, 1, 1)} | parameters)


def ridge(companion, head_features, **parameters):
    form = {"trainable": "head", "head_init": "ridge", "head_features": head_features}
    tuning = FineTuning(**form, companion=companion, augmentation="none")
    weights = make_backbone("tiny").state_dict()
    form = {"weights": weights, "n_branches": 1, "blocks": None, "fine_tuning": tuning}
    return classify(**form | {"max_epochs": 0} | parameters)


# Functions of a classifier with branches that is already fitted.
NETWORKS = {
    "one pass": lambda clf: ridge("none", "all"),
    "pair": lambda clf: ridge("synth50", "last", image_size=48),
    "branches": lambda clf: clf,
    "mobile": lambda clf: classify(backbone="tiny_mobile", n_branches=2, split_at="conv2_x"),
    "mobile, one pass": lambda clf: ridge("none", "all", backbone="tiny_mobile", weights=None),
    "snapshots": lambda clf: classify(ensemble=SnapshotEnsemble(), n_branches=2),
    "selected": lambda clf: BlockSelector(classify(blocks=None), max_blocks=4),
    "channels pruned": lambda clf: ChannelPruner(FrozenEstimator(clf), target=0.4, **QUICK),
    "bases pruned": lambda clf: BasisScalingPruner(FrozenEstimator(clf), target=0.4, **QUICK),
    "blocks pruned": lambda clf: BlockPruner(FrozenEstimator(clf), target=0.05, **QUICK),
    "kernels pruned": lambda clf: ProgressiveKernelPruner(FrozenEstimator(clf), target=0.2),
    "tailored": lambda clf: NetTailorClassifier(**COMMON, weights=None, n_removed=2),
}
FAST = ("pair", "branches")


@pytest.fixture(scope="module")
def branches(digits):
    return classify(blocks=None, n_branches=3).fit(*digits)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_every_network_and_size(branches, digits, tmp_path, name):
    torch.manual_seed(0)
    estimator = NETWORKS[name](branches)
    if estimator is not branches:
        estimator.fit(*digits)
    clf = getattr(estimator, "estimator_", estimator)
    if name in ("pair", "one pass"):
        assert isinstance(clf.module_, StackedNet if name == "pair" else RRRNet)
    export_onnx(estimator, tmp_path / "a.onnx")
    rng = np.random.default_rng(0)
    for engine in ("onnxruntime", "openvino"):
        light = OnnxClassifier(tmp_path / "a.onnx", engine=engine)
        for size in SIZES:
            pixels = rng.integers(0, 256, (5, *size, 3), dtype=np.uint8)
            for X in (pixels, (pixels / 255) ** 2):
                expected, branch = clf.predict_proba(X), clf.predict_branches(X)
                np.testing.assert_allclose(light.predict_proba(X), expected, rtol=0, atol=1e-4)
                np.testing.assert_allclose(light.predict_branches(X), branch, rtol=0, atol=1e-4)
