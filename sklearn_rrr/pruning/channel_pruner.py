"""Channel pruning: channels of convolutions are removed, with all channels tied to them."""

import copy
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from operator import itemgetter

import torch

from sklearn_rrr._validation import check_bool, check_choice
from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.channel_groups import find_groups
from sklearn_rrr.pruning.criteria import CRITERIA, score_channels
from sklearn_rrr.pruning.removal import keep_channels


@dataclass(eq=False, repr=False)
class ChannelPruner(BasePruner):
    """Remove the least important channels of all layers, step by step.

    The network becomes narrower: fewer parameters, multiply-adds and activations. Channels that
    additions tie, those of a residual stream, are removed in all their layers at once, as are those
    that a depthwise convolution passes on. The branches of an RRR-Net lose the same number of
    channels each. Heads that read the statistics of all blocks lose those of removed channels.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Classifier to prune, frozen or to be fitted; default and details, here and below, as in
        :class:`~sklearn_rrr.pruning.base.BasePruner`.
    criterion : {"taylor", "norm", "l1", "fisher"} or callable, default="taylor"
        Importance of a channel: "taylor", the squared first-order change of the loss; "norm", the
        factor of its batch norm; "l1", the L1 norm of its kernel; "fisher", the Fisher ratio of
        its mean activation. A callable ``criterion(network, groups, batches)`` returns, for each
        :class:`~sklearn_rrr.pruning.channel_groups.ChannelGroup`, an array of shape
        (group.size,), with small values for unimportant channels.
        ``batches.losses(network)`` yields (loss, labels, weights) for each batch of training
        images; see :class:`~sklearn_rrr.pruning.loss_batches.LossBatches`.
    streams : bool, default=True
        Whether channels of residual streams, the outputs of blocks, are removed, too; else only
        those inside blocks.
    target, cost, tolerance, n_steps, epochs_per_step, scoring : optional
        Amount and course of the pruning, as in :class:`~sklearn_rrr.pruning.base.BasePruner`.
    validation_fraction, then, checkpoint_dir, random_state, verbose : optional
        As in :class:`~sklearn_rrr.pruning.base.BasePruner`.

    Attributes
    ----------
    estimator_ : classifier
        Fitted classifier with the pruned network.
    results_ : pandas.DataFrame
        One row for the start and one for each step.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        Images that could not be read.

    References
    ----------
    Molchanov, Mallya, Tyree, Frosio and Kautz (2019), Importance estimation for neural network
    pruning. Liu et al. (2017), Learning efficient convolutional networks through network
    slimming. Li et al. (2017), Pruning filters for efficient ConvNets.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import ChannelPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> form = {"blocks": (1, 1, 1, 1), "n_branches": 2, "image_size": 32}
    >>> clf = RRRNetClassifier(**form, max_epochs=2, random_state=0)
    >>> pruner = ChannelPruner(clf, target=0.3, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> before, after = pruner.results_.parameters
    >>> bool(after <= 0.7 * before)
    True
    """

    _: KW_ONLY
    criterion: str | Callable = "taylor"
    streams: bool = True

    def _check_parameters(self):
        super()._check_parameters()
        check_bool("streams", self.streams)
        if not callable(self.criterion):
            check_choice("criterion", self.criterion, tuple(CRITERIA), "Or use a callable.")

    def _rank(self, run):
        groups = find_groups(run.network, self.streams)
        return rank_units(groups, score_channels(self.criterion, run.network, groups, run.batches))

    def _without(self, network, units):
        network = copy.deepcopy(network)
        for group, kept in group_units(units):
            keep_channels(network, group, kept)
        return network


def rank_units(groups, scores):
    """Return the units that can be removed, least important first.

    A unit consists of one channel from each part of a group: the least important ones, then the
    second least important ones, and so on. The most important ones are never removed.

    Parameters
    ----------
    groups : list of ChannelGroup
        Channels to rank.
    scores : list of Tensor of shape (C,)
        Importance of the C channels of each group.

    Returns
    -------
    units : list of (ChannelGroup, Tensor of int)
        Group, and positions of the unit's channels in it, of shape (group.parts,).

    Examples
    --------
    >>> import torch
    >>> from sklearn_rrr.pruning.channel_groups import ChannelGroup
    >>> group = ChannelGroup(4, parts=2, writers=["conv"])
    >>> [(_, channels)] = rank_units([group], [torch.tensor([0.3, 0.1, 0.2, 0.9])])
    >>> channels.tolist()
    [1, 2]
    """
    units = []
    for group, score in zip(groups, scores, strict=True):
        by_part, order = score.view(group.parts, -1).sort(dim=1, stable=True)
        starts = group.size // group.parts * torch.arange(group.parts)
        channels = (order + starts[:, None]).T  # (n, parts)
        ranked = zip(by_part.mean(0).tolist(), channels, strict=True)
        units += [(value, group, unit) for value, unit in list(ranked)[:-1]]
    return [(group, unit) for _, group, unit in sorted(units, key=itemgetter(0))]


def group_units(units):
    """Yield each group that loses units, and the positions of its remaining channels."""
    gone = {}
    for group, channels in units:
        gone.setdefault(group.name, (group, []))[1].append(channels)
    for group, channels in gone.values():
        kept = torch.ones(group.size, dtype=torch.bool)
        kept[torch.cat(channels)] = False
        yield group, kept.nonzero()[:, 0]
