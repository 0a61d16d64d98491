"""Removal of channels and blocks from a network."""

import torch
from torch import nn

from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.networks.rrr_net import count_blocks
from sklearn_rrr.pruning.channel_groups import list_blocks
from sklearn_rrr.pruning.convolution_pairs import ConvPair, with_weight


@torch.no_grad()
def keep_channels(network, group, index):
    """Remove all channels of a group but those at `index` from an RRRNet, in place.

    Parameters
    ----------
    network : RRRNet
        Network to change.
    group : ChannelGroup
        Channels of the network.
    index : Tensor of int
        Positions of the channels that remain, in ascending order, with the same number in each of
        the group's parts.
    """
    if "head" in group.readers:  # before the widths of its blocks change
        mask = mask_levels(network, group, index)  # as many columns in each branch
        columns = mask.nonzero()[:, 1].view(len(mask), -1)
        network.head = _take_columns(network.head, columns)
    everywhere = repeat_positions(index, group.size, network.n_branches)
    for name in group.writers + group.norms:
        network.set_submodule(name, _keep_outputs(network.get_submodule(name), index))
    for name, norm in zip(group.followers, group.follower_norms, strict=True):
        kept = everywhere if name in group.shared else index
        for path in (name, norm):
            network.set_submodule(path, _keep_outputs(network.get_submodule(path), kept))
    for name in group.readers:
        if name != "head":
            kept = everywhere if name in group.shared else index
            network.set_submodule(name, _keep_inputs(network.get_submodule(name), kept))
    network.is_reduced = True
    network.hold(network.frozen_names)


def repeat_positions(index, size, n_branches):
    """Return positions among `size` channels as positions among M copies of them."""
    starts = size * torch.arange(n_branches, device=index.device)
    return (index + starts[:, None]).flatten()


def _keep_outputs(module, index):
    if isinstance(module, ConvPair):
        return ConvPair(module.basis, _keep_outputs(module.mix, index)).smallest()
    if isinstance(module, nn.BatchNorm2d):
        norm = _norm_like(module, len(index))
        for key in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, key).copy_(getattr(module, key)[index])
        norm.num_batches_tracked.copy_(module.num_batches_tracked)
        return norm
    bias = None if module.bias is None else module.bias[index]
    form = {"groups": len(index)} if is_depthwise(module) else {}
    return with_weight(module, module.weight[index], bias, **form)


def _keep_inputs(module, index):
    if isinstance(module, ConvPair):
        return ConvPair(_keep_inputs(module.basis, index), module.mix).smallest()
    groups, size = module.groups, module.weight.shape[1]
    columns = index.view(groups, -1) - size * torch.arange(groups, device=index.device)[:, None]
    kept = [part[:, i] for part, i in zip(module.weight.chunk(groups), columns, strict=True)]
    return with_weight(module, torch.cat(kept), module.bias)


def _norm_like(norm, size):
    made = nn.BatchNorm2d(size, norm.eps, norm.momentum, device=norm.weight.device)
    return made.train(norm.training)


# ------------------------------------------------------------------------------- heads


def list_columns(network):
    """Return what the heads of an RRRNet read: a list of (block name, statistics, channels).

    A block has as many columns of the heads as it has statistics and channels in one branch; all
    channels of the first statistic come first.
    """
    names = {block: name for name, block in list_blocks(network)}
    return [(names[block], *form) for block, *form in network.list_statistics()]


def mask_levels(network, group, index):
    """Return which columns of the heads remain if a group keeps the channels at `index`: (M, F)."""
    kept = torch.zeros(group.size, dtype=torch.bool, device=network.head.weight.device)
    kept[index] = True
    masks = []
    for name, n_statistics, channels in list_columns(network):
        mask = kept if name in group.levels else torch.ones_like(kept[:1]).expand(channels)
        mask = mask.view(-1, channels).expand(network.n_branches, -1)
        masks.append(mask.repeat(1, n_statistics))
    return torch.cat(masks, 1)


def _take_columns(head, index):
    """Return heads with the columns at an index (M, F), a row for each branch."""
    index = index.to(head.weight.device)
    n_branches, n_classes, _ = head.weight.shape
    made = _head_like(head, (n_branches, n_classes, index.shape[1]))
    made.weight.copy_(head.weight.gather(2, index[:, None].expand(-1, n_classes, -1)))
    made.bias.copy_(head.bias)
    if head.center is not None:
        made.center.copy_(head.center.gather(1, index))
        made.factor.copy_(head.factor.gather(1, index))
    return made


def _head_like(head, shape):
    n_branches, n_classes, n_features = shape
    made = BranchLinear(n_branches, n_features, n_classes, head.center is not None)
    return made.to(head.weight.device)


# ------------------------------------------------------------------------------- blocks


def removable_blocks(network):
    """Return the names of the blocks that repeat others; the other blocks cannot be removed."""
    return [name for name, block in list_blocks(network) if block.repeats]


def _index_columns(network):
    """Return {block name: list of indices, those of the columns of each statistic}."""
    found, first = {}, 0
    for name, n_statistics, channels in list_columns(network):
        found[name] = [first + channels * i + torch.arange(channels) for i in range(n_statistics)]
        first += n_statistics * channels
    return found


@torch.no_grad()
def drop_blocks(network, names):
    """Remove the blocks of the given names from an RRRNet, in place.

    The other blocks keep their names. Heads that read all blocks lose the columns of those removed,
    except for quadrants, which the heads then read of the block before.
    """
    before = _index_columns(network)
    for name in names:
        phase, _, position = name.rpartition(".")
        delattr(network.get_submodule(phase), position)
    if network.head_features == "all":
        quadrants = next((own[2:] for own in before.values() if len(own) > 2), None)
        index = []
        for name, n_statistics, _ in list_columns(network):
            own = before[name]
            index += own[:n_statistics] if n_statistics <= len(own) else [*own, *quadrants]
        columns = torch.cat(index).expand(network.n_branches, -1)
        network.head = _take_columns(network.head, columns)
    phases = [*network.stump.phases, *network.branches]
    network.blocks = tuple(map(count_blocks, phases))
    positions = tuple(tuple(int(name) for name, _ in phase.named_children()) for phase in phases)
    network.arguments = {**network.arguments, "blocks": positions}
    network.hold(network.frozen_names)


# ---------------------------------------------------------------------------- rebuilding


def reshape_like(network, tensors):
    """Give the layers of an RRRNet the shapes of a state dict, in place; weights become undefined.

    Parameters
    ----------
    network : RRRNet
        Network with the same blocks as the state dict.
    tensors : dict of str to Tensor
        State dict of a network whose channels were removed, or whose convolutions were replaced by
        pairs.
    """
    for name, module in list(network.named_modules()):
        weight = tensors.get(f"{name}.weight")
        if isinstance(module, nn.Conv2d):
            made = _conv_like(module, name, tensors)
        elif isinstance(module, nn.BatchNorm2d) and weight is not None:
            made = _norm_like(module, len(weight))
        elif isinstance(module, BranchLinear) and weight is not None:
            made = _head_like(module, weight.shape)
        else:
            continue
        network.set_submodule(name, made)
    network.is_reduced = True


def _conv_like(conv, name, tensors):
    if (basis := tensors.get(f"{name}.basis.weight")) is None:
        weight = tensors.get(f"{name}.weight")
        if weight is None:
            return conv
        # A depthwise convolution that lost channels has fewer groups.
        form = {"groups": min(conv.groups, len(weight))}
        return with_weight(conv, torch.empty_like(weight), **form)
    return ConvPair(
        with_weight(conv, torch.empty_like(basis)),
        with_weight(conv, torch.empty_like(tensors[f"{name}.mix.weight"]), **ConvPair.MIXING),
    )
