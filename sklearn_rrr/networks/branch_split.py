"""Initialise branches from a pre-trained network: Algorithm 2 and the aligned split.

RRR-Net (arXiv:2310.01157), section 3.3 and Algorithm 2.
"""

import torch
from torch import nn

from sklearn_rrr.backbones.block import block_layers, is_depthwise
from sklearn_rrr.networks.branch_layers import BranchConv2d


@torch.no_grad()
def split_kernels(pretrained, branches, n_branches, generator=None):
    """Fill the branches' convolutions from the pre-trained kernels, Algorithm 2.

    Output channels beyond the number in the backbone are drawn anew for each input channel,
    so that kernels mix. A shortcut convolution that the backbone lacks keeps its initial
    weights. Norms are copied only without a split (M = 1 at full width).
    """
    sources = dict(pretrained.named_modules())
    for name, target in branches.named_modules():
        source = sources.get(name)
        if isinstance(target, BranchConv2d) and source is not None:
            target.weight.copy_(_draw_kernels(source.weight, target, n_branches, generator))
        elif isinstance(target, nn.BatchNorm2d) and _is_unsplit(source, target, n_branches):
            target.load_state_dict(source.state_dict())


def _is_unsplit(source, target, n_branches):
    return n_branches == 1 and source is not None and source.num_features == target.num_features


def _draw_kernels(kernels, target, n_branches, generator):
    """Draw the weight of `target`, (M·C_b,out, C_b,in, k, k), from `kernels`, (C_o,out, …)."""
    n_out, n_in = target.weight.shape[:2]
    total = kernels.shape[0]
    if total >= n_out:
        return kernels[:n_out, :n_in]
    first = torch.arange(total).expand(n_in, -1)
    more = -(-n_out // total) - 1
    noise = torch.rand(n_in, more, total, generator=generator)
    index = torch.cat([first, noise.argsort(2).flatten(1)], 1)[:, :n_out]  # (C_in, M·C_out)
    return kernels[index.T, torch.arange(n_in)]


@torch.no_grad()
def split_aligned(pretrained, branches, n_branches, generator=None):
    """Make every branch a true sub-network of the pre-trained phases; not in the paper.

    The output channels of a layer are drawn once per branch. The next layer, the shortcut
    and the norms use the same channels in the same order. Branches partition the channels
    where the widths allow it; otherwise channels repeat across branches, never within one.
    """
    rows = list(zip(_list_rows(pretrained), _list_rows(branches), strict=True))
    # Draw the outputs of the rows first, so that they do not depend on the number of blocks.
    drawn = [
        _draw_channels(*_channels(source[0], target[0], n_branches), n_branches, generator)
        for source, target in rows
    ]
    inputs = None  # all channels of the stump
    for (sources, targets), outputs in zip(rows, drawn, strict=True):
        for source, target in zip(sources, targets, strict=True):
            _align_block(source, target, inputs, outputs, n_branches, generator)
            inputs = outputs


def _list_rows(phases):
    """Return the rows of phases: lists of a first block and those that repeat it."""
    rows = []
    for block in (block for phase in phases for block in phase):
        if not block.repeats:
            rows.append([])
        rows[-1].append(block)
    return rows


def _channels(source, target, n_branches):
    """Return the output channels of a block in the backbone and in one branch."""
    source, target = block_layers(source)[-1][0], block_layers(target)[-1][0]
    return source.out_channels, target.out_channels // n_branches


def _align_block(source, target, inputs, outputs, n_branches, generator):
    channels = inputs
    if is_depthwise(block_layers(source)[0][0]) and channels is None:  # all channels of the stump
        channels = torch.arange(block_layers(source)[0][0].out_channels).expand(n_branches, -1)
    last = len(block_layers(source)) - 1
    pairs = list(zip(block_layers(source), block_layers(target), strict=True))
    for i, (old, new) in enumerate(pairs):
        if i == last:
            drawn = outputs
        elif is_depthwise(old[0]) or (i and old[0].groups > 1):
            drawn = channels  # a grouped convolution keeps the channels of its input
        else:
            # If the next convolution is grouped, draw equally many channels from each group.
            following = pairs[i + 1][0][0]
            groups = 1 if is_depthwise(following) else following.groups
            width = new[0].out_channels // n_branches
            drawn = _draw_channels(old[0].out_channels, width, n_branches, generator, groups)
        _align_layer(old, new, channels, drawn)
        channels = drawn
    if target.downsample is not None and source.downsample is not None:
        _align_layer(source.downsample, target.downsample, inputs, outputs)
    elif target.downsample is not None:
        _align_identity(target.downsample, outputs)


def _align_layer(old, new, inputs, outputs):
    """Copy the drawn output and input channels of a convolution, and its norm's channels."""
    (old_conv, old_norm), (new_conv, new_norm) = old, new
    kernels = []
    for branch, rows in enumerate(outputs):
        kernel = old_conv.weight[rows]
        if inputs is not None:
            kernel = _take_columns(kernel, rows, inputs[branch], old_conv)
        kernels.append(kernel)
    new_conv.weight.copy_(torch.cat(kernels))
    rows = outputs.flatten()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(new_norm, name).copy_(getattr(old_norm, name)[rows])


def _take_columns(kernel, rows, columns, conv):
    """Return the drawn input channels of a kernel; in a grouped one they differ by row."""
    if is_depthwise(conv):
        return kernel
    if conv.groups == 1:
        return kernel[:, columns]
    per_group = conv.in_channels // conv.groups
    columns = (columns % per_group).view(conv.groups, -1)  # columns are ordered by group
    group = rows // (conv.out_channels // conv.groups)
    return kernel[torch.arange(len(rows))[:, None], columns[group]]


def _align_identity(shortcut, outputs):
    """Make a shortcut convolution select the drawn channels of the backbone's identity.

    Only the first phase after the stem needs one, so its input is all channels of the stem.
    """
    conv, norm = shortcut
    norm.running_var.fill_(1 - norm.eps)
    conv.weight.zero_()
    conv.weight[torch.arange(outputs.numel()), outputs.flatten()] = 1


def _draw_channels(total, width, n_branches, generator, groups=1):
    """Draw `width` of `total` channels for each branch: (M, width), ordered by group.

    Channels are dealt from shuffled decks: no channel is dealt a third time before all have
    been dealt twice, and none repeats within a branch.
    """
    if width == total:
        return torch.arange(total).expand(n_branches, -1)
    decks = [
        _deal(total // groups, width // groups, n_branches, generator) + g * (total // groups)
        for g in range(groups)
    ]
    return torch.cat(decks, 1)


def _deal(total, width, n_branches, generator):
    hands, deck = [], torch.empty(0, dtype=torch.long)
    for _ in range(n_branches):
        if len(deck) < width:
            fresh = torch.randperm(total, generator=generator)
            # Deal leftover channels first, and move them to the end of the new deck.
            held = torch.isin(fresh, deck)
            deck = torch.cat([deck, fresh[~held], fresh[held]])
        hands.append(deck[:width])
        deck = deck[width:]
    return torch.stack(hands)
