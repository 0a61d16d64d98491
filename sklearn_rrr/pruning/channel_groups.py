"""Networks made smaller: which channels belong together, and how they are taken out.

Channels that additions tie belong to one group: those of a residual stream, which several
convolutions write and read. The channels inside a block belong to two convolutions only.
"""

import itertools
from dataclasses import dataclass, field

from torch import nn

from sklearn_rrr.backbones.backbone import block_layers
from sklearn_rrr.networks.branch_layers import BranchLinear


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
