"""Widths of the branches: RRR-Net (arXiv:2310.01157), Eq. (1)."""

import math
from bisect import bisect_left
from functools import cache, partial
from itertools import takewhile

import torch

from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.networks.levels import count_features

MAX_BRANCHES = 256


# ------------------------------------------------------------------------ widths, Eq. (1)


def fit_widths(backbone, blocks, n_branches, at, n_classes, head_features, width_offset=None):
    """Return the offset a and the planes of each row of one branch, Eq. (1).

    C_b = floor(C_o / sqrt(b)) - a for b branches. Unless `width_offset` is given, a is the
    smallest integer for which all branches together have at most as many parameters
    (convolutions, norms, heads) as the unsplit phases.

    Raises
    ------
    ValueError
        If a row would have no channels left; the message gives the largest `n_branches`.
    """

    count = cache(partial(_count_branch, backbone, blocks, at, n_classes, head_features))

    def find(number):
        if width_offset is None:
            return _smallest_offset(backbone, number, at, count)
        planes = branch_planes(backbone, number, at, width_offset)
        return planes and (width_offset, planes)

    found = find(n_branches)
    if found is None:
        # No bisection: widths fall in steps, so a smaller number may be impossible, too.
        largest = next(filter(find, range(MAX_BRANCHES, 0, -1)), 0)
        raise ValueError(
            f"`n_branches`={n_branches} with `width_offset`={width_offset!r} would leave the "
            f"branches of {backbone.name!r} without channels when split at {PHASES[at]!r}; "
            f"the largest possible is {largest}."
        )
    return found


def _smallest_offset(backbone, n_branches, at, count):
    def planes(offset):
        return branch_planes(backbone, n_branches, at, offset)

    def fits(offset):  # monotonic: all larger offsets fit, too
        return n_branches == 1 or n_branches * count(n_branches, offset) <= count(1, 0)

    possible = list(takewhile(planes, range(max(backbone.planes))))
    index = bisect_left(possible, True, key=fits)
    return (possible[index], planes(possible[index])) if index < len(possible) else None


def narrow(channels, n_branches, offset):
    """Return the width C_b of a branch for the width C_o of the backbone, Eq. (1)."""
    # isqrt(C² // b) is floor(C / sqrt(b)) without rounding errors.
    return math.isqrt(channels * channels // n_branches) - offset


def branch_planes(backbone, n_branches, at, offset):
    """Return the planes of each row of one branch, or None if a layer would have no channels."""
    rows = [row for phase in backbone.rows[at:] for row in phase]
    planes = tuple(narrow(row.planes, n_branches, offset) for row in rows)
    inputs = [narrow(backbone.in_channels(at), n_branches, offset)]
    inputs += [row.out_channels(width) for row, width in zip(rows, planes, strict=True)]
    pairs = zip(rows, planes, inputs, strict=False)
    return planes if all(row.is_possible(*widths) for row, *widths in pairs) else None


def branch_phases(backbone, blocks, at, n_branches, offset):
    """Yield the phases of one branch, on the meta device."""
    planes = iter(branch_planes(backbone, n_branches, at, offset))
    channels = backbone.in_channels(at)
    inputs = narrow(channels, n_branches, offset)
    for i, rows in enumerate(backbone.rows[at:], at):
        widths = [next(planes) for _ in rows]
        with torch.device("meta"):
            yield backbone.make_phase(i, channels, widths, inputs, blocks[i])
        channels = inputs = rows[-1].out_channels(widths[-1])


def _count_branch(backbone, blocks, at, n_classes, head_features, n_branches, offset):
    phases = list(branch_phases(backbone, blocks, at, n_branches, offset))
    n_parameters = sum(p.numel() for phase in phases for p in phase.parameters())
    stump = [backbone.reduce_phase(i, blocks[i]) for i in range(at)]
    n_features = count_features(stump, phases, head_features)
    return n_parameters + (n_features + 1) * n_classes
