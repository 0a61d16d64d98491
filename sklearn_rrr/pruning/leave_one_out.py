"""Leave-one-out relevance of channels: the drop in balanced accuracy without each of them.

B is the batch, n the number of images, C the number of channels of a group.
"""

from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.pruning.channel_groups import list_blocks

BATCH = 64  # images; the predictions do not depend on it


def score_without(network, group, subsets, images, device="cpu", bf16=False):
    """Return the balanced accuracy of a network without some channels of a group.

    The outputs of the norms after these channels are set to zero; the network is not changed.
    For each subset, only the part of the network from the group's first block on is run.

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
            features = before(batch.contiguous(memory_format=torch.channels_last))
            named = []
            for gone[:] in subsets:
                votes = average_probabilities(_finish(network, after, features).double())
                named.append(votes.argmax(1).cpu().numpy())
            right.append(np.stack(named) == labels[index])
    return _balance(np.concatenate(right, 1), labels)


def _cut_before(network, group):
    """Return two halves of an RRRNet, cut before the first block that writes to a group.

    The pooling and the head are in neither half.
    """
    stem = [(f"stump.{name}", module) for name, module in network.stump.named_children()]
    stem = [(name, module) for name, module in stem if not isinstance(module, nn.Sequential)]
    steps = [("normalize", network.normalize), *stem, *list_blocks(network)]
    start = next(i for i, (name, _) in enumerate(steps) if f"{group.name}.".startswith(f"{name}."))
    modules = [module for _, module in steps]
    return nn.Sequential(*modules[:start]), nn.Sequential(*modules[start:])


def _finish(network, after, features):
    pooled = after(features).mean((2, 3)).unflatten(1, (network.n_branches, -1))
    return network.head(pooled).float()


@contextmanager
def _zeroing(network, group):
    """Yield a list of channels that are zeroed after the norms of a group; the caller fills it."""
    gone = []

    def zero(_, __, output):
        output[:, torch.as_tensor(gone, dtype=torch.long)] = (
            0  # in place: the norm has just made it
        )
        return output

    with ExitStack() as stack:
        for name in group.norms:
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
