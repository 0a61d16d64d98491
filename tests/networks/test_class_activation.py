"""Class activation maps: their sums are the logits, and they lie where the features are."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import ChannelPruner, NetTailorClassifier, TailoringFineTuning, load_backbone
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.nettailor.tailored_net import TailoredNet
from sklearn_rrr.networks.class_activation import map_classes
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.networks.stacked_net import StackedNet

K = 5
ALL = torch.arange(K)


def make_net(backbone, **form):
    return RRRNet(make_backbone(backbone), K, **form)


def make_pair():
    main = make_net("tiny_mobile", head_features="all")
    return StackedNet(main, make_net("tiny", head_features="all"), 64, 48)


def make_synth50():
    return RRRNet(load_backbone("synth50")[0], K, blocks=(1, 1, 1, 1), head_features="all")


NETWORKS = {
    "resnet, all levels": lambda: make_net("tiny", head_features="all"),
    "resnet, last": lambda: make_net("tiny_basic"),
    "mobile, all levels": lambda: make_net("tiny_mobile", head_features="all"),
    "branches, all levels": lambda: make_net("tiny", n_branches=3, head_features="all"),
    "branches, last": lambda: make_net("tiny", n_branches=3),
    "mobile branches": lambda: make_net("tiny_mobile", n_branches=2, head_features="all"),
    "late branches": lambda: make_net(
        "tiny", n_branches=2, split_at="conv5_x", head_features="all"
    ),
    "with companion": make_pair,
    "synth50": make_synth50,
    "NetTailor": lambda: TailoredNet(make_backbone("tiny"), K),
    "static NetTailor": lambda: TailoredNet(make_backbone("tiny"), K).make_static(),
}


@pytest.fixture(params=NETWORKS)
def network(request, shake):
    """A network in eval mode, whose norms and head are not in their initial state."""
    torch.manual_seed(0)
    network = shake(NETWORKS[request.param]())
    if network.head.center is not None:
        network.head.center.uniform_(-1, 1)
        network.head.factor.uniform_(0.5, 2)
    return network


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def add_up(found):
    return found.maps.sum((-2, -1)) + found.constants


def close(value, wanted):
    torch.testing.assert_close(value, wanted, atol=1e-4, rtol=0)


def test_pixels_and_constant_add_up_to_the_logits(network, images):
    logits = network(images)
    found = map_classes(network, images, ALL, relative=False)
    m = network.n_branches
    assert found.maps.shape == (3, m, K, 64, 64)
    assert found.constants.shape == (3, m, K)
    close(add_up(found), logits)
    close(found.logits, logits)
    assert found.maps.std((-2, -1)).min() > 0


def test_relative_maps_explain_a_logit_minus_the_mean(network, images):
    found = map_classes(network, images, ALL)
    logits = network(images)
    close(add_up(found), logits - logits.mean(2, keepdim=True))
    close(found.maps.sum(2), torch.zeros_like(found.maps[:, :, 0]))


def test_a_network_with_folded_norms_has_the_same_sums(network, images):
    folded = fold_norms(network)
    found = map_classes(folded, images, ALL, relative=False)
    close(add_up(found), network(images))


def test_no_hooks_stay(network, images):
    map_classes(network, images)
    assert not any(module._forward_hooks for module in network.modules())


def test_chosen_classes_are_parts_of_all(images):
    network = make_net("tiny", n_branches=2, head_features="all").eval()
    every = map_classes(network, images, ALL)
    two = map_classes(network, images, torch.tensor([4, 1]))
    assert two.classes.tolist() == [[4, 1]] * 3
    close(two.maps, every.maps[:, :, [4, 1]])
    each = map_classes(network, images, torch.tensor([[0], [3], [2]]))
    close(each.maps[:, :, 0], every.maps[torch.arange(3), :, torch.tensor([0, 3, 2])])


def test_by_default_the_predicted_class(images):
    network = make_net("tiny", n_branches=2).eval()
    found = map_classes(network, images)
    wanted = network(images).softmax(2).mean(1).argmax(1)
    assert found.classes[:, 0].tolist() == wanted.tolist()
    close(found.maps, map_classes(network, images, wanted[:, None]).maps)


def test_means_of_the_last_block_by_hand(images):
    """The original class activation map, enlarged by a whole number."""
    network = make_net("tiny_basic").eval()
    output = []
    with network.branches[-1][-1].register_forward_hook(lambda *call: output.append(call[2])):
        network(images)
    (x,) = output
    small = torch.einsum("bchw,kc->bkhw", x, network.head.weight[0]) / x[0, 0].numel()
    ratio = 64 // x.shape[2]
    wanted = F.interpolate(small, scale_factor=ratio, mode="bilinear") / ratio**2
    found = map_classes(network, images, ALL, relative=False)
    close(found.maps[:, 0], wanted)
    close(found.constants, network.head.bias.expand(3, 1, K))


@pytest.mark.parametrize("backbone", ["tiny", "tiny_mobile"])
@pytest.mark.parametrize(("name", "rows", "columns"), [
    ("upper_left", slice(0, 32), slice(0, 32)),
    ("upper_right", slice(0, 32), slice(32, 64)),
    ("lower_left", slice(32, 64), slice(0, 32)),
])  # fmt: skip
def test_a_quadrant_has_a_map_in_this_quadrant(backbone, name, rows, columns):
    network = make_net(backbone, head_features="all").eval()
    names = network.name_features()
    network.head.weight.data *= torch.tensor([name in feature for feature in names])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = map_classes(network, images, ALL, relative=False).maps.abs()
    inside = maps[..., rows, columns].sum()
    assert inside > 0.7 * maps.sum()  # interpolation spreads it by half a pixel of the level


def test_deviation_lies_where_an_image_deviates():
    """A head that reads standard deviations only looks at the patch of noise."""
    network = make_net("tiny", head_features="all").eval()
    network.head.weight.data *= torch.tensor(["std" in name for name in network.name_features()])
    network.head.weight.data.abs_()
    images = torch.full((1, 3, 64, 64), 0.5)
    images[..., 8:24, 40:56] = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = map_classes(network, images, ALL[:1], relative=False)
    row, column = divmod(found.maps[0, 0, 0].argmax().item(), 64)
    assert 4 <= row < 28
    assert 36 <= column < 60


def test_pruned_networks(small, digits):
    tuning = {"head_features": "all", "head_init": "ridge", "max_epochs": 1}
    for n_branches in (1, 2):
        clf = small(n_branches=n_branches, **tuning).fit(*digits)
        pruner = ChannelPruner(FrozenEstimator(clf), target=0.4, n_steps=1, epochs_per_step=0)
        pruned = pruner.fit(*digits).estimator_.module_
        assert pruned.head.weight.shape[2] < clf.module_.head.weight.shape[2]
        images = torch.rand(2, 3, 16, 16)
        found = map_classes(pruned, images, torch.arange(4), relative=False)
        close(add_up(found), pruned(images))


def test_a_tailored_classifier(digits, weights):
    tuning = TailoringFineTuning(augmentation="none")
    form = {"weights": weights, "max_epochs": 1, "n_removed": 2, "tolerance": 1.0}
    clf = NetTailorClassifier("tiny", fine_tuning=tuning, precision="fp32", random_state=0, **form)
    network = clf.fit(*digits).module_
    images = torch.rand(2, 3, 16, 16)
    close(add_up(map_classes(network, images, torch.arange(4), False)), network(images))
