"""Basis scaling: importance by hand, frozen weights, removals over all layers, merges."""

import copy

import pytest
import torch
import torch.nn.functional as F
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklearn_rrr import BasisScalingPruner, ChannelPruner
from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.pruning.basis_scaling import RunningImportance, list_pairs, split_convolutions
from sklearn_rrr.pruning.convolution_pairs import ConvPair
from sklearn_rrr.pruning.run import PruningRun


@pytest.fixture
def fitted(small, digits):
    return small(blocks=(2, 1, 1, 1), max_epochs=3).fit(*digits)


class Stops(Exception):
    """Ends a fit where a test has seen what it wanted."""


def catch(monkeypatch, name, function):
    """Call a function with the pruner and the run before a method of the pruner."""
    original = getattr(BasisScalingPruner, name)

    def method(self, run, *args):
        function(self, run)
        return original(self, run, *args)

    monkeypatch.setattr(BasisScalingPruner, name, method)


@pytest.mark.parametrize("backbone", ["tiny", "tiny_mobile"])
def test_split_network_computes_the_same(small, digits, backbone):
    clf = small(backbone=backbone, blocks=(2, 1, 1, 1), max_epochs=1).fit(*digits)
    network = clf.module_.eval()
    split = split_convolutions(network)
    x = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(split(x), network(x), atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, ConvPair) for m in network.modules())
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    convolutions = [conv for conv in convolutions if not is_depthwise(conv)]
    assert len(list_pairs(split)) == len(convolutions)
    torch.testing.assert_close(split_convolutions(split)(x), network(x), atol=1e-5, rtol=1e-5)


def test_depthwise_convolutions_stay():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3))
    split = split_convolutions(network)
    assert [type(m).__name__ for m in split] == ["Conv2d", "ScaledPair"]


def test_importance_is_the_mean_of_squares_by_hand(fitted, digits, monkeypatch):
    """(s ∂L/∂s)² of each batch, before the step that the batch makes."""
    seen = {}
    steps = []
    original = RunningImportance._add

    def record(self, name, scale, slope):
        steps.append((name, (scale.detach() * slope).square().clone(), scale.detach().clone()))
        return original(self, name, scale, slope)

    def see(pruner, run):
        seen.update({name: run.importance.mean(name) for name, _ in list_pairs(run.network)})

    monkeypatch.setattr(RunningImportance, "_add", record)
    catch(monkeypatch, "_rank", see)
    BasisScalingPruner(FrozenEstimator(fitted), n_steps=1, epochs_per_step=1).fit(*digits)
    n_batches = 6  # of 16 of the 96 images to learn from
    for name in seen:
        values = [value for n, value, _ in steps if n == name][:n_batches]
        torch.testing.assert_close(seen[name], torch.stack(values).mean(0))
        scales = [scale for n, _, scale in steps if n == name]
        assert (scales[0] == 1).all()
        assert not torch.equal(scales[0], scales[n_batches - 1])


def test_importance_of_one_batch(fitted):
    torch.manual_seed(0)
    network = split_convolutions(fitted.module_).eval().double()
    for _, pair in list_pairs(network):
        nn.init.uniform_(pair.scale, 0.5, 2)
    x, y = torch.rand(5, 3, 16, 16).double(), torch.tensor([0, 1, 2, 3, 0])

    def loss():
        return F.cross_entropy(network(x)[:, 0], y)

    with RunningImportance(network) as importance:
        loss().backward()
    for name, pair in list_pairs(network):
        slopes = pair.scale.grad.clone()
        torch.testing.assert_close(importance.mean(name), (pair.scale * slopes).detach() ** 2)
        with torch.no_grad():  # the slope itself, by small steps of one factor
            pair.scale[0] += 1e-6
            above = loss()
            pair.scale[0] -= 2e-6
            below = loss()
            pair.scale[0] += 1e-6
        step = (above - below).item() / 2e-6
        assert step == pytest.approx(slopes[0].item(), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("norms", [True, False])
def test_only_factors_norms_and_heads_move(fitted, digits, monkeypatch, norms):
    before = {}

    def see(pruner, run):
        before.setdefault("state", copy.deepcopy(run.network.state_dict()))

    def compare(pruner, run):
        after = run.network.state_dict()
        affine = {
            f"{n}.{p}"
            for n, m in run.network.named_modules()
            if isinstance(m, nn.BatchNorm2d)
            for p in ("weight", "bias")
        }
        for name, value in before["state"].items():
            kind = name.rpartition(".")[2]
            statistics = kind in ("running_mean", "running_var", "num_batches_tracked")
            moves = kind == "scale" or name.startswith("head.") or statistics
            moves |= norms and name in affine
            assert torch.equal(value, after[name]) != moves, name
        raise Stops

    catch(monkeypatch, "_retrain", see)
    catch(monkeypatch, "_rank", compare)
    with pytest.raises(Stops):
        BasisScalingPruner(FrozenEstimator(fitted), norms=norms, epochs_per_step=2).fit(*digits)


def test_the_least_important_go_over_all_layers(fitted, digits, monkeypatch):
    """One of each group at a time, by the groups' mean; each layer keeps one."""
    seen = {}

    def see(pruner, run):
        seen["importance"] = {
            name: run.importance.mean(name).view(pair.groups, -1).sort(dim=1)[0].mean(0)
            for name, pair in list_pairs(run.network)
        }

    def stop(pruner, run):
        if "importance" not in seen:
            return
        kept = {name: pair.rank // pair.groups for name, pair in list_pairs(run.network)}
        gone = {n: v[: len(v) - kept[n]] for n, v in seen["importance"].items()}
        stayed = {n: v[len(v) - kept[n] :] for n, v in seen["importance"].items()}
        assert min(kept.values()) >= 1
        highest = max(v.max().item() for v in gone.values() if len(v))
        lowest = min(v[:-1].min().item() for v in stayed.values() if len(v) > 1)
        assert highest <= lowest
        assert sum(len(v) for v in gone.values()) > 0
        raise Stops

    catch(monkeypatch, "_rank", see)
    catch(monkeypatch, "_retrain", stop)
    with pytest.raises(Stops):
        BasisScalingPruner(FrozenEstimator(fitted), target=0.5, n_steps=1, epochs_per_step=1).fit(
            *digits
        )


def test_what_is_left_is_pairs_where_they_are_smaller(fitted, digits):
    pruner = BasisScalingPruner(
        FrozenEstimator(fitted), target=0.7, n_steps=1, epochs_per_step=1
    ).fit(*digits)
    network = pruner.estimator_.module_
    pairs = [m for m in network.modules() if isinstance(m, ConvPair)]
    assert pairs
    assert not list_pairs(network)
    for pair in pairs:
        weights = pair.basis.weight.numel() + pair.mix.weight.numel()
        assert weights < pair.merge().weight.numel()
    unpruned = RRRNet(fitted._load_backbone(), **network.arguments)
    shapes = {n: m.out_channels for n, m in unpruned.named_modules() if isinstance(m, nn.Conv2d)}
    left = {n: network.get_submodule(n).out_channels for n in shapes}
    assert left == shapes  # of input and output channels none is gone


def test_second_pruner_starts_from_what_the_first_left(fitted, digits, monkeypatch):
    sizes = []
    original = PruningRun.__init__

    def record(self, *args, **more):
        original(self, *args, **more)
        sizes.append(self.classifier.n_parameters_)

    monkeypatch.setattr(PruningRun, "__init__", record)
    quick = {"n_steps": 1, "epochs_per_step": 1, "target": 0.4}
    pruner = BasisScalingPruner(FrozenEstimator(fitted), **quick, then=ChannelPruner(**quick)).fit(
        *digits
    )
    parameters = pruner.results_.parameters.tolist()
    assert sizes == [parameters[0], parameters[1]] == [fitted.n_parameters_, parameters[2]]
    assert parameters[3] <= 0.6 * parameters[2] <= 0.36 * parameters[0] + 1
    pairs = [m for m in pruner.estimator_.module_.modules() if isinstance(m, ConvPair)]
    assert all(pair.smallest() is pair for pair in pairs)
