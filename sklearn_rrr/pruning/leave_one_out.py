"""What a single kernel is good for: the score without it, and the images it responds to.

B is the batch, n the number of images, C the number of channels of a group.
"""

from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.pruning.channel_groups import list_blocks

BATCH = 64  # images; what they are predicted with does not matter here


def score_without(run, group, subsets):
    """Return the balanced accuracy on the images held out, without some channels.

    What follows the norms of these channels is zero; nothing else is changed. Only the part of
    the network from the layer's block on runs for each subset.

    Parameters
    ----------
    run : PruningRun
        With images held out.
    group : ChannelGroup
    subsets : list of sequences of int
        Of channels; an empty one leaves all of them.

    Returns
    -------
    scores : ndarray
        One for each subset.
    """
    classifier = run.classifier
    device = classifier._prediction_device()
    network = fold_norms(run.network).to(device)
    before, after = _cut_before(network, group)
    source, labels, right = run.watched.source, run.watched.labels.numpy(), []
    bf16 = classifier.precision == "bf16"
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        _zeroing(network, group) as gone,
    ):
        for start in range(0, len(labels), BATCH):
            index = np.arange(start, min(start + BATCH, len(labels)))
            images = source.load(index, classifier.image_size_).to(device)
            features = before(images.contiguous(memory_format=torch.channels_last))
            named = []
            for gone[:] in subsets:
                votes = average_probabilities(_finish(network, after, features).double())
                named.append(votes.argmax(1).cpu().numpy())
            right.append(np.stack(named) == labels[index])
    return _balance(np.concatenate(right, 1), labels)


def _cut_before(network, group):
    """Return an RRRNet's steps before those that write the channels of a group, and the others.

    A step is a module of the stem, or a block; the pooling and the head come after them.
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
    """Zero the channels in a list, which the caller may change, after the norms of a group."""
    gone = []

    def zero(_, __, output):
        output[:, torch.as_tensor(gone, dtype=torch.long)] = 0  # nobody else's: a fresh output
        return output

    with ExitStack() as stack:
        for name in group.norms:
            stack.callback(network.get_submodule(name).register_forward_hook(zero).remove)
        yield gone


def _balance(right, labels):
    """Return the mean over classes of the share that is right: (…, n) and (n,) -> (…)."""
    return np.mean([right[..., labels == label].mean(-1) for label in np.unique(labels)], axis=0)


def score_leave_one_out(run, groups):
    """Return R(i) of each channel: the balanced accuracy less that without the channel."""
    scores = []
    for group in groups:
        full, *without = score_without(run, group, [[], *([i] for i in range(group.size))])
        scores.append(torch.as_tensor(full - np.array(without)))
    return scores
