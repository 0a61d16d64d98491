"""Forward selection of the number of blocks: RRR-Net (arXiv:2310.01157), Algorithm 1.

Starts at one block a phase, adds pre-trained blocks one by one and goes on training. The paper
scores on its test images; here the score is of images held out, or a cross-validation.
"""

import io
import json
import math
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklearn_rrr._validation import (
    check_bool,
    check_choice,
    check_int,
    check_real,
    resolve_device,
)
from sklearn_rrr.backbones import PHASES, make_backbone
from sklearn_rrr.classifier import RRRNetClassifier
from sklearn_rrr.costs import count_macs, count_parameters, measure_latency
from sklearn_rrr.images import DatasetImages, take_images
from sklearn_rrr.labels import encode_labels, hold_out
from sklearn_rrr.network import RRRNet, fit_widths
from sklearn_rrr.weights import write_atomically

ORDERS = ("sequential", "cyclic")
CRITERIA = ("score", "pareto")
START = (1, 1, 1, 1)


# ------------------------------------------------------------------------- Algorithm 1


def next_phase(blocks, depths, order, closed=()):
    """Return the phase, 0 to 3, that the next block is added to; None where all are full.

    Parameters
    ----------
    blocks, depths : tuple of 4 int
        Blocks of each phase so far, and at most.
    order : {"sequential", "cyclic"}
        The first phase that is not full, or the one with the fewest blocks.
    closed : collection of int
        Phases that get no more.
    """
    phases = [p for p in range(4) if blocks[p] < depths[p] and p not in closed]
    if order == "cyclic":
        phases.sort(key=lambda p: blocks[p])
    return phases[0] if phases else None


def select_forward(evaluate, depths, order="sequential", tol=0.01, affordable=None):
    """Run Algorithm 1.

    Parameters
    ----------
    evaluate : callable
        From blocks, a tuple of 4 int, to a score; called once for each network in turn.
    depths : tuple of 4 int
        Blocks of each phase at most.
    order : {"sequential", "cyclic"}, default="sequential"
    tol : float or None, default=0.01
        A block stays if (score - old score) / abs(score) is at least this; None keeps all.
    affordable : callable or None, default=None
        From blocks to whether that network may be tried; where it may not, its phase gets no
        more blocks.

    Yields
    ------
    blocks, score, kept : tuple of 4 int, float, bool
    """
    blocks, old = START, evaluate(START)
    yield blocks, old, True
    closed = set()
    while (phase := next_phase(blocks, depths, order, closed)) is not None:
        larger = tuple(n + (p == phase) for p, n in enumerate(blocks))
        if affordable is not None and not affordable(larger):
            closed.add(phase)
            continue
        score = evaluate(larger)
        kept = tol is None or _improvement(score, old) >= tol
        yield larger, score, kept
        if not kept:
            return
        blocks, old = larger, score


def _improvement(score, old):
    """Return (score - old) / |score|, as the algorithm stops by; scores may be negative."""
    gain = score - old
    return gain / abs(score) if score else math.copysign(math.inf, gain) if gain else 0.0


def pareto_front(costs, scores):
    """Tell which networks no other one beats in both: (n,) and (n,) to (n,) bool."""
    costs, scores = np.asarray(costs, float), np.asarray(scores, float)
    better = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    strictly = (costs[:, None] < costs) | (scores[:, None] > scores)
    return ~(better & strictly).any(0)


def find_knee(costs, scores):
    """Return the index on the Pareto front that lies farthest above the line between its ends.

    Satopää et al. (2011), Finding a "kneedle" in a haystack, with both axes scaled to [0, 1].
    """
    front = np.flatnonzero(pareto_front(costs, scores))
    front = front[np.argsort(np.asarray(costs)[front], kind="stable")]
    x, y = (np.asarray(v, float)[front] for v in (costs, scores))
    if len(front) < 3 or x[-1] == x[0] or y[-1] == y[0]:
        return int(front[0] if len(front) < 3 and len(front) == 1 else front[-1])
    height = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(front[height.argmax()])


# ------------------------------------------------------------------------- the estimator


class BlockSelector(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
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
        Fraction of the images held out for the score, where `cv` is None.
    cv : int, splitter, iterable or None, default=None
        Score by cross-validation instead: a network for each fold, trained side by side; the
        chosen blocks are then trained on all images, step by step as they were found.
    max_blocks : int or None, default=None
        Blocks at most, of all phases together.
    max_parameters, max_macs : int or None, default=None
        Parameters and multiply-adds of one image at most.
    max_latency_ms : float or None, default=None
        Latency of one image at most, in milliseconds, measured on the estimator's device.
    criterion : {"score", "pareto"}, default="score"
        Which of the networks tried is taken. "score": where `tol` ends the search, the last
        that stayed; with `tol=None` that of the best score, the leaner of equal ones. "pareto":
        all steps are run, and it is the knee of the Pareto front of score and parameters.
    control : bool, default=False
        Whether (1, 1, 1, 1) is trained as long as the search was, too, for `results_`.
    checkpoint_dir : str, path or None, default=None
        A folder in which a search that was interrupted goes on where it was. It holds a folder
        for each search, told apart by its parameters and data, with pickles: use one that you
        trust.
    random_state : int, RandomState instance or None, default=None
        Seed of the split and of every training; None takes the estimator's.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    blocks_ : tuple of 4 int
        The blocks chosen.
    estimator_ : RRRNetClassifier
        Fitted, with those blocks.
    results_ : pandas.DataFrame
        A row for each network tried: ``blocks``, ``score`` (with ``score_std`` over folds),
        ``parameters``, ``macs``, ``latency_ms`` of one image, ``seconds`` of its training,
        ``epochs`` since the start, ``kept`` by the algorithm, ``pareto`` (on the front) and
        ``control``.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Length of a row; only where X had rows.

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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._make_estimator(check=False))
        tags.input_tags, tags.classifier_tags = inner.input_tags, inner.classifier_tags
        return tags

    def _make_estimator(self, check=True):
        """Return an unfitted copy of the estimator, or the paper's."""
        if self.estimator is None:
            return RRRNetClassifier(n_branches=1, trainable="all")
        if check and not (is_classifier(self.estimator) and hasattr(self.estimator, "_grow")):
            raise TypeError(f"`estimator` must be an RRRNetClassifier; got {self.estimator!r}.")
        return clone(self.estimator)

    def _check_parameters(self, estimator):
        check_choice("order", self.order, ORDERS)
        check_choice("criterion", self.criterion, CRITERIA)
        check_bool("control", self.control)
        if self.tol is not None:
            check_real("tol", self.tol, 0, hint="None switches the stop off.")
        for name in ("epochs_per_step", "max_parameters", "max_macs"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        if self.max_blocks is not None:
            check_int("max_blocks", self.max_blocks, 4, hint="There is one a phase at least.")
        if self.max_latency_ms is not None:
            check_real("max_latency_ms", self.max_latency_ms, 0, open_low=True)
        if self.cv is None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
        if "blocks" not in estimator.get_params():
            raise TypeError(
                f"`estimator` must have the parameter `blocks`; a {type(estimator).__name__} has "
                "not."
            )

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
        estimator = self._make_estimator()
        self._check_parameters(estimator)
        if y is None and isinstance(X, torch.utils.data.Dataset):
            y = DatasetImages(X).labels()
        if y is None:
            raise ValueError("BlockSelector requires y to be passed, but the target y is None.")
        data = _Data(X, np.asarray(y), sample_weight)
        source = estimator.random_state if self.random_state is None else self.random_state
        rng = check_random_state(source)
        seeds = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
        with self._open_store(estimator, data, seeds) as store:
            search = _Search(self, estimator, data, store)
            search.run()
            self.estimator_ = search.finish()
            self.results_ = search.results()
        self.blocks_, self.classes_ = self.estimator_.blocks_, self.estimator_.classes_
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @contextmanager
    def _open_store(self, estimator, data, seeds):
        """Yield the place of the search's networks: a folder of its own, or a temporary one."""
        if self.checkpoint_dir is None:
            with tempfile.TemporaryDirectory(prefix="sklearn_rrr-") as folder:
                yield _Store(folder, seeds)
            return
        own = self.get_params(deep=False) | {"estimator": None}
        parameters = own | estimator.get_params()
        for name in ("checkpoint_dir", "verbose", "device"):
            parameters.pop(name)
        key = {name: repr(value) for name, value in parameters.items()}, data.digest()
        folder = Path(self.checkpoint_dir) / f"blocks-{joblib.hash(key)[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        yield _Store(folder, seeds)

    # ----------------------------------------------------------------------- predicting

    def predict(self, X):
        """Predict the label of each image with the network chosen.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n,)
            Labels.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def predict_proba(self, X):
        """Predict the probability of each class with the network chosen.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def score(self, X, y):
        """Return the score of the network chosen, by `scoring`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.
        y : array-like of shape (n,)
            Labels.

        Returns
        -------
        score : float
            Larger is better.
        """
        check_is_fitted(self)
        return check_scoring(self.estimator_, self.scoring)(self.estimator_, X, y)


class _Data:
    """Images, labels and weights, and parts of them."""

    def __init__(self, X, y, sample_weight):
        self.X, self.y = X, y
        self.weights = None if sample_weight is None else np.asarray(sample_weight)
        self.classes, self.labels = encode_labels(y)
        n = len(X) if hasattr(X, "__len__") else None
        if n is not None and n != len(self.labels):
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: "
                f"{[n, len(self.labels)]}."
            )

    def part(self, indices):
        weights = None if self.weights is None else self.weights[indices]
        return take_images(self.X, indices), self.y[indices], weights

    def digest(self):
        images = len(self.X) if isinstance(self.X, torch.utils.data.Dataset) else self.X
        return joblib.hash((images, self.y, self.weights))


class _Store:
    """The networks of each step as files, and what is known of them in ``search.json``.

    Each file is whole or not there; a step counts once it is in ``search.json``.
    """

    def __init__(self, folder, seeds):
        self.folder = Path(folder)
        self.record = {"seeds": seeds, "costs": {}, "steps": {}}
        if self._index.exists():
            self.record = json.loads(self._index.read_text())

    @property
    def _index(self):
        return self.folder / "search.json"

    def write_index(self):
        write_atomically(self._index, json.dumps(self.record).encode())

    def save(self, name, estimators, row):
        buffer = io.BytesIO()
        joblib.dump(estimators, buffer)
        write_atomically(self.folder / f"{name}.joblib", buffer.getvalue())
        self.record["steps"][name] = row
        self.write_index()

    def load(self, name):
        return joblib.load(self.folder / f"{name}.joblib")

    def keep(self, names):
        """Delete the networks of all other steps."""
        for path in self.folder.glob("*.joblib"):
            if path.stem not in names:
                path.unlink()


class _Search:
    """One run of the algorithm: its networks, one a fold, step by step."""

    def __init__(self, selector, estimator, data, store):
        self.selector, self.estimator, self.data, self.store = selector, estimator, data, store
        self.split_seed, self.seed = store.record["seeds"]
        if selector.epochs_per_step is not None:
            estimator.set_params(max_epochs=selector.epochs_per_step)
        estimator.set_params(blocks=START)
        self.scorer = check_scoring(estimator, selector.scoring)
        self.splits = self._split()
        self.backbone = make_backbone(estimator.backbone)
        self.steps = []  # (name, blocks, kept) of the search, and of the control
        self.bar = tqdm(
            total=sum(self.backbone.depths) - 3,
            unit="network",
            desc="BlockSelector",
            disable=not selector.verbose,
        )

    def _split(self):
        """Return the images to train on and to score on, of each fold."""
        data, cv = self.data, self.selector.cv
        if cv is None:
            return [hold_out(data.labels, self.selector.validation_fraction, self.split_seed)]
        folds = check_cv(cv, data.labels, classifier=True)
        if getattr(folds, "random_state", 0) is None and getattr(folds, "shuffle", False):
            folds.random_state = self.split_seed
        return list(folds.split(np.zeros(len(data.labels)), data.labels))

    # ------------------------------------------------------------------------- running

    def run(self):
        selector = self.selector
        if not self._is_affordable(START):
            raise ValueError(f"Even blocks={START} is beyond a budget: {self._costs(START)}.")
        tol = None if selector.criterion == "pareto" else selector.tol
        path = select_forward(
            self._evaluate, self.backbone.depths, selector.order, tol, self._is_affordable
        )
        with self.bar:
            for _, score, kept in path:
                self.steps[-1]["kept"] = kept
                self.bar.set_postfix(blocks=self.steps[-1]["blocks"], score=f"{score:.3f}")
                self.bar.update()
                self._tidy()
            self.n_steps = len(self.steps)
            if selector.control:
                for step in range(1, self.n_steps):
                    self._train(f"control_{step}", START, step)

    def _evaluate(self, blocks):
        step = len(self.steps)
        return self._train(f"step_{step}", blocks, step)["score"]

    def _train(self, name, blocks, step):
        """Train the networks of a step from those before, unless it is done; return its row."""
        row = self.store.record["steps"].get(name)
        if row is None:
            start = time.perf_counter()
            control = name.startswith("control")
            before = f"control_{step - 1}" if control and step > 1 else f"step_{step - 1}"
            if control and step == 1:
                before = "step_0"
            networks = self.store.load(before) if step else [None] * len(self.splits)
            fitted = [
                self._train_one(network, blocks, self.data.part(train), (fold, step, control))
                for fold, (network, (train, _)) in enumerate(
                    zip(networks, self.splits, strict=True)
                )
            ]
            seconds = time.perf_counter() - start
            scores = [
                self._score(network, valid)
                for network, (_, valid) in zip(fitted, self.splits, strict=True)
            ]
            row = {
                "blocks": blocks,
                "score": float(np.mean(scores)),
                "score_std": float(np.std(scores)),
                **self._costs(blocks),
                "seconds": seconds,
                "epochs": len(fitted[0].history_),
                "kept": False,
                "control": control,
            }
            self.store.save(name, fitted, row)
        self.steps.append({**row, "blocks": blocks, "name": name})
        return row

    def _train_one(self, network, blocks, part, key):
        X, y, weights = part
        seed = int(np.random.SeedSequence([self.seed, *map(int, key)]).generate_state(1)[0] // 2)
        if network is None:
            return clone(self.estimator).set_params(random_state=seed).fit(X, y, weights)
        return network._grow(blocks, X, y, weights, seed)

    def _score(self, network, indices):
        X, y, _ = self.data.part(indices)
        score = float(self.scorer(network, X, y))
        if not math.isfinite(score):
            raise ValueError(f"`scoring` gave {score} for blocks={network.blocks_}.")
        return score

    # ------------------------------------------------------------------------- budgets

    def _costs(self, blocks):
        """Return parameters, multiply-adds and latency of one image; measured once."""
        costs = self.store.record["costs"]
        if str(blocks) not in costs:
            e = self.estimator
            network = RRRNet(
                self.backbone,
                len(self.data.classes),
                blocks=blocks,
                n_branches=e.n_branches,
                split_at=e.split_at,
                width_offset=self._width_offset(),
            )
            size, device = e.image_size or self.backbone.image_size, resolve_device(e.device)
            latency = measure_latency(network, image_size=size, device=device)
            costs[str(blocks)] = {
                "parameters": count_parameters(network),
                "macs": count_macs(network, size),
                "latency_ms": latency.median,
            }
            self.store.write_index()
        return costs[str(blocks)]

    def _width_offset(self):
        """Return a of Eq. (1) of the first network, which the larger ones keep."""
        e = self.estimator
        at = PHASES.index(e.split_at)
        return fit_widths(
            self.backbone, START, e.n_branches, at, len(self.data.classes), e.width_offset
        )[0]

    def _is_affordable(self, blocks):
        selector = self.selector
        if selector.max_blocks is not None and sum(blocks) > selector.max_blocks:
            return False
        costs = self._costs(blocks)
        limits = {
            "parameters": selector.max_parameters,
            "macs": selector.max_macs,
            "latency_ms": selector.max_latency_ms,
        }
        return all(limit is None or costs[name] <= limit for name, limit in limits.items())

    # ------------------------------------------------------------------------ choosing

    def _choose(self):
        """Return the index of the step that the criterion takes, of those so far."""
        scores = [step["score"] for step in self.steps]
        if self.selector.criterion == "pareto":
            return find_knee([step["parameters"] for step in self.steps], scores)
        if self.selector.tol is None:
            return int(np.argmax(scores))  # the first of equal ones
        return max(i for i, step in enumerate(self.steps) if step["kept"])

    def _tidy(self):
        """Delete the networks that can no longer be chosen, nor trained on."""
        wanted = {0, len(self.steps) - 1}
        if self.selector.cv is None:
            wanted.add(self._choose())
            if self.selector.criterion == "pareto":
                wanted.update(np.flatnonzero(self._front(self.steps)).tolist())
        names = {self.steps[i]["name"] for i in wanted}
        self.store.keep(names | {name for name in self.store.record["steps"] if "control" in name})

    @staticmethod
    def _front(steps):
        return pareto_front([s["parameters"] for s in steps], [s["score"] for s in steps])

    def finish(self):
        """Return the network chosen; after a cross-validation, trained on all images."""
        searched = self.steps[: self.n_steps]
        self.steps, everything = searched, self.steps
        chosen = self._choose()
        self.steps = everything
        if self.selector.cv is None:
            return self.store.load(searched[chosen]["name"])[0]
        part = self.data.part(np.arange(len(self.data.labels)))
        network, fold = None, len(self.splits)
        for step in range(chosen + 1):
            blocks = searched[step]["blocks"]
            network = self._train_one(network, blocks, part, (fold, step, False))
        return network

    def results(self):
        """Return the table of all networks tried."""
        table = pd.DataFrame(self.steps).drop(columns="name")
        searched = ~table.control
        table["pareto"] = False
        table.loc[searched, "pareto"] = self._front(self.steps[: self.n_steps])
        table["epochs"] = table.groupby("control").epochs.cumsum()
        first = table.epochs.iloc[0]
        table.loc[table.control, "epochs"] += first
        return table
