"""Algorithm 1 of RRR-Net (arXiv:2310.01157, appendix A) and the choice among its networks."""

import math

import numpy as np

START = (1, 1, 1, 1)


def next_phase(blocks, depths, order, closed=()):
    """Return the phase, 0 to 3, that the next block is added to; None where all are full.

    Parameters
    ----------
    blocks, depths : tuple of 4 int
        Blocks of each phase so far, and at most.
    order : {"sequential", "cyclic"}
        The first phase that is not full, or the one with the fewest blocks.
    closed : collection of int
        Phases that get no more.
    """
    phases = [p for p in range(4) if blocks[p] < depths[p] and p not in closed]
    if order == "cyclic":
        phases.sort(key=lambda p: blocks[p])
    return phases[0] if phases else None


def select_forward(evaluate, depths, order="sequential", tol=0.01, affordable=None):
    """Run Algorithm 1.

    Parameters
    ----------
    evaluate : callable
        From blocks, a tuple of 4 int, to a score; called once for each network in turn.
    depths : tuple of 4 int
        Blocks of each phase at most.
    order : {"sequential", "cyclic"}, default="sequential"
    tol : float or None, default=0.01
        A block stays if (score - old score) / abs(score) is at least this; None keeps all.
    affordable : callable or None, default=None
        From blocks to whether that network may be tried; where it may not, its phase gets no
        more blocks.

    Yields
    ------
    blocks, score, kept : tuple of 4 int, float, bool
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
        kept = tol is None or _improvement(score, old) >= tol
        yield larger, score, kept
        if not kept:
            return
        blocks, old = larger, score


def _improvement(score, old):
    """Return (score - old) / |score|, as the algorithm stops by; scores may be negative."""
    gain = score - old
    return gain / abs(score) if score else math.copysign(math.inf, gain) if gain else 0.0


def pareto_front(costs, scores):
    """Tell which networks no other one beats in both: (n,) and (n,) to (n,) bool."""
    costs, scores = np.asarray(costs, float), np.asarray(scores, float)
    better = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    strictly = (costs[:, None] < costs) | (scores[:, None] > scores)
    return ~(better & strictly).any(0)


def find_knee(costs, scores):
    """Return the index on the Pareto front that lies farthest above the line between its ends.

    Satopää et al. (2011), Finding a "kneedle" in a haystack, with both axes scaled to [0, 1].
    """
    front = np.flatnonzero(pareto_front(costs, scores))
    front = front[np.argsort(np.asarray(costs)[front], kind="stable")]
    x, y = (np.asarray(v, float)[front] for v in (costs, scores))
    if len(front) < 3:
        return int(front[-1])
    height = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(front[height.argmax()])
