"""RRRNetClassifier: RRR-Net (Sun et al. 2023, arXiv:2310.01157) behind scikit-learn's API."""

from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral

import torch
from sklearn.base import clone

from sklearn_rrr._validation import check_bool, check_choice, check_int, plain
from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.classifiers.base import BaseImageClassifier
from sklearn_rrr.classifiers.ensembles import EnsembleStrategy, make_strategy
from sklearn_rrr.networks.branch_widths import MAX_BRANCHES
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.networks.stacked_net import StackedNet

MOST_IMAGES = 5000  # with a companion that is not asked for: the head would take minutes


@dataclass(eq=False, repr=False)
class BranchClassifier(BaseImageClassifier):
    """Base class of classifiers that train an RRRNet.

    A subclass implements ``_network_form()``.
    """

    _: KW_ONLY
    early_stopping: bool = False

    def _network_form(self):
        """Return a dict of blocks, n_branches, split_at and width_offset, arguments of RRRNet."""
        raise NotImplementedError

    def _check_parameters(self):
        super()._check_parameters()
        if check_bool("early_stopping", self.early_stopping) and self.validation_fraction is None:
            raise ValueError(
                "`early_stopping`=True needs validation data; got `validation_fraction`=None. "
                "Use, for example, validation_fraction=0.1."
            )

    def _stops_early(self):
        return self.early_stopping

    def _load_backbone(self, is_inside=False):
        backbone, self._is_pretrained = self._load_pretrained(is_inside)
        self.blocks_ = self._check_blocks(backbone)
        self.trainable_ = self.fine_tuning_.trainable
        self._is_whole = self._network_form()["n_branches"] == 1 and self.blocks_ == backbone.depths
        return backbone

    def _adapts_norms(self):
        """Tell whether frozen norms are adapted: always, except in the paper's model [A].

        Model [A] is the whole pre-trained backbone, of which only the head is trained.
        """
        return not (self._is_pretrained and self.trainable_ == "head" and self._is_whole)

    def _check_blocks(self, backbone):
        blocks = plain(self._network_form()["blocks"])
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
        # Model [C] of the paper is unsplit, but has fresh norms after its frozen stump.
        unsplit = form["n_branches"] == 1
        fresh = tuning.split == "paper" and (not unsplit or tuning.trainable == "branches")
        module = RRRNet(
            backbone,
            len(self.classes_),
            **form | {"blocks": self.blocks_},
            split=tuning.split,
            fresh_norms=fresh,
            dropout=tuning.dropout,
            head_features=tuning.head_features,
            generator=torch.Generator().manual_seed(self._split_seed),
        )
        self.width_offset_, self.branch_planes_ = module.width_offset, module.branch_planes
        return module.freeze(tuning.trainable)


@dataclass(eq=False, repr=False)
class RRRNetClassifier(BranchClassifier):
    """Classify images with a reused, reduced and recycled backbone network.

    The network is built from a pre-trained network of modular blocks in three steps: reuse its
    weights, reduce it to some blocks of each phase (`blocks`), and recycle its last phases into
    `n_branches` narrow branches with about the same total number of parameters. Predictions average
    the probabilities of the branches.

    By default, the backbone knows photographs and is reused as it is: a linear head reads all its
    levels, and is computed in closed form. Where it helps in predicting left-out images, the head
    also reads a companion, a smaller network that knows drawings. A reduced or recycled network is
    trained instead.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        Name of the pre-trained network; :func:`list_backbones` lists them. The paper uses
        "resnet152".
    weights : str, path, dict or None, default="pretrained"
        "pretrained" loads the weights of a pip package that is installed with this one
        ("efficientnet_lite0"), those bundled with this package ("synth50"), or downloads those of
        torchvision. Alternatives are the name of a torchvision weight, a ``.pth`` or
        ``.safetensors`` file, or a state dict. None draws random weights, as does "pretrained",
        with a warning, for a backbone that you registered. See :func:`load_backbone`.
    blocks : tuple of 4 int or None, default=None
        Number of blocks kept in each of the phases conv2_x to conv5_x, whose outputs have a stride
        of 4, 8, 16 and 32 pixels. Blocks that change the number of channels or the stride always
        stay, and count as one; the next ones in order are kept. None keeps all blocks; the paper
        recommends (1, 1, 1, 1).
    n_branches : int, default=1
        Number of branches, in [1, 256]. 1 leaves the network unsplit; the paper recommends 8.
    split_at : {"conv2_x", "conv3_x", "conv4_x", "conv5_x"}, default="conv4_x"
        First phase that is split into branches. The layers before it form the stump, which all
        branches share.
    width_offset : int or None, default=None
        Offset a in Eq. (1), at least 0, which is subtracted from the width of the branches. None
        uses the smallest offset at which splitting adds no parameters.
    ensemble : {"naive", "bagging", "snapshot", "fge"} or EnsembleStrategy, default="naive"
        How the branches are trained. "naive" trains each branch on all images, "bagging" on its
        own bootstrap sample. "snapshot" and "fge" (fast geometric ensembling) train one branch
        with a cyclic learning rate and copy its weights to another branch in each cycle. To set
        parameters of the strategy, pass a :class:`BaggingEnsemble`, :class:`SnapshotEnsemble` or
        :class:`FastGeometricEnsemble`.
    fine_tuning : FineTuning, "published", "one_pass" or None, default=None
        Training settings, such as the trainable part of the network, the learning rate and the
        augmentation; see :class:`FineTuning`. None uses the settings that suit the backbone,
        "published" those of the paper. "one_pass" only computes the heads, in closed form, within
        seconds. A search reaches the fields as ``fine_tuning__learning_rate`` and so on.
    max_epochs : int or None, default=None
        Number of passes over the training images. None uses as many as ``fine_tuning.steps``
        require. If the backbone recommends the steps, there are at most 300 passes and at least one
        for 20 steps, up to 25; fewer above 4,000 images, but at least 5. With 0, the network keeps
        its initial weights, and the heads are computed in closed form unless
        ``fine_tuning.head_init`` is set.
    batch_size : int, default=32
        Number of images per training step, at least 2.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, as {label: weight}. "balanced" weights each class
        inversely to its frequency.
    validation_fraction : float or None, default=None
        Fraction of the images held out to monitor training, in [0.001, 0.999]. None uses all
        images for training.
    early_stopping : bool, default=False
        Whether to stop when the validation loss has not improved for ``fine_tuning.patience``
        epochs, and to restore the weights of the best epoch. It needs `validation_fraction`.
    image_shape : tuple of int or None, default=None
        Shape of an image that is given as a row: (h, w), (h, w, c) or (c, h, w). One entry may be
        -1. None assumes a square image, gray or RGB; for other lengths of a row it assumes
        1 x n_features and warns.
    image_size : int or None, default=None
        Height and width, in pixels, to which images are resized, in [8, 4096]. None uses the size
        that suits the backbone.
    on_bad_file : {"raise", "skip"}, default="raise"
        Whether `fit` raises an error for unreadable images or skips them with a warning.
        `predict` always raises.
    max_image_pixels : int, default=64000000
        Largest number of pixels of an image file, a protection against decompression bombs.
        Values above Pillow's own limit, 178956970, have no effect.
    device : str, torch.device or None, default=None
        "cpu", "cuda", "cuda:1" and so on. None uses a CUDA GPU if one is available.
    precision : {"fp32", "bf16"} or None, default=None
        Precision of convolutions and matrix products. None trains in bf16 if the hardware
        supports it, except networks of depthwise convolutions on the CPU, and predicts in fp32.
    checkpoint_dir : str, path or None, default=None
        Folder from which an interrupted fit goes on. After each epoch, its state is written there;
        the same fit, repeated after it was killed, ends in the same model, on the CPU bit for bit.
        A fit with another X, y or parameter is refused until the folder is deleted; a fit that ends
        empties it. It contains pickles: use a folder that you trust. One folder belongs to one
        fit at a time, so leave it None in a search. A Dataset must return the same images each
        time. ``partial_fit`` ignores it.
    random_state : int, RandomState instance or None, default=None
        Seed of the random weights, the splits, the order of the images and the augmentation.
    verbose : int, default=0
        1 shows a progress bar, 2 prints a table with one row per epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : RRRNet or StackedNet
        Trained network, or network and companion.
    n_parameters_ : int
        Number of parameters of the network.
    blocks_ : tuple of 4 int
        Number of blocks in each phase.
    width_offset_ : int
        Offset a in Eq. (1).
    branch_planes_ : tuple of int
        Number of planes of each row of equal blocks of a branch.
    fine_tuning_ : FineTuning
        Resolved training settings: no field is None.
    trainable_ : {"head", "branches", "all"}
        Part of the network that was trained.
    companion_ : str or None
        Name of the companion's backbone; None without a companion.
    history_ : pandas.DataFrame
        One row per epoch: epoch, dur (in seconds), learning_rate (of the first step), train_loss
        (mean over branches) and, with a validation set, valid_loss and valid_acc. With "snapshot"
        and "fge", losses and accuracies are those of the branch that is trained.
    interrupted_ : bool
        Whether the training was interrupted by Ctrl-C. The network has then learned from the epochs
        in ``history_`` and, in part, from the next one.
    net_ : skorch.NeuralNet
        skorch net that trained the network; created again after unpickling.
    image_size_ : int
        Height and width, in pixels, to which images are resized.
    image_shape_in_ : tuple or None
        Shape, (h, w) or (h, w, c), of the images passed to `fit`; None if it may vary.
    n_features_in_ : int
        Length of a row; only if X had rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only if X was a frame of rows whose columns have names of type str.
    skipped_ : list
        Paths or images, or indices of a Dataset, that ``on_bad_file="skip"`` skipped.

    See Also
    --------
    FineTuning : Training settings.
    BlockSelector : Choose `blocks` by forward selection.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net: Reusing, Reducing, and Recycling a Deep
    Backbone Network, arXiv:2310.01157.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(fine_tuning="one_pass", image_size=64)  # the first thing to try
    >>> clf.fit(X[:64] / 16, y[:64]).score(X[64:128] / 16, y[64:128]) > 0.9
    True
    >>> clf = RRRNetClassifier(blocks=(1, 1, 1, 1), n_branches=2, max_epochs=2, image_size=32)
    >>> clf.fit(X[:64] / 16, y[:64]).predict_proba(X[64:66] / 16).shape
    (2, 3)
    """

    _: KW_ONLY
    blocks: tuple | None = None
    n_branches: int = 1
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
            check_int("width_offset", self.width_offset, 0, hint="None uses the smallest.")
        if make_strategy(self.ensemble).cyclic and self.early_stopping:
            raise ValueError(
                "`early_stopping`=True would interrupt the cycles of "
                f'`ensemble`={self.ensemble!r}; use "naive" or "bagging".'
            )
        super()._check_parameters()

    def _is_used_as_it_is(self, is_inside):
        """Tell whether only the head is trained; other networks, and those inside, are trained."""
        whole = self.blocks is None and self.n_branches == 1 and self.weights is not None
        whole = whole and not is_inside
        return whole and self._given_tuning().trainable in (None, "head")

    def _recommend(self, backbone, is_inside):
        as_it_is = self._is_used_as_it_is(is_inside)
        return backbone.fine_tuning_whole if as_it_is else backbone.fine_tuning

    def _default_size(self, backbone, is_inside=False):
        as_it_is = self._is_used_as_it_is(is_inside)
        return backbone.image_size_whole if as_it_is else backbone.image_size

    def _add_companion(self, module, n_images):
        """Return a StackedNet if the settings name a companion and the head is in closed form."""
        settings = self._settings(n_images, self._split_seed)
        name = self.fine_tuning_.companion
        if name == "none":
            return module
        closed = self.trainable_ == "head" and settings.head_init == "ridge"
        fits = closed and self.n_branches == 1 and not settings.max_epochs
        if self._given_tuning().companion is None and (not fits or n_images > MOST_IMAGES):
            self._recommended = replace(self._recommended, companion="none")
            return module
        if not fits:
            raise ValueError(
                f"The companion {name!r} needs a head in closed form, that is trainable='head', "
                f"head_init='ridge', no epochs and `n_branches`=1; got {self.trainable_!r}, "
                f"{settings.head_init!r}, {settings.max_epochs} and {self.n_branches}. Use "
                "companion='none'."
            )
        backbone, is_pretrained = load_backbone(name)
        if not is_pretrained:
            raise ValueError(f"The companion {name!r} has no pre-trained weights.")
        form = {"blocks": (1, 1, 1, 1), "head_features": module.head_features}
        companion = RRRNet(backbone, len(self.classes_), **form)
        sizes = self.image_size_, min(self.image_size_, backbone.image_size)
        return StackedNet(module, companion, *sizes)

    def _finish(self, module, settings):
        is_pair = isinstance(module, StackedNet)
        dropped = is_pair and not module.has_companion
        super()._finish(module.main if dropped else module, settings)
        if dropped:
            del self._net  # contains the companion
        self.companion_ = module.companion.backbone_name if is_pair and not dropped else None

    def _grow(self, blocks, images, random_state=None):
        """Fit a copy with other blocks to a LabelledSet, starting from the weights of this one.

        New blocks start from pre-trained weights. The widths of the branches do not change.
        """
        grown = clone(self).set_params(
            blocks=blocks, width_offset=self.width_offset_, random_state=random_state
        )
        return grown._fit_set(images, earlier=self)
