"""Convolutions that run oneDNN's kernels directly."""

import copy

import pytest
import torch
from torch import nn

from sklearn_rrr import list_backbones
from sklearn_rrr.backbones.block import Block
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.onednn_convolutions import use_onednn, uses_onednn
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
    folded, fused = fold_norms(network), use_onednn(fold_norms(network))
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
    kinds = list(map(type, layers))
    use_onednn(layers.requires_grad_(False))
    assert [type(m) for m in layers if not isinstance(m, nn.Conv2d)] == [
        kind for kind in kinds if kind is not nn.Conv2d
    ]
    assert not any(getattr(m, "activation", None) for m in layers)


def test_layers_that_learn_and_doubles_stay():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    x = torch.rand(1, 3, 2, 2)
    use_onednn(layers)(x).sum().backward()
    assert layers[0].weight.grad is not None
    double = use_onednn(nn.Sequential(nn.Conv2d(3, 4, 1)).double().requires_grad_(False))
    assert not uses_onednn(layers)
    assert not uses_onednn(double)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN")
def test_kernels_find_weights_in_the_layout_that_they_read(capfd):
    network = use_onednn(fold_norms(RRRNet(make_backbone("synth50"), 3)))
    images = torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for batch in (images[:1], images):
            network(batch)
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                network(batch)
    log = capfd.readouterr().out
    assert "exec,cpu,convolution" in log
    assert "reorder,simple" not in log  # from one packed layout to another


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN")
@pytest.mark.parametrize("n_branches", [1, 2])
@pytest.mark.parametrize("name", ["synth50", "efficientnet_lite0"])
def test_outputs_do_not_depend_on_the_batch(shake, name, n_branches):
    options = {"n_branches": n_branches, "head_features": "all", "blocks": (1, 1, 1, 1)}
    network = use_onednn(fold_norms(shake(RRRNet(make_backbone(name), 3, **options))))
    assert uses_onednn(network)
    images = torch.rand(17, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = network.pool_branches(*network.forward_stump(images))
        for start, end in [(0, 1), (3, 4), (2, 5), (4, 16)]:
            part = images[start:end].contiguous(memory_format=torch.channels_last)
            features = network.pool_branches(*network.forward_stump(part))
            assert torch.equal(features, expected[start:end])


def test_a_copy_predicts_the_same():
    network = use_onednn(
        nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU()).requires_grad_(False)
    )
    x = torch.rand(2, 3, 8, 8)
    expected = network(x)
    assert torch.equal(copy.deepcopy(network)(x), expected)
