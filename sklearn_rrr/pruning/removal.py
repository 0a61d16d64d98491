"""Removal of channels and blocks from a network."""

import itertools

import torch
from torch import nn

from sklearn_rrr.networks.branch_layers import BranchLinear
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
    for name in group.writers + group.norms:
        network.set_submodule(name, _keep_outputs(network.get_submodule(name), index))
    for name in group.readers:
        module = network.get_submodule(name)
        network.set_submodule(name, _keep_inputs(module, index, name in group.shared))
    network.is_reduced = True
    network.hold(network.frozen_names)


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
    return with_weight(module, module.weight[index], bias)


def _keep_inputs(module, index, shared):
    if isinstance(module, ConvPair):
        return ConvPair(_keep_inputs(module.basis, index, shared), module.mix).smallest()
    if isinstance(module, BranchLinear):
        columns = _inside_parts(index, len(module.weight), module.weight.shape[2])
        kept = [part[:, i] for part, i in zip(module.weight, columns, strict=True)]
        head = _head_like(module, torch.stack(kept).shape)
        head.weight.copy_(torch.stack(kept))
        head.bias.copy_(module.bias)
        return head
    groups = module.groups // module.n_branches if shared else module.groups
    columns = _inside_parts(index, groups, module.weight.shape[1])
    kept = [part[:, i] for part, i in zip(module.weight.chunk(groups), columns, strict=True)]
    return with_weight(module, torch.cat(kept), module.bias)


def _inside_parts(index, parts, size):
    """Convert positions among all channels to positions in each part: (parts, n)."""
    return index.view(parts, -1) - size * torch.arange(parts, device=index.device)[:, None]


def _norm_like(norm, size):
    made = nn.BatchNorm2d(size, norm.eps, norm.momentum, device=norm.weight.device)
    return made.train(norm.training)


def _head_like(head, shape):
    n_branches, n_classes, n_features = shape
    return BranchLinear(n_branches, n_features, n_classes).to(head.weight.device)


def removable_blocks(network):
    """Return the names of all blocks but the first of each phase, which cannot be removed."""
    return [name for name, _ in list_blocks(network) if not name.endswith(".0")]


def drop_blocks(network, names):
    """Remove the blocks of the given names from an RRRNet, in place."""
    for phase in {name.rpartition(".")[0] for name, _ in list_blocks(network)}:
        blocks = network.get_submodule(phase).named_children()
        kept = [block for i, block in blocks if f"{phase}.{i}" not in names]
        network.set_submodule(phase, nn.Sequential(*kept))
    phases = [name.rpartition(".")[0] for name, _ in list_blocks(network)]
    network.blocks = tuple(len(list(phase)) for _, phase in itertools.groupby(phases))
    network.arguments = {**network.arguments, "blocks": network.blocks}


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
        return conv if weight is None else with_weight(conv, torch.empty_like(weight))
    return ConvPair(
        with_weight(conv, torch.empty_like(basis)),
        with_weight(conv, torch.empty_like(tensors[f"{name}.mix.weight"]), **ConvPair.MIXING),
    )
