"""The network of NetTailor against the pre-trained network, and static against soft."""

import copy

import pytest
import torch
from torch import nn

from sklearn_rrr import count_macs, count_parameters
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.nettailor.paths import BLOCK, all_paths
from sklearn_rrr.nettailor.penalty import TailoringPenalty, path_costs, residual_blocks
from sklearn_rrr.nettailor.tailored_net import TailoredNet, make_proxy
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet

BACKBONES = ["tiny", "tiny_basic", "tiny_mobile"]


@pytest.fixture(params=BACKBONES)
def backbone(request, shake):
    torch.manual_seed(0)
    return shake(make_backbone(request.param))


@pytest.fixture
def images():
    return torch.rand(4, 3, 37, 37, generator=torch.Generator().manual_seed(1))


def set_attention(network, value):
    """Set the logits of each node; `value` is of its number and the origin of a path."""
    for number, node in network.branches.nodes.items():
        values = [float(value(int(number), origin)) for origin in node.origins]
        node.logits.data.copy_(torch.tensor(values))


def only_blocks(network):
    set_attention(network, lambda node, origin: 0 if origin == BLOCK else -torch.inf)
    return network


def example(backbone):
    """Return a soft network with attention of all sizes, and paths that are closed."""
    network = TailoredNet(backbone, 5)
    numbers = torch.Generator().manual_seed(2)
    set_attention(network, lambda node, origin: torch.randn((), generator=numbers))
    last = network.n_nodes
    kept = [(1, BLOCK), (2, BLOCK), (2, 0), (4, 1), (4, BLOCK), (4, 2), (3, 2), (5, 4), (5, 2)]
    kept += [(6, BLOCK), (6, 3)] if last >= 6 else []
    if last == 12:  # the last node has no block, and keeps its activation
        kept += [(7, BLOCK), (7, 5), (8, 5), (8, 7), (9, BLOCK), (9, 8), (9, 7), (10, BLOCK)]
        kept += [(10, 9), (11, BLOCK), (12, 11), (12, 10)]
    return network, kept


def test_attention_starts_at_the_block(backbone):
    alphas = TailoredNet(backbone, 3, n_skips=3).alphas()
    assert alphas[4, BLOCK].item() == pytest.approx(0.948, abs=5e-4)
    assert alphas[4, 1].item() == pytest.approx(0.0174, abs=5e-5)
    assert [origin for node, origin in alphas if node == 2] == [BLOCK, 0, 1]


def test_attention_on_the_blocks_is_the_pretrained_network(backbone, images):
    network = only_blocks(TailoredNet(backbone, backbone.fc.out_features)).eval()
    network.head.load_linear(backbone.fc)
    with torch.no_grad():
        expected = backbone(network.normalize(images))
        torch.testing.assert_close(network(images)[:, 0], expected, atol=1e-5, rtol=0)
    assert expected.abs().max() > 1e-2


def test_blocks_alone_are_the_pretrained_network(backbone, images):
    paths = [(node, BLOCK) for node in range(1, len(residual_blocks(backbone)) + 1)]
    network = TailoredNet(backbone, backbone.fc.out_features, paths=paths, static=True).eval()
    network.head.load_linear(backbone.fc)
    with torch.no_grad():
        expected = backbone(network.normalize(images))
        torch.testing.assert_close(network(images)[:, 0], expected, atol=1e-5, rtol=0)
    assert count_parameters(network) == count_parameters(backbone)


def test_static_network_is_the_soft_one_without_the_removed_paths(backbone, shake, images):
    network, kept = example(backbone)
    shake(network)
    static = network.restrict(kept).make_static()
    cut = copy.deepcopy(network)
    for number, node in cut.branches.nodes.items():
        gone = [(int(number), origin) not in kept for origin in node.origins]
        if not all(gone):
            node.logits.data[torch.tensor(gone)] = -torch.inf
    with torch.no_grad():
        expected = cut(images)
        torch.testing.assert_close(static(images), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(fold_norms(static)(images), expected, atol=1e-4, rtol=1e-4)
    assert static.paths == tuple(path for path in network.paths if path in kept)
    assert count_parameters(static) < count_parameters(network)
    assert count_macs(static, 32) < count_macs(network, 32)
    assert not [m for m in fold_norms(static).modules() if isinstance(m, nn.BatchNorm2d)]


def test_folding_merges_what_a_node_adds_up(backbone, shake, images):
    network, kept = example(backbone)
    static = shake(network).restrict(kept).make_static()
    folded = fold_norms(static)
    assert all(node.scale is None for node in folded.branches.nodes.values())
    assert static.branches.nodes["4"].scale is not None
    merged = folded.branches.nodes["4"].expand
    widths = [proxy[-2].in_channels for proxy in static.branches.nodes["4"].proxies.values()]
    assert merged.in_channels == sum(widths)
    assert count_parameters(folded) < count_parameters(static)
    again = fold_norms(folded)
    with torch.no_grad():
        assert torch.equal(again(images), folded(images))


def test_dead_nodes_are_gone(backbone):
    last = len(residual_blocks(backbone))
    network = TailoredNet(backbone, 5, n_skips=last)
    static = network.restrict([(1, BLOCK), (last, 1)]).make_static()
    assert list(static.branches.nodes) == ["1", str(last)]
    assert len(residual_blocks(static)) == 1
    assert not [key for key in static.state_dict() if key.startswith("branches.nodes.2")]
    first, proxy = static.branches.nodes["1"], static.branches.nodes[str(last)].proxies["1"]
    parts = (static.stump, first.block, proxy, static.head)
    assert count_parameters(static) == sum(map(count_parameters, parts))


def test_the_same_network_is_made_again_from_its_arguments(backbone, images):
    network, kept = example(backbone)
    for form in (network, network.restrict(kept), network.restrict(kept).make_static()):
        again = TailoredNet(backbone, **form.arguments)
        again.load_state_dict(form.state_dict())
        with torch.no_grad():
            assert torch.equal(again.eval()(images), form.eval()(images))


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_a_node_without_its_block_keeps_the_activation(name):
    network = TailoredNet(make_backbone(name), 3)
    blocks = residual_blocks(network)
    network = network.restrict([p for p in network.paths if p[1] == p[0] - 1]).make_static()
    assert not residual_blocks(network)
    x = torch.randn(1, 1, 50, 50) * 9
    for number, block in enumerate(blocks, 1):
        node = network.branches.nodes[str(number)]
        node.proxies[str(number - 1)] = nn.Identity()
        torch.testing.assert_close(node({number - 1: x.clone()}), block.activate(x.clone()))


@pytest.mark.parametrize("size", [32, 37, 50])
def test_proxies_bring_any_size_to_that_of_the_blocks(backbone, size):
    network = TailoredNet(backbone, 3, n_skips=6).eval()  # over three strides
    assert {path for path in network.paths if path[1] == 0}
    assert network(torch.rand(1, 3, size, size)).shape == (1, 1, 3)


def test_proxies_are_lean():
    basic, bottleneck = (residual_blocks(make_backbone(n))[0] for n in ("resnet34", "resnet50"))
    assert count_parameters(make_proxy(64, 128, 2, basic)) == 64 * 128 + 2 * 128
    proxy = make_proxy(256, 256, 1, bottleneck)
    assert count_parameters(proxy) == 2 * 256 * 16 + 2 * (16 + 256)
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d]
    assert [type(module) for module in proxy] == kinds


def test_proxies_beside_inverted_residuals():
    *_, inverted, last = residual_blocks(make_backbone("efficientnet_lite0"))
    assert count_parameters(make_proxy(112, 320, 2, inverted)) == 112 * 320 + 2 * 320
    proxy = make_proxy(320, 1280, 1, last)  # else as large as the block
    assert count_parameters(proxy) == 80 * (320 + 1280) + 2 * (80 + 1280)


def test_blocks_are_frozen_and_statistics_are_not(backbone, images):
    network = TailoredNet(backbone, 3).freeze().train()
    learns = {name for name, p in network.named_parameters() if p.requires_grad}
    before = copy.deepcopy(network.state_dict())
    network(images).sum().backward()
    moved = {key for key, value in network.state_dict().items() if (value != before[key]).any()}
    assert learns == {n for n in before if ".proxies." in n or ".logits" in n or "head" in n} - {
        n for n in before if "running" in n or "num_batches" in n
    }
    assert moved == {key for key in before if "running" in key or "num_batches" in key}
    assert set(network.shared_keys()) == {
        name for name, p in network.named_parameters() if not p.requires_grad
    }
    assert set(network.task_keys()) == before.keys() - set(network.shared_keys()) - {
        "normalize.mean",
        "normalize.std",
    }


def test_costs_are_shares_of_the_pretrained_network(backbone):
    network = TailoredNet(backbone, 5)
    costs = path_costs(network, 32)
    assert list(costs) == list(network.paths)
    whole = count_macs(RRRNet(backbone, 5), 32) - backbone.n_features * 5  # without the head
    macs = count_macs(network, 32) - backbone.n_features * 5
    stem = backbone.conv1.weight.numel() * 16 * 16
    assert sum(costs.values()) == pytest.approx((macs - stem) / whole)
    assert sum(costs[p] for p in costs if p[1] == BLOCK) == pytest.approx(1 - stem / whole)
    sizes = path_costs(network, 32, "parameters")
    block = count_parameters(residual_blocks(backbone)[0])
    whole = count_parameters(backbone) - count_parameters(backbone.fc)
    assert sizes[1, BLOCK] == pytest.approx(block / whole)
    with pytest.raises(ValueError, match="`cost` must be one of 'macs', 'parameters'"):
        path_costs(network, 32, "seconds")


def test_penalty_is_the_distance_from_the_teacher_and_the_complexity(backbone, images):
    teacher = RRRNet(backbone, 5).eval()
    student = only_blocks(TailoredNet(backbone, 5)).eval()
    student.head.load_state_dict(teacher.head.state_dict())
    costs = path_costs(student, 37)
    weights = (2.0, 10.0, torch.device("cpu"))
    with TailoringPenalty(student, teacher, costs, *weights) as penalty:
        student(images)
        alone = 2 * sum(costs[p] for p in costs if p[1] == BLOCK)
        assert penalty(images).item() == pytest.approx(alone, abs=1e-5)
        assert not penalty.seen
        student.head.bias.data += 3
        student(images)
        distance = 10 * 9 / student.n_nodes
        assert penalty(images).item() == pytest.approx(alone + distance, rel=1e-4)
    assert not any(module._forward_hooks for module in student.modules())


def test_penalty_pulls_each_node(backbone, images):
    """Against the distances of the outputs of each block, computed one by one."""
    teacher, student = RRRNet(backbone, 5).eval(), TailoredNet(backbone, 5).eval()
    with TailoringPenalty(student, teacher, {}, 0.0, 1.0, torch.device("cpu")) as penalty:
        logits = student(images)
        value = penalty(images)
    x, _ = student.forward_stump(images)
    outputs, total = {0: x}, nn.functional.mse_loss(logits, teacher(images))
    for (number, node), block in zip(
        student.branches.nodes.items(), residual_blocks(teacher), strict=True
    ):
        outputs[int(number)], x = node(outputs), block(x)
        total = total + nn.functional.mse_loss(outputs[int(number)], x)
    torch.testing.assert_close(value, total / student.n_nodes, rtol=1e-4, atol=1e-6)
    value.backward()
    assert student.branches.nodes["1"].logits.grad.abs().max() > 0


@pytest.mark.parametrize(
    "paths",
    [
        [],
        [(1, BLOCK)],
        [(1, BLOCK), (9, 1)],
        [(2, 2)],
        [(1, BLOCK), (1, BLOCK)],
        [*all_paths(5, 1), (5, "proxy")],
        [path for path in all_paths(5, 1) if path[0] != 3],
    ],
)
def test_wrong_paths_are_refused(paths):
    with pytest.raises(ValueError, match=r"`paths` must be pairs .* of a network of 5 blocks"):
        TailoredNet(make_backbone("tiny_basic"), 3, paths=paths)
    network = TailoredNet(make_backbone("tiny_basic"), 3)
    with pytest.raises(ValueError, match="`paths` must be"):
        network.restrict(paths)
    with pytest.raises(ValueError, match="`trainable` must be one of 'proxies'"):
        network.freeze("all")


def test_a_network_adopts_what_another_shares(backbone, shake, images):
    whole = TailoredNet(backbone, n_classes=3)
    number = whole.n_nodes
    fewer = [path for path in whole.paths if path not in ((2, BLOCK), (number, number - 2))]
    before, after = shake(whole.restrict(fewer)), whole.restrict([p for p in fewer if p != (1, 0)])
    numbers = torch.Generator().manual_seed(3)
    set_attention(before, lambda *_: torch.randn((), generator=numbers))
    after.adopt(before)
    expected = before.restrict(after.paths)
    assert after.state_dict().keys() == expected.state_dict().keys()
    for key, value in expected.state_dict().items():
        assert torch.equal(value, after.state_dict()[key]), key
    # Nothing of it is shared memory.
    with torch.no_grad():
        before.head.bias += 1
    assert torch.equal(after.head.bias, expected.head.bias)
