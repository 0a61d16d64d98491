"""Groups of channels of a network that can only be removed together.

The channels of a stream, the output of blocks, form one group, since additions tie them: several
convolutions write and read them. The channels inside a block are written by one convolution and
read by another. A depthwise convolution follows the channels that it reads: it belongs to their
group, whose channels it passes on.
"""

import itertools
from dataclasses import dataclass, field

from torch import nn

from sklearn_rrr.backbones.block import is_depthwise, layer_names
from sklearn_rrr.networks.branch_layers import BranchLinear


@dataclass
class ChannelGroup:
    """Group of channels, described by the names of the modules of an RRRNet.

    Parameters
    ----------
    size : int
        Number of channels, C.
    is_stream : bool, default=False
        Whether the channels are those of a stream: outputs of blocks or of the stem.
    parts : int, default=1
        Number of consecutive equal parts, for branches or groups of a grouped convolution, that
        must lose the same number of channels each.
    writers : list of str
        Convolutions that write the channels.
    norms : list of str
        Norm after each of the writers.
    followers : list of str
        Depthwise convolutions that read the channels, each of which they pass on as one channel.
    follower_norms : list of str
        Norm after each of the followers.
    readers : list of str
        Other convolutions, or the head, that read the channels, themselves or from a follower.
    shared : list of str
        Readers and followers whose branches all read the same channels.
    levels : list of str
        Blocks whose outputs are the channels, and whose statistics the head reads.
    """

    size: int
    is_stream: bool = False
    parts: int = 1
    writers: list = field(default_factory=list)
    norms: list = field(default_factory=list)
    followers: list = field(default_factory=list)
    follower_norms: list = field(default_factory=list)
    readers: list = field(default_factory=list)
    shared: list = field(default_factory=list)
    levels: list = field(default_factory=list)
    _is_read: bool = field(default=False, init=False, repr=False)  # by others than followers

    @property
    def name(self):
        """Name of the group: its first writer."""
        return self.writers[0]

    @property
    def gates(self):
        """Norms whose zeros remove the channels: those of followers if nothing else reads them.

        If all branches follow the same channels, a norm has `size` channels for each branch.
        """
        return self.norms if self._is_read or not self.followers else self.follower_norms

    def write(self, modules, conv, norm):
        """Add a writer and its norm."""
        self.writers.append(conv)
        self.norms.append(norm)
        self.parts = max(self.parts, modules[conv].groups)

    def read(self, modules, reader, shared=False, followed=False):
        """Add a reader of the channels or, if `followed`, of what the last follower passes on."""
        self._is_read |= not followed
        self.readers.append(reader)
        if shared:
            self.shared.append(reader)
        else:
            self.parts = max(self.parts, _groups(modules[reader]))

    def follow(self, conv, norm, shared=False):
        """Add a depthwise convolution and its norm."""
        self.followers.append(conv)
        self.follower_norms.append(norm)
        if shared:
            self.shared.append(conv)


def _groups(module):
    return len(module.weight) if isinstance(module, BranchLinear) else module.groups


def list_blocks(network):
    """Yield the name and the module of each block of an RRRNet, in order."""
    for part in ("stump", "branches"):
        for i, phase in getattr(network, part).named_children():
            if isinstance(phase, nn.Sequential):
                for j, block in phase.named_children():
                    yield f"{part}.{i}.{j}", block


def list_stem(network):
    """Return the names and the modules of the layers before the first block of an RRRNet."""
    layers = network.stump.named_children()
    return [(f"stump.{i}", layer) for i, layer in layers if not isinstance(layer, nn.Sequential)]


def stem_layer(network):
    """Return the names of the convolution and of the norm of the stem."""
    # A convolution may have become a pair of convolutions, which has `out_channels`, too.
    (conv,) = [name for name, module in list_stem(network) if hasattr(module, "out_channels")]
    (norm,) = [name for name, module in list_stem(network) if isinstance(module, nn.BatchNorm2d)]
    return conv, norm


def list_layers(name, block):
    """Return the names in the network of a block's convolutions and their norms, as pairs."""
    return [(f"{name}.{conv}", f"{name}.{norm}") for conv, norm in layer_names(block)]


def find_groups(network, streams=True):
    """Find the channel groups of an RRRNet, from the first layer to the last.

    Parameters
    ----------
    network : RRRNet
        Network to analyse.
    streams : bool, default=True
        Whether the groups of the streams are included.

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
    modules, blocks, groups = dict(network.named_modules()), list(list_blocks(network)), []
    stream = _start(groups, modules, *stem_layer(network), is_stream=True)
    for name, block in blocks:
        # All branches of the first block after the split read the same stump.
        shared = block is network.branches[0][0]
        layers = list_layers(name, block)
        _trace(groups, modules, stream, layers, shared)
        if not block.has_shortcut:
            stream = _start(groups, modules, *layers[-1], is_stream=True)
        elif block.downsample is None:
            stream.write(modules, *layers[-1])
        else:
            stream.read(modules, f"{name}.downsample.0", shared)
            stream = _start(groups, modules, *layers[-1], is_stream=True)
            stream.write(modules, f"{name}.downsample.0", f"{name}.downsample.1")
        if network.head_features == "all" or block is blocks[-1][1]:
            stream.levels.append(name)
    for group in groups:
        if group.levels:
            group.read(modules, "head", shared=group.levels[-1].startswith("stump."))
    return [group for group in groups if streams or not group.is_stream]


def _start(groups, modules, conv, norm, is_stream=False):
    """Add the group of the channels that a convolution writes."""
    group = ChannelGroup(modules[conv].out_channels, is_stream)
    group.write(modules, conv, norm)
    groups.append(group)
    return group


def _trace(groups, modules, stream, layers, shared):
    """Let the layers of a block follow and read a stream, and add the groups inside the block."""
    group, followed = stream, False
    for layer, following in itertools.zip_longest(layers, layers[1:]):
        conv = modules[layer[0]]
        shared = shared and group is stream
        if following is not None and isinstance(conv, nn.Conv2d) and is_depthwise(conv):
            group.follow(*layer, shared)
            followed = True
            continue
        group.read(modules, layer[0], shared, followed)
        if following is not None:
            group, followed = _start(groups, modules, *layer), False
