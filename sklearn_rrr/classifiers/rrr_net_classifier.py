"""RRRNetClassifier: RRR-Net (Sun et al. 2023, arXiv:2310.01157) behind scikit-learn's API."""

from dataclasses import KW_ONLY, dataclass
from numbers import Integral

import torch
from sklearn.base import clone

from sklearn_rrr._validation import check_bool, check_choice, check_int
from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.classifiers.base import BaseImageClassifier
from sklearn_rrr.classifiers.ensembles import EnsembleStrategy, make_strategy
from sklearn_rrr.networks.branch_widths import MAX_BRANCHES
from sklearn_rrr.networks.rrr_net import RRRNet


@dataclass(eq=False, repr=False)
class BranchClassifier(BaseImageClassifier):
    """Trains an RRRNet; a child says of what form, by ``_network_form()``."""

    _: KW_ONLY
    early_stopping: bool = False

    def _network_form(self):
        """Return blocks, n_branches, split_at and width_offset, as a dict, of RRRNetClassifier."""
        raise NotImplementedError

    def _check_parameters(self):
        super()._check_parameters()
        if check_bool("early_stopping", self.early_stopping) and self.validation_fraction is None:
            raise ValueError(
                "`early_stopping`=True needs validation data; got `validation_fraction`=None. "
                "Use for example validation_fraction=0.1."
            )

    def _stops_early(self):
        return self.early_stopping

    def _load_backbone(self):
        backbone, self._is_pretrained = self._load_pretrained()
        self.blocks_ = self._check_blocks(backbone)
        self.trainable_ = self.fine_tuning_.trainable
        self._is_whole = self._network_form()["n_branches"] == 1 and self.blocks_ == backbone.depths
        return backbone

    def _adapts_norms(self):
        """Model [A], the whole backbone, keeps its norms; elsewhere frozen ones are adapted."""
        return not (self._is_pretrained and self.trainable_ == "head" and self._is_whole)

    def _check_blocks(self, backbone):
        blocks = self._network_form()["blocks"]
        if blocks is None:
            return backbone.depths
        valid = isinstance(blocks, (tuple, list)) and len(blocks) == 4
        pairs = zip(blocks, backbone.depths, strict=True) if valid else ()
        if not valid or any(
            isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= depth
            for n, depth in pairs
        ):
            raise ValueError(
                "`blocks` must be 4 ints from (1, 1, 1, 1) to "
                f"{backbone.depths} for the backbone {self.backbone!r}; got {blocks!r}. "
                "Use None to keep all blocks."
            )
        return tuple(map(int, blocks))

    def _make_module(self, backbone):
        form, tuning = self._network_form(), self.fine_tuning_
        # Model [C] of the paper: unsplit, but with fresh norms where the stump is frozen.
        unsplit = form["n_branches"] == 1
        fresh = tuning.split == "paper" and (not unsplit or tuning.trainable == "branches")
        module = RRRNet(
            backbone,
            len(self.classes_),
            **form | {"blocks": self.blocks_},
            split=tuning.split,
            fresh_norms=fresh,
            dropout=tuning.dropout,
            generator=torch.Generator().manual_seed(self._split_seed),
        )
        self.width_offset_, self.branch_planes_ = module.width_offset, module.branch_planes
        return module.freeze(tuning.trainable)


@dataclass(eq=False, repr=False)
class RRRNetClassifier(BranchClassifier):
    """Classify images with a reused, reduced and recycled backbone network.

    The first blocks of each phase of a pre-trained residual network are kept; from a split
    point on, they become `n_branches` narrower branches of about the same total size, whose
    probabilities are averaged.

    Parameters
    ----------
    backbone : str, default="synth50"
        Name of a backbone, one of :func:`list_backbones`. "resnet152" is the paper's.
    weights : str, path, dict or None, default="pretrained"
        "pretrained" (bundled for "synth50", downloaded for torchvision's backbones), the name
        of a torchvision weight, a ``.pth`` or ``.safetensors`` file, a state dict, or None for
        random weights; see :func:`load_backbone`. With "pretrained" a backbone of your own
        starts from random weights, with a warning.
    blocks : tuple of 4 int or None, default=(1, 1, 1, 1)
        Number of blocks kept in conv2_x to conv5_x; None keeps all.
    n_branches : int, default=8
        Number of branches, 1 to 256; 1 leaves the network unsplit.
    split_at : {"conv2_x", "conv3_x", "conv4_x", "conv5_x"}, default="conv4_x"
        First phase of the branches; what lies before it is the stump.
    width_offset : int or None, default=None
        a of Eq. (1), subtracted from the width of the branches; None takes the smallest that does
        not add parameters.
    ensemble : {"naive", "bagging", "snapshot", "fge"} or EnsembleStrategy, default="naive"
        How branches are trained: "naive", each on all images; "bagging", each on a bootstrap
        sample; "snapshot" and "fge", one in cycles of the learning rate, whose weights become
        the branches. :class:`BaggingEnsemble`, :class:`SnapshotEnsemble` and
        :class:`FastGeometricEnsemble` have parameters of their own.
    fine_tuning : FineTuning, "published" or None, default=None
        What learns and how: see :class:`FineTuning`, whose fields are reached as
        ``fine_tuning__learning_rate`` and so on. None takes what suits the backbone; "published"
        takes the paper's settings.
    max_epochs : int or None, default=None
        Passes over the images. None spends the number of steps of `fine_tuning`, in 10 to 300
        epochs.
    batch_size : int, default=32
        Images per training step, at least 2.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss.
    validation_fraction : float or None, default=None
        Fraction of the images held out to watch the training, in [0.001, 0.999].
    early_stopping : bool, default=False
        Stop when the validation loss has not improved for ``patience`` epochs, a field of
        `fine_tuning`, and return to the best epoch.
    image_shape : tuple of int or None, default=None
        How a row is laid out: (h, w), (h, w, c) or (c, h, w), one of them may be -1. None
        takes a square, gray or RGB, else 1 x n_features with a warning.
    image_size : int or None, default=None
        Height and width in pixels that images are resized to; None takes the backbone's.
    on_bad_file : {"raise", "skip"}, default="raise"
        What `fit` does with images that cannot be read. `predict` always raises.
    max_image_pixels : int, default=64000000
        Largest number of pixels of an image file; above Pillow's own limit of 178956970 it
        has no effect.
    device : str, torch.device or None, default=None
        "cpu", "cuda", "cuda:1", …; None takes a GPU if there is one.
    precision : {"fp32", "bf16"} or None, default=None
        Arithmetic of the products. None trains in bf16 where the hardware multiplies it, and
        predicts in fp32.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, splits, order and augmentation.
    verbose : int, default=0
        1: a progress bar. 2: a table with a line per epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Length of a row; only where X had rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only where X was a frame of rows with such names.
    image_shape_in_ : tuple or None
        (h, w) or (h, w, c) of the images given to `fit`; None where it may vary.
    image_size_ : int
        Height and width that images are resized to.
    blocks_ : tuple of 4 int
        Blocks kept in each phase.
    width_offset_ : int
        a of Eq. (1).
    branch_planes_ : tuple of int
        Planes of each phase of a branch.
    fine_tuning_ : FineTuning
        The settings of the training, with nothing left to the backbone.
    trainable_ : str
        What learned.
    n_parameters_ : int
        Parameters of the whole network.
    history_ : pandas.DataFrame
        A row per epoch: epoch, dur (seconds), learning_rate (of the first step), train_loss
        (mean over branches) and, with validation, valid_loss and valid_acc; with "snapshot" and
        "fge" of the one branch that is trained.
    module_ : RRRNet
        The network.
    net_ : skorch.NeuralNet
        The skorch net that trained it; made anew after unpickling.
    skipped_ : list
        Paths or images, or indices of a Dataset, that ``on_bad_file="skip"`` left out.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net: Reusing, Reducing, and Recycling a Deep
    Backbone Network, arXiv:2310.01157.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, max_epochs=2, weights=None, random_state=0)
    >>> clf.fit(X[:64] / 16, y[:64]).predict_proba(X[64:66] / 16).shape
    (2, 3)
    """

    _: KW_ONLY
    blocks: tuple | None = (1, 1, 1, 1)
    n_branches: int = 8
    split_at: str = "conv4_x"
    width_offset: int | None = None
    ensemble: str | EnsembleStrategy = "naive"

    def _network_form(self):
        names = ("blocks", "n_branches", "split_at", "width_offset")
        return {name: getattr(self, name) for name in names}

    def _strategy(self):
        return make_strategy(self.ensemble)

    def _check_parameters(self):
        check_int("n_branches", self.n_branches, 1, MAX_BRANCHES, "Use 1 for an unsplit network.")
        check_choice("split_at", self.split_at, PHASES)
        if self.width_offset is not None:
            check_int("width_offset", self.width_offset, 0, hint="None takes the smallest.")
        if make_strategy(self.ensemble).cyclic and self.early_stopping:
            raise ValueError(
                f"`early_stopping`=True would cut the cycles of `ensemble`={self.ensemble!r}; "
                'use "naive" or "bagging".'
            )
        super()._check_parameters()

    def _grow(self, blocks, images, random_state=None):
        """Return a copy with other blocks that trains on from these weights, on a LabelledSet.

        New blocks start pre-trained. The branches keep their widths.
        """
        grown = clone(self).set_params(
            blocks=blocks, width_offset=self.width_offset_, random_state=random_state
        )
        return grown._fit_set(images, earlier=self)
