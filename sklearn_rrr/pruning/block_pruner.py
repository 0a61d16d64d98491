"""Block pruning: whole residual blocks are removed from a trained network.

The backward counterpart of RRR-Net's block selection (arXiv:2310.01157, Algorithm 1).
"""

import copy

from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.removal import drop_blocks, removable_blocks


class BlockPruner(BasePruner):
    """Remove the residual blocks that a network misses least: backward elimination.

    The first block of a phase stays: it makes the phase's resolution and width.
    What matters least is the block without which the loss on the images held out is lowest,
    found anew at each step; without such images, on those to learn from.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier to prune, frozen or to be fitted; see :class:`BasisScalingPruner`. With
        ``blocks=(1, 1, 1, 1)``, the default of :class:`RRRNetClassifier`, nothing can be removed:
        None takes ``blocks=None``, all.
    target : float, default=0.5
        Share of the cost to remove, in [0, 0.999]; it is passed by less than one block.
    measure : {"parameters", "macs"}, default="parameters"
        What cost is.
    max_drop : float or None, default=None
        If the score falls by more than this below that of the start, pruning ends, without the
        step that did it.
    n_steps : int, default=5
        Number of steps. Each removes as many blocks as bring it to its share of `target`, at least
        one; steps whose share is reached before are left out.
    prune_every : int or None, default=None
        Epochs of training after each removal; None takes as many as make all of them together as
        long as the estimator's own fit.
    scoring : str, callable or None, default=None
        As in scikit-learn; None is the estimator's accuracy.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out for scores; None scores nothing and learns from all.
    then : pruner or None, default=None
        Another pruner that goes on with what this one leaves.
    random_state : int, RandomState instance or None, default=None
        Seed of split and training; None takes the estimator's.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    estimator_ : classifier
        Fitted, with fewer blocks.
    results_ : pandas.DataFrame
        A row for each step, see :class:`BasisScalingPruner`.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        As of :class:`RRRNetClassifier`.

    See Also
    --------
    BlockSelector : Adds blocks instead.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net, arXiv:2310.01157, Figure 3 and Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import BlockPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(
    ...     blocks=(1, 1, 3, 1), n_branches=1, max_epochs=2, image_size=32, random_state=0
    ... )
    >>> pruner = BlockPruner(clf, target=0.1, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> pruner.estimator_.blocks_
    (1, 1, 2, 1)
    """

    def _make_estimator(self):
        estimator = super()._make_estimator()
        return estimator.set_params(blocks=None) if self.estimator is None else estimator

    def _check_start(self, estimator):
        blocks = getattr(estimator, "blocks_", getattr(estimator, "blocks", None))
        if blocks is not None and tuple(blocks) == (1, 1, 1, 1):
            self._refuse(blocks)

    def _refuse(self, blocks):
        raise ValueError(
            f"`estimator` has the blocks {tuple(blocks)}, of which none can be removed; use for "
            "example blocks=None, which keeps all."
        )

    def _prune(self, run):
        if not removable_blocks(run.network):
            self._refuse(run.network.blocks)
        super()._prune(run)
        run.classifier.blocks_ = run.network.blocks

    def _rank(self, run):
        network, losses = run.network, {}
        for name in removable_blocks(network):
            run.put(self._without(network, [name]))
            losses[name] = run.loss()
        run.put(network)
        return sorted(losses, key=losses.get)

    def _without(self, network, units):
        network = copy.deepcopy(network)
        drop_blocks(network, units)
        return network
