"""Convolutions as pairs: a basis of filters, and a 1x1 convolution that mixes them.

Basis scaling (arXiv:2108.02893; derived from its abstract): the weight W = V diag(σ) Uᵀ of a
convolution, (c_out, k²·c_in), is split by its singular value decomposition, and each basis vector
gets a trained factor s. Grouped convolutions are split group by group.
"""

import torch
from torch import nn

from sklearn_rrr.networks.branch_layers import BranchConv2d


def with_weight(conv, weight, bias=None, **form):
    """Return a convolution like `conv` with another weight; `form` replaces its attributes."""
    if isinstance(conv, BranchConv2d):
        blank = BranchConv2d(conv.n_branches, nn.Conv2d(1, 1, 1, device="meta"))
        blank.form = conv.form
    else:
        blank = nn.Conv2d(1, 1, 1, device="meta")
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    for name in names:
        setattr(blank, name, form.get(name, getattr(conv, name)))
    blank._reversed_padding_repeated_twice = [p for p in blank.padding[::-1] for _ in range(2)]
    blank.out_channels, blank.in_channels = weight.shape[0], weight.shape[1] * blank.groups
    blank.weight = nn.Parameter(weight.contiguous())
    blank.bias = None if bias is None else nn.Parameter(bias)
    return blank.train(conv.training)


class ConvPair(nn.Module):
    """Pair of a convolution with few filters, `basis`, and a 1x1 convolution, `mix`.

    Both have G groups: (B, G·c_in, H, W) -> (B, G·r, h, w) -> (B, G·c_out, h, w).
    """

    # Attributes of `mix`, apart from its groups.
    MIXING = {
        "kernel_size": (1, 1),
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
    }

    def __init__(self, basis, mix):
        super().__init__()
        self.basis, self.mix = basis, mix

    def forward(self, x):
        return self.mix(self.basis(x))

    @property
    def groups(self):
        return self.basis.groups

    @property
    def out_channels(self):
        return self.mix.out_channels

    @property
    def rank(self):
        """Number of basis vectors of all groups together."""
        return self.basis.out_channels

    def merge(self):
        """Return one convolution that computes the same."""
        basis, mix = self.basis.weight, self.mix.weight
        g, r = self.groups, self.rank // self.groups
        left = mix.reshape(g, -1, r).double()
        right = basis.reshape(g, r, -1).double()
        weight = (left @ right).to(basis.dtype).view(-1, *basis.shape[1:])
        return with_weight(self.basis, weight, self.mix.bias)

    def smallest(self):
        """Return the pair if it has fewer weights than one convolution, else that convolution."""
        g, c_in = self.groups, self.basis.weight[0].numel()
        r, c_out = self.rank // g, self.out_channels // g
        return self if r * (c_in + c_out) < c_in * c_out else self.merge()


class ScaledPair(ConvPair):
    """Pair whose basis vectors are multiplied by σ·s; s, `scale`, is trained and starts at 1."""

    def __init__(self, basis, mix, sigma):
        super().__init__(basis, mix)
        self.register_buffer("sigma", sigma)
        self.scale = nn.Parameter(torch.ones_like(sigma))

    @classmethod
    @torch.no_grad()
    def split(cls, conv):
        """Split a convolution by its singular value decomposition; exact at s = 1."""
        weight, g = conv.weight, conv.groups
        left, sigma, right = torch.linalg.svd(
            weight.reshape(g, weight.shape[0] // g, -1).double(), full_matrices=False
        )  # (g, c_out, r), (g, r), (g, r, k²·c_in)
        basis = with_weight(conv, right.flatten(0, 1).view(-1, *weight.shape[1:]).to(weight.dtype))
        mix = left.flatten(0, 1)[:, :, None, None].to(weight.dtype)
        bias = None if conv.bias is None else conv.bias.detach().clone()
        mix = with_weight(conv, mix, bias, **cls.MIXING)
        return cls(basis, mix, sigma.flatten().to(weight.dtype))

    def forward(self, x):
        return self.mix(self.basis(x) * (self.sigma * self.scale)[:, None, None])

    def merge(self):
        """Return one convolution that computes the same."""
        return self._plain().merge()

    def fold(self):
        """Multiply σ·s into `mix`; return the plain pair, or one convolution if that is smaller."""
        return self._plain().smallest()

    @torch.no_grad()
    def _plain(self):
        factors = (self.sigma * self.scale).view(self.groups, 1, -1, 1, 1)
        mix = self.mix.weight.reshape(self.groups, -1, *self.mix.weight.shape[1:]) * factors
        mix = with_weight(self.mix, mix.flatten(0, 1), self.mix.bias)
        return ConvPair(self.basis, mix)

    @torch.no_grad()
    def keep(self, index):
        """Return the pair with the basis vectors at the positions `index` only.

        The positions are in ascending order, with the same number in each group.
        """
        local = index.view(self.groups, -1) - self.rank // self.groups * torch.arange(
            self.groups, device=index.device
        ).unsqueeze(1)
        mix = self.mix.weight.reshape(self.groups, -1, *self.mix.weight.shape[1:])
        mix = torch.stack([part[:, kept] for part, kept in zip(mix, local, strict=True)])
        pair = ScaledPair(
            with_weight(self.basis, self.basis.weight[index]),
            with_weight(self.mix, mix.flatten(0, 1), self.mix.bias),
            self.sigma[index],
        )
        pair.scale.copy_(self.scale[index])
        return pair.requires_grad_(False).train(self.training)
