"""Which paths stay, and what they are expected to cost: by enumeration."""

import itertools
import math

import pytest
import torch

from sklearn_rrr.nettailor.expected_complexity import expected_complexity
from sklearn_rrr.nettailor.paths import BLOCK, all_paths, close, prune, source


def enumerate_patterns(alphas, costs, last):
    """Return the expectation over all patterns of paths that are there or not."""
    total = 0.0
    for pattern in itertools.product((True, False), repeat=len(alphas)):
        there = [path for path, on in zip(alphas, pattern, strict=True) if on]
        chance = math.prod(
            a if on else 1 - a for a, on in zip(alphas.values(), pattern, strict=True)
        )
        entered, left = {0, *(node for node, _ in there)}, {last, *map(source, there)}
        used = [p for p in there if source(p) in entered and p[0] in left]
        total += chance * sum(costs[p] for p in used)
    return total


def published(alphas, costs, last):
    """Return the sum of Eq. (6) to (10), exact where the events are disjoint."""

    def excluded(paths):
        return math.prod(1 - alphas[p] for p in paths)

    total = 0.0
    for path, alpha in alphas.items():
        into = [p for p in alphas if p[0] == source(path)]
        out_of = [p for p in alphas if source(p) == path[0]]
        before = excluded(into) if source(path) else 0
        after = excluded(out_of) if path[0] != last else 0
        total += costs[path] * (alpha - before - after)
    return total


def numbers(paths, seed):
    draw = torch.rand(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    return dict(zip(paths, draw, strict=True))


def test_paths():
    assert all_paths(3, 2) == (
        *((1, BLOCK), (1, 0)),
        *((2, BLOCK), (2, 0), (2, 1)),
        *((3, BLOCK), (3, 1), (3, 2)),
    )
    assert [source(path) for path in ((3, BLOCK), (3, 1))] == [2, 1]
    assert len(all_paths(16, 3)) == 16 + 1 + 2 + 14 * 3


def test_expected_complexity_where_the_events_are_disjoint():
    """Only paths into node 2 may be missing: no two of the three events can meet."""
    alphas = {(1, BLOCK): 1.0, (2, BLOCK): 0.6, (2, 0): 0.3, (2, 1): 0.2, (3, BLOCK): 1.0}
    alphas[3, 1] = 1.0
    costs = numbers(alphas, 0)
    expected = enumerate_patterns(alphas, costs, 3)
    assert expected_complexity(alphas, costs, 3) == pytest.approx(expected, abs=1e-12)
    chain = {path: alphas[path] for path in ((1, BLOCK), (2, BLOCK), (2, 1), (3, BLOCK))}
    for network in (alphas, chain):
        exact = expected_complexity(network, costs, 3)
        assert exact == pytest.approx(enumerate_patterns(network, costs, 3), abs=1e-12)
    assert published(chain, costs, 3) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_skips", [1, 2, 3])
def test_expected_complexity_of_any_attention(seed, n_skips):
    paths = all_paths(3, n_skips)
    alphas, costs = numbers(paths, seed), numbers(paths, seed + 10)
    expected = enumerate_patterns(alphas, costs, 3)
    assert expected_complexity(alphas, costs, 3) == pytest.approx(expected, abs=1e-12)


def test_a_path_that_nobody_uses_costs_nothing():
    costs = dict.fromkeys(all_paths(3, 2), 0.0)
    costs[2, 0] = costs[2, 1] = costs[2, BLOCK] = 1.0
    alphas = dict.fromkeys(costs, 0.5) | {(3, BLOCK): 0.0, (3, 2): 0.0}
    assert expected_complexity(alphas, costs, 3) == 0  # nothing leaves node 2
    alphas = dict.fromkeys(costs, 0.5) | {(2, 0): 0.0, (1, BLOCK): 0.0, (1, 0): 0.0}
    assert expected_complexity(alphas, costs, 3) == 0  # nothing enters node 1, node 0 is not used
    assert published(alphas, costs, 3) < 0


def test_the_ends_exclude_nothing():
    alphas, costs = {(1, BLOCK): 0.25, (1, 0): 0.75}, {(1, BLOCK): 4.0, (1, 0): 1.0}
    assert expected_complexity(alphas, costs, 1) == 0.25 * 4 + 0.75


def test_expected_complexity_has_a_gradient():
    paths = all_paths(3, 2)
    logits = torch.zeros(len(paths), requires_grad=True)
    costs = dict.fromkeys(paths, 1.0)
    expected_complexity(dict(zip(paths, logits.sigmoid(), strict=True)), costs, 3).backward()
    assert (logits.grad > 0).all()  # each path makes the network dearer


def test_closure_reaches_the_fixed_point():
    chain = [(node, BLOCK) for node in range(1, 5)]
    assert close(chain, 4) == tuple(chain)
    assert close([*chain[:1], *chain[2:]], 4) == ()  # node 2 is cut off, and then all is
    paths = [(4, 0), *chain[:1], *chain[2:]]
    assert close(paths, 4) == ((4, 0),)
    side = [(1, BLOCK), (2, BLOCK), (3, BLOCK), (4, BLOCK), (2, 0), (5, 3)]
    assert close(side, 5) == ((1, BLOCK), (2, BLOCK), (3, BLOCK), (2, 0), (5, 3))


def test_closure_is_the_set_of_routes():
    paths = all_paths(4, 3)
    draw = torch.rand(40, len(paths), generator=torch.Generator().manual_seed(0))
    for row in draw:
        kept = [path for path, number in zip(paths, row, strict=True) if number < 0.4]
        assert set(close(kept, 4)) == on_routes(kept, 4)


def on_routes(paths, last, node=0, trail=()):
    """Return the paths of all routes from a node to the last."""
    if node == last:
        return set(trail)
    onward = [path for path in paths if source(path) == node]
    return set().union(*(on_routes(paths, last, p[0], (*trail, p)) for p in onward))


def test_pruning_removes_proxies_by_threshold_and_blocks_by_rank():
    alphas = dict.fromkeys(all_paths(3, 2), 0.01)
    alphas |= {(1, BLOCK): 0.9, (2, BLOCK): 0.5, (3, BLOCK): 0.8, (2, 1): 0.4, (3, 1): 0.06}
    assert prune(alphas, 3, 0, 0.05) == ((1, BLOCK), (2, BLOCK), (2, 1), (3, BLOCK), (3, 1))
    assert prune(alphas, 3, 1, 0.05) == ((1, BLOCK), (2, 1), (3, BLOCK), (3, 1))
    # Node 3 loses its block, and with it all that led to node 2.
    assert prune(alphas, 3, 2, 0.05) == ((1, BLOCK), (3, 1))


def test_pruning_never_cuts_the_network():
    paths = all_paths(5, 3)
    for seed in range(20):
        alphas = numbers(paths, seed)
        for n_removed in range(6):
            kept = prune(alphas, 5, n_removed, 1.0)  # no proxy is above the threshold
            assert kept == close(kept, 5) != ()
            assert sum(origin == BLOCK for _, origin in kept) <= 5 - n_removed
