"""Norms folded into convolutions."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_rrr import list_backbones
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("form", ["grouped", "looped"])
def test_folded_network_gives_the_same_logits(shake, name, form):
    """In double precision, as the outputs of many random layers have any size."""
    options = {"n_branches": 2, "head_features": "all"}
    network = RRRNet(make_backbone(name), 3, blocks=(1, 1, 1, 1), **options)
    network = shake(network).set_branch_form(form).double()
    generator = torch.Generator().manual_seed(1)
    for buffer in (network.head.center, network.head.factor):
        buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    x = torch.rand(2, 3, 33, 32, generator=generator, dtype=torch.double)
    folded = fold_norms(network)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(folded(x), expected, atol=1e-9, rtol=1e-9)
    assert folded.head.center is None
    assert network.head.center is not None
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert expected.abs().max() > 1e-3


def test_a_norm_before_a_convolution_stays():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, bias=False)).eval()
    assert isinstance(fold_norms(network)[0], nn.BatchNorm2d)


def test_prediction_follows_further_training(small, digits):
    clf = small(trainable="all").fit(*digits)
    before = clf.predict_proba(digits[0])
    assert "_folded" not in clf.__getstate__()
    np.testing.assert_allclose(
        pickle.loads(pickle.dumps(clf)).predict_proba(digits[0]), before, atol=1e-6
    )
    after = clf.partial_fit(*digits).predict_proba(digits[0])
    assert np.abs(after - before).max() > 1e-3
    with torch.no_grad():
        images = torch.from_numpy(digits[0]).float() / 255
        x = nn.functional.interpolate(images[:, None], (16, 16), mode="bilinear")
        bare = clf.module_(x.expand(-1, 3, -1, -1)).softmax(2).mean(1)
    np.testing.assert_allclose(after, bare.numpy(), atol=0.02)  # resized in bytes there


def test_prediction_follows_a_change_of_precision(small, digits):
    clf = small(precision="fp32").fit(*digits)
    before = clf.predict_proba(digits[0])
    clf.set_params(precision="bf16")
    expected = pickle.loads(pickle.dumps(clf)).predict_proba(digits[0])
    np.testing.assert_array_equal(clf.predict_proba(digits[0]), expected)
    assert np.abs(expected - before).max() > 0
