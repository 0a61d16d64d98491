"""Basis scaling, and double pruning: arXiv:2108.02893.

Derived from the paper's abstract. Each convolution becomes a basis of filters, from its singular
value decomposition, and a 1x1 convolution that mixes them; see
``sklearn_rrr.pruning.convolution_pairs``. Only a factor per basis vector learns, with norms and
heads, and those that matter least are removed. Input and output channels stay, so that another
pruner can follow: double pruning. The method may be covered by patents of its authors' employer.
"""

import copy
from functools import partial

from torch import nn

from sklearn_rrr._validation import check_bool, check_real
from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.channel_groups import ChannelGroup
from sklearn_rrr.pruning.channel_pruner import group_units, rank_units
from sklearn_rrr.pruning.convolution_pairs import ConvPair, ScaledPair

# Factors start at 1: decay would pull them to 0.
UNDECAYED = ("*.scale",)


class BasisScalingPruner(BasePruner):
    """Prune the basis vectors of convolutions by factors that learn.

    Each convolution is split, exactly, into its basis vectors and a 1x1 convolution; while only
    factors on the vectors, norms and heads learn, those of least importance are removed, over all
    layers together. What is left of a convolution is two where they are smaller, else one again.
    Depthwise convolutions stay as they are.

    Parameters
    ----------
    estimator : classifier or None, default=None
        An :class:`RRRNetClassifier`, :class:`FineTuningClassifier` or
        :class:`LastLayerClassifier`, or a :class:`BlockSelector` or pruner of one. A clone of it is
        fitted to the images that are not held out. A fitted one in a
        :class:`sklearn.frozen.FrozenEstimator` is pruned as it is, and left unchanged. None means
        ``RRRNetClassifier()``.
    norms : bool, default=True
        Whether the factors and shifts of batch norms learn, too.
    learning_rate : float, default=0.02
        Step size of factors, norms and heads. Factors start at 1 and are the only weights of the
        convolutions that learn: what suits those is too little for them.
    target : float, default=0.5
        Share of the cost to remove, in [0, 0.999].
    measure : {"parameters", "macs"}, default="parameters"
        What cost is.
    max_drop : float or None, default=None
        If the score falls by more than this below that of the start, pruning ends, without the
        step that did it. The start is the classifier before anything is removed.
    n_steps : int, default=5
        Number of removals on the way to `target`, of equal shares.
    prune_every : int or None, default=None
        Epochs of training after each removal, and so between two of them, and here before the
        first; None takes as many as make all of them together as long as the estimator's own fit.
    scoring : str, callable or None, default=None
        As in scikit-learn; None is the estimator's accuracy.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out for scores; None scores nothing and learns from all. Where
        the estimator was fitted on the same images before, scores flatter.
    then : pruner or None, default=None
        Another pruner that goes on with what this one leaves, on the same split: double pruning.
        It has no `estimator`, its `validation_fraction` and `random_state` are not used, and its
        `target` and `max_drop` count from there.
    random_state : int, RandomState instance or None, default=None
        Seed of split and training; None takes the estimator's.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    estimator_ : classifier
        Fitted, with the pruned network: it predicts, is saved and exported as any other. All of
        it learns in ``partial_fit``; a new fit of it, or a clone, starts from its unpruned
        backbone. `history_` is of the last training.
    results_ : pandas.DataFrame
        A row for the start and each step: ``pruner``, ``parameters`` and ``macs`` as they would be
        left, ``nonzero`` of the parameters, ``score``, ``epochs`` and ``seconds`` since the start
        and whether the step was ``kept``.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        As of :class:`RRRNetClassifier`.
    n_features_in_ : int
        Length of a row; only where X had rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only where X was a frame of rows with such names.

    See Also
    --------
    ChannelPruner : Makes a network narrower; follows well as `then`.

    References
    ----------
    Basis scaling and double pruning for efficient inference in network-based transfer learning
    (2021), arXiv:2108.02893. Molchanov et al. (2019), Importance estimation for neural network
    pruning: the squared first-order term.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import BasisScalingPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, max_epochs=2, image_size=32, random_state=0)
    >>> pruner = BasisScalingPruner(clf, target=0.6, n_steps=2).fit(X[:64] / 16, y[:64])
    >>> before, _, after = pruner.results_.parameters
    >>> bool(after <= 0.4 * before)
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        norms=True,
        learning_rate=0.02,
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
        self.norms = norms
        self.learning_rate = learning_rate

    _trains_before = 1  # to learn what matters

    def _check_parameters(self):
        super()._check_parameters()
        check_bool("norms", self.norms)
        check_real("learning_rate", self.learning_rate, 0, open_low=True)

    def _begin(self, run, epochs):
        run.put(self._freeze(split_convolutions(run.network)))
        self._retrain(run, epochs)

    def _freeze(self, network):
        """Let factors, heads and perhaps norms learn, and nothing else."""
        network.freeze("all").requires_grad_(False)
        for module in network.modules():
            if isinstance(module, ScaledPair):
                module.scale.requires_grad_(True)
            elif isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(self.norms)
        network.head.requires_grad_(True)
        return network

    def _retrain(self, run, epochs):
        """Train, and keep the mean importance of each basis vector."""
        changes = {"learning_rate": self.learning_rate, "stump_lr_factor": 1.0}
        changes["undecayed"] = UNDECAYED
        with RunningImportance(run.network) as run.importance:
            if epochs:
                run.train(epochs, **changes)
            else:
                run.importance.measure(run)

    def _rank(self, run):
        groups = [
            ChannelGroup(pair.rank, parts=pair.groups, writers=[name])
            for name, pair in list_pairs(run.network)
        ]
        return rank_units(groups, [run.importance.mean(g.name) for g in groups])

    def _without(self, network, units):
        network = copy.deepcopy(network)
        for group, kept in group_units(units):
            pair = network.get_submodule(group.name)
            network.set_submodule(group.name, pair.keep(kept))
        return self._freeze(network)

    def _export(self, network):
        network = copy.deepcopy(network)
        for name, pair in list_pairs(network):
            network.set_submodule(name, pair.fold())
        network.is_reduced = True
        return network.freeze("all").eval()


def list_pairs(network):
    """Return the pairs with factors in a network, with their names."""
    return [(n, m) for n, m in network.named_modules() if isinstance(m, ScaledPair)]


def split_convolutions(network):
    """Return a copy of a network that computes the same with pairs for convolutions."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, ConvPair):
            network.set_submodule(name, module.merge())
    for name, module in list(network.named_modules()):
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1 == module.weight.shape[1]
        if isinstance(module, nn.Conv2d) and not depthwise:
            network.set_submodule(name, ScaledPair.split(module))
    return network


class RunningImportance:
    """The mean over batches of (s ∂L/∂s)², of all factors s, while the block lasts.

    Parameters
    ----------
    network : RRRNet
        With pairs; each backward pass through it counts.
    """

    def __init__(self, network):
        self.network, self.sums, self.counts = network, {}, {}

    def __enter__(self):
        self.hooks = [
            pair.scale.register_hook(partial(self._add, name, pair.scale))
            for name, pair in list_pairs(self.network)
        ]
        return self

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()

    def _add(self, name, scale, slope):
        value = (scale.detach() * slope).square().cpu()
        self.sums[name] = self.sums.get(name, 0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name):
        """Return the mean importance of the vectors of a pair, (r,)."""
        return self.sums[name] / self.counts[name]

    def measure(self, run):
        """Let one pass over the images count, without training."""
        for loss, _ in run.losses():
            loss.backward()
        self.network.zero_grad(set_to_none=True)
