"""Algorithm 1 of RRR-Net (arXiv:2310.01157, appendix A), Pareto front and knee."""

import math

import numpy as np

START = (1, 1, 1, 1)


def next_phase(blocks, depths, order, closed=()):
    """Return the phase, 0 to 3, that gets the next block, or None if all are full.

    Parameters
    ----------
    blocks, depths : tuple of 4 int
        Current and largest number of blocks of each phase.
    order : {"sequential", "cyclic"}
        "sequential" fills the phases one after the other; "cyclic" takes the phase with the
        fewest blocks.
    closed : collection of int
        Phases that get no further block.
    """
    phases = [p for p in range(4) if blocks[p] < depths[p] and p not in closed]
    if order == "cyclic":
        phases.sort(key=lambda p: blocks[p])
    return phases[0] if phases else None


def select_forward(evaluate, depths, order="sequential", tolerance=0.01, affordable=None):
    """Run Algorithm 1.

    Parameters
    ----------
    evaluate : callable
        Function of the blocks, a tuple of 4 int, that trains a network and returns its score.
        Called once per network, in the order of the search.
    depths : tuple of 4 int
        Largest number of blocks of each phase.
    order : {"sequential", "cyclic"}, default="sequential"
        See :func:`next_phase`.
    tolerance : float or None, default=0.01
        A block is kept if (score - old score) / abs(score) is at least `tolerance`. None keeps
        every block.
    affordable : callable or None, default=None
        Function of the blocks that tells whether the network may be tried. If it may not, its
        phase gets no further block.

    Yields
    ------
    blocks : tuple of 4 int
        Blocks of the network just evaluated.
    score : float
        Its score.
    kept : bool
        Whether its last block is kept.
    """
    blocks, old = START, evaluate(START)
    yield blocks, old, True
    closed = set()
    while (phase := next_phase(blocks, depths, order, closed)) is not None:
        larger = tuple(n + (p == phase) for p, n in enumerate(blocks))
        if affordable is not None and not affordable(larger):
            closed.add(phase)
            continue
        score = evaluate(larger)
        kept = tolerance is None or _improvement(score, old) >= tolerance
        yield larger, score, kept
        if not kept:
            return
        blocks, old = larger, score


def _improvement(score, old):
    """Return (score - old) / |score|, the quantity of the stopping rule."""
    gain = score - old
    return gain / abs(score) if score else math.copysign(math.inf, gain) if gain else 0.0


def pareto_front(costs, scores):
    """Return a mask (n,) of the networks that no other one beats in cost and score."""
    costs, scores = np.asarray(costs, float), np.asarray(scores, float)
    better = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    strictly = (costs[:, None] < costs) | (scores[:, None] > scores)
    return ~(better & strictly).any(0)


def find_knee(costs, scores):
    """Return the index of the network on the Pareto front farthest above its chord.

    The chord joins the ends of the front; both axes are scaled to [0, 1]. Satopää et al. (2011),
    Finding a "kneedle" in a haystack.
    """
    front = np.flatnonzero(pareto_front(costs, scores))
    front = front[np.argsort(np.asarray(costs)[front], kind="stable")]
    x, y = (np.asarray(v, float)[front] for v in (costs, scores))
    if len(front) < 3:
        return int(front[-1])
    height = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(front[height.argmax()])
