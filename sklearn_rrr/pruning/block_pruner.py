"""Block pruning: residual blocks are removed from a trained network.

The backward counterpart of RRR-Net's block selection (arXiv:2310.01157, Algorithm 1).
"""

import copy

from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.removal import drop_blocks, removable_blocks


class BlockPruner(BasePruner):
    """Remove the residual blocks without which the loss rises least: backward elimination.

    Blocks that change the resolution or the number of channels, such as the first block of each
    phase, are never removed. At each step, blocks are ranked by the loss on the hold-out set
    without them; if no images are held out, by the loss on the training images. A step removes at
    least one block, so the last one may exceed `target`. Steps are skipped if an earlier one has
    reached their share already.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Classifier to prune, frozen or to be fitted. None uses ``RRRNetClassifier()``, which keeps
        all blocks of its backbone.
    target, cost, tolerance, n_steps, epochs_per_step, scoring : optional
        Amount and course of the pruning, as in :class:`~sklearn_rrr.pruning.base.BasePruner`.
    validation_fraction, then, checkpoint_dir, random_state, verbose : optional
        As in :class:`~sklearn_rrr.pruning.base.BasePruner`.

    Attributes
    ----------
    estimator_ : classifier
        Fitted classifier with fewer blocks, see its `blocks_`.
    results_ : pandas.DataFrame
        One row for the start and one for each step.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        Images that could not be read.

    See Also
    --------
    BlockSelector : Adds blocks instead of removing them.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net, arXiv:2310.01157, Figure 3 and Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import BlockPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(
    ...     "synth50", blocks=(1, 1, 3, 1), max_epochs=2, image_size=32, random_state=0
    ... )
    >>> pruner = BlockPruner(clf, target=0.1, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> pruner.estimator_.blocks_
    (1, 1, 2, 1)
    """

    def _check_removable(self, estimator):
        blocks = getattr(estimator, "blocks_", getattr(estimator, "blocks", None))
        if blocks is not None and tuple(blocks) == (1, 1, 1, 1):
            self._refuse(blocks)

    def _refuse(self, blocks):
        raise ValueError(
            f"`estimator` has the blocks {tuple(blocks)}, of which none can be removed. Use for "
            "example blocks=None, which keeps all."
        )

    def _prune(self, run):
        if not removable_blocks(run.network):
            self._refuse(run.network.blocks)
        super()._prune(run)

    def _rank(self, run):
        """Return the names of blocks by the loss without each of them."""
        names = removable_blocks(run.network)
        losses = {name: run.loss(self._without(run.network, [name])) for name in names}
        return sorted(names, key=losses.get)

    def _without(self, network, units):
        network = copy.deepcopy(network)
        drop_blocks(network, units)
        return network
