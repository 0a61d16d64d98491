"""Which paths of a tailored network are there, what they are expected to cost, which ones stay.

NetTailor (Morgado and Vasconcelos, CVPR 2019), sections 3.3 to 3.5. Nodes are numbered 0 to L: 0 is
the output of the stem, l that of residual block l, L feeds the head. A path (l, origin) leads into
node l: origin BLOCK is the pre-trained block, which reads node l - 1, and a number p is a proxy,
which reads node p. α of a path is its attention.
"""

import math

BLOCK = "block"


def all_paths(n_nodes, n_skips):
    """Return the paths of a network of L blocks with proxies to the k nearest earlier nodes.

    Parameters
    ----------
    n_nodes : int
        L.
    n_skips : int
        k.

    Returns
    -------
    paths : tuple of (int, str or int)
        (l, origin), node by node, the block first.
    """
    return tuple(
        (node, origin)
        for node in range(1, n_nodes + 1)
        for origin in (BLOCK, *range(max(node - n_skips, 0), node))
    )


def source(path):
    """Return the node that a path reads."""
    node, origin = path
    return node - 1 if origin == BLOCK else origin


def close(paths, n_nodes):
    """Drop the paths that input or output exclusion removes, to the fixed point.

    A path goes where nothing enters the node that it reads, and where nothing leaves the node
    that it leads into. Nothing need enter node 0, nor leave node L.

    Returns
    -------
    paths : tuple
        In the order given; empty where no route leads from node 0 to node L.
    """
    kept = tuple(paths)
    while True:
        entered = {0, *(node for node, _ in kept)}
        left = {n_nodes, *map(source, kept)}
        closed = tuple(path for path in kept if source(path) in entered and path[0] in left)
        if closed == kept:
            return kept
        kept = closed


def prune(alphas, n_nodes, n_removed, threshold):
    """Choose the paths that stay, section 3.5: proxies by threshold, blocks by rank.

    Parameters
    ----------
    alphas : dict of path to float
        Attention after training.
    n_nodes : int
        L.
    n_removed : int
        How many blocks of the smallest α go; the closure may remove more.
    threshold : float
        Proxies of a smaller α go.

    Returns
    -------
    paths : tuple
        Closed; at least one route leads from node 0 to node L.

    Notes
    -----
    A node that loses its block keeps its strongest proxy, whatever its α. The paper says
    nothing of that case; without it, a node that nothing enters would cut the network in two.
    """
    blocks = sorted((p for p in alphas if p[1] == BLOCK), key=alphas.get)
    gone = set(blocks[:n_removed])
    gone |= {p for p, alpha in alphas.items() if p[1] != BLOCK and alpha < threshold}
    for node, _ in blocks[:n_removed]:
        proxies = [p for p in alphas if p[0] == node and p[1] != BLOCK]
        gone.discard(max(proxies, key=alphas.get))
    return close([p for p in alphas if p not in gone], n_nodes)


def expected_complexity(alphas, costs, n_nodes):
    """Return E[C], the expected cost of the network, section 3.4.1.

    Parameters
    ----------
    alphas : dict of path to float or scalar tensor
        Probability that a path is not excluded by itself.
    costs : dict of path to float
        Multiply-adds over those of the pre-trained network.
    n_nodes : int
        L.

    Returns
    -------
    cost : float or scalar tensor
        Differentiable in the attention.

    Notes
    -----
    A path costs nothing if it is excluded itself, if all paths into the node that it reads are,
    or all that leave the node it leads into. The paper takes these events for disjoint and adds
    up their probabilities, Eq. (6) to (9): E[C] = Σ C (α - P_in - P_out), which is negative for a
    path that nobody uses. The paths are different ones, and the paper takes them for independent:
    then Σ C α (1 - P_in) (1 - P_out) is exact, and equal to the paper's where the events are
    disjoint. Nothing enters node 0 and nothing leaves node L, and neither excludes anything.
    """
    entering = {node: [] for node in range(n_nodes + 1)}
    leaving = {node: [] for node in range(n_nodes + 1)}
    for path, alpha in alphas.items():
        entering[path[0]].append(1 - alpha)
        leaving[source(path)].append(1 - alpha)
    used_in = {node: 1 - math.prod(r) if node else 1 for node, r in entering.items()}
    used_out = {node: 1 - math.prod(r) if node < n_nodes else 1 for node, r in leaving.items()}
    return sum(
        costs[path] * alpha * used_in[source(path)] * used_out[path[0]]
        for path, alpha in alphas.items()
    )
