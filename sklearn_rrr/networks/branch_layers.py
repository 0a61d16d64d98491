"""Layers of M branches that run side by side in one network.

RRR-Net (arXiv:2310.01157), section 3.3. The channels of the branches are concatenated,
branch by branch: (B, M·C, H, W).
"""

import copy
import math

import torch
from torch import nn

from sklearn_rrr.networks.matrix_products import PRODUCTS, MatrixConv2d, choose
from sklearn_rrr.networks.onednn_convolutions import OneDNNConv2d

FORMS = ("auto", "grouped", "looped", "matrix")


class BranchConv2d(OneDNNConv2d):
    """M convolutions side by side: (B, M·C_in, H, W) -> (B, M·C_out, h, w).

    An input with only C_in channels is shared by all branches. The weight has the shape
    (M·C_out, C_in / groups, k, k) in both cases.
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
        if shared and self.groups > self.n_branches > 1:  # a depthwise convolution reads the stump
            x, shared = x.repeat(1, self.n_branches, 1, 1), False
        if self.form == "looped":
            return self._loop(x, shared)
        groups = self.groups // self.n_branches if shared else self.groups
        if products := self._matrix_products(x, groups):
            x, weight = x.bfloat16(), self.weight.bfloat16()
            geometry = self.stride[0], self.padding[0], groups
            return MatrixConv2d.apply(x, weight, *geometry, products)
        return self.convolve(x, self.weight, self.bias, groups)

    def _matrix_products(self, x, groups):
        """Return the products of a training step to compute as matrix products."""
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
            # torch 2.15 leaves uninitialised memory in the gradient of taps on the padding.
            return ("weight",)
        rows = x.shape[0] * -(-x.shape[2] // stride) * -(-x.shape[3] // stride)
        return choose(rows, self.weight.shape[1], kernel, stride, groups)

    def _loop(self, x, shared):
        n = self.n_branches
        inputs = [x] * n if shared else x.chunk(n, 1)
        biases = [None] * n if self.bias is None else self.bias.chunk(n)
        parts = zip(inputs, self.weight.chunk(n), biases, strict=True)
        return torch.cat([self.convolve(*part, self.groups // n) for part in parts], 1)


class BranchLinear(nn.Module):
    """One linear head per branch: (B, M, F) -> (B, M, K).

    With `standardise`, features x enter as (x - center) · factor; both have the shape (M, F).
    """

    def __init__(self, n_branches, in_features, out_features, standardise=False):
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as in nn.Linear
        self.weight = nn.Parameter(
            torch.empty(n_branches, out_features, in_features).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(n_branches, out_features).uniform_(-bound, bound))
        shape = n_branches, in_features
        self.register_buffer("center", torch.zeros(shape) if standardise else None)
        self.register_buffer("factor", torch.ones(shape) if standardise else None)

    def load_linear(self, linear):
        """Copy the weights of a torch.nn.Linear (M = 1)."""
        with torch.no_grad():
            self.weight.copy_(linear.weight[None])
            self.bias.copy_(linear.bias[None])

    def forward(self, x):
        if self.center is not None:
            x = (x - self.center) * self.factor
        with torch.autocast(x.device.type, enabled=False):  # a small product of large sums
            x = x.to(self.weight.dtype)
            return torch.einsum("bmf,mkf->bmk", x, self.weight) + self.bias

    @torch.no_grad()
    def fuse(self):
        """Make the standardisation part of weight and bias, in place."""
        if self.center is not None:
            self.weight.mul_(self.factor[:, None])
            self.bias.sub_((self.weight @ self.center[..., None])[..., 0])
            self.center = self.factor = None


def widen(module, n_branches):
    """Widen every convolution and norm of `module` to M branches, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, BranchConv2d(n_branches, child))
        elif isinstance(child, nn.BatchNorm2d):
            norm = nn.BatchNorm2d(n_branches * child.num_features, child.eps, child.momentum)
            setattr(module, name, norm)
        else:
            widen(child, n_branches)


def take_branch(network, index):
    """Return a copy of an RRRNet with its stump and branch `index` only."""
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
    """Copy the branch and head of a :func:`take_branch` network into branch `index`."""
    state = network.state_dict()  # shares memory with the network
    for name, tensor in member.state_dict().items():
        if name.startswith(("branches.", "head.")):
            whole = state[name]
            part = whole.chunk(network.n_branches)[index] if tensor.ndim else whole
            part.copy_(tensor)
