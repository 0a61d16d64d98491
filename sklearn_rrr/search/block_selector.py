"""Forward selection of the number of blocks: RRR-Net (arXiv:2310.01157), Algorithm 1.

The search starts at one block per phase, adds one pre-trained block at a time and continues the
training. The paper scores on its test images; here the score comes from hold-out images or from a
cross-validation.
"""

import tempfile
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.utils import check_consistent_length, check_random_state

from sklearn_rrr._surroundings import shielded
from sklearn_rrr._validation import (
    check_bool,
    check_choice,
    check_folder,
    check_int,
    check_jobs,
    check_real,
    check_seed,
    plain,
)
from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.classifiers.meta import ImageMetaClassifier, check_scoring_parameter
from sklearn_rrr.classifiers.rrr_net_classifier import RRRNetClassifier
from sklearn_rrr.search.block_search import BlockSearch, SearchSettings
from sklearn_rrr.training.checkpoints import CheckpointFolder, digest_parameter, locked
from sklearn_rrr.training.fit_identity import identify
from sklearn_rrr.training.journal import is_journaled

ORDERS = ("sequential", "cyclic")
CHOICES = ("score", "pareto")


class BlockSelector(ImageMetaClassifier):
    """Choose the number of blocks of each phase by forward selection.

    Parameters
    ----------
    estimator : RRRNetClassifier or None, default=None
        The classifier to search with. It is cloned, and its `blocks` are replaced, starting at
        (1, 1, 1, 1), where the branch widths are computed. None means an unsplit network with
        all weights trained, as in the paper.
    order : {"sequential", "cyclic"}, default="sequential"
        Phase of the next block. "sequential", as published, fills the phases one after the
        other; "cyclic" takes the phase with the fewest blocks.
    tolerance : float or None, default=0.01
        Smallest relative improvement of the score for which a block is kept. The search stops at
        the first block that improves the score by less and drops that block. None disables the
        stopping rule.
    epochs_per_step : int or None, default=None
        Training epochs after each added block; None means the estimator's `max_epochs`.
    scoring : str, callable or None, default=None
        Scorer as in scikit-learn; None means the estimator's accuracy. While fitting, a callable
        gets a Dataset of the images that were read as X; it has a shape and can be sliced.
    validation_fraction : float, default=0.2
        Fraction of the images held out for the score if `cv` is None. The returned network was
        not trained on these images; with `cv` it is trained on all images.
    cv : int, splitter, iterable or None, default=None
        Score by cross-validation, with one network per fold. Afterwards the chosen blocks are
        trained on all images, in the steps of the search. Indices refer to the images passed to
        `fit`; images with weight 0 and skipped files are in no fold.
    max_blocks : int or None, default=None
        Largest total number of blocks.
    max_parameters, max_macs : float or None, default=None
        Largest number of parameters, and of multiply-adds per image.
    max_latency_ms : float or None, default=None
        Largest latency of one image in milliseconds, measured once per network on the
        estimator's device. It depends on the load of the machine, so that the result may vary
        in spite of `random_state`.
    select_by : {"score", "pareto"}, default="score"
        How the network is chosen. "score": the last network kept by the stopping rule; with
        `tolerance=None` the network with the best score, the leanest among equals. "pareto": all
        steps are run, and the knee of the Pareto front of score and parameters is chosen.
    control : bool, default=False
        Whether to train (1, 1, 1, 1) for as long as the whole search, for `results_`.
    n_jobs : int or None, default=None
        Number of processes that train the networks of the folds of `cv`; -1 uses all processors.
        None means 1, or what ``joblib.parallel_config`` says, such as a cluster. A process has
        fewer threads than one alone, which rounds sums differently. Training amplifies this, so
        scores and the chosen blocks may differ. Inside a fit with a `checkpoint_dir`, such as that
        of a pruner, it is 1. Register backbones of your own in a module that processes can import.
    checkpoint_dir : str, path or None, default=None
        Folder from which an interrupted search resumes. It contains one folder per search, named
        after a digest of parameters and images, and pickles: use a folder that you trust.
        Parameters must be picklable, so lambdas raise. Functions are distinguished by module and
        name: after a change of their code, use another folder. The seeds of an unseeded search are
        stored, too. Nothing is deleted automatically.
    random_state : int, RandomState instance or None, default=None
        Seed of the split and of every training; None means the estimator's.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    blocks_ : tuple of 4 int
        The chosen blocks.
    estimator_ : RRRNetClassifier
        Fitted classifier with these blocks. It was trained step by step and its `history_` covers
        the last step; a clone that is fitted anew is trained for that step's epochs only.
    results_ : pandas.DataFrame
        A row per network tried: ``blocks``, ``score`` (and ``score_std`` over folds),
        ``parameters``, ``macs``, ``latency_ms`` of one image, ``seconds`` of training and scoring,
        ``epochs`` since the start, ``kept`` by the stopping rule, ``pareto`` (on the front) and
        ``control``.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        See :class:`RRRNetClassifier`.
    n_features_in_ : int
        Length of a row; only if X was given as rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only if X was a data frame of rows with column names.

    References
    ----------
    Sun, Guyon, Mohr and Tabia (2023), RRR-Net, arXiv:2310.01157, Algorithm 1 and Figure 4.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import BlockSelector, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, image_size=32, random_state=0)
    >>> selector = BlockSelector(clf, epochs_per_step=1, max_blocks=5, tolerance=None)
    >>> selector.fit(X[:64] / 16, y[:64]).results_.blocks.tolist()
    [(1, 1, 1, 1), (2, 1, 1, 1)]
    """

    _fitted = (*ImageMetaClassifier._fitted, "blocks_")

    def __init__(
        self,
        estimator=None,
        *,
        order="sequential",
        tolerance=0.01,
        epochs_per_step=None,
        scoring=None,
        validation_fraction=0.2,
        cv=None,
        max_blocks=None,
        max_parameters=None,
        max_macs=None,
        max_latency_ms=None,
        select_by="score",
        control=False,
        n_jobs=None,
        checkpoint_dir=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.order = order
        self.tolerance = tolerance
        self.epochs_per_step = epochs_per_step
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.cv = cv
        self.max_blocks = max_blocks
        self.max_parameters = max_parameters
        self.max_macs = max_macs
        self.max_latency_ms = max_latency_ms
        self.select_by = select_by
        self.control = control
        self.n_jobs = n_jobs
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    def _make_estimator(self):
        """Return an unfitted copy of the estimator, or the default of the paper."""
        if self.estimator is None:
            return RRRNetClassifier(n_branches=1, fine_tuning=FineTuning(trainable="all"))
        if not isinstance(self.estimator, RRRNetClassifier):
            raise TypeError(f"`estimator` must be an RRRNetClassifier; got {self.estimator!r}.")
        return clone(self.estimator)

    def _check_parameters(self):
        check_choice("order", self.order, ORDERS)
        check_choice("select_by", self.select_by, CHOICES)
        check_bool("control", self.control)
        if self.tolerance is not None:
            hint = "None disables the stopping rule."
            check_real("tolerance", self.tolerance, 0, hint=hint)
        if self.epochs_per_step is not None:
            check_int("epochs_per_step", self.epochs_per_step, 1)
        for name in ("max_parameters", "max_macs", "max_latency_ms"):
            if getattr(self, name) is not None:
                check_real(name, getattr(self, name), 0, open_low=True)
        check_jobs("n_jobs", self.n_jobs)
        if self.max_blocks is not None:
            check_int("max_blocks", self.max_blocks, 4, hint="Each phase has at least one.")
        check_folder("checkpoint_dir", self.checkpoint_dir)
        check_seed("random_state", self.random_state)
        check_scoring_parameter(self.scoring)
        if not isinstance(plain(self.verbose), bool):
            check_int("verbose", self.verbose, 0)
        if self.cv is None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)

    # ------------------------------------------------------------------------- fitting

    @shielded()
    def fit(self, X, y=None, sample_weight=None, groups=None):
        """Search for the blocks and fit the network that has them.

        Parameters
        ----------
        X : images
            As in :meth:`RRRNetClassifier.fit`.
        y : array-like of shape (n,)
            Labels. None only for a Dataset whose items are (image, label).
        sample_weight : array-like of shape (n,), default=None
            Weights of the images in the loss; scores are not weighted.
        groups : array-like of shape (n,), default=None
            Groups of the images, passed to ``cv.split``, for example of a
            :class:`sklearn.model_selection.GroupKFold`.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        ValueError, TypeError
            If parameters, images or labels are invalid, or if even (1, 1, 1, 1) exceeds a budget.
        """
        estimator = self._check_start()
        reader = clone(estimator)
        return self._search(estimator, self._read_images(reader, X, y, sample_weight), groups)

    def _fit_set(self, images):
        return self._search(self._check_start(), images)

    def _check_start(self):
        """Check all parameters, forget an earlier fit, and return the estimator to start from."""
        estimator = self._make_estimator()
        self._check_parameters()
        estimator._check_parameters()
        self._forget()
        return estimator

    def _search(self, estimator, images, groups=None):
        self._adopt(images)
        groups = self._check_groups(groups, images.reading.given)
        names = [field.name for field in fields(SearchSettings)]
        settings = SearchSettings(**{name: getattr(self, name) for name in names})
        with self._open_folder(estimator, images, groups) as folder:
            search = BlockSearch(settings, estimator, images, folder, groups)
            search.run()
            fitted = search.finish()
        self.results_ = search.results()
        self.blocks_, self.classes_ = fitted.blocks_, fitted.classes_
        self.estimator_ = fitted
        return self

    def _check_groups(self, groups, given):
        """Return the groups of the images given as an array, or None."""
        if groups is None:
            return None
        if self.cv is None:
            raise ValueError(
                "`groups` are passed to the splitter `cv`; got `cv`=None. Use for example "
                "cv=GroupKFold()."
            )
        check_consistent_length(given, groups)
        return np.asarray(groups)

    @contextmanager
    def _open_folder(self, estimator, images, groups):
        """Yield the storage of the search, in `checkpoint_dir` or in a temporary folder."""
        stored = self.checkpoint_dir is not None and not is_journaled()
        if stored:  # before a seed is drawn: a RandomState identifies the search, too
            parts = [identify(self), digest_parameter("groups", groups), images.fingerprint()]
            folder = Path(self.checkpoint_dir) / f"blocks-{joblib.hash(parts)}"
        seeded_by = self if self.random_state is not None else estimator
        rng = check_random_state(seeded_by.random_state)
        seeds = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
        record = {"seeds": seeds, "costs": {}, "steps": {}}
        if not stored:
            with tempfile.TemporaryDirectory(prefix="sklearn_rrr-") as folder:
                yield CheckpointFolder(folder, record)
            return
        with locked(folder):
            yield CheckpointFolder(folder, record)
