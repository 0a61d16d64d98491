"""What every image classifier of the package shares: fit and predict, written once.

`BaseImageClassifier` owns the data, the seeds and the checks; what it trains is the child's.
"""

import copy
import warnings
from dataclasses import replace
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real, resolve_device
from sklearn_rrr._version import __version__
from sklearn_rrr.backbones.fine_tuning import AUGMENTATIONS, HEAD_INITS
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.classifiers.ensembles import EnsembleStrategy
from sklearn_rrr.classifiers.prediction import PredictingMixin
from sklearn_rrr.images.augmentation import GEOMETRIC, PaperAugmentation, PerImage
from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS
from sklearn_rrr.images.forms import DatasetImages, sort_input
from sklearn_rrr.images.inspection import inspect_images
from sklearn_rrr.images.labels import encode_labels, hold_out, weigh_images
from sklearn_rrr.images.layout import ADD_AXIS, SMALLEST_PICTURE
from sklearn_rrr.images.sources import make_source
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.training.devices import seeded, use_bf16
from sklearn_rrr.training.labelled_images import LabelledImages
from sklearn_rrr.training.loop import make_net, train
from sklearn_rrr.training.settings import PRECISIONS, SCHEDULES, Settings

_AUTO = 'Or use "auto".'


def _trains_on(estimator):
    """Tell whether partial_fit can go on; wrong parameters are for it to complain about."""
    try:
        strategy = estimator._strategy()
    except (TypeError, ValueError):
        return True
    if strategy.cyclic:
        raise AttributeError(
            f"`ensemble`={estimator.ensemble!r} trains in cycles, which partial_fit cannot go on "
            'with; use "naive" or "bagging".'
        )
    return True


class BaseImageClassifier(PredictingMixin, ClassifierMixin, BaseEstimator):
    """Classifier of images; a child says which network is trained.

    A child implements ``_load_backbone()`` and ``_make_module(backbone)``, extends
    ``_check_parameters()``, and says what else "auto" is settled for: ``trainable``, ``split``,
    ``stump_lr_factor``, ``norm_warmup_epochs``, ``sampling``.
    """

    def __init__(
        self,
        backbone="synth50",
        *,
        weights="pretrained",
        max_epochs="auto",
        batch_size=32,
        learning_rate="auto",
        weight_decay=0.01,
        lr_schedule="auto",
        ema_epochs=0.2,
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
        self.backbone = backbone
        self.weights = weights
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.ema_epochs = ema_epochs
        self.head_init = head_init
        self.augmentation = augmentation
        self.cache_features = cache_features
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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_parameters(self):
        """Check the parameters that every image classifier has; children add theirs."""
        if self.max_epochs != "auto":
            check_int("max_epochs", self.max_epochs, 1, hint=_AUTO)
        check_int("batch_size", self.batch_size, 2, hint="Batch norm needs two images.")
        if self.learning_rate != "auto":
            check_real("learning_rate", self.learning_rate, 0, hint=_AUTO, open_low=True)
        check_real("weight_decay", self.weight_decay, 0)
        check_choice("head_init", self.head_init, ("auto", *HEAD_INITS))
        check_choice("lr_schedule", self.lr_schedule, ("auto", *SCHEDULES))
        if isinstance(self.ema_epochs, Integral):
            check_int("ema_epochs", self.ema_epochs, 0)
        else:
            check_real("ema_epochs", self.ema_epochs, 0, 1, "Or use an int, a number of epochs.")
        if not callable(self.augmentation):
            hint = "Or use a callable from one image (3, S, S) to another."
            check_choice("augmentation", self.augmentation, ("auto", *AUGMENTATIONS), hint)
        if self.validation_fraction is not None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
        check_int("patience", self.patience, 1)
        check_bool("cache_features", self.cache_features)
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
        if not isinstance(self.verbose, bool):
            check_int("verbose", self.verbose, 0)
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
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            Before the first epoch, for everything that is wrong with parameters, images or
            labels; during training if the loss is no longer finite or memory ran out.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight, earlier=None, classes=None):
        """Train; an `earlier` fit gives what its network shares with ours, and its splits."""
        self._check_parameters()
        self._forget()
        seed = self._draw_seed()
        with seeded(seed, resolve_device(self.device)):
            backbone = self._load_backbone()
            classes = classes if earlier is None else earlier.classes_
            images = self._read_training_data(X, y, sample_weight, classes, backbone)
            self._split_seed = seed if earlier is None else earlier._split_seed
            self._learn(backbone, images, seed, earlier)
        return self

    def _learn(self, backbone, images, seed, earlier=None):
        """Make the network and train it on images of :meth:`_read_training_data`."""
        module = self._make_module(backbone)
        images, validation = self._hold_out(images, self._split_seed)
        settings = self._settings(len(images), seed)
        if earlier is not None:
            module.load_state_dict(earlier.module_.state_dict(), strict=False)
            settings = replace(settings, head_init="random")  # as they are
        images = self._weigh(images, module, self._split_seed)
        self._net = self._strategy().train(module, images, validation, settings)
        self._finish(module, settings)

    def _train_on(self, images, settings, **hooks):
        """Train `module_` on, from its weights and in its form, with all branches at once.

        `images` are of :meth:`_read_training_data`; hooks are arguments of ``training.train``.
        """
        with seeded(settings.seed, resolve_device(self.device)):
            images = self._weigh(images, self.module_, self._split_seed)
            self._net = train(self.module_, images, None, settings, **hooks)
        self._finish(self.module_, settings)

    @available_if(_trains_on)
    def partial_fit(self, X, y=None, classes=None, sample_weight=None):
        """Train on for one epoch over the given images.

        After :meth:`fit`, training goes on from its averaged weights with a fresh
        optimiser; nothing is averaged. Between calls the optimiser goes on, unless a
        parameter of the training was set or the estimator was pickled; it takes constant
        steps whatever `lr_schedule` says. The first call
        settles the network and how numbers are scaled, and adapts the norms of frozen parts to
        its images; parameters of the network that are set later need a new :meth:`fit`.
        Only the ratios of weights within one call matter.

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
            The fitted estimator.
        """
        self._check_parameters()
        first = not hasattr(self, "module_")
        if first and classes is None:
            raise ValueError("`classes` must be passed at the first call to partial_fit.")
        if not first:
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"`classes`={classes!r} differs from the {self.classes_.tolist()} of the "
                    "earlier calls."
                )
            classes = self.classes_
        if self.class_weight == "balanced":
            raise ValueError(
                "`class_weight`='balanced' knows the classes' counts of one call only; give "
                "partial_fit a dict, or sample_weight."
            )
        seed = self._draw_seed()
        with seeded(seed, resolve_device(self.device)):
            backbone = self._load_backbone() if first else None
            images = self._read_training_data(X, y, sample_weight, classes, backbone)
            if first:
                self._split_seed = seed
                settings = self._settings(len(images), seed)
                self._net = make_net(self._make_module(backbone), settings)
            else:
                settings = self._renew_net(len(images))
            draw = [settings.seed, len(self._net.history)]
            images = self._weigh(images, self._net.module_, draw)
            if first:
                self._net.warm_up(images)
            self._folded = {}  # even if the training is interrupted
            self._net.run(images, epochs=1)
        self._finish(self._net.module_, settings)
        return self

    def _renew_net(self, n_images):
        """Make the net anew if a parameter of the training was set since; return settings."""
        used = self._settings_used
        settings = replace(
            self._settings(n_images, used.seed),
            max_epochs=used.max_epochs,
            ema_epochs=used.ema_epochs,
            norm_warmup_epochs=used.norm_warmup_epochs,
        )
        if not hasattr(self, "_net") or settings != self._net.settings:
            self._net = self._wrap_module(settings)
        return settings

    def _wrap_module(self, settings):
        epochs = self.history_.to_dict("records")
        return make_net(self.module_, settings, history=epochs)

    def _forget(self):
        """Drop an earlier fit, so that a failed one leaves nothing half-fitted."""
        for name in ("module_", "_net", "_folded", "_settings_used", "history_"):
            self.__dict__.pop(name, None)

    def _load_pretrained(self):
        """Return the backbone, and whether its weights are trained; settle `fine_tuning_`."""
        backbone, pretrained = load_backbone(self.backbone, self.weights)
        if self.weights == "pretrained" and not pretrained:
            warnings.warn(
                f"The backbone {self.backbone!r} has no pre-trained weights and starts from "
                "random ones. Give them as `weights`; weights=None is random without this warning.",
                stacklevel=5,
            )
        recommended = backbone.fine_tuning
        self.fine_tuning_ = recommended if pretrained else recommended.from_scratch()
        return backbone, pretrained

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")

    def _draw_seed(self):
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _read_training_data(self, X, y, sample_weight, classes=None, backbone=None):
        """Check X, y and the weights; a backbone says that nothing was fitted before."""
        if backbone is not None:
            self.image_size_ = self.image_size or backbone.image_size
        source = self._read(X, reset=backbone is not None)
        if y is None and isinstance(X, torch.utils.data.Dataset):
            y = DatasetImages(X).labels()
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        self.classes_, labels = encode_labels(y, classes)
        if len(source) != len(labels):
            hint = f" {ADD_AXIS}" if len(labels) == 1 else ""
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"{[len(source), len(labels)]}.{hint}"
            )
        weights = weigh_images(self.classes_, labels, sample_weight, self.class_weight)
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

    def _hold_out(self, images, seed):
        if self.validation_fraction is None:
            return images, None
        parts = hold_out(images.labels.numpy(), self.validation_fraction, seed)
        return tuple(images.subset(part) for part in parts)

    def _strategy(self):
        """Return the EnsembleStrategy; a child may have a parameter for it."""
        return EnsembleStrategy()

    def _weigh(self, images, module, seed):
        """Return the images with weights of each branch, where the strategy has such."""
        strategy, shape = self._strategy(), (len(images), module.n_branches)
        factors = strategy.weigh(*shape, np.random.default_rng(seed))
        if factors is None:
            return images
        factors = np.asarray(factors, dtype=float)
        low, fits = factors.min(initial=np.inf), factors.shape == shape
        if not (fits and low >= 0 and np.isfinite(factors).all() and factors.any(0).all()):
            empty = np.flatnonzero(~factors.any(0)).tolist() if fits else []
            raise ValueError(
                f"`ensemble`: {type(strategy).__name__}.weigh must return finite numbers of at "
                f"least 0 of the shape (n, M), {shape}, some above 0 for each branch; got the "
                f"shape {factors.shape}, a smallest of {low:g}, and none above 0 for the branches "
                f"{empty}."
            )
        return images.weigh(factors)

    def _settle(self, name):
        """Return a parameter; "auto" is what the backbone recommends."""
        value = getattr(self, name)
        return getattr(self.fine_tuning_, name) if value == "auto" else value

    def _settings(self, n_images, seed):
        """Settle every "auto" for this many training images."""
        device = resolve_device(self.device)
        max_epochs = self._resolve_epochs(n_images)
        return Settings(
            max_epochs=max_epochs,
            batch_size=self.batch_size,
            learning_rate=self._settle("learning_rate"),
            stump_lr_factor=self._settle("stump_lr_factor"),
            weight_decay=self.weight_decay,
            lr_schedule=self._settle("lr_schedule"),
            ema_epochs=self._average_over(max_epochs),
            norm_warmup_epochs=self._resolve_warmup(n_images),
            head_init=self._settle("head_init"),
            augmentation=self._resolve_augmentation(),
            cache_features=self.cache_features,
            sampling=self.sampling,
            patience=self.patience if self.early_stopping else None,
            bf16=use_bf16(self.precision, device),
            device=str(device),
            seed=seed,
            verbose=int(self.verbose),
        )

    def _average_over(self, max_epochs):
        """Return over how many of the last epochs weights are averaged."""
        ema = self.ema_epochs
        return min(ema if isinstance(ema, Integral) else round(ema * max_epochs), max_epochs)

    def _resolve_epochs(self, n_images):
        """Spend the backbone's number of steps, in 10 to 300 epochs."""
        if self.max_epochs != "auto":
            return self.max_epochs
        epochs = np.ceil(self.fine_tuning_.steps * self.batch_size / n_images)
        return int(np.clip(epochs, 10, 300))

    def _resolve_warmup(self, n_images):
        """The paper's 10 epochs of 400 images; fewer epochs, at least one, for more."""
        if self.trainable_ == "all":
            return 0
        if self.norm_warmup_epochs != "auto":
            return self.norm_warmup_epochs
        return min(10, int(np.ceil(4000 / n_images))) if self._adapts_norms else 0

    def _resolve_augmentation(self):
        if callable(self.augmentation):
            return PerImage(self.augmentation)
        shape = self.image_shape_in_
        small = shape is not None and min(shape[:2]) < SMALLEST_PICTURE
        if self.augmentation == "auto" and small:
            return None
        return {
            "paper": PaperAugmentation(),
            "geometric": PaperAugmentation(transformations=GEOMETRIC),
            None: None,
        }[self._settle("augmentation")]

    def _finish(self, module, settings):
        self.module_, self._settings_used = module.eval(), settings
        self._folded = {}
        self.n_parameters_ = count_parameters(module)
        columns = ("epoch", "dur", "learning_rate", "train_loss", "valid_loss", "valid_acc")
        rows = [{c: row[c] for c in columns if c in row} for row in self._net.history]
        self.history_ = pd.DataFrame(rows)

    def _replace_network(self, network, trainable=None):
        """Use another network from now on; `trainable` replaces `trainable_` if given."""
        self.module_ = network.eval()
        self.n_parameters_ = count_parameters(network)
        if hasattr(self, "blocks_"):
            self.blocks_ = network.blocks
        self._folded = {}
        self.__dict__.pop("_net", None)  # wraps the previous network
        if trainable is not None:
            self.trainable_ = trainable

    # ------------------------------------------------------------------- persistence

    @property
    def net_(self):
        """The skorch net that trained `module_`; made anew after unpickling."""
        if not hasattr(self, "_net"):
            check_is_fitted(self)
            device = str(self._prediction_device())
            self._net = self._wrap_module(replace(self._settings_used, device=device))
        return self._net

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_net", None)  # optimiser and callbacks
        state.pop("_folded", None)
        if "module_" in state:
            state["module_"] = copy.deepcopy(self.module_).cpu()
        return {**state, "_version": __version__}

    def __setstate__(self, state):
        version = state.pop("_version", "unknown")
        if version != __version__:
            warnings.warn(
                f"This {type(self).__name__} was saved by sklearn_rrr {version} and is loaded by "
                f"{__version__}; it may not work, or predict otherwise.",
                stacklevel=2,
            )
        super().__setstate__(state)
        if "module_" in state:
            self._folded = {}
