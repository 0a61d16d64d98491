"""Layer-by-layer simplification of a network with progressive retraining: arXiv:2101.04699.

Derived from the abstract of Osaku, Gomes and Falcão (2021). The layers are simplified one after
the other, from the first to the last. The relevance of the kernels of a layer is measured, or
judged by a person who looks at their activations. Irrelevant kernels are removed, and then the
network is retrained "from the next layer to the first one".
"""

import copy
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from itertools import takewhile

import numpy as np
import torch

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real
from sklearn_rrr._warnings import warn
from sklearn_rrr.pruning.activation_maps import activation_maps, pick_images
from sklearn_rrr.pruning.channel_groups import find_groups, list_blocks, list_layers, stem_layer
from sklearn_rrr.pruning.channel_pruner import rank_units
from sklearn_rrr.pruning.criteria import CRITERIA, score_channels, score_taylor
from sklearn_rrr.pruning.leave_one_out import score_leave_one_out, score_without
from sklearn_rrr.pruning.loop import CostPruner
from sklearn_rrr.pruning.removal import keep_channels

RELEVANCE = ("leave_one_out", *CRITERIA)
RETRAININGS = ("progressive", "usual")
ROUNDING = 1e-6  # of balanced accuracies, which are means over few images


@dataclass(eq=False, repr=False)
class ProgressiveKernelPruner(CostPruner):
    """Simplify a network layer by layer, retraining up to the next layer after each.

    A layer is a convolution with its norm. After the irrelevant kernels of a layer are removed,
    this layer, all layers before it and the next one, which reads its output, are retrained; later
    layers keep their weights and norm statistics. The shortcut of a block belongs to the block's
    last convolution. A depthwise convolution loses the channels of the layer before it, and is
    retrained with it and the next one. The head is the last layer: it is retrained only if
    `streams` removes channels that it reads.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Classifier to prune, frozen or unfitted;
        :class:`~sklearn_rrr.pruning.base.BasePruner` documents it and the default.
    criterion : {"leave_one_out", "taylor", "norm", "l1", "fisher"} or callable, \
default="leave_one_out"
        Objective relevance of a kernel. "leave_one_out" is the drop in balanced accuracy on the
        hold-out set without the kernel, with ties broken by "taylor". :class:`ChannelPruner`
        describes the other names, and callables.
    layer_tolerance : float, default=0.0
        Largest accepted drop in balanced accuracy on the hold-out set, in [0, 1], after the kernels
        of one layer are removed and before retraining. The least relevant kernels are removed
        first. With "leave_one_out", kernels whose own drop is larger always remain.
    amount : float or None, default=None
        Fraction of each layer's kernels to remove, in [0, 0.999], instead of `layer_tolerance`.
    target : float or None, default=None
        Fraction of the network's `cost` to remove, in [0, 0.999], instead of `layer_tolerance`:
        the smallest `amount` that reaches it is used. 0 leaves the network unchanged.
    selector : callable or None, default=None
        Subjective relevance, instead of `layer_tolerance`. ``selector(layer, activation_mosaics,
        scores)`` returns a boolean array of shape (C,), True for channels that remain. Its
        arguments are the name of the layer; the activations of its C channels on a few images, of
        shape (C, n_images, h, w); and the relevance by `criterion`, of shape (C,). The channels
        consist of equal consecutive parts, one for each branch or group of a grouped convolution;
        the same number of channels must remain in each part.
    mosaic_images : int, default=16
        Number of images whose activations `selector` receives, at least 1. They come from the
        hold-out set if there is one.
    retrain : {"progressive", "usual"}, default="progressive"
        Layers to retrain. "progressive" retrains those described above; "usual", the control,
        retrains the whole network, for the same number of epochs.
    streams : bool, default=False
        Whether to remove channels of residual streams, too, in all layers of a stream at once.
        The next layer of a stream is the last layer that reads it.
    cost : {"parameters", "macs"}, default="parameters"
        Cost that `target` refers to.
    tolerance : float or None, default=None
        Largest accepted drop of the score, at least 0, relative to the start. A layer that
        exceeds it after retraining is restored, and pruning continues with the next layer.
        None accepts every drop.
    epochs_per_step : int or None, default=None
        Number of epochs after each layer, at least 0. None divides the number of epochs of the
        estimator's own fit by the number of layers, with at least one epoch for each.
    scoring : str, callable or None, default=None
        Scorer of `results_`, `tolerance` and :meth:`score`. None uses accuracy.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out. None needs a criterion other than "leave_one_out", and
        `amount`, `target` or `selector`.
    then, checkpoint_dir, random_state, verbose : optional
        As in :class:`~sklearn_rrr.pruning.base.BasePruner`.

    Attributes
    ----------
    estimator_ : classifier
        Fitted classifier with the simplified network.
    results_ : pandas.DataFrame
        One row for the start and one for each layer in order. Columns in addition to those of
        :class:`~sklearn_rrr.pruning.base.BasePruner`: ``layer``, the name of its convolution, empty
        at the start; ``channels_before`` and ``channels``, sums over all layers at the start;
        ``relevance`` of each channel before removal; ``remaining``, positions of the remaining
        channels. ``kept`` is False for a layer that was restored.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        Images that could not be read.

    See Also
    --------
    ChannelPruner : Prune all layers at once, in steps.
    sklearn_rrr.plotting.KernelMosaicDisplay : Plot the activations that a selector receives.

    Notes
    -----
    Two identical kernels each have no relevance, but cannot both be removed. Therefore, kernels of
    low relevance are removed together, the least relevant first, as long as their joint removal
    does not exceed `layer_tolerance`.

    References
    ----------
    Osaku, Gomes and Falcão (2021), Convolutional neural network simplification with progressive
    retraining, arXiv:2101.04699. Derived from its abstract.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import ProgressiveKernelPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> form = {"blocks": (1, 1, 1, 1), "n_branches": 2, "image_size": 32}
    >>> clf = RRRNetClassifier("synth50", max_epochs=2, random_state=0, **form)
    >>> pruner = ProgressiveKernelPruner(clf, criterion="l1", amount=0.25, epochs_per_step=1)
    >>> table = pruner.fit(X[:64] / 16, y[:64]).results_
    >>> table.layer.tolist()[:3]
    ['', 'stump.4.0.conv1', 'stump.4.0.conv2']
    >>> table.channels_before.tolist()[1:3], table.channels.tolist()[1:3]
    ([32, 32], [24, 24])
    """

    _ends_at_roll_back = False

    _: KW_ONLY
    target: float | None = None
    criterion: str | Callable = "leave_one_out"
    layer_tolerance: float = 0.0
    amount: float | None = None
    selector: Callable | None = None
    mosaic_images: int = 16
    retrain: str = "progressive"
    streams: bool = False

    # ------------------------------------------------------------------------- checks

    def _check_amount(self):
        check_real("layer_tolerance", self.layer_tolerance, 0, 1)
        if self.amount is not None:
            check_real("amount", self.amount, 0, 0.999, "It is a fraction of each layer's kernels.")
        if self.target is not None:
            check_real("target", self.target, 0, 0.999, "It is the fraction of the cost to remove.")
        if not (self.selector is None or callable(self.selector)):
            raise TypeError(f"`selector` must be a callable or None; got {self.selector!r}.")
        names = ("amount", "target", "selector")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"`{given[0]}` and `{given[1]}` both determine what is removed; set only one."
            )
        name = "criterion" if self.criterion == "leave_one_out" else "layer_tolerance"
        if self.validation_fraction is None and (name == "criterion" or not given):
            raise ValueError(
                f"`{name}`={getattr(self, name)!r} needs images to score on; got "
                "`validation_fraction`=None. Use, for example, 0.2."
            )

    def _check_parameters(self):
        super()._check_parameters()
        if not callable(self.criterion):
            check_choice("criterion", self.criterion, tuple(RELEVANCE), "Or use a callable.")
        check_choice("retrain", self.retrain, RETRAININGS)
        check_bool("streams", self.streams)
        check_int("mosaic_images", self.mosaic_images, 1)

    # ------------------------------------------------------------------------- pruning

    def _count_trainings(self, run):
        return max(len(find_groups(run.network, self.streams)), 1)

    def _describe_start(self, run):
        number = sum(group.size for group in find_groups(run.network, self.streams))
        start = {"layer": "", "channels_before": number, "channels": number}
        return {**start, "relevance": None, "remaining": None}

    def _steps(self, run, start):
        """Remove kernels of one layer, yield, and continue with the next layer."""
        if self.target == 0:
            return
        groups, amount = find_groups(run.network, self.streams), self._find_amount(run, start)
        for group in self._show_progress(groups, "layer"):
            relevance, remaining = self._judge(run, group, amount)
            network = copy.deepcopy(run.network)
            keep_channels(network, group, torch.as_tensor(remaining))
            run.put(network)
            if self.retrain == "progressive":
                network.hold(list_later(network, group))
            yield {
                "layer": group.name,
                "channels_before": group.size,
                "channels": len(remaining),
                "relevance": relevance,
                "remaining": remaining,
            }

    def _retrain(self, run, epochs):
        super()._retrain(run, epochs)
        run.network.freeze("all")  # freezes nothing: all parts train again

    def _find_amount(self, run, start):
        """Return the fraction of each layer's kernels to remove, or None if it is not fixed."""
        if self.target is None:
            return self.amount
        limit = (1 - self.target) * start[self.cost]
        amounts = np.linspace(0, 1, 1001)

        def fits(amount):
            network = copy.deepcopy(run.network)
            for group in find_groups(network, self.streams):
                positions = torch.arange(group.size).view(group.parts, -1)
                keep_channels(network, group, positions[:, count_share(amount, group) :].flatten())
            return self._cost(network, run.image_size) <= limit

        number = bisect_left(amounts, True, key=fits)
        if number < len(amounts):
            return amounts[number]
        warn(
            f"{type(self).__name__} cannot remove {self.target:.1%} of the {self.cost}, the "
            "`target`: at least one channel of each part of a layer remains."
        )
        return 1.0

    # ------------------------------------------------------------------------- judging

    def _judge(self, run, group, amount):
        """Return the relevance of a layer's channels, and the positions of remaining channels."""
        relevance = self._score(run, group)
        if self.selector is not None:
            kept = self._ask(run, group, relevance.numpy())
        else:
            units = self._rank_kernels(run, group, relevance)
            if amount is None:
                number = self._count_spared(run, group, units, relevance)
            else:
                number = count_share(amount, group)
            kept = np.ones(group.size, dtype=bool)
            kept[[i for unit in units[:number] for i in unit.tolist()]] = False
        return relevance.numpy(), np.flatnonzero(kept)

    def _score(self, run, group):
        """Return the relevance of a layer's channels by `criterion`, a tensor of shape (C,)."""
        if self.criterion == "leave_one_out":
            images, how = run.scored_images, run.prediction
            return score_leave_one_out(run.network, [group], images, **how)[0].float()
        return score_channels(self.criterion, run.network, [group], run.batches)[0]

    def _score_without(self, run, group, channels):
        """Return the balanced accuracy on the hold-out set without some channels."""
        images, how = run.scored_images, run.prediction
        return score_without(run.network, group, [channels], images, **how)[0]

    def _rank_kernels(self, run, group, relevance):
        """Return units with one channel of each part, the least relevant unit first."""
        ties = torch.zeros(group.size)
        if self.criterion == "leave_one_out":  # ties are common with few images
            (ties,) = score_taylor(run.network, [group], run.batches)
        ranks = torch.empty(group.size)
        ranks[np.lexsort((ties.numpy(), relevance.numpy()))] = torch.arange(group.size).float()
        return [channels for _, channels in rank_units([group], [ranks])]

    def _count_spared(self, run, group, units, relevance):
        """Return the number of least relevant units that may be removed by `layer_tolerance`."""
        limit = self.layer_tolerance + ROUNDING
        if self.criterion == "leave_one_out":
            units = list(takewhile(lambda unit: relevance[unit].max() <= limit, units))
        gone = [[i for unit in units[:n] for i in unit.tolist()] for n in range(len(units) + 1)]
        full = self._score_without(run, group, [])

        def is_too_many(number):
            return full - self._score_without(run, group, gone[number]) > limit

        return bisect_left(range(1, len(gone)), True, key=is_too_many)

    def _ask(self, run, group, relevance):
        """Call `selector`, and check and return its mask."""
        images = pick_images(run.scored_images, self.mosaic_images)
        maps = activation_maps(run.network, group, images)
        kept = np.asarray(self.selector(group.name, maps, relevance))
        if kept.shape != (group.size,) or kept.dtype != bool:
            raise ValueError(
                f"`selector` must return a boolean array of shape ({group.size},) for "
                f"{group.name!r}; got an array of {kept.dtype} of shape {kept.shape}."
            )
        counts = kept.reshape(group.parts, -1).sum(1).tolist()
        if min(counts) < 1 or len(set(counts)) > 1:
            raise ValueError(
                "`selector` must keep at least one channel, and the same number, in each of the "
                f"{group.parts} equal parts (branches, groups) of {group.name!r}; got {counts}."
            )
        return kept


def count_share(amount, group):
    """Return the number of channels to remove from each part; at least one remains."""
    size = group.size // group.parts
    return min(round(float(amount) * size), size - 1)


def list_later(network, group):
    """Return the names of the modules after the last layer that reads or writes a group.

    Parameters
    ----------
    network : RRRNet
        Network of the group.
    group : ChannelGroup
        Channels whose readers are searched.

    Returns
    -------
    names : list of str
        Names of convolutions, norms, shortcuts and the head, unless it reads the group. A shortcut
        belongs to the layer of its block's last convolution.
    """
    layers = [stem_layer(network)]
    for name, block in list_blocks(network):
        layers += list_layers(name, block)
        if block.downsample is not None:
            layers[-1] += (f"{name}.downsample",)
    # The last block writes channels that only the head reads.
    ends = group.readers + group.writers
    last = max(i for i, names in enumerate(layers) if any(_holds(names, end) for end in ends))
    later = [name for names in layers[last + 1 :] for name in names]
    return later if "head" in group.readers else [*later, "head"]


def _holds(names, inner):
    return any(f"{inner}.".startswith(f"{name}.") for name in names)
