"""Forward selection of the number of blocks: RRR-Net (arXiv:2310.01157), Algorithm 1.

Starts at one block a phase, adds pre-trained blocks one by one and goes on training. The paper
scores on its test images; here the score is of images held out, or a cross-validation.
"""

import copy
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real
from sklearn_rrr.classifiers.meta import ImageData, ImageMetaClassifier, check_scoring_parameter
from sklearn_rrr.classifiers.rrr_net_classifier import RRRNetClassifier
from sklearn_rrr.search.block_search import BlockSearch
from sklearn_rrr.search.checkpoints import CheckpointFolder, digest_search, locked

ORDERS = ("sequential", "cyclic")
CRITERIA = ("score", "pareto")


class BlockSelector(ImageMetaClassifier):
    """Choose the number of blocks of each phase by forward selection.

    Parameters
    ----------
    estimator : RRRNetClassifier or None, default=None
        Unfitted; any of its parameters but `blocks`, which start at (1, 1, 1, 1). Branches keep
        the widths they have there. None takes an unsplit network that learns as a whole, as the
        paper does.
    order : {"sequential", "cyclic"}, default="sequential"
        Which phase gets the next block: the first that is not full, as published, or the one
        with the fewest.
    tol : float or None, default=0.01
        A block stays if the score rises by this share of it; at the first that does not the
        search ends, without that block. None switches the stop off.
    epochs_per_step : int or None, default=None
        Epochs after each block; None takes the estimator's `max_epochs`.
    scoring : str, callable or None, default=None
        As in scikit-learn; None is the estimator's accuracy.
    validation_fraction : float, default=0.2
        Fraction of the images held out for the score, where `cv` is None. The network that is
        returned has not learned from them; with `cv` it learns from all images.
    cv : int, splitter without groups, iterable or None, default=None
        Score by cross-validation instead: a network for each fold, one trained after the other;
        the chosen blocks are then trained on all images, step by step as they were found. Indices
        are of the images given; those without weight, and files left out, are in no fold.
    max_blocks : int or None, default=None
        Blocks at most, of all phases together.
    max_parameters, max_macs : float or None, default=None
        Parameters and multiply-adds of one image at most.
    max_latency_ms : float or None, default=None
        Latency of one image at most, in milliseconds, measured on the estimator's device, once
        for each network. It varies with what else the machine does, and the search with it,
        whatever `random_state` says.
    criterion : {"score", "pareto"}, default="score"
        Which of the networks tried is taken. "score": where `tol` ends the search, the last
        that stayed; with `tol=None` that of the best score, the leaner of equal ones. "pareto":
        all steps are run, and it is the knee of the Pareto front of score and parameters.
    control : bool, default=False
        Whether (1, 1, 1, 1) is trained as long as the search was, too, for `results_`.
    checkpoint_dir : str, path or None, default=None
        Folder in which an interrupted search goes on where it was. It holds a folder for each
        search, told apart by its parameters and images, with pickles: use one that you trust.
        Parameters must be picklable, so lambdas raise. Functions are told apart by module and
        name: after a change of their code, use another folder. Of an unseeded search the seeds
        are kept, too. They stay until you delete them.
    random_state : int, RandomState instance or None, default=None
        Seed of the split and of every training; None takes the estimator's.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    blocks_ : tuple of 4 int
        The blocks chosen.
    estimator_ : RRRNetClassifier
        Fitted, with those blocks. It was trained step by step, and its `history_` is of the last
        one: a clone of it, fitted anew, is trained for that step's epochs only.
    results_ : pandas.DataFrame
        A row for each network tried: ``blocks``, ``score`` (with ``score_std`` over folds),
        ``parameters``, ``macs``, ``latency_ms`` of one image, ``seconds`` of its training,
        ``epochs`` since the start, ``kept`` by the algorithm, ``pareto`` (on the front) and
        ``control``.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        As of :class:`RRRNetClassifier`.
    n_features_in_ : int
        Length of a row; only where X had rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only where X was a frame of rows with such names.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net, arXiv:2310.01157, Algorithm 1 and Figure 4.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import BlockSelector, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, image_size=32, random_state=0)
    >>> selector = BlockSelector(clf, epochs_per_step=1, max_blocks=5, tol=None)
    >>> selector.fit(X[:64] / 16, y[:64]).results_.blocks.tolist()
    [(1, 1, 1, 1), (2, 1, 1, 1)]
    """

    _fitted = (*ImageMetaClassifier._fitted, "blocks_")

    def __init__(
        self,
        estimator=None,
        *,
        order="sequential",
        tol=0.01,
        epochs_per_step=None,
        scoring=None,
        validation_fraction=0.2,
        cv=None,
        max_blocks=None,
        max_parameters=None,
        max_macs=None,
        max_latency_ms=None,
        criterion="score",
        control=False,
        checkpoint_dir=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.order = order
        self.tol = tol
        self.epochs_per_step = epochs_per_step
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.cv = cv
        self.max_blocks = max_blocks
        self.max_parameters = max_parameters
        self.max_macs = max_macs
        self.max_latency_ms = max_latency_ms
        self.criterion = criterion
        self.control = control
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    def _make_estimator(self):
        """Return an unfitted copy of the estimator, or the paper's."""
        if self.estimator is None:
            return RRRNetClassifier(n_branches=1, trainable="all")
        if not isinstance(self.estimator, RRRNetClassifier):
            raise TypeError(f"`estimator` must be an RRRNetClassifier; got {self.estimator!r}.")
        return clone(self.estimator)

    def _check_parameters(self):
        check_choice("order", self.order, ORDERS)
        check_choice("criterion", self.criterion, CRITERIA)
        check_bool("control", self.control)
        if self.tol is not None:
            check_real("tol", self.tol, 0, hint="None switches the stop off.")
        if self.epochs_per_step is not None:
            check_int("epochs_per_step", self.epochs_per_step, 1)
        for name in ("max_parameters", "max_macs", "max_latency_ms"):
            if getattr(self, name) is not None:
                check_real(name, getattr(self, name), 0, open_low=True)
        if self.max_blocks is not None:
            check_int("max_blocks", self.max_blocks, 4, hint="There is one a phase at least.")
        if self.checkpoint_dir is not None:
            if not isinstance(self.checkpoint_dir, (str, os.PathLike)):
                raise TypeError(
                    f"`checkpoint_dir` must be a folder or None; got {self.checkpoint_dir!r}."
                )
            if Path(self.checkpoint_dir).is_file():
                raise ValueError(
                    f"`checkpoint_dir`={self.checkpoint_dir!r} is a file; name a folder."
                )
        check_scoring_parameter(self.scoring)
        if not isinstance(self.verbose, bool):
            check_int("verbose", self.verbose, 0)
        if self.cv is None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)

    # ------------------------------------------------------------------------- fitting

    def fit(self, X, y=None, sample_weight=None):
        """Search for the blocks, and fit the network that has them.

        Parameters
        ----------
        X : images
            As in :meth:`RRRNetClassifier.fit`.
        y : array-like of shape (n,)
            Labels. None only for a Dataset whose items are (image, label).
        sample_weight : array-like of shape (n,), default=None
            Weights of the images in the loss; scores are not weighted.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        ValueError, TypeError
            For what is wrong with parameters, images or labels, and where even (1, 1, 1, 1) is
            beyond a budget.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight, classes=None):
        estimator = self._make_estimator()
        self._check_parameters()
        estimator._check_parameters()
        X, y = self._check_input(X, y)
        data = ImageData(clone(estimator), X, y, sample_weight, classes)
        with self._open_folder(estimator, data) as folder:
            search = BlockSearch(self, estimator, data, folder)
            search.run()
            fitted = search.finish()
        self.results_, self.skipped_ = search.results(), data.skipped
        self.blocks_, self.classes_ = fitted.blocks_, fitted.classes_
        self.estimator_ = fitted
        return self

    @contextmanager
    def _open_folder(self, estimator, data):
        """Yield the place of the search's networks: a folder of its own, or a temporary one."""
        seeded_by = self if self.random_state is not None else estimator
        # Before a seed is drawn from it: a RandomState identifies the search, too.
        random_state = copy.deepcopy(seeded_by.random_state)
        rng = check_random_state(seeded_by.random_state)
        seeds = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
        record = {"seeds": seeds, "costs": {}, "steps": {}}
        if self.checkpoint_dir is None:
            with tempfile.TemporaryDirectory(prefix="sklearn_rrr-") as folder:
                yield CheckpointFolder(folder, record)
            return
        key = digest_search(self._identify(estimator, random_state), data.fingerprint())
        folder = Path(self.checkpoint_dir) / f"blocks-{key}"
        with locked(folder):
            yield CheckpointFolder(folder, record)

    def _identify(self, estimator, random_state):
        """Return the parameters that tell one search from another, by their names."""
        own, inner = self.get_params(deep=False), estimator.get_params()
        for name in ("estimator", "checkpoint_dir", "verbose", "random_state"):
            own.pop(name)
        for name in ("device", "verbose", "random_state"):
            inner.pop(name)
        weights = inner["weights"]
        if isinstance(weights, (str, Path)) and Path(weights).is_file():
            inner["weights"] = np.fromfile(weights, dtype=np.uint8)
        inner = {f"estimator__{name}": value for name, value in inner.items()}
        return own | inner | {"random_state": random_state}
