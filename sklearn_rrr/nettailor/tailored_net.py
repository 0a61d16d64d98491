"""Pre-trained network with lean proxies beside its blocks: NetTailor (CVPR 2019).

Morgado and Vasconcelos (2019), NetTailor: Tuning the architecture, not just the weights. Node l
of a network of L blocks is x_l = ReLU(α G_l(x_{l-1}) + Σ_p α_p A_p(x_p)), Eq. (2) and (4): G_l is
the pre-trained, "universal" block without its last ReLU, A_p a proxy from node p. Blocks that end
with another activation function, or with none, have it in place of the ReLU. A softmax yields the
α of each node, Eq. (3). :mod:`~sklearn_rrr.nettailor.paths` defines paths.
B is the batch size, K the number of classes.
"""

import copy
from functools import reduce
from itertools import pairwise
from operator import add

import torch
from torch import nn

from sklearn_rrr._validation import check_choice
from sklearn_rrr.backbones.block import block_layers, initialise
from sklearn_rrr.nettailor.paths import BLOCK, all_paths, close
from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.networks.image_network import ImageNetwork, Normalize
from sklearn_rrr.networks.levels import Stump, describe

# "One critical detail is the initialization" (section 4.1): start near the pre-trained network.
START = {"block": 2.0, "proxy": -2.0}


class TailoredNet(ImageNetwork):
    """Network of a backbone's blocks and proxies, weighted by attention, with one head.

    Parameters
    ----------
    backbone : Backbone
        Source of the blocks; it is copied, never changed.
    n_classes : int
        K, the number of classes.
    n_skips : int, default=3
        Number of proxies into each node, from the nearest earlier nodes.
    paths : iterable of (int, str or int) or None, default=None
        Paths of the network, see :mod:`~sklearn_rrr.nettailor.paths`; None uses all paths that
        `n_skips` allows. They must be closed under exclusion.
    static : bool, default=False
        Whether the attention is fixed. Fixed attention is part of the proxies' last norms and
        a scale on the block, if the node has proxies. Otherwise the network is soft.

    Attributes
    ----------
    arguments : dict
        Constructor arguments that rebuild a network of this shape with other weights.
    n_nodes : int
        L, the number of blocks in the backbone.
    paths : tuple
        Paths of the network.

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr import load_backbone
    >>> backbone, _ = load_backbone("synth50", weights=None)
    >>> net = TailoredNet(backbone, n_classes=3).eval()
    >>> net(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 1, 3])
    """

    n_branches = 1
    head_features = "last"

    def __init__(self, backbone, n_classes, *, n_skips=3, paths=None, static=False):
        super().__init__()
        self.n_classes, self.image_size = n_classes, backbone.image_size
        self.backbone_name = backbone.name
        blocks = [block for phase in backbone.phases for block in phase]
        self.n_nodes = len(blocks)
        possible = all_paths(self.n_nodes, self.n_nodes)
        wanted = all_paths(self.n_nodes, n_skips) if paths is None else paths
        paths = _check_paths(wanted, possible, self.n_nodes)
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.stump = copy.deepcopy(Stump(*backbone.stem))
        self.branches = _Graph(blocks, backbone.in_channels(0), paths, static)
        self.head = BranchLinear(1, backbone.n_features, n_classes)
        self.arguments = {"n_classes": n_classes, "paths": paths, "static": static}

    @property
    def paths(self):
        return self.arguments["paths"]

    def freeze(self, trainable="proxies"):
        """Train proxies, attention and head; freeze the weights of the shared stem and blocks.

        The statistics of all norms are specific to the task, and change in training mode.
        """
        check_choice("trainable", trainable, ("proxies",))
        self.requires_grad_(True)
        self.stump.requires_grad_(False)
        for node in self.branches.nodes.values():
            if node.block is not None:
                node.block.requires_grad_(False)
        return self.train(self.training)

    def list_statistics(self):
        """Return what the head reads, as a list of (module, statistics, channels)."""
        *_, last = self.branches.nodes.values()
        return [(last, 1, self.head.weight.shape[2])]

    def alphas(self):
        """Return the attention of each path of a soft network, {path: scalar tensor}."""
        attention = {number: node.attention() for number, node in self.branches.nodes.items()}
        return {path: attention[str(path[0])][i] for path, _, i in self._list_paths()}

    def restrict(self, paths):
        """Return a copy with fewer paths, whose attention is normalised anew."""
        network = copy.deepcopy(self)
        paths = _check_paths(paths, self.paths, self.n_nodes)
        for number, node in list(network.branches.nodes.items()):
            kept = [origin for target, origin in paths if target == int(number)]
            if kept:
                node.keep(kept)
            else:
                del network.branches.nodes[number]
        network.arguments = {**self.arguments, "paths": paths}
        return network

    @torch.no_grad()
    def adopt(self, other):
        """Copy the weights of the paths shared with another soft network, in place."""
        state, given = self.state_dict(), other.state_dict()
        state |= {key: given[key] for key in state.keys() & given.keys() if "logits" not in key}
        self.load_state_dict(state)
        alphas = {path: node.logits[i] for path, node, i in other._list_paths()}
        for path, node, i in self._list_paths():
            if path in alphas:
                node.logits[i] = alphas[path]

    def _list_paths(self):
        """Yield each path, its node and its index among the paths into the node."""
        for number, node in self.branches.nodes.items():
            for i, origin in enumerate(node.origins):
                yield (int(number), origin), node, i

    def make_static(self):
        """Return a copy with fixed attention and the same outputs up to rounding."""
        network = copy.deepcopy(self)
        for node in network.branches.nodes.values():
            node.fix()
        network.arguments = {**self.arguments, "static": True}
        return network

    def shared_keys(self):
        """Return the keys of the state dict with unchanged values from the backbone.

        These are the weights of the stem and of the blocks, including their norms.
        """
        names = [name for name, _ in self.named_parameters()]
        return [name for name in names if name.startswith("stump.") or ".block." in name]

    def task_keys(self):
        """Return the keys of the state dict that are specific to the task."""
        others = {"normalize.mean", "normalize.std", *self.shared_keys()}
        return [key for key in self.state_dict() if key not in others]


def _check_paths(paths, possible, n_nodes):
    """Return `paths` as a tuple in the order of `possible`, if they form a network."""
    given = tuple((node, origin) for node, origin in paths)
    kept = tuple(path for path in possible if path in set(given))
    if len(kept) != len(given) or not kept or close(kept, n_nodes) != kept:
        raise ValueError(
            f"`paths` must be pairs (node, origin) of a network of {n_nodes} blocks, each on "
            f"a route from node 0 to node {n_nodes}; got {given!r}."
        )
    return kept


class _Graph(nn.Module):
    """Nodes in order: stem output (B, C, h, w) -> means of the last node's output (B, 1, F)."""

    def __init__(self, blocks, channels, paths, static):
        super().__init__()
        widths, strides = [channels], [1]
        for block in blocks:
            widths.append(block_layers(block)[-1][0].out_channels)
            strides.append(strides[-1] * block.stride)
        self.nodes = nn.ModuleDict()
        for number, block in enumerate(blocks, 1):
            origins = [origin for node, origin in paths if node == number]
            if not origins:
                continue
            proxies = {
                str(p): make_proxy(widths[p], widths[number], strides[number] // strides[p], block)
                for p in origins
                if p != BLOCK
            }
            self.nodes[str(number)] = _Node(number, block, BLOCK in origins, proxies, static)

    def forward(self, x):
        outputs = {0: x}
        for number, node in self.nodes.items():
            last = outputs[int(number)] = node(outputs)
        return describe(last, 1, 1)[0]


class _Node(nn.Module):
    """Node that computes its output from the outputs of earlier nodes.

    Without its block, it keeps the activation of this kind of block.
    """

    def __init__(self, number, block, has_block, proxies, static):
        super().__init__()
        self.number, self.proxies = number, nn.ModuleDict(proxies)
        self.block = copy.deepcopy(block) if has_block else None
        self.kind, self.relu = type(block), copy.deepcopy(block.relu)
        starts = [START["block" if origin == BLOCK else "proxy"] for origin in self.origins]
        self.logits = nn.Parameter(torch.tensor(starts))
        self.register_buffer("scale", None)
        self.shortcut_scale, self.expand = 1.0, None
        if static:
            self.fix()

    @property
    def origins(self):
        block = [] if self.block is None else [BLOCK]
        return [*block, *map(int, self.proxies)]

    def attention(self):
        return self.logits.softmax(0)

    def forward(self, outputs):
        parts = [self.run(origin, outputs) for origin in self.origins]
        if self.logits is not None:
            pairs = zip(self.attention(), parts, strict=True)
            parts = [alpha * part for alpha, part in pairs]
        elif self.scale is not None:
            parts[0] = parts[0] * self.scale
        if self.expand is not None:
            n_blocks = int(self.block is not None)
            parts[n_blocks:] = [self.expand(torch.cat(parts[n_blocks:], 1))]
        return self.kind.activate(self, reduce(add, parts))  # which needs `relu` only

    def part(self, origin):
        return self.block if origin == BLOCK else self.proxies[str(origin)]

    def run(self, origin, outputs):
        if origin == BLOCK:
            return self.block.before_activation(outputs[self.number - 1], self.shortcut_scale)
        return self.part(origin)(outputs[origin])

    def keep(self, origins):
        """Remove the paths of all other origins, in place."""
        index = [self.origins.index(origin) for origin in origins]
        self.logits = nn.Parameter(self.logits.detach()[index], self.logits.requires_grad)
        if BLOCK not in origins:
            self.block = None
        for origin in set(self.proxies) - set(map(str, origins)):
            del self.proxies[origin]

    @torch.no_grad()
    def fix(self):
        """Write the attention into the proxies' norms and the block's scale, in place."""
        alphas = dict(zip(self.origins, self.attention(), strict=True))
        for origin, proxy in self.proxies.items():
            proxy[-1].weight.mul_(alphas[int(origin)])
            proxy[-1].bias.mul_(alphas[int(origin)])
        if self.block is not None and self.proxies:
            self.scale = alphas[BLOCK].clone()
        self.logits = None

    @torch.no_grad()
    def fuse(self):
        """Merge operations of a node with fixed attention and folded norms, in place."""
        if self.scale is not None:
            last = block_layers(self.block)[-1][0]
            shortcut = self.block.downsample
            for conv in (last,) if shortcut is None else (last, shortcut[0]):
                conv.weight.mul_(self.scale)
                conv.bias.mul_(self.scale)
            self.shortcut_scale = self.scale.item() if shortcut is None else 1.0
            self.scale = None
        if self.logits is None and self.expand is None and len(self.proxies) > 1:
            self._join_proxies()

    def _join_proxies(self):
        lasts = [proxy[-2] for proxy in self.proxies.values()]
        if all(conv.in_channels < conv.out_channels for conv in lasts):
            # A sum of 1x1 convolutions equals one convolution of their concatenated inputs.
            self.expand = nn.Conv2d(sum(c.in_channels for c in lasts), lasts[0].out_channels, 1)
            self.expand.requires_grad_(False).to(lasts[0].weight)
            self.expand.weight.copy_(torch.cat([conv.weight for conv in lasts], 1))
            self.expand.bias.copy_(sum(conv.bias for conv in lasts))
            for origin, proxy in self.proxies.items():
                self.proxies[origin] = proxy[:-2]


def make_proxy(in_channels, out_channels, stride, block):
    """Return a proxy with initial weights: max-pooling to the node's size, 1x1 convolutions.

    Beside a basic block, it has one convolution and norm (section 3.3); beside a bottleneck, two,
    with a quarter of the bottleneck's width between them (section 4.1, depth of the pre-trained
    model). ``block.proxy_width`` is this width, or None for one convolution.
    """
    pool = []
    if stride > 1:
        # This window and padding give the same output size as strided blocks, with any padding.
        pool.append(nn.MaxPool2d(stride + 1, stride, padding=stride // 2))
    widths = [in_channels, out_channels]
    if block.proxy_width is not None:
        widths.insert(1, block.proxy_width)
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    proxy = nn.Sequential(*pool, *layers[:-1])
    initialise(proxy)
    return proxy
