"""Image classifiers behind scikit-learn's API: fit, predict and predict_proba, written once.

`BaseImageClassifier` owns the data, the labels, the seeds and the checks; what it trains is
the child's. `RRRNetClassifier` is RRR-Net (Sun et al. 2023, arXiv:2310.01157).
"""

import copy
import warnings
from dataclasses import replace
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state, column_or_1d, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real
from sklearn_rrr.augmentation import PaperAugmentation, PerImage
from sklearn_rrr.backbones import PHASES
from sklearn_rrr.costs import count_parameters
from sklearn_rrr.images import (
    ADD_AXIS,
    MAX_IMAGE_PIXELS,
    BadImages,
    DatasetImages,
    inspect_images,
    make_source,
    sort_input,
)
from sklearn_rrr.network import MAX_BRANCHES, SPLITS, RRRNet, average_probabilities
from sklearn_rrr.training import (
    PRECISIONS,
    PREDICTION_BATCH,
    SAMPLINGS,
    SCHEDULES,
    LabelledImages,
    Settings,
    make_net,
    resolve_device,
    seeded,
    train,
    use_bf16,
)
from sklearn_rrr.weights import load_backbone

TRAINABLE = ("head", "branches", "all")
ENSEMBLES = ("naive",)
SMALLEST_PICTURE = 8  # pixels; what is smaller is no picture to rotate or equalise


class BaseImageClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of images; a child says which network is trained.

    A child implements ``_check_parameters()``, ``_load_backbone()`` and
    ``_make_module(backbone)``, and has the parameters that the methods here read.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = True  # pixels
        return tags

    def _check_parameters(self):
        """Check the parameters that every image classifier has; children add theirs."""
        if self.max_epochs != "auto":
            check_int("max_epochs", self.max_epochs, 1, hint='Or use "auto".')
        check_int("batch_size", self.batch_size, 2, hint="Batch norm needs two images.")
        check_real("learning_rate", self.learning_rate, 0, open_low=True)
        check_real("weight_decay", self.weight_decay, 0)
        check_choice("lr_schedule", self.lr_schedule, tuple(SCHEDULES))
        if isinstance(self.ema_epochs, Integral):
            check_int("ema_epochs", self.ema_epochs, 0)
        else:
            check_real("ema_epochs", self.ema_epochs, 0, 1, "Or use a number of epochs.")
        if not callable(self.augmentation):
            hint = "Or use a callable from one image (3, S, S) to another."
            check_choice("augmentation", self.augmentation, ("auto", "paper", None), hint)
        if self.validation_fraction is not None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
        check_int("patience", self.patience, 1)
        if check_bool("early_stopping", self.early_stopping) and self.validation_fraction is None:
            raise ValueError(
                "`early_stopping`=True needs validation data; got `validation_fraction`=None. "
                "Use for example validation_fraction=0.1."
            )
        if self.image_size is not None:
            check_int("image_size", self.image_size, 8, 4096)
        check_choice("on_bad_file", self.on_bad_file, ("raise", "skip"))
        check_int("max_image_pixels", self.max_image_pixels, 1)
        check_choice("precision", self.precision, PRECISIONS)
        check_int("verbose", int(self.verbose), 0)
        resolve_device(self.device)

    # ------------------------------------------------------------------------- fitting

    def fit(self, X, y=None, sample_weight=None):
        """Train on labelled images.

        Parameters
        ----------
        X : images
            Rows (n, n_features); an array (n, h, w), (n, h, w, c) or (n, c, h, w); a list
            of PIL images, arrays or paths; a Series or one-column frame of those; a torch
            Dataset. See the user guide.
        y : array-like of shape (n,)
            Labels. None only for a Dataset whose items are (image, label).
        sample_weight : array-like of shape (n,), default=None
            Weights of the images in the loss; only their ratios matter. Images of weight
            0 are left out.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            Before the first epoch, for everything that is wrong with parameters, images or
            labels; during training if the loss is no longer finite or memory ran out.
        """
        self._check_parameters()
        seed = self._draw_seed()
        with seeded(seed):
            backbone = self._load_backbone()
            images = self._read_training_data(X, y, sample_weight, backbone=backbone)
            module = self._make_module(backbone)
            images, validation = self._hold_out(images, seed)
            settings = self._settings(backbone, len(images), seed)
            self._net = train(module, images, validation, settings)
        self._finish(module, settings)
        return self

    def partial_fit(self, X, y=None, classes=None, sample_weight=None):
        """Train on for one epoch over the given images.

        After :meth:`fit`, training goes on from its averaged weights with a fresh
        optimiser; nothing is averaged. Images are checked as in :meth:`fit`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.
        y : array-like of shape (n,)
            Labels, all of them in `classes`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur; needed at the first call only.
        sample_weight : array-like of shape (n,), default=None
            As in :meth:`fit`.

        Returns
        -------
        self : object
        """
        self._check_parameters()
        first = not hasattr(self, "module_")
        if first and classes is None:
            raise ValueError("`classes` must be passed at the first call to partial_fit.")
        if not first:
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"`classes`={classes!r} differs from the {list(self.classes_)} of the "
                    "earlier calls."
                )
            classes = self.classes_
        seed = self._draw_seed()
        with seeded(seed):
            if first:
                backbone = self._load_backbone()
                images = self._read_training_data(X, y, sample_weight, classes, backbone)
                module = self._make_module(backbone)
                settings = self._settings(backbone, len(images), seed)
                self._net = make_net(module, settings)
                if settings.norm_warmup_epochs:
                    self._net.warm_up_norms(images)
            else:
                images = self._read_training_data(X, y, sample_weight, classes)
                module, settings = self.module_, self._settings_used
            self.net_.run(images, epochs=1)
        self._finish(module, settings)
        return self

    def _draw_seed(self):
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _read_training_data(self, X, y, sample_weight, classes=None, backbone=None):
        """Check X, y and the weights; a backbone says that nothing was fitted before."""
        if backbone is not None:
            self.image_size_ = self.image_size or backbone.image_size
        source = self._read(X, reset=backbone is not None)
        if y is None and isinstance(X, torch.utils.data.Dataset):
            y = DatasetImages(X).labels()
        labels = self._encode(y, classes)
        if len(source) != len(labels):
            hint = f" {ADD_AXIS}" if len(labels) == 1 else ""
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"{[len(source), len(labels)]}.{hint}"
            )
        weights = self._weigh(labels, sample_weight)
        used = np.flatnonzero(weights)
        if len(used) < len(labels):
            source, labels, weights = source.select(used), labels[used], weights[used]
        inspection = inspect_images(source, labels, self.image_size_, self.on_bad_file)
        self.skipped_ = inspection.skipped
        labels, weights = labels[inspection.kept], weights[inspection.kept]
        weights = weights / weights.mean()
        return LabelledImages(inspection.source, labels, weights, self.image_size_)

    def _read(self, X, reset):
        """Turn X into a source of images; `reset` says that this is the fit."""
        kind, X = sort_input(X)
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        if kind == "rows":
            X = validate_data(self, X, reset=reset)
        source = make_source(
            kind,
            X,
            image_shape=self.image_shape,
            fitted=None if reset else self._image_format,
            max_pixels=self.max_image_pixels,
        )
        if reset:
            self._image_format = source.format
            self.image_shape_in_ = source.format.shape
        return source

    def _encode(self, y, classes):
        """Set `classes_` and return labels in 0 … K - 1."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        y = column_or_1d(y, warn=True)
        if y.dtype.kind in "fc":
            check_array(y, ensure_2d=False, dtype=None, input_name="y")
        if pd.isna(y).any():
            raise ValueError("Input y contains NaN or None; every image needs a label.")
        check_classification_targets(y)
        if classes is None:
            self.classes_, labels = np.unique(y, return_inverse=True)
            return labels
        self.classes_ = np.unique(classes)
        labels = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if len(unknown := np.unique(y[self.classes_[labels] != y])):
            raise ValueError(
                f"y holds the labels {unknown.tolist()}, which are not in `classes` "
                f"{self.classes_.tolist()}."
            )
        return labels

    def _weigh(self, labels, sample_weight):
        """Return the weight of each image, (n,)."""
        weights = np.ones(len(labels))
        if sample_weight is not None:
            weights = check_array(
                sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
            )
            if weights.shape != (len(labels),):
                raise ValueError(
                    f"`sample_weight` must have the shape ({len(labels)},); got {weights.shape}."
                )
            if (weights < 0).any() or not weights.any():
                raise ValueError("`sample_weight` must not be negative, nor zero for all images.")
        if self.class_weight is not None:
            weights = weights * self._class_weights(labels)
        return weights

    def _class_weights(self, labels):
        y = self.classes_[labels]
        if isinstance(self.class_weight, str):
            check_choice("class_weight", self.class_weight, ("balanced",))
            return compute_sample_weight("balanced", y)
        if not isinstance(self.class_weight, dict):
            raise TypeError(
                f'`class_weight` must be "balanced", a dict or None; got {self.class_weight!r}.'
            )
        if missing := [c for c in self.classes_.tolist() if c not in self.class_weight]:
            raise ValueError(f"`class_weight` lacks the classes {missing}; give each a weight.")
        factors = [
            check_real(f"class_weight[{c!r}]", self.class_weight[c], 0)
            for c in self.classes_.tolist()
        ]
        return np.array(factors)[labels]

    def _hold_out(self, images, seed):
        """Split off `validation_fraction`, stratified where the classes allow it."""
        if self.validation_fraction is None:
            return images, None
        labels = images.labels.numpy()
        n_valid = int(np.ceil(self.validation_fraction * len(labels)))
        counts = np.bincount(labels)
        n_classes = np.count_nonzero(counts)
        stratify = labels
        if counts[counts > 0].min() < 2 or min(n_valid, len(labels) - n_valid) < n_classes:
            warnings.warn(
                "The validation split is not stratified: a class has too few images for it.",
                stacklevel=3,
            )
            stratify = None
        parts = train_test_split(
            np.arange(len(labels)), test_size=n_valid, stratify=stratify, random_state=seed
        )
        return tuple(images.subset(np.sort(part)) for part in parts)

    def _settings(self, backbone, n_images, seed):
        """Settle every "auto" for this many training images."""
        device = resolve_device(self.device)
        max_epochs = self._resolve_epochs(backbone, n_images)
        ema = self.ema_epochs
        if not isinstance(ema, Integral):
            ema = round(ema * max_epochs)
        return Settings(
            max_epochs=max_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            lr_schedule=self.lr_schedule,
            ema_epochs=min(ema, max_epochs),
            norm_warmup_epochs=self._resolve_warmup(n_images),
            augmentation=self._resolve_augmentation(),
            sampling=self.sampling,
            patience=self.patience if self.early_stopping else None,
            bf16=use_bf16(self.precision, device),
            device=str(device),
            seed=seed,
            verbose=int(self.verbose),
        )

    def _resolve_epochs(self, backbone, n_images):
        """Spend the backbone's number of steps, in 10 to 300 epochs."""
        if self.max_epochs != "auto":
            return self.max_epochs
        epochs = np.ceil(backbone.training_steps * self.batch_size / n_images)
        return int(np.clip(epochs, 10, 300))

    def _resolve_warmup(self, n_images):
        """The paper's 10 epochs of 400 images; fewer epochs, at least one, for more."""
        if self.trainable_ == "all":
            return 0
        if self.norm_warmup_epochs != "auto":
            return self.norm_warmup_epochs
        return min(10, int(np.ceil(4000 / n_images))) if self.trainable_ == "branches" else 0

    def _resolve_augmentation(self):
        if callable(self.augmentation):
            return PerImage(self.augmentation)
        shape = self.image_shape_in_
        small = shape is not None and min(shape[:2]) < SMALLEST_PICTURE
        if self.augmentation is None or (self.augmentation == "auto" and small):
            return None
        return PaperAugmentation()

    def _finish(self, module, settings):
        self.module_, self._settings_used = module.eval(), settings
        self.n_parameters_ = count_parameters(module)
        columns = ("epoch", "dur", "train_loss", "valid_loss", "valid_acc", "event_lr")
        rows = [{c: row[c] for c in columns if c in row} for row in self._net.history]
        self.history_ = pd.DataFrame(rows).rename(columns={"event_lr": "learning_rate"})

    # --------------------------------------------------------------------- predicting

    def predict_proba(self, X):
        """Predict the probability of each class: the mean of the branches' softmax.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; other sizes are resized likewise.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            float64; rows sum to 1; columns in the order of `classes_`.
        """
        check_is_fitted(self)
        chunks = [average_probabilities(logits.double()) for logits in self._logits(X)]
        return torch.cat(chunks).numpy()

    def predict(self, X):
        """Predict the label of each image.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n,)
            The labels of largest probability, in the type that `fit` was given.
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def _logits(self, X):
        """Yield the branches' logits (B, M, K), on the CPU, batch by batch."""
        source = self._read(X, reset=False)
        device = self._prediction_device()
        module = self.module_.to(device)
        bf16 = self.precision == "bf16"
        bad = []
        for start in range(0, len(source), PREDICTION_BATCH):
            index = np.arange(start, min(start + PREDICTION_BATCH, len(source)))
            try:
                images = source.load(index, self.image_size_)
            except BadImages as error:  # go on, to name them all
                bad += error.bad
                continue
            if not bad:
                # The CPU's kernels for a batch of one differ in the last digits from those
                # for more; an image's result must not depend on its company.
                n_images, images = len(images), images.expand(max(len(images), 2), -1, -1, -1)
                images = images.to(device).contiguous(memory_format=torch.channels_last)
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, torch.bfloat16, enabled=bf16),
                ):
                    logits = module(images)[:n_images]
                yield logits.float().cpu()
        if bad:
            raise BadImages(bad, len(source))

    # ------------------------------------------------------------------- persistence

    @property
    def net_(self):
        """The skorch net that trained `module_`; made anew after unpickling."""
        if not hasattr(self, "_net"):
            check_is_fitted(self)
            settings = replace(self._settings_used, device=str(self._prediction_device()))
            self._net = make_net(self.module_, settings)
        return self._net

    def _prediction_device(self):
        try:
            return resolve_device(self.device)
        except ValueError as error:  # fitted on a machine that had it
            warnings.warn(f"{error} The CPU is used.", stacklevel=4)
            return torch.device("cpu")

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_net", None)  # optimiser and callbacks
        if "module_" in state:
            state["module_"] = copy.deepcopy(self.module_).cpu()
        return state


class RRRNetClassifier(BaseImageClassifier):
    """Classify images with a reused, reduced and recycled backbone network.

    The first blocks of each phase of a pre-trained residual network are kept; from a split
    point on, they become `n_branches` narrower branches of about the same total size, whose
    probabilities are averaged.

    Parameters
    ----------
    backbone : str, default="synth50"
        Name of a backbone, one of :func:`list_backbones`. "resnet152" is the paper's.
    weights : str, path, dict or None, default="pretrained"
        "pretrained", the name of a torchvision weight, a ``.pth`` or ``.safetensors`` file,
        a state dict, or None for random weights; see :func:`load_backbone`. "synth50" has
        no bundled weights yet and starts from random ones, with a warning.
    blocks : tuple of 4 int or None, default=(1, 1, 1, 1)
        Number of blocks kept in conv2_x to conv5_x; None keeps all.
    n_branches : int, default=8
        Number of branches, 1 to 256; 1 leaves the network unsplit.
    split_at : {"conv2_x", "conv3_x", "conv4_x", "conv5_x"}, default="conv4_x"
        First phase of the branches; what lies before it is the stump.
    split : {"paper", "aligned"}, default="paper"
        How branches take their kernels: by Algorithm 2, which mixes channels, with fresh
        norms; or so that each branch is a true sub-network, with its norms.
    width_offset : int or "auto", default="auto"
        a of Eq. (1), subtracted from the width of the branches; "auto" takes the smallest
        that does not add parameters.
    dropout : float, default=0.0
        Probability in [0, 1) of dropout after each activation of the last two blocks.
    trainable : {"auto", "head", "branches", "all"}, default="auto"
        What learns. "branches" includes the heads and freezes the stump. "auto": "branches"
        with pre-trained weights, "all" with random ones. With "branches" and
        split="paper" an unsplit network starts with fresh norms, too (model [C]).
    ensemble : {"naive"}, default="naive"
        How branches are trained: "naive", each on all images.
    sampling : {"shared", "independent"}, default="shared"
        Whether the branches see the same batches, with one pass through the stump, or each
        its own order and augmentation, as published.
    max_epochs : int or "auto", default="auto"
        Passes over the images. "auto" spends 1000 batches ("synth50") or 3750 (the paper's
        300 epochs of 400 images), in 10 to 300 epochs.
    batch_size : int, default=32
        Images per training step, at least 2.
    learning_rate : float, default=1e-3
        Step size of AdamW.
    weight_decay : float, default=0.01
        Decoupled weight decay of AdamW.
    lr_schedule : {"constant", "linear", "cosine", "onecycle"}, default="constant"
        Course of the learning rate.
    ema_epochs : int or float, default=0.2
        Last epochs over which weights are averaged; a float is a fraction of all epochs. 0
        switches it off, and so does early stopping, whose end is not known beforehand.
    norm_warmup_epochs : int or "auto", default="auto"
        Passes that adapt the norm statistics of the frozen stump before training. "auto":
        10 epochs' worth of 400 images where trainable is "branches", else 0.
    augmentation : {"auto", "paper"}, callable or None, default="auto"
        "paper": two random transformations per image. A callable takes and returns one
        image, a float tensor (3, S, S) in [0, 1]. "auto": "paper", but None for rows and
        arrays less than 8 pixels high or wide, which are no pictures.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss.
    validation_fraction : float or None, default=None
        Fraction of the images held out to watch the training; in (0, 1).
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
    trainable_ : str
        What learned.
    n_parameters_ : int
        Parameters of the whole network.
    history_ : pandas.DataFrame
        A row per epoch: epoch, dur (seconds), train_loss (mean over branches), and, with
        validation, valid_loss and valid_acc.
    module_ : RRRNet
        The network.
    net_ : skorch.NeuralNet
        The skorch net that trained it; made anew after unpickling.
    skipped_ : list
        Paths or images that ``on_bad_file="skip"`` left out.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net: Reusing, Reducing, and Recycling a Deep
    Backbone Network, arXiv:2310.01157.

    Examples
    --------
    >>> import warnings
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
        split="paper",
        width_offset="auto",
        dropout=0.0,
        trainable="auto",
        ensemble="naive",
        sampling="shared",
        max_epochs="auto",
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.01,
        lr_schedule="constant",
        ema_epochs=0.2,
        norm_warmup_epochs="auto",
        augmentation="auto",
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
        self.backbone = backbone
        self.weights = weights
        self.blocks = blocks
        self.n_branches = n_branches
        self.split_at = split_at
        self.split = split
        self.width_offset = width_offset
        self.dropout = dropout
        self.trainable = trainable
        self.ensemble = ensemble
        self.sampling = sampling
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.ema_epochs = ema_epochs
        self.norm_warmup_epochs = norm_warmup_epochs
        self.augmentation = augmentation
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.image_shape = image_shape
        self.image_size = image_size
        self.on_bad_file = on_bad_file
        self.max_image_pixels = max_image_pixels
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self):
        check_int("n_branches", self.n_branches, 1, MAX_BRANCHES, "Use 1 for an unsplit network.")
        check_choice("split_at", self.split_at, PHASES)
        check_choice("split", self.split, SPLITS)
        if self.width_offset != "auto":
            check_int("width_offset", self.width_offset, 0, hint='Or use "auto".')
        check_real("dropout", self.dropout, 0, 0.99)
        check_choice("trainable", self.trainable, ("auto", *TRAINABLE))
        check_choice("ensemble", self.ensemble, ENSEMBLES)
        check_choice("sampling", self.sampling, SAMPLINGS)
        if self.norm_warmup_epochs != "auto":
            check_int("norm_warmup_epochs", self.norm_warmup_epochs, 0, hint='Or use "auto".')
        super()._check_parameters()

    def _load_backbone(self):
        backbone, pretrained = load_backbone(self.backbone, self.weights)
        self.blocks_ = self._check_blocks(backbone)
        if self.weights == "pretrained" and not pretrained:
            warnings.warn(
                f"The backbone {self.backbone!r} has no pre-trained weights in this version and "
                "starts from random ones. weights=None says so without this warning.",
                stacklevel=3,
            )
        auto = "branches" if pretrained else "all"
        self.trainable_ = auto if self.trainable == "auto" else self.trainable
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
        fresh = self.split == "paper" and (not unsplit or self.trainable_ == "branches")
        module = RRRNet(
            backbone,
            len(self.classes_),
            blocks=self.blocks_,
            n_branches=self.n_branches,
            split_at=self.split_at,
            split=self.split,
            width_offset=self.width_offset,
            fresh_norms=fresh,
            dropout=self.dropout,
        )
        self.width_offset_, self.branch_planes_ = module.width_offset, module.branch_planes
        return module.freeze(self.trainable_)
