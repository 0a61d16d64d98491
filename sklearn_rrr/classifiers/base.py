"""Base class of all image classifiers, which fits and predicts.

`BaseImageClassifier` handles the data, the seeds and the checks; subclasses build the network.
"""

import copy
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._surroundings import drawing, shielded
from sklearn_rrr._version import __version__
from sklearn_rrr._warnings import warn
from sklearn_rrr.backbones.block import is_depthwise
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.classifiers.ensembles import EnsembleStrategy
from sklearn_rrr.classifiers.incremental import IncrementalMixin
from sklearn_rrr.classifiers.parameters import ClassifierParameters
from sklearn_rrr.classifiers.prediction import PredictingMixin
from sklearn_rrr.classifiers.reading import ReadingMixin
from sklearn_rrr.images.labels import hold_out
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.training.journal import journaling, settle_seed
from sklearn_rrr.training.loop import make_net, train

VERSIONS = {"sklearn_rrr": __version__, "torch": torch.__version__.split("+")[0]}
VERSIONS["scikit-learn"] = sklearn.__version__


def _warn_of_falling_loss(losses, n_classes):
    """Warn if the loss of the epochs fell fast in the second half of them, but not close to 0.

    The second and the last quarter are compared, because many schedules flatten the end of the
    curve. Close to 0 is a tenth of the loss of a guess.
    """
    quarter = len(losses) // 4
    if not quarter:
        return
    before, last = losses[quarter : 2 * quarter].mean(), losses[-quarter:].mean()
    if 0.1 * np.log(n_classes) < last < 0.8 * before:
        warn(
            f"The training loss was still falling, from {before:.2f} in the second quarter of "
            f"{len(losses)} epochs to {last:.2f} in the last one; a larger `max_epochs` may "
            "improve the accuracy.",
            ConvergenceWarning,
        )


@dataclass(eq=False, repr=False)
class BaseImageClassifier(
    ReadingMixin, IncrementalMixin, PredictingMixin, ClassifierMixin, ClassifierParameters
):
    """Base class of image classifiers.

    A subclass implements ``_load_backbone()`` and ``_make_module(backbone)``. It extends
    ``_check_parameters()`` and ``_settle_tuning()`` for the parameters that it adds or fixes.
    """

    def _load_backbone(self, is_inside=False):
        """Return the backbone; set the attributes that describe the network, and `trainable_`."""
        raise NotImplementedError

    def _make_module(self, backbone):
        """Return the network to train, with its frozen parts."""
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # ------------------------------------------------------------------------- fitting

    def fit(self, X, y=None, sample_weight=None):
        """Train on labelled images.

        Parameters
        ----------
        X : images
            Rows of shape (n, n_features); an array of shape (n, h, w), (n, h, w, c) or
            (n, c, h, w); a list of PIL images, arrays or paths; a Series or one-column frame
            of these; or a torch Dataset. See the user guide.
        y : array-like of shape (n,)
            Labels. None only for a Dataset whose items are (image, label).
        sample_weight : array-like of shape (n,), default=None
            Weights of the images in the loss; only their ratios matter. Images of weight
            0 are not used.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters, images or labels are invalid, before the first epoch; if the loss
            becomes NaN or infinite or the device runs out of memory, during training.
        """
        return self._fit(partial(self._read_set, X, y, sample_weight), is_inside=False)

    def _fit_set(self, images, earlier=None):
        """Train on a LabelledSet that another estimator read.

        If `earlier`, a fitted estimator, is given, reuse its split and its matching weights.
        """
        return self._fit(partial(self._adopt_weighed, images), earlier)

    @shielded()
    def _fit(self, read, earlier=None, is_inside=True):
        """Train on the LabelledSet that `read` returns for the image size of the backbone.

        `is_inside`: whether another estimator trains this one.
        """
        self._check_parameters()
        self._forget()
        with journaling(self) as begin:
            seed = self._split_seed = self._draw_seed()
            with drawing(seed):
                backbone = self._load_backbone(is_inside)
            images = read(self._default_size(backbone, is_inside))
            begin(images)
            if (settled := settle_seed(seed)) != seed:  # the interrupted fit drew another one
                seed = settled
                with drawing(seed):
                    backbone = self._load_backbone(is_inside)
            self._split_seed = seed if earlier is None else earlier._split_seed
            learn = self._learn if is_inside else self._learn_fully
            learn(backbone, images, seed, earlier)
        return self

    def _learn_fully(self, backbone, images, seed, earlier=None):
        """Do what :meth:`fit` does with the images, but an estimator inside another does not."""
        self._learn(backbone, images, seed, earlier, self._add_companion)
        if self.max_epochs is None and self._settings_used.patience is None:
            _warn_of_falling_loss(self.history_.train_loss.to_numpy(), len(self.classes_))

    def _add_companion(self, module, n_images):
        """Return a network, or a larger one that contains it; subclasses may override this."""
        return module

    def _learn(self, backbone, images, seed, earlier=None, enlarge=None):
        """Build the network and train it on a LabelledSet with its final weights."""
        with drawing(seed + 1):
            module = self._make_module(backbone)
            module = module if enlarge is None else enlarge(module, len(images))
        images, validation = self._hold_out(images, self._split_seed)
        settings = self._settings(len(images), seed)
        if earlier is not None:
            own, given = module.state_dict(), earlier.module_.state_dict()
            given = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
            module.load_state_dict(given, strict=False)
            # Heads that read other blocks, too, or that no epoch would adapt, start anew.
            if "head.weight" in given and settings.max_epochs:
                settings = replace(settings, head_init="kept")
        images = self._weigh(images, module, self._split_seed)
        with self._keeping_interrupted(module, settings):
            self._net = self._strategy().train(module, images, validation, settings)
        self._finish(module, settings)

    @contextmanager
    def _keeping_interrupted(self, module, settings):
        """Keep what a training had learned when the user interrupts it; forget it if it fails."""
        try:
            yield
        except KeyboardInterrupt as error:
            if (history := getattr(error, "history", None)) is not None:
                self._net = make_net(module, settings, history=history)
                self._finish(module, settings)
                self.interrupted_ = True
            raise
        except BaseException:
            self._forget()
            raise

    def _train_on(self, images, settings, **hooks):
        """Continue training `module_` on a LabelledSet, all branches at once.

        `hooks` are further arguments of ``training.train``.
        """
        images = self._weigh(images, self.module_, self._split_seed)
        self._net = train(self.module_, images, None, settings, **hooks)
        self._finish(self.module_, settings)

    def _wrap_module(self, settings):
        epochs = self.history_.to_dict("records")
        return make_net(self.module_, settings, history=epochs)

    def _forget(self):
        """Delete an earlier fit, so that a failed fit leaves the estimator unfitted."""
        fitted = (
            "module_",
            "_net",
            "_folded",
            "_settings_used",
            "history_",
            "companion_",
            "interrupted_",
        )
        for name in fitted:
            self.__dict__.pop(name, None)

    def _load_pretrained(self, is_inside=False):
        """Return the backbone and whether it is pre-trained; set `fine_tuning_`."""
        backbone, pretrained = load_backbone(self.backbone, self.weights)
        if self.weights == "pretrained" and not pretrained:
            warn(
                f"The backbone {self.backbone!r} has no pre-trained weights and starts from "
                "random ones. Pass `weights`, or use weights=None to silence this warning."
            )
        layers = (m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d))
        self._has_depthwise = any(map(is_depthwise, layers))
        trained = backbone.fine_tuning
        recommended = self._recommend(backbone, is_inside) if pretrained else trained.from_scratch()
        self._recommended = recommended
        self.fine_tuning_ = self._settle_tuning()
        return backbone, pretrained

    def _recommend(self, backbone, is_inside):
        """Return the settings that a pre-trained backbone recommends for this network.

        `is_inside`: whether another estimator trains this one.
        """
        return backbone.fine_tuning

    def _default_size(self, backbone, is_inside=False):
        """Return the image size that the backbone recommends for this network."""
        return backbone.image_size

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")

    def _draw_seed(self):
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _hold_out(self, images, seed):
        if self.validation_fraction is None:
            return images, None
        parts = hold_out(images.labels.numpy(), self.validation_fraction, seed)
        return tuple(images.subset(part) for part in parts)

    def _strategy(self):
        """Return the EnsembleStrategy; subclasses may have a parameter for it."""
        return EnsembleStrategy()

    def _weigh(self, images, module, seed):
        """Return the images, weighted for each branch if the strategy does so."""
        strategy, shape = self._strategy(), (len(images), module.n_branches)
        factors = strategy.weigh(*shape, np.random.default_rng(seed))
        if factors is None:
            return images
        factors = np.asarray(factors, dtype=float)
        low, fits = factors.min(initial=np.inf), factors.shape == shape
        if not (fits and low >= 0 and np.isfinite(factors).all() and factors.any(0).all()):
            empty = np.flatnonzero(~factors.any(0)).tolist() if fits else []
            raise ValueError(
                f"`ensemble`: {type(strategy).__name__}.weigh must return finite numbers >= 0 of "
                f"shape (n, M) = {shape}, with a positive number for each branch; got shape "
                f"{factors.shape}, a minimum of {low:g} and no positive number for branches "
                f"{empty}."
            )
        return images.weigh_branches(factors)

    def _finish(self, module, settings):
        self.module_, self._settings_used, self.interrupted_ = module.eval(), settings, False
        self._folded = {}
        self.n_parameters_ = count_parameters(module)
        rows, always = self._net.history, ("epoch", "dur", "learning_rate", "train_loss")
        known = {*always, *(rows[0] if rows else ())}
        columns = [c for c in (*always, "valid_loss", "valid_acc") if c in known]
        self.history_ = pd.DataFrame([[row.get(c) for c in columns] for row in rows], None, columns)

    def _replace_network(self, network, trainable=None):
        """Replace the network and, if `trainable` is given, what of it is trained."""
        self.module_ = network.eval()
        self.n_parameters_ = count_parameters(network)
        if hasattr(self, "blocks_"):
            self.blocks_ = network.blocks
        self._folded = {}
        self.__dict__.pop("_net", None)  # wraps the previous network
        if trainable is not None:
            self.trainable_ = trainable
            self.fine_tuning_ = replace(self.fine_tuning_, trainable=trainable)

    # ------------------------------------------------------------------- persistence

    @property
    def net_(self):
        """skorch net that trained `module_`; created again after unpickling."""
        check_is_fitted(self)
        if not hasattr(self, "_net"):
            device = str(self._prediction_device())
            self._net = self._wrap_module(replace(self._settings_used, device=device))
        self._folded = {}  # the caller may train the network
        return self._net

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_net", None)  # optimiser and callbacks
        state.pop("_folded", None)
        if "module_" in state:
            state["module_"] = copy.deepcopy(self.module_).cpu()
        return {**state, "_versions": VERSIONS}

    def _state_without_code(self):
        """Return the state without augmentations, which may be functions.

        They only record the last training: further training resolves its augmentation again.
        """
        state = self.__getstate__()
        for settings in ("_settings_used", "fine_tuning_"):
            if callable(state[settings].augmentation):
                state[settings] = replace(state[settings], augmentation=None)
        return state

    def __setstate__(self, state):
        saved = state.pop("_versions", {})
        others = [
            f"{name} {saved.get(name, 'of unknown version')} (now {version})"
            for name, version in VERSIONS.items()
            if saved.get(name) != version
        ]
        if others:
            warnings.warn(
                f"This {type(self).__name__} was saved with {', '.join(others)}; it may fail, or "
                "its predictions may differ.",
                stacklevel=2,
            )
        if "module_" in state and torch.is_inference_mode_enabled():
            with torch.inference_mode(False):  # tensors of this mode could never be trained
                state["module_"] = copy.deepcopy(state["module_"])
        super().__setstate__(state)
        if "module_" in state:
            self._folded = {}
