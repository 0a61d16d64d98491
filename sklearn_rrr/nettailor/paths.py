"""Enumerate and prune the paths of a tailored network.

NetTailor (Morgado and Vasconcelos, CVPR 2019), sections 3.3 to 3.5. Nodes are numbered 0 to L: node
0 is the output of the stem, node l the output of residual block l; node L feeds the head. A path
(l, origin) leads into node l. The origin BLOCK means the pre-trained block, which reads node l - 1;
a number p means a proxy, which reads node p. α is the attention of a path.
"""

BLOCK = "block"


def all_paths(n_nodes, n_skips):
    """Return the paths of a network of L blocks with proxies from the k nearest earlier nodes.

    Parameters
    ----------
    n_nodes : int
        L, the number of blocks.
    n_skips : int
        k, the largest number of proxies into a node.

    Returns
    -------
    paths : tuple of (int, str or int)
        Pairs (l, origin), node by node, the block first.
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
    """Remove paths by input and output exclusion until no more are excluded.

    A path is excluded if no path enters the node it reads, or if no path leaves the node it
    enters. Node 0 needs no path into it, and node L no path out of it.

    Returns
    -------
    paths : tuple
        In the given order; empty if no route leads from node 0 to node L.
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
    """Select the paths to retain, section 3.5: proxies by threshold, blocks by rank.

    Parameters
    ----------
    alphas : dict of path to float
        Attention after training.
    n_nodes : int
        L, the number of blocks.
    n_removed : int
        Number of blocks to remove, smallest α first; :func:`close` may remove more.
    threshold : float
        Proxies with a smaller α are removed.

    Returns
    -------
    paths : tuple
        Closed under exclusion; at least one route leads from node 0 to node L.

    Notes
    -----
    A node that loses its block retains its strongest proxy, whatever the α. The paper does not
    cover this case; without the rule, a node without inputs could cut the network in two.
    """
    blocks = sorted((p for p in alphas if p[1] == BLOCK), key=alphas.get)
    gone = set(blocks[:n_removed])
    gone |= {p for p, alpha in alphas.items() if p[1] != BLOCK and alpha < threshold}
    for node, _ in blocks[:n_removed]:
        proxies = [p for p in alphas if p[0] == node and p[1] != BLOCK]
        gone.discard(max(proxies, key=alphas.get))
    return close([p for p in alphas if p not in gone], n_nodes)
