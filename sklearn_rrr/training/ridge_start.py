"""Initialisation of heads by ridge regression on the features, before training.

A random head sends large, random gradients into pre-trained features; a head that already
classifies does not (Kumar et al. 2022, Fine-tuning can distort pretrained features and
underperform out-of-distribution).
"""

from contextlib import nullcontext

import torch

from sklearn_rrr.networks.inference_copy import make_inference_copy
from sklearn_rrr.networks.onednn_convolutions import uses_onednn
from sklearn_rrr.networks.stacked_net import StackedNet
from sklearn_rrr.training.batches import EpochBatches
from sklearn_rrr.training.callbacks import show_pass
from sklearn_rrr.training.copies import FLIPS, count_copies, weigh_copies
from sklearn_rrr.training.devices import explained_memory, prediction_batch
from sklearn_rrr.training.memory import keeping_memory
from sklearn_rrr.training.norm_warmup import averaging_norms
from sklearn_rrr.training.ridge import RidgeSums

# Log-likelihood of left-out images that a companion must add: one unit for each weight of its
# three kinds of features (Akaike 1974, A new look at the statistical model identification).
GAIN = 3.0


def start_heads(net, images):
    """Initialise the heads as ridge regressions on the features of one pass.

    With ``settings.flips`` and few images, the heads of a frozen network also learn from flipped
    copies. The pass also sets the statistics of the trainable norms, so the network can predict
    before its first step.
    """
    module, settings = net.module_, net.settings
    network, batch_size = _prepare(net, images)
    is_frozen = network is not module
    precision = nullcontext() if is_frozen else net.autocast()
    sampler = EpochBatches(len(images), batch_size, settings.seed + 2)
    n_branches, n_classes, n_features = module.head.weight.shape
    form = len(images), n_features, n_classes, module.feature_kinds()
    heads = [RidgeSums(*form) for _ in range(n_branches)]
    uses_copies = settings.flips and is_frozen and settings.head_init == "ridge"
    flips = FLIPS[: count_copies(len(images))] if uses_copies and heads[0].keeps_all else ()
    copies = [[] for _ in heads]
    with (
        averaging_norms(network),
        explained_memory(batch_size),
        keeping_memory(),
        torch.no_grad(),
        precision,
    ):
        for batch, (labels, weights) in show_pass(net, images, sampler):
            batch = net.prepare(batch, training=False)
            features, *flipped = (
                network.pool_branches(*network.forward_stump(view)).float().cpu()  # (B, M, F)
                for view in (batch, *(batch.flip(axes) for axes in flips))
            )
            for i, head in enumerate(heads):
                share = weights if weights.ndim == 1 else weights[:, i]
                head.update(features[:, i], labels, share)
                if flips:
                    copies[i].append(torch.stack([x[share > 0, i] for x in flipped], 1))
    with torch.autocast("cpu", enabled=False):
        if settings.head_init == "ridge":
            solutions = [head.solve() for head in heads]
            if isinstance(module, StackedNet):
                module, heads[0], solutions[0] = _weigh_companion(module, heads[0], solutions[0])
            if flips:
                solutions = list(map(_weigh_copies, heads, solutions, copies))
            write_heads(module.head, solutions)
        else:
            write_statistics(module.head, [head.standardise() for head in heads])


def _prepare(net, images):
    """Return the network that computes the features, and the number of images in a batch.

    A frozen network computes them as in prediction. Norms that learn use the statistics of their
    batch, as in training.
    """
    module, device = net.module_, torch.device(net.device)
    if not (module.is_frozen("stump") and module.is_frozen("branches")):
        return module.train(), net.settings.batch_size
    copy = make_inference_copy(module, device, memory_format=net.layout)
    form = module.first_output_bytes(images.image_size), uses_onednn(copy)
    return copy, prediction_batch(device, *form)


def _weigh_companion(network, sums, both):
    """Drop the companion of a StackedNet unless it helps in predicting left-out images.

    `sums` are the RidgeSums of the features of both networks, and `both` is their solution. Return
    the network to use, its sums and its solution.
    """
    own = sums.select(network.n_main)
    alone = own.solve()
    if both.n_scored * (both.score - alone.score) >= GAIN:
        return network, sums, both
    return network.drop_companion(), own, alone


def _weigh_copies(sums, plain, copies):
    """Return the solution that also uses copies, a list of (B, C, F); see :func:`weigh_copies`."""
    return weigh_copies(plain, sums.kept_images(), torch.cat(copies)[..., : len(plain.center)])


@torch.no_grad()
def write_heads(head, solutions):
    """Write a Ridge for each branch into a BranchLinear head."""
    if head.center is not None:
        write_statistics(head, [(ridge.center, ridge.factor) for ridge in solutions])
    for i, ridge in enumerate(solutions):
        weight, bias = ridge.weight, ridge.bias
        if head.center is None:
            weight = weight * ridge.factor
            bias = bias - weight @ ridge.center
        head.weight[i].copy_(weight)
        head.bias[i].copy_(bias)


@torch.no_grad()
def write_statistics(head, statistics):
    """Write centers and factors, a pair for each branch, into a standardising head."""
    for i, (center, factor) in enumerate(statistics):
        head.center[i].copy_(center)
        head.factor[i].copy_(factor)
