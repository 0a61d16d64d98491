"""Channel pruning: whole channels of convolutions are removed, with all that is tied to them."""

import copy
from operator import itemgetter

import torch

from sklearn_rrr._validation import check_bool, check_choice
from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.channel_groups import find_groups
from sklearn_rrr.pruning.criteria import CRITERIA, score_channels
from sklearn_rrr.pruning.removal import keep_channels


class ChannelPruner(BasePruner):
    """Remove the channels of a network that matter least, step by step.

    Channels are removed for good: the network becomes narrower, and smaller in every measure.
    Those that additions tie, the residual streams, go together in all their layers; the branches
    of an RRR-Net lose as many channels each.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier to prune, frozen or to be fitted; see :class:`BasisScalingPruner`. None is an
        :class:`RRRNetClassifier`.
    criterion : {"taylor", "norm", "l1", "fisher"} or callable, default="taylor"
        Importance: "taylor", the squared first-order change of the loss; "norm", the factor of
        the channel's batch norm; "l1", the L1 norm of its kernel; "fisher", the Fisher ratio of
        its mean activation. A callable ``criterion(run, groups)`` returns, for each
        :class:`~sklearn_rrr.pruning.channel_groups.ChannelGroup`, an array of ``group.size``
        numbers, smaller ones for what may go; ``run.network`` is the network, ``run.losses()``
        yields the loss of each batch. ``sklearn_rrr.pruning.criteria`` holds those named here.
    streams : bool, default=True
        Whether channels of the residual streams are removed, too; else only inside the blocks.
    target : float, default=0.5
        Share of the cost to remove, in [0, 0.999].
    measure : {"parameters", "macs"}, default="parameters"
        What cost is.
    max_drop : float or None, default=None
        If the score falls by more than this below that of the start, pruning ends, without the
        step that did it.
    n_steps : int, default=5
        Number of removals on the way to `target`, of equal shares.
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
        Fitted, with the narrower network.
    results_ : pandas.DataFrame
        A row for each step, see :class:`BasisScalingPruner`.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        As of :class:`RRRNetClassifier`.

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
    >>> clf = RRRNetClassifier(n_branches=2, max_epochs=2, image_size=32, random_state=0)
    >>> pruner = ChannelPruner(clf, target=0.3, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> before, after = pruner.results_.parameters
    >>> bool(after <= 0.7 * before)
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        criterion="taylor",
        streams=True,
        target=0.5,
        measure="parameters",
        max_drop=None,
        n_steps=5,
        prune_every=None,
        scoring=None,
        validation_fraction=0.2,
        then=None,
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            estimator,
            target=target,
            measure=measure,
            max_drop=max_drop,
            n_steps=n_steps,
            prune_every=prune_every,
            scoring=scoring,
            validation_fraction=validation_fraction,
            then=then,
            random_state=random_state,
            verbose=verbose,
        )
        self.criterion = criterion
        self.streams = streams

    def _check_parameters(self):
        super()._check_parameters()
        check_bool("streams", self.streams)
        if not callable(self.criterion):
            check_choice("criterion", self.criterion, tuple(CRITERIA), "Or use a callable.")

    def _rank(self, run):
        groups = find_groups(run.network, self.streams)
        return rank_units(groups, score_channels(self.criterion, run, groups))

    def _without(self, network, units):
        network = copy.deepcopy(network)
        for group, kept in group_units(units):
            keep_channels(network, group, kept)
        return network


def rank_units(groups, scores):
    """Return what can be removed, least important first.

    A unit is a group and as many channels of it as it has parts, the least important left of
    each; the last ones of a group are no unit.

    Parameters
    ----------
    groups : list of ChannelGroup
    scores : list of Tensor
        Of shape (C,) each.

    Returns
    -------
    units : list of (ChannelGroup, Tensor)
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
    """Yield each group of which units are to go, and the positions of the channels that stay."""
    gone = {}
    for group, channels in units:
        gone.setdefault(group.name, (group, []))[1].append(channels)
    for group, channels in gone.values():
        kept = torch.ones(group.size, dtype=torch.bool)
        kept[torch.cat(channels)] = False
        yield group, kept.nonzero()[:, 0]
