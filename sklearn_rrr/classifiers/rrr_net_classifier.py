"""RRRNetClassifier: RRR-Net (Sun et al. 2023, arXiv:2310.01157) behind scikit-learn's API."""

from numbers import Integral

import torch
from sklearn.base import clone

from sklearn_rrr._validation import check_choice, check_int, check_real
from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.fine_tuning import SPLITS, TRAINABLE
from sklearn_rrr.classifiers.base import BaseImageClassifier
from sklearn_rrr.classifiers.ensembles import make_strategy
from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS
from sklearn_rrr.networks.branch_widths import MAX_BRANCHES
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.training.settings import SAMPLINGS


class BranchClassifier(BaseImageClassifier):
    """Builds an RRRNet from what its children have as parameters or as class attributes."""

    def _strategy(self):
        return make_strategy(self.ensemble)

    def _load_backbone(self):
        backbone, pretrained = self._load_pretrained()
        self.blocks_ = self._check_blocks(backbone)
        self.trainable_, self.split_ = self._settle("trainable"), self._settle("split")
        # Model [A], the whole backbone, keeps its norms; elsewhere frozen ones are adapted.
        whole = self.n_branches == 1 and self.blocks_ == backbone.depths
        kept = pretrained and self.trainable_ == "head" and whole
        self._adapts_norms = not kept
        return backbone

    def _check_blocks(self, backbone):
        if self.blocks is None:
            return backbone.depths
        valid = isinstance(self.blocks, (tuple, list)) and len(self.blocks) == 4
        pairs = zip(self.blocks, backbone.depths, strict=True) if valid else ()
        if not valid or any(
            isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= depth
            for n, depth in pairs
        ):
            raise ValueError(
                "`blocks` must be 4 ints from (1, 1, 1, 1) to "
                f"{backbone.depths} for the backbone {self.backbone!r}; got {self.blocks!r}. "
                "Use None to keep all blocks."
            )
        return tuple(map(int, self.blocks))

    def _make_module(self, backbone):
        # Model [C] of the paper: unsplit, but with fresh norms where the stump is frozen.
        unsplit = self.n_branches == 1
        fresh = self.split_ == "paper" and (not unsplit or self.trainable_ == "branches")
        module = RRRNet(
            backbone,
            len(self.classes_),
            blocks=self.blocks_,
            n_branches=self.n_branches,
            split_at=self.split_at,
            split=self.split_,
            width_offset=self.width_offset,
            fresh_norms=fresh,
            dropout=self.dropout,
            generator=torch.Generator().manual_seed(self._split_seed),
        )
        self.width_offset_, self.branch_planes_ = module.width_offset, module.branch_planes
        return module.freeze(self.trainable_)


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
    split : {"auto", "paper", "aligned"}, default="auto"
        How branches take their kernels: "paper", by Algorithm 2, which mixes channels, with
        fresh norms; "aligned", so that each branch is a true sub-network, with its norms.
        "auto", here and below: what suits the backbone, see Notes.
    width_offset : int or "auto", default="auto"
        a of Eq. (1), subtracted from the width of the branches; "auto" takes the smallest
        that does not add parameters.
    dropout : float, default=0.0
        Probability in [0, 0.99] of dropout after each activation of the last two blocks.
    trainable : {"auto", "head", "branches", "all"}, default="auto"
        What learns. "branches" includes the heads and freezes the stump. With "branches" and
        split="paper" an unsplit network starts with fresh norms, too (model [C]).
    ensemble : {"naive", "bagging", "snapshot", "fge"} or EnsembleStrategy, default="naive"
        How branches are trained: "naive", each on all images; "bagging", each on a bootstrap
        sample; "snapshot" and "fge", one in cycles of the learning rate, whose weights become
        the branches. :class:`BaggingEnsemble`, :class:`SnapshotEnsemble` and
        :class:`FastGeometricEnsemble` have parameters of their own.
    sampling : {"shared", "independent"}, default="shared"
        Whether the branches see the same batches, with one pass through the stump, or each
        its own order and augmentation, as published.
    max_epochs : int or "auto", default="auto"
        Passes over the images. "auto" spends the backbone's number of steps, in 10 to 300
        epochs.
    batch_size : int, default=32
        Images per training step, at least 2.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW.
    stump_lr_factor : float or "auto", default="auto"
        Factor in (0, 1] on the learning rate of the stump, where it learns.
    weight_decay : float, default=0.01
        Decoupled weight decay of AdamW.
    lr_schedule : {"auto", "constant", "linear", "cosine", "onecycle", "steps"}, default="auto"
        Course of the learning rate; "steps" divides it by ten at 40 % and at 80 % of the steps.
    ema_epochs : int or float, default=0.2
        Last epochs over which weights are averaged; a float is a fraction of all epochs. 0
        switches it off, and so does early stopping, whose end is not known beforehand.
    norm_warmup_epochs : int or "auto", default="auto"
        Passes that adapt the norm statistics of the frozen parts before training. "auto":
        10 epochs' worth of 400 images, but 0 for a whole pre-trained network of which only the
        head learns (model [A]).
    head_init : {"auto", "random", "ridge"}, default="auto"
        How the heads start: at random, as published, or as a ridge regression on the features
        that the training images have before training.
    augmentation : {"auto", "paper", "geometric"}, callable or None, default="auto"
        "paper": two random transformations per image, of 14. "geometric": two of rotation,
        translation, scaling and shear. A callable takes and returns one image, a float tensor
        (3, S, S) in [0, 1]. "auto" is None for rows and arrays less than 8 pixels high or
        wide, which are no pictures.
    cache_features : bool, default=True
        Whether the features of frozen parts are computed once and kept, where no augmentation
        changes them: up to 1 GiB in memory, up to 16 GiB in a temporary file, else not.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss.
    validation_fraction : float or None, default=None
        Fraction of the images held out to watch the training, in [0.001, 0.999].
    early_stopping : bool, default=False
        Stop when the validation loss does not improve for `patience` epochs, and return to
        the best epoch.
    patience : int, default=10
        Epochs, see `early_stopping`.
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
    device : str or torch.device, default="auto"
        "auto", "cpu", "cuda", "cuda:1", …
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Arithmetic of the products. "auto" trains in bf16 where the hardware multiplies it
        and predicts in fp32.
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
        What the backbone recommends, and "auto" stands for.
    trainable_ : str
        What learned.
    split_ : str
        How the branches took their kernels.
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

    Notes
    -----
    "auto" takes what suits the backbone: the paper's settings for torchvision's, others for
    "synth50"; with random weights everything learns, at the paper's rate, in the backbone's
    steps. They are listed in the user guide; :class:`~sklearn_rrr.backbones.fine_tuning.FineTuning`
    holds them.

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

    def __init__(
        self,
        backbone="synth50",
        *,
        weights="pretrained",
        blocks=(1, 1, 1, 1),
        n_branches=8,
        split_at="conv4_x",
        split="auto",
        width_offset="auto",
        dropout=0.0,
        trainable="auto",
        ensemble="naive",
        sampling="shared",
        max_epochs="auto",
        batch_size=32,
        learning_rate="auto",
        stump_lr_factor="auto",
        weight_decay=0.01,
        lr_schedule="auto",
        ema_epochs=0.2,
        norm_warmup_epochs="auto",
        head_init="auto",
        augmentation="auto",
        cache_features=True,
        class_weight=None,
        validation_fraction=None,
        early_stopping=False,
        patience=10,
        image_shape=None,
        image_size=None,
        on_bad_file="raise",
        max_image_pixels=MAX_IMAGE_PIXELS,
        device="auto",
        precision="auto",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            backbone,
            weights=weights,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            lr_schedule=lr_schedule,
            ema_epochs=ema_epochs,
            head_init=head_init,
            augmentation=augmentation,
            cache_features=cache_features,
            class_weight=class_weight,
            validation_fraction=validation_fraction,
            early_stopping=early_stopping,
            patience=patience,
            image_shape=image_shape,
            image_size=image_size,
            on_bad_file=on_bad_file,
            max_image_pixels=max_image_pixels,
            device=device,
            precision=precision,
            random_state=random_state,
            verbose=verbose,
        )
        self.blocks = blocks
        self.n_branches = n_branches
        self.split_at = split_at
        self.split = split
        self.width_offset = width_offset
        self.dropout = dropout
        self.trainable = trainable
        self.ensemble = ensemble
        self.sampling = sampling
        self.stump_lr_factor = stump_lr_factor
        self.norm_warmup_epochs = norm_warmup_epochs

    def _check_parameters(self):
        check_int("n_branches", self.n_branches, 1, MAX_BRANCHES, "Use 1 for an unsplit network.")
        check_choice("split_at", self.split_at, PHASES)
        check_choice("split", self.split, ("auto", *SPLITS))
        if self.width_offset != "auto":
            check_int("width_offset", self.width_offset, 0, hint='Or use "auto".')
        check_real("dropout", self.dropout, 0, 0.99)
        check_choice("trainable", self.trainable, ("auto", *TRAINABLE))
        strategy = make_strategy(self.ensemble)
        if strategy.cyclic and self.early_stopping:
            raise ValueError(
                f"`early_stopping`=True would cut the cycles of `ensemble`={self.ensemble!r}; "
                'use "naive" or "bagging".'
            )
        check_choice("sampling", self.sampling, SAMPLINGS)
        if self.stump_lr_factor != "auto":
            factor = self.stump_lr_factor
            check_real("stump_lr_factor", factor, 0, 1, hint='Or use "auto".', open_low=True)
        if self.norm_warmup_epochs != "auto":
            check_int("norm_warmup_epochs", self.norm_warmup_epochs, 0, hint='Or use "auto".')
        super()._check_parameters()

    def _grow(self, blocks, X, y=None, sample_weight=None, random_state=None):
        """Return a copy with other blocks that trains on from these weights, on the same classes.

        New blocks start pre-trained. The branches keep their widths.
        """
        grown = clone(self).set_params(
            blocks=blocks, width_offset=self.width_offset_, random_state=random_state
        )
        return grown._fit(X, y, sample_weight, earlier=self)
