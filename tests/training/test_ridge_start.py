"""Heads that start as ridge regressions on the features of one pass."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.training.ridge import RidgeSums
from sklearn_rrr.training.ridge_start import write_heads

every_head = pytest.mark.parametrize("head_features", ["last", "all"])


def fit_heads(head, features, labels, weights, batch=60, kinds=None):
    n_branches, n_classes, n_features = head.weight.shape
    all_sums = [RidgeSums(len(labels), n_features, n_classes, kinds) for _ in range(n_branches)]
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        for i, sums in enumerate(all_sums):
            sums.update(features[rows, i], labels[rows], weights[rows])
    solutions = [sums.solve() for sums in all_sums]
    write_heads(head, solutions)
    return solutions


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.randn(3, 2, 5, generator=generator) * 2
    features = centres[labels] + torch.randn(60, 2, 5, generator=generator)
    return features, labels


def bound(factors):
    """Return factors whose deviations are bounded from below by 0.3 of their median."""
    return 1 / np.hypot(1 / factors, 0.3 * np.median(1 / factors))


@pytest.mark.parametrize("standardise", [False, True])
def test_each_head_is_scikit_learns_ridge(data, standardise):
    features, labels = data
    head = BranchLinear(2, 5, 3, standardise)
    solutions = fit_heads(head, features, labels, torch.ones(60))
    logits = head(features)
    for branch, solution in enumerate(solutions):
        x = features[:, branch].double().numpy()
        z = (x - x.mean(0)) * bound(1 / StandardScaler().fit(x).scale_)
        size = (z**2).sum(1).mean()
        model = Ridge(alpha=size * solution.penalty).fit(z, np.eye(3)[labels])
        predictions = torch.from_numpy(model.predict(z)) - solution.prior
        slopes = torch.linalg.lstsq(solution.slopes.T, solution.weight.T).solution
        expected = predictions @ slopes + solution.bias
        np.testing.assert_allclose(logits[:, branch].detach(), expected, atol=1e-4)
    assert (logits.mean(1).argmax(1) == labels).float().mean() > 0.9


def test_a_weight_of_two_is_the_image_twice_at_equal_penalty(data):
    features, labels = data
    weights = torch.where(torch.arange(60) < 20, 2.0, 1.0)
    twice = torch.cat([torch.arange(60), torch.arange(20)])
    (first, _), (second, _) = (
        fit_heads(BranchLinear(2, 5, 3), *data)
        for data in (
            (features, labels, weights),
            (features[twice], labels[twice], torch.ones(80)),
        )
    )
    torch.testing.assert_close(first.center, second.center)
    torch.testing.assert_close(first.factor, second.factor)
    torch.testing.assert_close(first.prior, second.prior)


@pytest.mark.parametrize("n_images", [5, 60])
def test_statistics_are_those_of_standard_scaler_bounded(data, n_images):
    features, labels = (part[:n_images] for part in data)
    sums = RidgeSums(n_images, 5, 3)
    sums.update(features[:, 0], labels, torch.ones(n_images))
    center, factor = sums.standardise()
    scaler = StandardScaler().fit(features[:, 0].double())
    np.testing.assert_allclose(center, scaler.mean_)
    np.testing.assert_allclose(factor, bound(1 / scaler.scale_))
    assert torch.equal(sums.solve().factor, factor)


def test_random_heads_are_only_standardised(small, digits, monkeypatch):
    monkeypatch.setattr(RidgeSums, "solve", None)
    form = {"head_features": "all", "head_init": "random", "trainable": "head", "max_epochs": 0}
    head = small(**form).fit(*digits).module_.head
    assert (head.center.abs() > 0).any(1).all()
    assert (head.factor != 1).all(1).all()
    assert head.weight.abs().max() <= head.weight.shape[2] ** -0.5


def test_a_standardised_head_gives_the_logits_of_a_plain_one(data):
    features, labels = data
    features = features * 10.0 ** torch.arange(-2, 3) + 100
    heads = [BranchLinear(2, 5, 3, standardise) for standardise in (False, True)]
    for head in heads:
        fit_heads(
            head, features, labels, torch.rand(60, generator=torch.Generator().manual_seed(1))
        )
    logits = [head(features) for head in heads]
    torch.testing.assert_close(logits[0], logits[1], atol=0.02, rtol=1e-3)
    heads[1].fuse()
    torch.testing.assert_close(heads[1].weight, heads[0].weight)
    torch.testing.assert_close(heads[1].bias, heads[0].bias, atol=0.02, rtol=1e-3)


def test_constant_features_and_one_image_are_finite():
    head = BranchLinear(1, 4, 2)
    fit_heads(head, torch.ones(1, 1, 4), torch.tensor([1]), torch.ones(1))
    assert head.weight.isfinite().all()
    assert head(torch.ones(1, 1, 4)).argmax().item() == 1


@every_head
@pytest.mark.parametrize("backbone", ["tiny", "tiny_mobile"])
@pytest.mark.parametrize("sample_weight", [False, True])
def test_a_fit_without_epochs_is_a_ridge_on_frozen_features(
    small, digits, head_features, sample_weight, backbone
):
    X, y = digits[0].repeat(4, 1).repeat(4, 2), digits[1]  # in the size of the network
    weights = np.random.default_rng(0).uniform(0.1, 2, len(y)) if sample_weight else np.ones(120)
    settings = {"trainable": "head", "head_init": "ridge", "head_features": head_features}
    clf = small(max_epochs=0, backbone=backbone, image_size=32, **settings)
    clf.fit(X, y, sample_weight=weights)
    module = clf.module_
    with torch.no_grad():
        x = torch.from_numpy(X)[:, None].expand(-1, 3, -1, -1)
        features = module.pool_branches(*module.forward_stump(x))
        head = BranchLinear(2, features.shape[2], 4, standardise=True)
        weights, kinds = torch.from_numpy(weights).float(), module.feature_kinds()
        fit_heads(head, features, torch.from_numpy(y), weights, kinds=kinds)
        expected = head(features).softmax(2).mean(1)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=0.01)
    assert clf.score(X, y) > 0.45


@every_head
@pytest.mark.parametrize("trainable", ["head", "branches"])
@pytest.mark.parametrize("sampling", ["shared", "independent"])
def test_cached_features_give_the_same_network(small, digits, head_features, trainable, sampling):
    X, y = (part[:60] for part in digits)
    settings = {"trainable": trainable, "sampling": sampling, "head_features": head_features}
    settings |= {"backbone": "tiny_mobile", "image_size": 24, "head_init": "ridge"}
    settings["optimizer"] = "sgd"  # AdamW would enlarge the rounding of gradients that are zero
    states = [
        small(cache_features=cached, **settings).fit(X, y).module_.state_dict()
        for cached in (True, False)
    ]
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], atol=1e-4, rtol=1e-3, msg=key)


@every_head
@pytest.mark.parametrize("trainable", ["head", "branches"])
def test_each_branch_learns_from_its_own_batch(small, digits, head_features, trainable):
    settings = {"trainable": trainable, "sampling": "independent", "head_features": head_features}
    clf = small(**settings, backbone="tiny_mobile", max_epochs=1, n_branches=3).fit(*digits)
    net, module = clf.net_, clf.module_
    images = torch.rand(3 * 4, 3, 32, 32)  # four for each branch, one branch after the other
    with torch.no_grad():
        expected = [module.train()(part)[:, i] for i, part in enumerate(images.split(4))]
        state = {key: value.clone() for key, value in module.state_dict().items()}
        cached = net.frozen_features(images)
        module.train()
        for net.kept, inputs in ((False, images), (True, cached)):
            module.load_state_dict(state)
            torch.testing.assert_close(net.infer(inputs), torch.stack(expected, 1))
    assert len(cached) == (1 if trainable == "head" else 2)


@pytest.mark.parametrize("trainable", ["head", "branches", "all"])
@pytest.mark.parametrize("sampling", ["shared", "independent"])
def test_first_epoch_starts_from_a_smaller_loss(small, digits, trainable, sampling):
    settings = {"trainable": trainable, "sampling": sampling, "max_epochs": 1}
    losses = {
        init: small(head_init=init, **settings).fit(*digits).history_.train_loss[0]
        for init in ("random", "ridge")
    }
    assert losses["ridge"] < losses["random"] - 0.2


@every_head
def test_partial_fit_starts_them_once(small, digits, head_features):
    X, y = digits
    settings = {"learning_rate": 1e-9, "weight_decay": 0.0, "trainable": "head"}
    clf = small(head_init="ridge", head_features=head_features, **settings)
    start = clf.partial_fit(X, y, classes=[0, 1, 2, 3]).module_.head.weight.clone()
    buffers = [buffer.clone() for buffer in clf.module_.head.buffers()]
    assert clf.score(X, y) > 0.5
    clf.partial_fit(X[y < 2], y[y < 2])
    torch.testing.assert_close(clf.module_.head.weight, start)
    assert all(map(torch.equal, clf.module_.head.buffers(), buffers))


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
