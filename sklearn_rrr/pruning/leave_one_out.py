"""Leave-one-out relevance of channels: the drop in balanced accuracy without each of them.

B is the batch, n the number of images, C the number of channels of a group.
"""

from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch

from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.levels import describe
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.pruning.channel_groups import list_blocks, list_stem
from sklearn_rrr.pruning.removal import list_columns, mask_levels

BATCH = 64  # images; the predictions do not depend on it


def score_without(network, group, subsets, images, device="cpu", bf16=False):
    """Return the balanced accuracy of a network without some channels of a group.

    The outputs of the norms after these channels are set to zero, and standardised statistics of
    them, which heads read, to their means; the network is not changed. For each subset, only the
    part of the network from the group's first block on is run.

    Parameters
    ----------
    network : RRRNet
        Trained network.
    group : ChannelGroup
        Channels to choose from.
    subsets : list of sequences of int
        Positions of the channels to leave out; an empty sequence leaves out none.
    images : LabelledSet
        Hold-out images, read in batches, with their labels.
    device : torch.device or str, default="cpu"
        Where a copy of the network runs.
    bf16 : bool, default=False
        Whether the copy runs in bfloat16 instead of float32.

    Returns
    -------
    scores : ndarray of shape (len(subsets),)
        Balanced accuracies in [0, 1].
    """
    device = torch.device(device)
    means = [_mean_statistics(network, group, subset, device) for subset in subsets]
    network = fold_norms(network).to(device)
    before, after = _cut_before(network, group)
    labels, right = images.labels.numpy(), []
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        _zeroing(network, group) as gone,
    ):
        for start in range(0, len(labels), BATCH):
            index = np.arange(start, min(start + BATCH, len(labels)))
            batch = images.source.load(index, images.image_size).to(device)
            maps, features = _run(before, batch.contiguous(memory_format=torch.channels_last))
            named = []
            for gone[:], replaced in zip(subsets, means, strict=True):
                _, others = _run(after, maps)
                logits = _vote(network, features + others, *replaced)
                votes = average_probabilities(logits.double())
                named.append(votes.argmax(1).cpu().numpy())
            right.append(np.stack(named) == labels[index])
    return _balance(np.concatenate(right, 1), labels)


def _mean_statistics(network, group, gone, device):
    """Return which statistics remain without some channels, and the means of all: two (M, F).

    Without standardised heads, there are none.
    """
    if network.head.center is None:
        return ()
    kept = torch.ones(group.size, dtype=torch.bool)
    kept[torch.as_tensor(gone, dtype=torch.long)] = False
    mask = mask_levels(network, group, kept.nonzero()[:, 0])
    return mask.to(device), network.head.center.to(device)


def _cut_before(network, group):
    """Return two halves of an RRRNet, cut before the first block that writes to a group.

    A half is a list of steps (module, function or None); the function returns the statistics of
    the module's output that the heads read.
    """
    statistics = {}
    for name, number, _ in list_columns(network):
        n_branches = network.n_branches if name.startswith("branches.") else 1
        statistics[name] = partial(describe, n_branches=n_branches, n=number)
    layers = [("normalize", network.normalize), *list_stem(network), *list_blocks(network)]
    start = next(i for i, (name, _) in enumerate(layers) if f"{group.name}.".startswith(f"{name}."))
    steps = [(module, statistics.get(name)) for name, module in layers]
    return steps[:start], steps[start:]


def _run(steps, x):
    """Return the output of the last step, and the statistics that the heads read."""
    features = []
    for module, statistics in steps:
        x = module(x)
        if statistics is not None:
            features += statistics(x)
    return x, features


def _vote(network, features, kept=None, means=None):
    """Return the logits of the heads for a list of features (B, 1 or M, …)."""
    whole = torch.cat([part.expand(-1, network.n_branches, -1) for part in features], 2)
    if kept is not None:
        whole = torch.where(kept, whole, means)
    return network.head(whole).float()


@contextmanager
def _zeroing(network, group):
    """Yield a list of channels that are zeroed after the norms of a group; the caller fills it."""
    gone = []

    def zero(_, __, output):
        index = torch.as_tensor(gone, dtype=torch.long)
        # In place, as the norm has just made the output; it may have `size` channels a branch.
        output.unflatten(1, (-1, group.size))[:, :, index] = 0
        return output

    with ExitStack() as stack:
        for name in group.norms + group.follower_norms:
            stack.callback(network.get_submodule(name).register_forward_hook(zero).remove)
        yield gone


def _balance(right, labels):
    """Return the balanced accuracy: (…, n) correct or not, labels (n,) -> (…)."""
    return np.mean([right[..., labels == label].mean(-1) for label in np.unique(labels)], axis=0)


def score_leave_one_out(network, groups, images, device="cpu", bf16=False):
    """Return the balanced accuracy minus the balanced accuracy without each channel.

    Parameters
    ----------
    network : RRRNet
        Trained network.
    groups : list of ChannelGroup
        Channels to score.
    images : LabelledSet
        Hold-out images.
    device : torch.device or str, default="cpu"
        See :func:`score_without`.
    bf16 : bool, default=False
        See :func:`score_without`.

    Returns
    -------
    scores : list of Tensor of shape (C,)
        Drop in balanced accuracy in [-1, 1], for each group.
    """
    scores = []
    for group in groups:
        subsets = [[], *([i] for i in range(group.size))]
        full, *without = score_without(network, group, subsets, images, device, bf16)
        scores.append(torch.as_tensor(full - np.array(without)))
    return scores
