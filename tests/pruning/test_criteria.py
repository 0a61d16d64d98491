"""Criteria of channels against their formulas, written out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.frozen import FrozenEstimator

from sklearn_rrr import ChannelPruner
from sklearn_rrr.pruning.channel_groups import ChannelGroup, find_groups
from sklearn_rrr.pruning.channel_pruner import rank_units
from sklearn_rrr.pruning.criteria import CRITERIA, score_channels


@pytest.fixture
def run(small, digits):
    """Return a pruning run on a network that was trained a little."""
    seen = []

    class Spy(ChannelPruner):
        def _prune(self, job):
            seen.append(job)

    clf = small(blocks=(2, 1, 1, 1), max_epochs=3, trainable="branches").fit(*digits)
    Spy(FrozenEstimator(clf), random_state=0).fit(*digits)
    return seen[0]


def batches(run):
    """Return what prediction-sized batches hold, as tensors."""
    net = run.classifier.net_
    return [(net.prepare(x, False), *t) for x, t in net.get_iterator(run.images)]


def test_taylor_is_the_squared_change_of_the_loss(run):
    """Molchanov et al. (2019): of a channel tied to others, all of it."""
    groups = find_groups(run.network)
    scores = dict(
        zip(
            [g.name for g in groups],
            score_channels("taylor", run.network, groups, run.batches),
            strict=True,
        )
    )
    tied = next(group for group in groups if len(group.norms) > 2)
    for group in (groups[0], groups[1], tied):
        total = torch.zeros(group.size)
        run.network.requires_grad_(True)
        for images, labels, _ in batches(run):
            run.network.zero_grad()
            logits = run.network(images)
            sum(F.cross_entropy(logits[:, m], labels) for m in range(2)).backward()
            norms = [run.network.get_submodule(n) for n in group.norms]
            changes = [n.weight * n.weight.grad + n.bias * n.bias.grad for n in norms]
            total += sum(changes).detach() ** 2
        run.network.freeze("branches")
        torch.testing.assert_close(
            scores[group.name], total / len(batches(run)), rtol=1e-3, atol=1e-8
        )


def test_scoring_leaves_the_network_alone(run):
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    learning = [p.requires_grad for p in run.network.parameters()]
    for criterion in CRITERIA:
        score_channels(criterion, run.network, find_groups(run.network), run.batches)
    assert [p.requires_grad for p in run.network.parameters()] == learning
    assert not any(m._forward_hooks for m in run.network.modules())
    assert all(p.grad is None for p in run.network.parameters())
    after = run.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_norms_and_kernels(run):
    group = find_groups(run.network)[1]
    (norms,) = score_channels("norm", run.network, [group], run.batches)
    factors = [run.network.get_submodule(n).weight.abs() for n in group.norms]
    torch.testing.assert_close(norms, torch.stack(factors).mean(0).detach())
    inside = find_groups(run.network, streams=False)[0]
    (kernels,) = score_channels("l1", run.network, [inside], run.batches)
    sums = run.network.get_submodule(inside.name).weight.detach().abs().sum((1, 2, 3))
    torch.testing.assert_close(kernels, sums / sums.mean())


def test_fisher_is_between_over_within(run):
    group = find_groups(run.network, streams=False)[-1]
    (ratios,) = score_channels("fisher", run.network, [group], run.batches)
    pooled, labels = [], []
    norm = run.network.get_submodule(group.norms[0])
    hook = norm.register_forward_hook(lambda _, __, out: pooled.append(out.relu().mean((2, 3))))
    for images, y, _ in batches(run):
        with torch.no_grad():
            run.network(images)
        labels.append(y)
    hook.remove()
    x, y = torch.cat(pooled).numpy(), torch.cat(labels).numpy()
    means = np.stack([x[y == k].mean(0) for k in range(4)])
    between = ((means[y] - x.mean(0)) ** 2).mean(0)
    within = ((x - means[y]) ** 2).mean(0)
    np.testing.assert_allclose(ratios, between / within, rtol=1e-3)


def test_units_take_the_least_of_each_part():
    group = ChannelGroup(6, parts=2, writers=["a"])
    other = ChannelGroup(2, writers=["b"])
    scores = [torch.tensor([3.0, 1.0, 2.0, 0.0, 9.0, 5.0]), torch.tensor([2.0, 8.0])]
    units = [(g.name, channels.tolist()) for g, channels in rank_units([group, other], scores)]
    # Means of ranks: a .5 and 3.5, the last of each group stays; b 2.
    assert units == [("a", [1, 3]), ("b", [0]), ("a", [2, 5])]


def test_own_criterion(run, digits, small):
    groups = find_groups(run.network)
    seen = []

    def first_channels_matter(network, groups, batches):
        seen.append([g.size for g in groups])
        return [-torch.arange(float(g.size)) for g in groups]

    frozen, quick = FrozenEstimator(run.classifier), {"n_steps": 1, "epochs_per_step": 0}
    pruner = ChannelPruner(frozen, criterion=first_channels_matter, target=0.3, **quick)
    pruner.fit(*digits)
    assert seen == [[g.size for g in groups]]
    network, stem = pruner.estimator_.module_, run.network.stump[0]
    kept = network.stump[0].weight
    torch.testing.assert_close(kept, stem.weight[: len(kept)])
    given = run.network, groups, run.batches
    with pytest.raises(ValueError, match="`criterion` must give a number for each of"):
        score_channels(lambda _, groups, __: [torch.zeros(1) for _ in groups], *given)
    for wrong in (None, [1], ["many"], [torch.zeros(2, 3)]):
        with pytest.raises(TypeError, match=r"must return an array of numbers of shape"):
            score_channels(lambda *_: wrong, *given)  # noqa: B023


# docs: new criterion
def score_gradients(network, groups, batches):
    """Score channels by the sum over batches of |γ ∂L/∂γ|, of the first norm after them."""
    factors = [network.get_submodule(group.norms[0]).weight for group in groups]
    scores = [torch.zeros(group.size) for group in groups]
    for loss, _labels, _weights in batches.losses(network):
        slopes = torch.autograd.grad(loss, factors)
        for score, factor, slope in zip(scores, factors, slopes, strict=True):
            score += (factor * slope).detach().abs().cpu()
    return scores


# docs: end


def test_criterion_of_the_documentation(run, digits):
    pruner = ChannelPruner(run.classifier, criterion=score_gradients, n_steps=1, epochs_per_step=0)
    before, after = pruner.set_params(target=0.3).fit(*digits).results_.parameters
    assert after <= 0.7 * before
    run.network.freeze("all")
    group = find_groups(run.network)[0]
    (scores,) = score_channels(score_gradients, run.network, [group], run.batches)
    factor, expected = run.network.get_submodule(group.norms[0]).weight, 0
    for loss, _, _ in run.batches.losses(run.network):
        (slope,) = torch.autograd.grad(loss, factor)
        expected += (factor * slope).abs()
    torch.testing.assert_close(scores, expected.detach())
