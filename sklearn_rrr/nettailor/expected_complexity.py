"""Expected complexity of a tailored network: NetTailor (CVPR 2019), Eq. (5) to (10)."""

import math

from sklearn_rrr.nettailor.paths import source


def expected_complexity(alphas, costs, n_nodes):
    """Return E[C], the expected cost of the network: section 3.4.1, Eq. (5) to (10).

    Parameters
    ----------
    alphas : dict of path to float or scalar tensor
        Probability that a path is not self-excluded.
    costs : dict of path to float
        Cost of each path, relative to the pre-trained network.
    n_nodes : int
        L, the number of blocks.

    Returns
    -------
    cost : float or scalar tensor
        Differentiable in the attention.

    Notes
    -----
    A path costs nothing if it is excluded itself, if all paths into the node it reads are
    excluded, or if all paths out of the node it enters are. The paper treats these events as
    disjoint and adds their probabilities, Eq. (6) to (9): E[C] = Σ C (α - P_in - P_out), which is
    negative for an unused path. The events concern different paths, which the paper treats as
    independent; then Σ C α (1 - P_in) (1 - P_out) is exact, and equals the paper's formula where
    the events are disjoint. Node 0 has no inputs and node L no outputs; neither excludes a path.
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
