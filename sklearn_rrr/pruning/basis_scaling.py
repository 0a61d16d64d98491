"""Basis scaling, and double pruning: arXiv:2108.02893.

Derived from the abstract of the paper. Each convolution is split by its singular value
decomposition into a basis of filters and a 1x1 convolution that mixes them; see
:mod:`sklearn_rrr.pruning.convolution_pairs`. Only one factor for each basis vector is trained,
with the norms and heads, and the least important basis vectors are removed. The numbers of input
and output channels do not change, so that a second pruner can follow: double pruning. The method
may be covered by patents of its authors' employer.
"""

import copy
from dataclasses import KW_ONLY, dataclass
from functools import partial

from torch import nn

from sklearn_rrr._validation import check_bool, check_real
from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.channel_groups import ChannelGroup
from sklearn_rrr.pruning.channel_pruner import group_units, rank_units
from sklearn_rrr.pruning.convolution_pairs import ConvPair, ScaledPair

# Factors start at 1; weight decay would shrink them to 0.
UNDECAYED = ("*.scale",)


@dataclass(eq=False, repr=False)
class BasisScalingPruner(BasePruner):
    """Remove the basis vectors of convolutions whose trained factors matter least.

    Each convolution is split, exactly, into its basis vectors and a 1x1 convolution. While only
    factors of the basis vectors, norms and heads are trained, the least important vectors of all
    layers are removed. In the end each convolution becomes a pair of convolutions if that has
    fewer weights, else a single one. Depthwise convolutions are not pruned.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Classifier to prune, frozen or to be fitted; default and details, here and below, as in
        :class:`~sklearn_rrr.pruning.base.BasePruner`.
    norms : bool, default=True
        Whether the weights and biases of batch norms are trained with the factors.
    learning_rate : float, default=0.02
        Step size of factors, norms and heads, above 0. Factors start at 1 and are the only
        trained weights of the convolutions, so they need larger steps than the convolutions
        themselves.
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

    See Also
    --------
    ChannelPruner : Removes channels; suited as `then`.

    References
    ----------
    Basis scaling and double pruning for efficient inference in network-based transfer learning
    (2021), arXiv:2108.02893. Molchanov et al. (2019), Importance estimation for neural network
    pruning: importance as the squared first-order term of the loss.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import BasisScalingPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> form = {"blocks": (1, 1, 1, 1), "n_branches": 2, "image_size": 32}
    >>> clf = RRRNetClassifier(**form, max_epochs=2, random_state=0)
    >>> pruner = BasisScalingPruner(clf, target=0.6, n_steps=2).fit(X[:64] / 16, y[:64])
    >>> before, _, after = pruner.results_.parameters
    >>> bool(after <= 0.4 * before)
    True
    """

    _trains_before = 1  # to measure importance

    _: KW_ONLY
    norms: bool = True
    learning_rate: float = 0.02

    def _check_parameters(self):
        super()._check_parameters()
        check_bool("norms", self.norms)
        check_real("learning_rate", self.learning_rate, 0, open_low=True)

    def _begin(self, run, epochs):
        run.put(self._freeze(split_convolutions(run.network)))
        self._retrain(run, epochs)

    def _freeze(self, network):
        """Freeze all parameters but factors, heads and, if `norms`, norms."""
        network.freeze("all").requires_grad_(False)
        for module in network.modules():
            if isinstance(module, ScaledPair):
                module.scale.requires_grad_(True)
            elif isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(self.norms)
        network.head.requires_grad_(True)
        return network

    def _retrain(self, run, epochs):
        """Train, and measure the importance of each basis vector meanwhile."""
        changes = {"learning_rate": self.learning_rate, "stump_lr_factor": 1.0}
        changes["undecayed"] = UNDECAYED
        with RunningImportance(run.network) as run.importance:
            if epochs:
                run.train(epochs, others=[run.importance], **changes)
            else:
                run.importance.measure(run.batches)

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
    """Return the names and modules of the pairs with factors in a network."""
    return [(n, m) for n, m in network.named_modules() if isinstance(m, ScaledPair)]


def split_convolutions(network):
    """Return an equivalent copy of a network whose convolutions are pairs with factors."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, ConvPair):
            network.set_submodule(name, module.merge())
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and not is_depthwise(module):
            network.set_submodule(name, ScaledPair.split(module))
    return network


class RunningImportance:
    """Context manager that averages (s ∂L/∂s)² over backward passes, for all factors s.

    Parameters
    ----------
    network : RRRNet
        Network with pairs.
    """

    def __init__(self, network):
        self.network, self.sums, self.counts = network, {}, {}

    def state_dict(self):
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state):
        self.sums, self.counts = state["sums"], state["counts"]

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
        """Return the mean importance of the basis vectors of a pair, by its name: (r,)."""
        return self.sums[name] / self.counts[name]

    def measure(self, batches):
        """Add the gradients of one pass over LossBatches, without training."""
        for loss, _, _ in batches.losses(self.network):
            loss.backward()
        self.network.zero_grad(set_to_none=True)
