"""Networks made smaller: which channels belong together, and how they are taken out.

Channels that additions tie belong to one group: those of a residual stream, which several
convolutions write and read. The channels inside a block belong to two convolutions only.
"""

import itertools
from dataclasses import dataclass, field

import torch
from torch import nn

from sklearn_rrr.branching import BranchLinear, block_layers
from sklearn_rrr.factors import ConvPair, with_weight


@dataclass
class ChannelGroup:
    """Channels that can only be removed together, by the names of an RRRNet's modules.

    Parameters
    ----------
    size : int
        C, their number.
    is_stream : bool
        Whether they are a residual stream.
    parts : int
        Consecutive equal parts that must lose as many channels each: branches, groups.
    writers, norms, readers : list of str
        Convolutions that write the channels, the norms that follow, and convolutions, or the
        head, that read them.
    shared : list of str
        Readers all of whose branches read the same channels.
    """

    size: int
    is_stream: bool = False
    parts: int = 1
    writers: list = field(default_factory=list)
    norms: list = field(default_factory=list)
    readers: list = field(default_factory=list)
    shared: list = field(default_factory=list)

    @property
    def name(self):
        """Return the name of the convolution that writes the channels, the first of several."""
        return self.writers[0]

    def write(self, modules, conv, norm):
        """Add a convolution that writes the channels, and its norm."""
        self.writers.append(conv)
        self.norms.append(norm)
        self.parts = max(self.parts, modules[conv].groups)

    def read(self, modules, reader, shared=False):
        """Add a module that reads the channels."""
        self.readers.append(reader)
        if shared:
            self.shared.append(reader)
        else:
            self.parts = max(self.parts, _groups(modules[reader]))


def _groups(module):
    return len(module.weight) if isinstance(module, BranchLinear) else module.groups


def list_blocks(network):
    """Yield the residual blocks of an RRRNet in order, each with its name."""
    for part in ("stump", "branches"):
        for i, phase in getattr(network, part).named_children():
            if isinstance(phase, nn.Sequential):
                for j, block in phase.named_children():
                    yield f"{part}.{i}.{j}", block


def list_layers(name, block):
    """Return the names of the convolutions of a block, and of their norms, in order."""
    numbers = range(1, len(block_layers(block)) + 1)
    return [(f"{name}.conv{i}", f"{name}.bn{i}") for i in numbers]


def find_groups(network, streams=True):
    """Return the channel groups of an RRRNet, from its first layer to its last.

    Parameters
    ----------
    network : RRRNet
    streams : bool, default=True
        Whether those of the residual streams are among them.

    Returns
    -------
    groups : list of ChannelGroup
    """
    modules = dict(network.named_modules())

    def start(conv, norm, is_stream=False):
        group = ChannelGroup(modules[conv].out_channels, is_stream)
        group.write(modules, conv, norm)
        groups.append(group)
        return group

    groups, is_split = [], False
    stream = start("stump.0", "stump.1", is_stream=True)
    for name, block in list_blocks(network):
        layers = list_layers(name, block)
        # The first block after the split reads the one stump.
        shared = not is_split and name.startswith("branches.")
        is_split |= shared
        stream.read(modules, layers[0][0], shared)
        for layer, (reader, _) in itertools.pairwise(layers):
            start(*layer).read(modules, reader)
        if block.downsample is None:
            stream.write(modules, *layers[-1])
        else:
            stream.read(modules, f"{name}.downsample.0", shared)
            stream = start(*layers[-1], is_stream=True)
            stream.write(modules, f"{name}.downsample.0", f"{name}.downsample.1")
    stream.read(modules, "head")
    return [group for group in groups if streams or not group.is_stream]


# ------------------------------------------------------------------------------ removal


@torch.no_grad()
def keep_channels(network, group, index):
    """Take all channels of a group but some out of an RRRNet, in place.

    Parameters
    ----------
    network : RRRNet
    group : ChannelGroup
    index : Tensor of int
        Positions of those that stay, in order, as many in each of the group's parts.
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
    """Return positions among all channels as positions inside each part: (parts, n)."""
    return index.view(parts, -1) - size * torch.arange(parts, device=index.device)[:, None]


def _norm_like(norm, size):
    made = nn.BatchNorm2d(size, norm.eps, norm.momentum, device=norm.weight.device)
    return made.train(norm.training)


def _head_like(head, shape):
    n_branches, n_classes, n_features = shape
    return BranchLinear(n_branches, n_features, n_classes).to(head.weight.device)


def removable_blocks(network):
    """Return the names of the blocks that can be left out: all but the first of each phase."""
    return [name for name, _ in list_blocks(network) if not name.endswith(".0")]


def drop_blocks(network, names):
    """Leave blocks out of an RRRNet, in place."""
    for phase in {name.rpartition(".")[0] for name, _ in list_blocks(network)}:
        blocks = network.get_submodule(phase).named_children()
        kept = [block for i, block in blocks if f"{phase}.{i}" not in names]
        network.set_submodule(phase, nn.Sequential(*kept))
    phases = [name.rpartition(".")[0] for name, _ in list_blocks(network)]
    network.blocks = tuple(len(list(phase)) for _, phase in itertools.groupby(phases))
    network.arguments = {**network.arguments, "blocks": network.blocks}


# ---------------------------------------------------------------------------- rebuilding


def reshape_like(network, tensors):
    """Give an RRRNet the shapes of a state dict, in place; its weights are of no use then.

    Parameters
    ----------
    network : RRRNet
        As many blocks as in the state dict.
    tensors : dict of str to Tensor
        Of a network that was made smaller by this module, or by pairs of convolutions.
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
