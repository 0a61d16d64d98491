"""Branches side by side, and how they take their kernels from a pre-trained network.

RRR-Net (arXiv:2310.01157), section 3.3 and Algorithm 2. M branches lie in the channels
of one network, branch by branch: (B, M·C, H, W).
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from sklearn_rrr.products import PRODUCTS, MatrixConv2d, choose

FORMS = ("auto", "grouped", "looped", "matrix")


class BranchConv2d(nn.Conv2d):
    """M convolutions side by side: (B, M·C_in, H, W) -> (B, M·C_out, h, w).

    An input of C_in channels is shared by all branches. The weight has one layout,
    (M·C_out, C_in / groups, k, k), for both.
    """

    form = "auto"

    def __init__(self, n_branches, conv):
        super().__init__(
            n_branches * conv.in_channels,
            n_branches * conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            n_branches * conv.groups,
            bias=False,
            device="meta",
        )
        self.n_branches = n_branches

    def forward(self, x):
        shared = x.shape[1] * self.n_branches == self.in_channels
        if self.form == "looped":
            return self._loop(x, shared)
        groups = self.groups // self.n_branches if shared else self.groups
        if products := self._matrix_products(x, groups):
            x, weight = x.bfloat16(), self.weight.bfloat16()
            geometry = self.stride[0], self.padding[0], groups
            return MatrixConv2d.apply(x, weight, *geometry, products)
        return self._convolve(x, self.weight, self.bias, groups)

    def _matrix_products(self, x, groups):
        """Return the products of a training step that are done as matrix products."""
        plain = self.bias is None and self.dilation == (1, 1)
        square = all(len({*pair}) == 1 for pair in (self.kernel_size, self.stride, self.padding))
        device = x.device.type
        fast = device == "cpu" and torch.is_autocast_enabled(device) and torch.is_grad_enabled()
        if not (plain and square and fast) or self.form == "grouped":
            return ()
        if torch.get_autocast_dtype(device) != torch.bfloat16:
            return ()
        if self.form == "matrix":
            return PRODUCTS
        kernel, stride = self.kernel_size[0], self.stride[0]
        if x.shape[3] == 1 and kernel > 1 and stride > 1:
            # torch 2.15 leaves what it found in memory in the gradient of taps on the padding.
            return ("weight",)
        rows = x.shape[0] * -(-x.shape[2] // stride) * -(-x.shape[3] // stride)
        return choose(rows, self.weight.shape[1], kernel, stride, groups)

    def _loop(self, x, shared):
        n = self.n_branches
        inputs = [x] * n if shared else x.chunk(n, 1)
        biases = [None] * n if self.bias is None else self.bias.chunk(n)
        parts = zip(inputs, self.weight.chunk(n), biases, strict=True)
        return torch.cat([self._convolve(*part, self.groups // n) for part in parts], 1)

    def _convolve(self, x, weight, bias, groups):
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class BranchLinear(nn.Module):
    """A linear head for each branch: (B, M, F) -> (B, M, K)."""

    def __init__(self, n_branches, in_features, out_features):
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as nn.Linear
        self.weight = nn.Parameter(
            torch.empty(n_branches, out_features, in_features).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(n_branches, out_features).uniform_(-bound, bound))

    def load_linear(self, linear):
        """Take the weights of one torch.nn.Linear (M = 1)."""
        with torch.no_grad():
            self.weight.copy_(linear.weight[None])
            self.bias.copy_(linear.bias[None])

    def forward(self, x):
        return torch.einsum("bmf,mkf->bmk", x, self.weight) + self.bias


def widen(module, n_branches):
    """Lay M copies of every convolution and norm of `module` side by side, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, BranchConv2d(n_branches, child))
        elif isinstance(child, nn.BatchNorm2d):
            norm = nn.BatchNorm2d(n_branches * child.num_features, child.eps, child.momentum)
            setattr(module, name, norm)
        else:
            widen(child, n_branches)


def take_branch(network, index):
    """Return a network of one branch: copies of the stump and of branch `index` of an RRRNet."""
    n_branches, member = network.n_branches, copy.deepcopy(network)
    member.n_branches = 1
    for child in [*member.branches.modules(), member.head]:
        for name in ("in_channels", "out_channels", "groups", "num_features", "n_branches"):
            if hasattr(child, name):
                setattr(child, name, getattr(child, name) // n_branches)
        for name, tensor in list(child.named_parameters(recurse=False)):
            part = tensor.detach().chunk(n_branches)[index].clone()
            setattr(child, name, nn.Parameter(part, tensor.requires_grad))
        for name, tensor in list(child.named_buffers(recurse=False)):
            if tensor.ndim:
                setattr(child, name, tensor.chunk(n_branches)[index].clone())
    return member


@torch.no_grad()
def put_branch(network, index, member):
    """Write the branch of a network that :func:`take_branch` made into branch `index`."""
    state = network.state_dict()  # shares its tensors
    for name, tensor in member.state_dict().items():
        if name.startswith(("branches.", "head.")):
            whole = state[name]
            part = whole.chunk(network.n_branches)[index] if tensor.ndim else whole
            part.copy_(tensor)


@torch.no_grad()
def split_kernels(pretrained, branches, n_branches, generator=None):
    """Fill the branches' convolutions from the pre-trained kernels, Algorithm 2.

    For every input channel the output channels of all branches are a fresh draw, so that
    kernels mix. A shortcut convolution that the backbone lacks keeps its initial weights.
    Norms are copied only where nothing is split (M = 1 at full width).
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
    """Return the weight of `target`, (M·C_b,out, C_b,in, k, k), drawn from (C_o,out, …)."""
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
    """Make every branch a true sub-network of the pre-trained phases; our own variant.

    The output channels of a layer are drawn once per branch, and the next layer, the
    shortcut and the norms use the same ones in the same order. Branches partition the
    channels where the widths allow it; else channels repeat across branches, never inside
    one.
    """
    phases = list(zip(pretrained, branches, strict=True))
    # Drawn before all others, so that they do not depend on the number of blocks.
    drawn = [
        _draw_channels(*_channels(source[0], target[0], n_branches), n_branches, generator)
        for source, target in phases
    ]
    inputs = None  # all channels of the stump
    for (source_phase, target_phase), outputs in zip(phases, drawn, strict=True):
        for source, target in zip(source_phase, target_phase, strict=True):
            _align_block(source, target, inputs, outputs, n_branches, generator)
            inputs = outputs


def _channels(source, target, n_branches):
    """Return the output channels of a block in the backbone and in one branch."""
    source, target = block_layers(source)[-1][0], block_layers(target)[-1][0]
    return source.out_channels, target.out_channels // n_branches


def block_layers(block):
    """Return the (convolution, norm) pairs of a block in order."""
    names = [name for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    return [(getattr(block, name), getattr(block, name.replace("conv", "bn"))) for name in names]


def _align_block(source, target, inputs, outputs, n_branches, generator):
    channels = inputs
    last = len(block_layers(source)) - 1
    pairs = list(zip(block_layers(source), block_layers(target), strict=True))
    for i, (old, new) in enumerate(pairs):
        if i == last:
            drawn = outputs
        elif i and old[0].groups > 1:
            drawn = channels  # a grouped convolution keeps to the groups of its input
        else:
            # The next convolution may be grouped: then every group gives its share.
            groups = pairs[i + 1][0][0].groups
            width = new[0].out_channels // n_branches
            drawn = _draw_channels(old[0].out_channels, width, n_branches, generator, groups)
        _align_layer(old, new, channels, drawn)
        channels = drawn
    if target.downsample is not None and source.downsample is not None:
        _align_layer(source.downsample, target.downsample, inputs, outputs)
    elif target.downsample is not None:
        _align_identity(target.downsample, outputs)


def _align_layer(old, new, inputs, outputs):
    """Copy the drawn rows and columns of a convolution, and the rows of its norm."""
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
    """Return kernel[:, columns]; in a grouped convolution each row has its own columns."""
    if conv.groups == 1:
        return kernel[:, columns]
    per_group = conv.in_channels // conv.groups
    columns = (columns % per_group).view(conv.groups, -1)  # columns are ordered by group
    group = rows // (conv.out_channels // conv.groups)
    return kernel[torch.arange(len(rows))[:, None], columns[group]]


def _align_identity(shortcut, outputs):
    """A shortcut that the backbone has as identity picks the drawn channels.

    Only the first phase after the stem has one, so that all channels are its input.
    """
    conv, norm = shortcut
    norm.running_var.fill_(1 - norm.eps)
    conv.weight.zero_()
    conv.weight[torch.arange(outputs.numel()), outputs.flatten()] = 1


def _draw_channels(total, width, n_branches, generator, groups=1):
    """Draw `width` of `total` channels for each branch: (M, width), ordered by group.

    Channels are dealt from shuffled decks, so that no channel is dealt a third time before
    all were dealt twice; inside a branch none repeats.
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
            # What is left over goes first; the same channels go to the end of the new deck.
            held = torch.isin(fresh, deck)
            deck = torch.cat([deck, fresh[~held], fresh[held]])
        hands.append(deck[:width])
        deck = deck[width:]
    return torch.stack(hands)
