"""How much the channels of a network matter: each criterion by its name.

B is the batch, C the number of channels of a group.
"""

from contextlib import contextmanager

import torch
from torch import nn


def score_norms(run, groups):
    """Return |γ| of the norms after the channels (Liu et al. 2017, network slimming)."""
    return [
        torch.stack([run.network.get_submodule(n).weight.detach().abs() for n in g.norms]).mean(0)
        for g in groups
    ]


def score_l1(run, groups):
    """Return the L1 norm of the kernels that write the channels (Li et al. 2017).

    As a multiple of their layer's mean: layers have kernels of different sizes.
    """
    return [torch.stack([_l1(run.network, name) for name in g.writers]).mean(0) for g in groups]


def _l1(network, name):
    module = network.get_submodule(name)
    weight = module.weight if isinstance(module, nn.Conv2d) else module.merge().weight
    norms = weight.detach().abs().sum((1, 2, 3))
    return norms / norms.mean().clamp(min=1e-12)


def score_taylor(run, groups):
    """Return the mean over batches of (γ ∂L/∂γ + β ∂L/∂β)² (Molchanov et al. 2019, Eq. 8).

    What a channel tied to others adds to the loss is the sum over its norms.
    """
    network, totals, n_batches = run.network, [torch.zeros(g.size) for g in groups], 0
    norms = [[network.get_submodule(n) for n in g.norms] for g in groups]
    leaves = [p for group in norms for norm in group for p in (norm.weight, norm.bias)]
    with learning(leaves):
        for loss, _ in run.losses():
            slopes = torch.autograd.grad(loss, leaves)
            products = iter([(p * s).detach().cpu() for p, s in zip(leaves, slopes, strict=True)])
            for total, group in zip(totals, norms, strict=True):
                total += sum(next(products) + next(products) for _ in group) ** 2
            n_batches += 1
    return [total / n_batches for total in totals]


@contextmanager
def learning(parameters):
    """Let parameters have slopes inside the block."""
    before = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p, value in zip(parameters, before, strict=True):
            p.requires_grad_(value)


def score_fisher(run, groups):
    """Return the Fisher ratio of the channels' mean activations: between over within classes.

    Of channels inside blocks after their ReLU; of a stream what each block adds to it, the largest
    ratio counts.
    """
    names = {name for g in groups for name in g.norms}
    sums = dict.fromkeys(names, 0.0)  # Σ w x per class, (K, C)
    inside = {name for g in groups if not g.is_stream for name in g.norms}
    squares = dict(sums)  # Σ w x², (C,)
    counts, pooled = 0.0, {}

    def pool(name):
        def keep(_, __, output):
            output = output.relu() if name in inside else output
            pooled[name] = output.float().mean((2, 3))

        return keep

    norms = [(run.network.get_submodule(name), pool(name)) for name in names]
    hooks = [norm.register_forward_hook(hook) for norm, hook in norms]
    try:
        for _, (_, labels, weights) in run.losses():
            labels, weights = labels.cpu(), weights.cpu().double()
            share = weights if weights.ndim == 1 else weights.mean(1)  # over branches
            one_hot = nn.functional.one_hot(labels, run.network.n_classes).double().T * share
            counts = counts + one_hot.sum(1)
            for name in names:
                x = pooled[name].detach().double().cpu()
                sums[name] = sums[name] + one_hot @ x
                squares[name] = squares[name] + share @ x.square()
    finally:
        for hook in hooks:
            hook.remove()
    ratios = {name: _fisher(sums[name], squares[name], counts) for name in names}
    return [torch.stack([ratios[n] for n in g.norms]).amax(0) for g in groups]


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


def score_channels(criterion, run, groups):
    """Return the importance of each channel of each group, as tensors (C,) on the CPU.

    Parameters
    ----------
    criterion : str or callable
        A name of CRITERIA, or a function of the same arguments and result.
    run : PruningRun
    groups : list of ChannelGroup
    """
    score = CRITERIA[criterion] if isinstance(criterion, str) else criterion
    given = score(run, groups)
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
