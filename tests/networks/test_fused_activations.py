"""Activations that convolutions apply."""

import pytest
import torch
from torch import nn

from sklearn_rrr import list_backbones
from sklearn_rrr.backbones.block import Block
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.fused_activations import ActivatedConv2d, fuse_activations
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet


def count_activations(network, x):
    """Return how often an activation runs as a module of its own."""
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for module in network.modules()
        if isinstance(module, (nn.ReLU, nn.ReLU6))
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return len(calls)


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("form", ["grouped", "looped"])
def test_fused_network_gives_the_same_logits(shake, name, form):
    options = {"n_branches": 2, "head_features": "all", "blocks": (1, 1, 1, 1)}
    network = shake(RRRNet(make_backbone(name), 3, **options).set_branch_form(form))
    x = torch.rand(2, 3, 33, 32, generator=torch.Generator().manual_seed(1))
    folded, fused = fold_norms(network), fuse_activations(fold_norms(network))
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=layout)
        with torch.no_grad():
            expected = folded(x)
            scale = expected.abs().max()
            torch.testing.assert_close(fused(x) / scale, expected / scale, atol=1e-5, rtol=1e-5)
    if torch.backends.mkldnn.is_available():  # those after the shortcuts stay
        n_blocks = sum(isinstance(module, Block) for module in network.modules())
        assert count_activations(fused, x) <= n_blocks < count_activations(folded, x)


@pytest.mark.parametrize(
    "layers",
    [
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(1), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).double(),
    ],
    ids=["unknown", "not next", "before", "double"],
)
def test_what_cannot_be_fused_stays(layers):
    layers.requires_grad_(False)
    assert not [m for m in fuse_activations(layers) if isinstance(m, ActivatedConv2d)]


def test_layers_that_learn_stay():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    x = torch.rand(1, 3, 2, 2)
    fuse_activations(layers)(x).sum().backward()
    assert layers[0].weight.grad is not None
