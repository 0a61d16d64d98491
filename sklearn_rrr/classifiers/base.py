"""What every image classifier of the package shares: fit and predict, written once.

`BaseImageClassifier` owns the data, the seeds and the checks; what it trains is the child's.
"""

import copy
import warnings
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from numbers import Integral
from os import PathLike

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_rrr._validation import check_choice, check_int, check_real, resolve_device
from sklearn_rrr._version import __version__
from sklearn_rrr.backbones.fine_tuning import DEFAULTS, NONE, FineTuning
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.classifiers.ensembles import EnsembleStrategy
from sklearn_rrr.classifiers.prediction import PredictingMixin
from sklearn_rrr.images.augmentation import GEOMETRIC, PaperAugmentation, PerImage
from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS
from sklearn_rrr.images.forms import find_labels, sort_input
from sklearn_rrr.images.inspection import inspect_images
from sklearn_rrr.images.labelled_set import LabelledSet, Reading
from sklearn_rrr.images.labels import encode_labels, hold_out, weigh_images
from sklearn_rrr.images.layout import ADD_AXIS, SMALLEST_PICTURE
from sklearn_rrr.images.sources import make_source
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.training.devices import seeded, use_bf16
from sklearn_rrr.training.loop import make_net, train
from sklearn_rrr.training.settings import PRECISIONS, Settings

# What reading sets, and an estimator that learns from images read by another takes on.
READ = ("_image_format", "image_shape_in_", "skipped_", "n_features_in_", "feature_names_in_")


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


@dataclass(eq=False, repr=False)
class BaseImageClassifier(PredictingMixin, ClassifierMixin, BaseEstimator):
    """Classifier of images; a child says which network is trained.

    A child implements ``_load_backbone()`` and ``_make_module(backbone)``, and extends
    ``_check_parameters()`` and ``_settle_tuning()`` by what it adds or fixes.
    """

    _tuning_type = FineTuning

    backbone: str = "synth50"
    _: KW_ONLY
    weights: str | PathLike | dict | None = "pretrained"
    fine_tuning: FineTuning | str | None = None
    max_epochs: int | None = None
    batch_size: int = 32
    class_weight: dict | str | None = None
    validation_fraction: float | None = None
    image_shape: tuple | None = None
    image_size: int | None = None
    on_bad_file: str = "raise"
    max_image_pixels: int = MAX_IMAGE_PIXELS
    device: str | torch.device | None = None
    precision: str | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def set_params(self, **params):
        """Set parameters; ``fine_tuning__<field>`` sets a field of `fine_tuning`.

        Where `fine_tuning` is None or "published", an object of those settings takes its place.

        Parameters
        ----------
        **params : dict
            Parameters of this estimator and, as ``<parameter>__<field>``, of the objects in it.

        Returns
        -------
        self : object
            This estimator.
        """
        nested = any(name.startswith("fine_tuning__") for name in params)
        if nested and "fine_tuning" not in params and isinstance(self.fine_tuning, str | None):
            self.fine_tuning = self._given_tuning()
        return super().set_params(**params)

    def _load_backbone(self):
        """Return the backbone; settle what the network is made of, and what of it learns."""
        raise NotImplementedError

    def _make_module(self, backbone):
        """Return the network that is to be trained, with its frozen parts."""
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_parameters(self):
        """Check the parameters that every image classifier has; children add theirs."""
        self._given_tuning().check()
        if self.max_epochs is not None:
            check_int("max_epochs", self.max_epochs, 1, hint=NONE)
        check_int("batch_size", self.batch_size, 2, hint="Batch norm needs two images.")
        if self.validation_fraction is not None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
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
        return self._fit(partial(self._read_set, X, y, sample_weight))

    def _fit_set(self, images, earlier=None):
        """Train on a LabelledSet that another estimator read.

        An `earlier` fit gives what its network shares with ours, and its splits.
        """
        return self._fit(partial(self._adopt_weighed, images), earlier)

    def _fit(self, read, earlier=None):
        """Train on what `read` returns, given the image size of the backbone."""
        self._check_parameters()
        self._forget()
        seed = self._draw_seed()
        with seeded(seed, resolve_device(self.device)):
            backbone = self._load_backbone()
            self._split_seed = seed if earlier is None else earlier._split_seed
            images = read(backbone.image_size)
            self._learn(backbone, images, seed, earlier)
        return self

    def _learn(self, backbone, images, seed, earlier=None):
        """Make the network and train it on a LabelledSet, weighed as it is to be."""
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

        `images` is a LabelledSet; hooks are arguments of ``training.train``.
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
            size = backbone.image_size if first else None
            images = self._read_set(X, y, sample_weight, size, classes)
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
        self._recommended = recommended if pretrained else recommended.from_scratch()
        self.fine_tuning_ = self._settle_tuning()
        return backbone, pretrained

    def _given_tuning(self):
        """Return the FineTuning that the user asked for, of this class's type."""
        given = self.fine_tuning
        if given is None:
            return self._tuning_type()
        if isinstance(given, FineTuning):
            return given
        hint = "Or use a FineTuning."
        check_choice("fine_tuning", given, (None, "published"), hint)
        return self._tuning_type.published()

    def _settle_tuning(self):
        """Return the settings of the training: the user's, else the backbone's, else the paper's.

        Its `norm_warmup_epochs`, which depends on the number of images, may still be None.
        """
        return self._given_tuning().fill(self._recommended, DEFAULTS)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")

    def _draw_seed(self):
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _read_set(self, X, y, sample_weight, image_size, classes=None, weigh_classes=True):
        """Read, decode and check X, y and the weights: once, for all that learn from them.

        Parameters
        ----------
        X, y, sample_weight : images, labels and weights of the user
        image_size : int or None
            The backbone's, where nothing was fitted before; else None.
        classes : array-like or None, default=None
            All labels that may occur; None takes those of `y`.
        weigh_classes : bool, default=True
            Whether `class_weight` counts, too; else whoever learns adds it.

        Returns
        -------
        images : LabelledSet
        """
        if image_size is not None:
            self.image_size_ = self.image_size or image_size
        source = self._read(X, reset=image_size is not None)
        y = find_labels(X, y, type(self).__name__)
        self.classes_, labels = encode_labels(y, classes)
        if len(source) != len(labels):
            hint = f" {ADD_AXIS}" if len(labels) == 1 else ""
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"{[len(source), len(labels)]}.{hint}"
            )
        class_weight = self.class_weight if weigh_classes else None
        weights = weigh_images(self.classes_, labels, sample_weight, class_weight)
        kept = np.flatnonzero(weights)
        if len(kept) < len(labels):
            source = source.select(kept)
        inspection = inspect_images(source, labels[kept], self.image_size_, self.on_bad_file)
        self.skipped_, kept = inspection.skipped, kept[inspection.kept]
        attributes = {name: getattr(self, name) for name in READ if hasattr(self, name)}
        return LabelledSet(
            inspection.source,
            labels[kept],
            self.classes_,
            self.image_size_,
            None if sample_weight is None else np.asarray(sample_weight, float)[kept],
            weights[kept] / weights[kept].mean(),
            Reading(attributes, kept, labels),
        )

    def _adopt(self, images, image_size, split_seed):
        """Take on the form of a LabelledSet that another estimator read, and its splits."""
        self.image_size_ = self.image_size or image_size
        if self.image_size_ != images.image_size:
            raise ValueError(
                f"`image_size` is {self.image_size_}, but the images were read at "
                f"{images.image_size}."
            )
        self.__dict__.update(images.reading.attributes)
        self.classes_, self._split_seed = images.classes, split_seed

    def _adopt_weighed(self, images, image_size):
        """Take on the form of a LabelledSet; return it with weights of our own."""
        self._adopt(images, image_size, self._split_seed)
        return images.weigh_classes(self.class_weight)

    def _read(self, X, reset):
        """Turn X into a source of images; `reset` says that this is the fit."""
        if isinstance(X, LabelledSet):
            return X.source
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
        return images.weigh_branches(factors)

    def _settings(self, n_images, seed):
        """Settle what is left to the backbone, for this many training images."""
        tuning = self._settle_tuning()
        tuning.norm_warmup_epochs = self._resolve_warmup(tuning, n_images)
        self.fine_tuning_ = tuning
        device, max_epochs = resolve_device(self.device), self._resolve_epochs(n_images)
        return Settings(
            max_epochs=max_epochs,
            batch_size=self.batch_size,
            optimizer=tuning.optimizer,
            learning_rate=tuning.learning_rate,
            stump_lr_factor=tuning.stump_lr_factor,
            weight_decay=tuning.weight_decay,
            lr_schedule=tuning.lr_schedule,
            ema_epochs=self._average_over(max_epochs),
            norm_warmup_epochs=tuning.norm_warmup_epochs,
            head_init=tuning.head_init,
            augmentation=self._resolve_augmentation(tuning),
            cache_features=tuning.cache_features,
            sampling=tuning.sampling,
            patience=tuning.patience if self._stops_early() else None,
            bf16=use_bf16(self.precision, device),
            device=str(device),
            seed=seed,
            verbose=int(self.verbose),
        )

    def _stops_early(self):
        """Tell whether the validation loss may end the training; a child may have a parameter."""
        return False

    def _average_over(self, max_epochs):
        """Return over how many of the last epochs weights are averaged."""
        ema = self.fine_tuning_.ema_epochs
        return min(ema if isinstance(ema, Integral) else round(ema * max_epochs), max_epochs)

    def _resolve_epochs(self, n_images):
        """Spend the number of steps that suits the backbone, in 10 to 300 epochs."""
        if self.max_epochs is not None:
            return self.max_epochs
        epochs = np.ceil(self.fine_tuning_.steps * self.batch_size / n_images)
        return int(np.clip(epochs, 10, 300))

    def _resolve_warmup(self, tuning, n_images):
        """The paper's 10 epochs of 400 images; fewer epochs, at least one, for more."""
        if self.trainable_ == "all":
            return 0
        if tuning.norm_warmup_epochs is not None:
            return tuning.norm_warmup_epochs
        return min(10, int(np.ceil(4000 / n_images))) if self._adapts_norms() else 0

    def _adapts_norms(self):
        """Tell whether frozen norms are adapted to the images; a child may keep the backbone's."""
        return True

    def _resolve_augmentation(self, tuning):
        """Return what augments a batch, or None; pictures too small are left as they are."""
        if callable(tuning.augmentation):
            return PerImage(tuning.augmentation)
        shape = self.image_shape_in_
        small = shape is not None and min(shape[:2]) < SMALLEST_PICTURE
        if small and self._given_tuning().augmentation is None:
            tuning.augmentation = "none"
        return {
            "paper": PaperAugmentation(),
            "geometric": PaperAugmentation(transformations=GEOMETRIC),
            "none": None,
        }[tuning.augmentation]

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
