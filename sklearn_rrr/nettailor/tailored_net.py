"""A pre-trained network with lean proxies beside its blocks: NetTailor (CVPR 2019).

Morgado and Vasconcelos (2019), NetTailor: Tuning the architecture, not just the weights. Node l
of a network of L residual blocks is x_l = ReLU(α G_l(x_{l-1}) + Σ_p α_p A_p(x_p)), Eq. (2) and
(4): G_l is the pre-trained, "universal" block without its last ReLU, A_p a proxy from node p, and
the α of a node are a softmax, Eq. (3). :mod:`~sklearn_rrr.nettailor.paths` says what a path is.
B is the batch, K the number of classes.
"""

import copy
from functools import reduce
from itertools import pairwise
from operator import add

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import Bottleneck

from sklearn_rrr._validation import check_choice
from sklearn_rrr.backbones.backbone import block_layers, initialise
from sklearn_rrr.nettailor.paths import BLOCK, all_paths, close
from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.networks.image_network import ImageNetwork, Normalize

# "One critical detail is the initialization" (section 4.1): the network starts as the pre-trained.
START = {"block": 2.0, "proxy": -2.0}
SQUEEZE = 4  # from a bottleneck's width to that of its proxies


class TailoredNet(ImageNetwork):
    """The blocks of a backbone and proxies beside them, weighed by attention; one head.

    Parameters
    ----------
    backbone : Backbone
        Where the blocks come from; it is copied, never changed.
    n_classes : int
        K, the number of classes.
    n_skips : int, default=3
        Proxies into each node, from as many nearest earlier nodes.
    paths : iterable of (int, str or int) or None, default=None
        The paths that are there, see :mod:`~sklearn_rrr.nettailor.paths`; None takes all of
        `n_skips`. They must be closed under exclusion.
    static : bool, default=False
        Whether the attention is fixed: a scale of each block, where it is not alone, and part of
        the proxies' last norms.

    Attributes
    ----------
    arguments : dict
        Those that make a network of this shape again, with other weights.
    n_nodes : int
        L.
    paths : tuple

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
        self.stump = copy.deepcopy(backbone.stem)
        self.branches = _Graph(blocks, backbone.planes[0], paths, static)
        self.head = BranchLinear(1, backbone.n_features, n_classes)
        self.arguments = {"n_classes": n_classes, "paths": paths, "static": static}

    @property
    def paths(self):
        return self.arguments["paths"]

    def freeze(self, trainable="proxies"):
        """Let the proxies, the attention and the head learn; stem and blocks are shared.

        The statistics of all norms belong to the task: they follow its images in training mode.
        """
        check_choice("trainable", trainable, ("proxies",))
        self.requires_grad_(True)
        self.stump.requires_grad_(False)
        for node in self.branches.nodes.values():
            if node.block is not None:
                node.block.requires_grad_(False)
        return self.train(self.training)

    def alphas(self):
        """Return the attention of each path, {path: scalar tensor}; not of a static network."""
        attention = {number: node.attention() for number, node in self.branches.nodes.items()}
        return {path: attention[str(path[0])][i] for path, _, i in self._list_paths()}

    def restrict(self, paths):
        """Return a copy with fewer paths; the attention of those left is normalised anew."""
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
        """Take the weights of the paths that are in another soft network, too, in place."""
        state, given = self.state_dict(), other.state_dict()
        state |= {key: given[key] for key in state.keys() & given.keys() if "logits" not in key}
        self.load_state_dict(state)
        alphas = {path: node.logits[i] for path, node, i in other._list_paths()}
        for path, node, i in self._list_paths():
            if path in alphas:
                node.logits[i] = alphas[path]

    def _list_paths(self):
        """Yield each path, its node and its position among those into the node."""
        for number, node in self.branches.nodes.items():
            for i, origin in enumerate(node.origins):
                yield (int(number), origin), node, i

    def make_static(self):
        """Return a copy with fixed attention that gives the same numbers, but for rounding."""
        network = copy.deepcopy(self)
        for node in network.branches.nodes.values():
            node.fix()
        network.arguments = {**self.arguments, "static": True}
        return network

    def shared_keys(self):
        """Return the keys of the state dict that come from the backbone as they are.

        The weights of the stem and of the blocks, those of their norms included.
        """
        names = [name for name, _ in self.named_parameters()]
        return [name for name in names if name.startswith("stump.") or ".block." in name]

    def task_keys(self):
        """Return the keys of the state dict that belong to the task alone."""
        others = {"normalize.mean", "normalize.std", *self.shared_keys()}
        return [key for key in self.state_dict() if key not in others]


def _check_paths(paths, possible, n_nodes):
    """Return paths as a tuple in the order of the possible ones, if they make a network."""
    given = tuple((node, origin) for node, origin in paths)
    kept = tuple(path for path in possible if path in set(given))
    if len(kept) != len(given) or not kept or close(kept, n_nodes) != kept:
        raise ValueError(
            f"`paths` must be paths (node, origin) of a network of {n_nodes} blocks, each one "
            f"part of a route from node 0 to node {n_nodes}; got {given!r}."
        )
    return kept


class _Graph(nn.Module):
    """The nodes in order: (B, C, h, w), the stem's output, -> (B, F, h', w') of the last."""

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
            own = copy.deepcopy(block) if BLOCK in origins else None
            self.nodes[str(number)] = _Node(number, own, proxies, static)

    def forward(self, x):
        outputs = {0: x}
        for number, node in self.nodes.items():
            last = outputs[int(number)] = node(outputs)
        return last


class _Node(nn.Module):
    """One node: from the outputs of earlier nodes to its own."""

    def __init__(self, number, block, proxies, static):
        super().__init__()
        self.number, self.block, self.proxies = number, block, nn.ModuleDict(proxies)
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
        return F.relu_(reduce(add, parts))

    def part(self, origin):
        return self.block if origin == BLOCK else self.proxies[str(origin)]

    def run(self, origin, outputs):
        if origin == BLOCK:
            return run_block(self.block, outputs[self.number - 1], self.shortcut_scale)
        return self.part(origin)(outputs[origin])

    def keep(self, origins):
        """Drop the paths of other origins, in place."""
        index = [self.origins.index(origin) for origin in origins]
        self.logits = nn.Parameter(self.logits.detach()[index], self.logits.requires_grad)
        if BLOCK not in origins:
            self.block = None
        for origin in set(self.proxies) - set(map(str, origins)):
            del self.proxies[origin]

    @torch.no_grad()
    def fix(self):
        """Write the attention into the proxies' norms and a scale, in place."""
        alphas = dict(zip(self.origins, self.attention(), strict=True))
        for origin, proxy in self.proxies.items():
            proxy[-1].weight.mul_(alphas[int(origin)])
            proxy[-1].bias.mul_(alphas[int(origin)])
        if self.block is not None and self.proxies:
            self.scale = alphas[BLOCK].clone()
        self.logits = None

    @torch.no_grad()
    def fuse(self):
        """Do the same in fewer passes, in place; for a fixed node whose norms are folded."""
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
            # The sum of convolutions is one, of all their inputs side by side.
            self.expand = nn.Conv2d(sum(c.in_channels for c in lasts), lasts[0].out_channels, 1)
            self.expand.requires_grad_(False).to(lasts[0].weight)
            self.expand.weight.copy_(torch.cat([conv.weight for conv in lasts], 1))
            self.expand.bias.copy_(sum(conv.bias for conv in lasts))
            for origin, proxy in self.proxies.items():
                self.proxies[origin] = proxy[:-2]


def run_block(block, x, shortcut_scale=1.0):
    """Return what torchvision's residual block gives before its last ReLU: G_l."""
    shortcut = x if block.downsample is None else block.downsample(x)
    *first, (conv, norm) = block_layers(block)
    for earlier_conv, earlier_norm in first:
        x = block.relu(earlier_norm(earlier_conv(x)))
    return torch.add(norm(conv(x)), shortcut, alpha=shortcut_scale)


def make_proxy(in_channels, out_channels, stride, block):
    """Make a proxy with initial weights: max-pool to the resolution, then 1x1 convolutions.

    Beside basic blocks one convolution and a norm (section 3.3), beside bottlenecks two, with a
    quarter of the bottleneck's width between them (section 4.1, depth of the pre-trained model).
    """
    pool = []
    if stride > 1:
        # A window of stride + 1 with this padding gives the size that strided blocks give.
        pool.append(nn.MaxPool2d(stride + 1, stride, padding=stride // 2))
    widths = [in_channels, out_channels]
    if isinstance(block, Bottleneck):
        widths.insert(1, max(block.conv2.out_channels // SQUEEZE, 1))
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    proxy = nn.Sequential(*pool, *layers[:-1])
    initialise(proxy)
    return proxy
