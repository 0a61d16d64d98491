"""Groups of channels of a network that can only be removed together.

The channels of a residual stream form one group, since additions tie them: several convolutions
write and read them. The channels inside a block are written by one convolution and read by another.
"""

import itertools
from dataclasses import dataclass, field

from torch import nn

from sklearn_rrr.backbones.block import block_layers, layer_names
from sklearn_rrr.networks.branch_layers import BranchLinear


@dataclass
class ChannelGroup:
    """Group of channels, described by the names of the modules of an RRRNet.

    Parameters
    ----------
    size : int
        Number of channels, C.
    is_stream : bool, default=False
        Whether the channels are those of a residual stream.
    parts : int, default=1
        Number of consecutive equal parts, for branches or groups of a grouped convolution, that
        must lose the same number of channels each.
    writers : list of str
        Convolutions that write the channels.
    norms : list of str
        Norm after each of the writers.
    readers : list of str
        Convolutions, or the head, that read the channels.
    shared : list of str
        Readers whose branches all read the same channels.
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
        """Name of the group: its first writer."""
        return self.writers[0]

    def write(self, modules, conv, norm):
        """Add a writer and its norm."""
        self.writers.append(conv)
        self.norms.append(norm)
        self.parts = max(self.parts, modules[conv].groups)

    def read(self, modules, reader, shared=False):
        """Add a reader."""
        self.readers.append(reader)
        if shared:
            self.shared.append(reader)
        else:
            self.parts = max(self.parts, _groups(modules[reader]))


def _groups(module):
    return len(module.weight) if isinstance(module, BranchLinear) else module.groups


def list_blocks(network):
    """Yield the name and the module of each residual block of an RRRNet, in order."""
    for part in ("stump", "branches"):
        for i, phase in getattr(network, part).named_children():
            if isinstance(phase, nn.Sequential):
                for j, block in phase.named_children():
                    yield f"{part}.{i}.{j}", block


def list_layers(name, block):
    """Return the names of the convolutions of a block and of their norms, as pairs in order."""
    numbers = range(1, len(block_layers(block)) + 1)
    return [(f"{name}.conv{i}", f"{name}.bn{i}") for i in numbers]


def find_groups(network, streams=True):
    """Find the channel groups of an RRRNet, from the first layer to the last.

    Parameters
    ----------
    network : RRRNet
        Network to analyse.
    streams : bool, default=True
        Whether the groups of the residual streams are included.

    Returns
    -------
    groups : list of ChannelGroup
        In the order of their first writers.

    Examples
    --------
    >>> from sklearn_rrr import load_backbone
    >>> from sklearn_rrr.networks.rrr_net import RRRNet
    >>> network = RRRNet(load_backbone("resnet18", weights=None)[0], 3, blocks=(1, 1, 1, 1))
    >>> stream, inside, *_ = find_groups(network)
    >>> stream.writers, inside.writers, inside.readers
    (['stump.0', 'stump.4.0.conv2'], ['stump.4.0.conv1'], ['stump.4.0.conv2'])
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
        # All branches of the first block after the split read the same stump.
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
