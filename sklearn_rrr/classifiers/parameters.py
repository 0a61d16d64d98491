"""Parameters shared by all image classifiers: defaults, checks, resolved settings."""

from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral
from os import PathLike

import numpy as np
import torch
from sklearn.base import BaseEstimator

from sklearn_rrr._validation import (
    check_choice,
    check_folder,
    check_int,
    check_real,
    check_seed,
    plain,
    resolve_device,
)
from sklearn_rrr.backbones.fine_tuning import DEFAULTS, NONE, FineTuning
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.images.augmentation import GEOMETRIC, PaperAugmentation, PerImage
from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS
from sklearn_rrr.images.layout import SMALLEST_PICTURE
from sklearn_rrr.training.devices import use_bf16
from sklearn_rrr.training.settings import PRECISIONS, Settings

MANY = 4000  # images, above which each is shown less often


def check_reading(estimator):
    """Check the parameters that say how images are read, and where and how a network runs."""
    if estimator.image_size is not None:
        check_int("image_size", estimator.image_size, 8, 4096)
    check_int("max_image_pixels", estimator.max_image_pixels, 1)
    check_choice("precision", estimator.precision, PRECISIONS)
    resolve_device(estimator.device)


@dataclass(eq=False, repr=False)
class ClassifierParameters(BaseEstimator):
    """Parameters of all image classifiers; :class:`RRRNetClassifier` documents them.

    A subclass is also a dataclass and adds parameters. It extends ``_check_parameters()`` and
    ``_settle_tuning()`` for the parameters that it adds or fixes.
    """

    _tuning_type = FineTuning
    _tuning_names = ("published", "one_pass")  # class methods that return an equivalent object

    backbone: str = "efficientnet_lite0"
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
    checkpoint_dir: str | PathLike | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def set_params(self, **params):
        """Set parameters; ``fine_tuning__<field>`` sets a field of `fine_tuning`.

        If `fine_tuning` is None or a name, it is replaced by the equivalent object first.

        Parameters
        ----------
        **params : dict
            Parameters of this estimator or, as ``<parameter>__<field>``, of a nested object.

        Returns
        -------
        self : object
            This estimator.
        """
        prefix = "fine_tuning__"
        given = {k.removeprefix(prefix): params.pop(k) for k in [*params] if k.startswith(prefix)}
        if given:
            tuning = self._make_tuning(params.pop("fine_tuning", self.fine_tuning))
            params["fine_tuning"] = tuning.set_params(**given)
        return super().set_params(**params)

    def _check_parameters(self):
        """Check the shared parameters; subclasses add checks of their own parameters."""
        self._given_tuning().check()
        if self.max_epochs is not None:
            check_int("max_epochs", self.max_epochs, 0, hint=NONE)
        check_int("batch_size", self.batch_size, 2, hint="Batch norm needs two images or more.")
        if self.validation_fraction is not None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
        check_reading(self)
        check_choice("on_bad_file", self.on_bad_file, ("raise", "skip"))
        if not isinstance(plain(self.verbose), bool):
            check_int("verbose", self.verbose, 0)
        check_folder("checkpoint_dir", self.checkpoint_dir)
        check_seed("random_state", self.random_state)

    def _given_tuning(self):
        """Return `fine_tuning` as an object."""
        return self._make_tuning(self.fine_tuning)

    def _make_tuning(self, given):
        """Return what `fine_tuning` may be as an object; raise for anything else."""
        if given is None:
            return self._tuning_type()
        if isinstance(given, FineTuning):
            return given
        hint = "Or pass a FineTuning."
        check_choice("fine_tuning", given, (None, *self._tuning_names), hint)
        return getattr(self._tuning_type, given)()

    def _settle_tuning(self):
        """Resolve `fine_tuning`: the user's values, else the backbone's, else the paper's.

        `norm_warmup_epochs` depends on the network and may still be None.
        """
        return self._given_tuning().fill(self._recommended, DEFAULTS)

    def _settings(self, n_images, seed):
        """Return the resolved settings of a training on `n_images` images; set `fine_tuning_`."""
        tuning = self._settle_tuning()
        if hasattr(self, "module_"):  # these made the network, and new values need a new fit
            names = ("split", "dropout", "head_features")
            made = {name: getattr(self.fine_tuning_, name) for name in names}
            tuning = replace(tuning, trainable=self.trainable_, **made)
        tuning.norm_warmup_epochs = self._resolve_warmup(tuning)
        self.fine_tuning_ = tuning
        device, max_epochs = resolve_device(self.device), self._resolve_epochs(n_images)
        if not max_epochs and self._given_tuning().head_init is None:
            tuning.head_init = "ridge"  # random heads would stay random
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
            flips=tuning.flips,
            augmentation=self._resolve_augmentation(tuning),
            cache_features=tuning.cache_features,
            sampling=tuning.sampling,
            patience=tuning.patience if max_epochs and self._stops_early() else None,
            bf16=use_bf16(self.precision, device, getattr(self, "_has_depthwise", False)),
            device=str(device),
            seed=seed,
            verbose=int(self.verbose),
        )

    def _stops_early(self):
        """Tell whether the validation loss may end training; subclasses may override this."""
        return False

    def _average_over(self, max_epochs):
        """Return the number of last epochs over which weights are averaged."""
        ema = self.fine_tuning_.ema_epochs
        return min(ema if isinstance(ema, Integral) else round(ema * max_epochs), max_epochs)

    def _resolve_epochs(self, n_images):
        """Return `max_epochs`, or the epochs of ``fine_tuning_.steps`` steps."""
        if self.max_epochs is not None or not self.fine_tuning_.steps:
            return self.max_epochs or 0
        if self._given_tuning().steps is not None:
            return int(np.ceil(self.fine_tuning_.steps * self.batch_size / n_images))
        return self._count_epochs(self.fine_tuning_.steps, n_images)

    def _count_training_epochs(self, n_images):
        """Return the epochs of a fit, or those that the backbone recommends if a fit has none."""
        if epochs := self._resolve_epochs(n_images):
            return epochs
        with torch.device("meta"):
            recommended = make_backbone(self.backbone).fine_tuning.fill(DEFAULTS)
        return self._count_epochs(recommended.steps, n_images)

    def _count_epochs(self, steps, n_images):
        """Return the epochs of the recommended steps, or more if there are many images.

        Each image is shown once for 20 steps, up to 25 times, or less often above MANY images: the
        number of images shown then grows with the square root of theirs, but not below 5 times.
        """
        fewest = np.clip(min(steps / 20, 25) * np.sqrt(min(1, MANY / n_images)), 5, 25)
        return int(np.clip(np.ceil(steps * self.batch_size / n_images), np.ceil(fewest), 300))

    def _resolve_warmup(self, tuning):
        """Return the number of epochs that adapt the norms of the frozen parts."""
        if self.trainable_ == "all":
            return 0
        if tuning.norm_warmup_epochs is not None:
            return tuning.norm_warmup_epochs
        return int(self._adapts_norms())

    def _adapts_norms(self):
        """Tell whether frozen norms are adapted to the images; subclasses may override this."""
        return True

    def _resolve_augmentation(self, tuning):
        """Return the augmentation of a batch, or None, the default for tiny images."""
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
