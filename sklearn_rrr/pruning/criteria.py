"""Importance of the channels of a network: one function for each criterion.

Every criterion is called with ``(network, groups, batches)``:

- ``network``, an RRRNet in eval mode, whose modules are found by ``network.get_submodule(name)``;
- ``groups``, a list of :class:`~sklearn_rrr.pruning.channel_groups.ChannelGroup`;
- ``batches``, the training images as :class:`~sklearn_rrr.pruning.loss_batches.LossBatches`.

It returns a tensor of shape (C,) for each group of C channels; channels with small values are
removed first.
"""

from contextlib import contextmanager

import torch
from torch import nn


def score_norms(network, groups, batches):
    """Return |γ| of the norms after the channels, averaged over the gates of a group.

    Liu et al. (2017), Learning efficient convolutional networks through network slimming.
    """
    return [
        _by_channel(g, [network.get_submodule(n).weight.detach().abs() for n in g.gates]).mean(0)
        for g in groups
    ]


def _by_channel(group, values):
    """Return values of norms as an array (…, C); a norm of M branches has M values a channel."""
    return torch.cat([value.view(-1, group.size) for value in values])


def score_l1(network, groups, batches):
    """Return the L1 norm of the kernels that write the channels, relative to their layer's mean.

    Li et al. (2017), Pruning filters for efficient ConvNets. Without the division by the mean,
    layers with large kernels would never be pruned.
    """
    return [torch.stack([_l1(network, name) for name in g.writers]).mean(0) for g in groups]


def _l1(network, name):
    module = network.get_submodule(name)
    weight = module.weight if isinstance(module, nn.Conv2d) else module.merge().weight
    norms = weight.detach().abs().sum((1, 2, 3))
    return norms / norms.mean().clamp(min=1e-12)


def score_taylor(network, groups, batches):
    """Return the mean over batches of (γ ∂L/∂γ + β ∂L/∂β)², summed over the norms before squaring.

    Molchanov et al. (2019), Importance estimation for neural network pruning, Eq. 8. The sum runs
    over the gates of a group, such as all norms that write to a residual stream.
    """
    totals, n_batches = [torch.zeros(g.size) for g in groups], 0
    norms = [[network.get_submodule(n) for n in g.gates] for g in groups]
    leaves = [p for group in norms for norm in group for p in (norm.weight, norm.bias)]
    with requiring_grad(leaves):
        for loss, _, _ in batches.losses(network):
            slopes = torch.autograd.grad(loss, leaves)
            products = iter([(p * s).detach().cpu() for p, s in zip(leaves, slopes, strict=True)])
            for total, group, gates in zip(totals, groups, norms, strict=True):
                sums = [next(products) + next(products) for _ in gates]
                total += _by_channel(group, sums).sum(0) ** 2
            n_batches += 1
    return [total / n_batches for total in totals]


@contextmanager
def requiring_grad(parameters):
    """Set ``requires_grad`` of parameters inside the block, and restore it afterwards."""
    before = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p, value in zip(parameters, before, strict=True):
            p.requires_grad_(value)


def score_fisher(network, groups, batches):
    """Return the Fisher ratio of the channels' mean activations: variance between / within classes.

    Activations are taken after the activation function inside blocks, and before it for streams,
    where the largest ratio over the blocks counts.
    """
    names = {name for g in groups for name in g.gates}
    inside = {name for g in groups if not g.is_stream for name in g.gates}
    sums = dict.fromkeys(names, 0.0)  # Σ w x for each class, (K, C)
    squares = dict(sums)  # Σ w x², (C,)
    counts = 0.0  # Σ w for each class, (K,)
    with _pooling(network, names, inside) as pooled:
        for _, labels, weights in batches.losses(network):
            labels, weights = labels.cpu(), weights.cpu().double()
            share = weights if weights.ndim == 1 else weights.mean(1)  # over branches
            one_hot = nn.functional.one_hot(labels, network.n_classes).double().T * share
            counts = counts + one_hot.sum(1)
            for name in names:
                x = pooled[name].detach().double().cpu()
                sums[name] = sums[name] + one_hot @ x
                squares[name] = squares[name] + share @ x.square()
    ratios = {name: _fisher(sums[name], squares[name], counts) for name in names}
    return [_by_channel(g, [ratios[n] for n in g.gates]).amax(0) for g in groups]


@contextmanager
def _pooling(network, names, rectified):
    """Yield a dict of the spatial means (B, C) of norms' last outputs.

    Those of the norms in `rectified` are taken after the activation function of their block.
    """
    pooled = {}

    def pool(name):
        relu = nn.Identity()
        if name in rectified:
            relu = network.get_submodule(name.rpartition(".")[0]).relu

        def keep(_, __, output):
            pooled[name] = relu(output.float().clone()).mean((2, 3))

        return keep

    hooks = [network.get_submodule(name).register_forward_hook(pool(name)) for name in names]
    try:
        yield pooled
    finally:
        for hook in hooks:
            hook.remove()


def _fisher(sums, squares, counts):
    total = counts.sum()
    present = counts > 0
    means = sums[present] / counts[present, None]
    mean = sums.sum(0) / total
    between = (counts[present, None] * (means - mean).square()).sum(0) / total
    within = (squares / total - mean.square() - between).clamp(min=1e-12)
    return (between / within).float()


CRITERIA = {
    "taylor": score_taylor,
    "norm": score_norms,
    "l1": score_l1,
    "fisher": score_fisher,
}


def score_channels(criterion, network, groups, batches):
    """Apply a criterion and check its result.

    Parameters
    ----------
    criterion : str or callable
        A key of CRITERIA, or a function with the arguments and the result of one.
    network : RRRNet
        Network in eval mode.
    groups : list of ChannelGroup
        Channels to score.
    batches : LossBatches
        Training images.

    Returns
    -------
    scores : list of Tensor of shape (C,)
        Importance of each channel of each group: float32, on the CPU.

    Raises
    ------
    TypeError
        If the criterion does not return an array of numbers for each group.
    ValueError
        If a number is not finite, or if their count is not that of the channels.
    """
    score = CRITERIA[criterion] if isinstance(criterion, str) else criterion
    given = score(network, groups, batches)
    try:
        scores = [torch.as_tensor(s).detach().float().cpu().reshape(len(s)) for s in given]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            "`criterion` must return an array of numbers of shape (group.size,) for each group; "
            f"got {given!r:.100}."
        ) from error
    if not all(s.isfinite().all() for s in scores):
        raise ValueError("`criterion` gave numbers that are NaN or infinite.")
    if [len(s) for s in scores] != [g.size for g in groups]:
        raise ValueError(
            f"`criterion` must give a number for each of {[g.size for g in groups]} channels; "
            f"got {[len(s) for s in scores]}."
        )
    return scores
