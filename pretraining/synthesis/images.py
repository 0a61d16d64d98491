"""SyntheticImages: a Dataset that draws labelled images from several sources."""

import operator
from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.data import Dataset

from pretraining.synthesis.contours import Contours
from pretraining.synthesis.fractals import Fractals
from pretraining.synthesis.glyphs import Glyphs
from pretraining.synthesis.textures import DeadLeaves, Programs, Spectra
from sklearn_rrr._validation import check_choice, check_int

SOURCES = {
    "contours": Contours,
    "fractals": Fractals,
    "glyphs": Glyphs,
    "leaves": DeadLeaves,
    "programs": Programs,
    "spectra": Spectra,
}


class SyntheticImages(Dataset):
    """Labelled images that code draws, for pre-training without photographs.

    A class is a set of generating parameters: a character, an outline, a system of maps,
    a program; its images differ in everything else. An item depends on the parameters and
    its index alone, so that workers and restarts of a DataLoader change nothing.

    Parameters
    ----------
    classes : dict of str to int or None, default=None
        Number of classes of each source: "contours", "fractals", "glyphs", "leaves",
        "programs", "spectra". None: 100 of each. Classes are numbered in the order given.
    per_class : int, default=100
        Images of each class.
    size : int, default=64
        Height and width in pixels, 16 or more.
    seed : int, default=0
        Seed of classes and images, 0 or more.
    fonts : str, path, list of path or None, default=None
        Folder of the fonts for "glyphs", or the files; None takes those that installed
        packages and the system have, see :func:`pretraining.synthesis.find_fonts`.

    Attributes
    ----------
    n_classes : int
        Classes of all sources.
    class_names : list of str
        For each class its source and number, or its characters.

    Raises
    ------
    ValueError
        Unknown source; numbers out of range; no fonts, or too few for the classes.
    TypeError
        `classes` is no dict; a number is no int.

    References
    ----------
    Kataoka et al. (2020), Pre-training without natural images (fractals). Baradad et al.
    (2021), Learning to see by looking at noise (dead leaves, spectra). Baradad et al.
    (2022), Procedural image programs for representation learning. Nakamura et al. (2023),
    Pre-training vision transformers with very limited synthesized images.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> from pretraining.synthesis import SyntheticImages
    >>> images = SyntheticImages({"fractals": 3, "leaves": 2}, per_class=4, size=32)
    >>> len(images), images.n_classes
    (20, 5)
    >>> batch, labels = next(iter(DataLoader(images, batch_size=5)))
    >>> batch.shape, batch.dtype, labels.tolist()
    (torch.Size([5, 3, 32, 32]), torch.uint8, [0, 1, 2, 3, 4])
    """

    def __init__(self, classes=None, per_class=100, size=64, seed=0, fonts=None):
        classes = dict.fromkeys(SOURCES, 100) if classes is None else classes
        if not isinstance(classes, Mapping):
            raise TypeError(
                "`classes` must be a dict of sources and their numbers of classes; got "
                f"{classes!r}. Use for example {{'fractals': 100}}."
            )
        for name, n_classes in classes.items():
            check_choice("classes", name, tuple(SOURCES), "They are the keys of a dict.")
            check_int(f"classes[{name!r}]", n_classes, 1)
        if not classes:
            raise ValueError("`classes` names no source; use for example {'fractals': 100}.")
        check_int("per_class", per_class, 1)
        check_int("size", size, 16)
        check_int("seed", seed, 0)
        self.per_class, self.size, self.seed = per_class, size, seed
        self._sources = []
        for name, n_classes in classes.items():
            extra = {"fonts": fonts} if name == "glyphs" else {}
            self._sources.append(SOURCES[name](n_classes, size, seed, **extra))
        counts = [source.n_classes for source in self._sources]
        self._first = np.cumsum([0, *counts])
        self.n_classes = sum(counts)
        self.class_names = [
            f"{name} {source.name(k)}"
            for name, source in zip(classes, self._sources, strict=True)
            for k in range(source.n_classes)
        ]

    def __len__(self):
        return self.n_classes * self.per_class

    def __getitem__(self, index):
        """Return an image, uint8 (3, S, S), and its label: index modulo `n_classes`."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"`index` must be in [0, {len(self) - 1}]; got {index}.")
        label = index % self.n_classes
        k = int(np.searchsorted(self._first, label, side="right")) - 1
        rng = np.random.default_rng((self.seed, index))
        image = self._sources[k].draw(label - int(self._first[k]), rng)
        return torch.tensor(image).permute(2, 0, 1), label
