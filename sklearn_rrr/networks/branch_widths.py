"""Widths of the branches: RRR-Net (arXiv:2310.01157), Eq. (1)."""

import math
from bisect import bisect_left
from functools import cache, partial
from itertools import takewhile

import torch

from sklearn_rrr.backbones.backbone import PHASES

MAX_BRANCHES = 256


# ------------------------------------------------------------------------ widths, Eq. (1)


def fit_widths(backbone, blocks, n_branches, at, n_classes, width_offset=None):
    """Return the offset a and the planes of each phase of one branch, Eq. (1).

    C_b = floor(C_o / sqrt(b)) - a for b branches. Unless `width_offset` is given, a is the
    smallest integer for which all branches together have at most as many parameters
    (convolutions, norms, heads) as the unsplit phases.

    Raises
    ------
    ValueError
        If a phase would have no channels left; the message gives the largest `n_branches`.
    """

    count = cache(partial(_count_branch, backbone, blocks, at, n_classes))

    def find(number):
        if width_offset is None:
            return _smallest_offset(backbone, number, at, count)
        planes = _widths(backbone, number, at, width_offset)
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
    def widths(offset):
        return _widths(backbone, n_branches, at, offset)

    def fits(offset):  # monotonic: all larger offsets fit, too
        return n_branches * count(widths(offset)) <= count(backbone.planes[at:])

    possible = list(takewhile(widths, range(backbone.planes[at])))
    index = bisect_left(possible, True, key=fits)
    return (possible[index], widths(possible[index])) if index < len(possible) else None


def _widths(backbone, n_branches, at, offset):
    # isqrt(C² // b) is floor(C / sqrt(b)) without rounding errors.
    planes = tuple(math.isqrt(p * p // n_branches) - offset for p in backbone.planes[at:])
    possible = min(planes) >= 1 and min(map(backbone.inner_width, planes)) >= 1
    return planes if possible else None


def branch_phases(backbone, blocks, at, planes):
    """Yield the phases of one branch, on the meta device."""
    channels = backbone.in_channels(at)
    for i, width in enumerate(planes, at):
        with torch.device("meta"):
            phase = backbone.make_phase(i, channels, width, blocks[i])
        yield phase
        channels = width * backbone.block.expansion


def _count_branch(backbone, blocks, at, n_classes, planes):
    phases = branch_phases(backbone, blocks, at, planes)
    n_parameters = sum(p.numel() for phase in phases for p in phase.parameters())
    return n_parameters + (planes[-1] * backbone.block.expansion + 1) * n_classes
