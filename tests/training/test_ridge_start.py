"""Heads that start as ridge regressions."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.training.ridge_start import PENALTY, SCALE, RidgeHeads


def fit_heads(head, features, labels, weights, batch=60):
    heads = RidgeHeads(head.bias.shape[1])
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        heads.update(features[rows], labels[rows], weights[rows])
    heads.write(head)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.randn(3, 2, 5, generator=generator) * 2
    features = centres[labels] + torch.randn(60, 2, 5, generator=generator)
    return features, labels


def test_each_head_is_scikit_learns_ridge(data):
    features, labels = data
    head = BranchLinear(2, 5, 3)
    fit_heads(head, features, labels, torch.ones(60))
    logits = head(features)
    targets = LabelBinarizer().fit_transform(labels)
    for branch in range(2):
        z = StandardScaler().fit_transform(features[:, branch].double())
        expected = SCALE * Ridge(alpha=60 * PENALTY).fit(z, targets).predict(z)
        np.testing.assert_allclose(logits[:, branch].detach(), expected, atol=1e-4)
    assert (logits.mean(1).argmax(1) == labels).float().mean() > 0.9


def test_batches_do_not_matter(data):
    features, labels = data
    heads = [BranchLinear(2, 5, 3) for _ in range(2)]
    for head, batch in zip(heads, (60, 7), strict=True):
        fit_heads(head, features, labels, torch.ones(60), batch)
    torch.testing.assert_close(heads[0].weight, heads[1].weight)


def test_a_weight_of_two_is_the_image_twice(data):
    features, labels = data
    weights = torch.where(torch.arange(60) < 20, 2.0, 1.0)
    twice = torch.cat([torch.arange(60), torch.arange(20)])
    heads = [BranchLinear(2, 5, 3) for _ in range(2)]
    fit_heads(heads[0], features, labels, weights)
    fit_heads(heads[1], features[twice], labels[twice], torch.ones(80))
    torch.testing.assert_close(heads[0].weight, heads[1].weight)
    torch.testing.assert_close(heads[0].bias, heads[1].bias)


def test_constant_features_and_one_image_are_finite():
    head = BranchLinear(1, 4, 2)
    fit_heads(head, torch.ones(1, 1, 4), torch.tensor([1]), torch.ones(1))
    assert head.weight.isfinite().all()
    assert head(torch.ones(1, 1, 4)).argmax().item() == 1


@pytest.mark.parametrize("trainable", ["head", "branches", "all"])
@pytest.mark.parametrize("sampling", ["shared", "independent"])
def test_first_epoch_starts_from_a_smaller_loss(small, digits, trainable, sampling):
    settings = {"trainable": trainable, "sampling": sampling, "max_epochs": 1}
    losses = {
        init: small(head_init=init, **settings).fit(*digits).history_.train_loss[0]
        for init in ("random", "ridge")
    }
    assert losses["ridge"] < losses["random"] - 0.2


def test_partial_fit_starts_them_once(small, digits):
    X, y = digits
    clf = small(head_init="ridge", learning_rate=1e-9, weight_decay=0.0, trainable="head")
    start = clf.partial_fit(X, y, classes=[0, 1, 2, 3]).module_.head.weight.clone()
    assert clf.score(X, y) > 0.5
    clf.partial_fit(X[y < 2], y[y < 2])
    torch.testing.assert_close(clf.module_.head.weight, start)


def test_network_predicts_before_its_first_step(small, digits):
    """Norms follow the images in the pass that starts the heads, as they do in predict."""
    X, y = digits
    settings = {"head_init": "ridge", "trainable": "all", "learning_rate": 1e-12}
    clf = small(
        max_epochs=1, weight_decay=0.0, backbone="synth50", weights="pretrained", **settings
    )
    clf.set_params(image_size=32).fit(X, y)
    assert clf.score(X, y) > 0.9
    norms = [m for m in clf.module_.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
