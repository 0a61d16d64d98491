"""Run of Algorithm 1 behind BlockSelector: trainings, budgets, choice of a network.

RRR-Net (arXiv:2310.01157), appendix A. The networks that a search still needs are stored in
files: they take no memory, and an interrupted search can be resumed.
"""

import math
import time
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from sklearn_rrr._surroundings import drawing
from sklearn_rrr._validation import resolve_device
from sklearn_rrr.backbones.backbone import PHASES
from sklearn_rrr.backbones.fine_tuning import DEFAULTS
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.classifiers.meta import finite_score
from sklearn_rrr.images.labels import hold_out
from sklearn_rrr.networks.branch_widths import fit_widths
from sklearn_rrr.networks.costs import count_macs, count_parameters, measure_latency
from sklearn_rrr.networks.inference_copy import make_inference_copy
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.search.forward_selection import START, find_knee, pareto_front, select_forward
from sklearn_rrr.training.journal import is_journaled


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; :class:`BlockSelector` documents the fields."""

    order: str = "sequential"
    tolerance: float | None = 0.01
    epochs_per_step: int | None = None
    scoring: object = None
    validation_fraction: float = 0.2
    cv: object = None
    max_blocks: int | None = None
    max_parameters: float | None = None
    max_macs: float | None = None
    max_latency_ms: float | None = None
    select_by: str = "score"
    control: bool = False
    n_jobs: int | None = None
    verbose: int = 0


class BlockSearch:
    """One run of Algorithm 1, with one network per fold and step.

    Parameters
    ----------
    settings : SearchSettings
        Checked settings.
    estimator : RRRNetClassifier
        Unfitted; its parameters are changed.
    images : LabelledSet
        Images, labels and weights.
    folder : CheckpointFolder
        Storage of the networks. Its record holds the seeds, the splits, the costs of the
        networks and the rows of the steps.
    groups : ndarray of shape (n_given,) or None, default=None
        Group of each image given, passed to the splitter.
    """

    def __init__(self, settings, estimator, images, folder, groups=None):
        self.settings, self.images, self.folder = settings, images, folder
        if settings.epochs_per_step is not None:
            estimator.set_params(max_epochs=settings.epochs_per_step)
        self.estimator = estimator.set_params(blocks=START)
        self.split_seed, self.seed = folder.record["seeds"]
        self.scorer = check_scoring(estimator, settings.scoring)
        self.device = resolve_device(estimator.device)
        with drawing(0):
            self.backbone, trained = load_backbone(estimator.backbone, estimator.weights)
        recommended = self.backbone.fine_tuning
        recommended = recommended if trained else recommended.from_scratch()
        tuning = estimator._given_tuning().fill(recommended, DEFAULTS)
        self.head_features = tuning.head_features
        # Stored, since an unseeded splitter would draw other folds after a resume.
        if "splits" not in folder.record:
            folder.record["splits"] = self._split(groups)
        self.splits = [tuple(map(np.array, split)) for split in folder.record["splits"]]
        self.steps, self.controls = [], []  # rows of the results

    def _split(self, groups):
        """Return the indices of the training and hold-out images of each fold, as lists."""
        labels, cv = self.images.labels.numpy(), self.settings.cv
        if cv is None:
            folds = [hold_out(labels, self.settings.validation_fraction, self.split_seed)]
        elif isinstance(cv, Integral):
            groups = None if groups is None else groups[self.images.reading.kept]
            folds = list(check_cv(cv, labels, classifier=True).split(labels, labels, groups))
        else:  # a splitter or indices of the user refer to all images given
            given = self.images.reading.given
            splitter = check_cv(cv, given, classifier=True)
            folds = splitter.split(given, given, groups)
            folds = [[self._find(part) for part in fold] for fold in folds]
        if not folds:
            raise ValueError(f"`cv` gave no split; got {cv!r}. A generator can be used only once.")
        return [[np.asarray(part).tolist() for part in fold] for fold in folds]

    def _find(self, positions):
        """Convert positions among the images given to positions among the images used."""
        reading = self.images.reading
        used = np.full(len(reading.given), -1)
        used[reading.kept] = np.arange(len(reading.kept))
        found = used[np.asarray(positions)]
        found = found[found >= 0]
        if not len(found):
            raise ValueError(
                "`cv` gave a fold with a part of which no image can be read and has a weight "
                "above 0."
            )
        return found

    # ------------------------------------------------------------------------- running

    def run(self):
        """Train one network after the other, then the control if `control` is True."""
        settings = self.settings
        if broken := self._broken_budgets(START):
            raise ValueError(
                f"Even blocks={START} is beyond {broken}; it has {self._costs(START)}."
            )
        tolerance = None if settings.select_by == "pareto" else settings.tolerance
        depths = self.backbone.depths
        path = select_forward(
            self._evaluate, depths, settings.order, tolerance, self._is_affordable
        )
        most = min(sum(depths), settings.max_blocks or math.inf) - 3
        quiet = not settings.verbose
        with tqdm(total=most, unit="network", desc="BlockSelector", disable=quiet) as bar:
            for blocks, score, kept in path:
                self.steps[-1]["kept"] = kept
                bar.set_postfix(blocks=blocks, score=f"{score:.3f}")
                bar.update()
                self._tidy()
        if settings.control:
            for i in range(1, len(self.steps)):
                before = f"control_{i - 1}" if i > 1 else "step_0"
                self.controls.append(self._train(f"control_{i}", before, START))
                self.folder.drop([f"control_{i - 1}"])

    def _evaluate(self, blocks):
        i = len(self.steps)
        self.steps.append(self._train(f"step_{i}", f"step_{i - 1}" if i else None, blocks))
        return self.steps[-1]["score"]

    def _train(self, name, before, blocks):
        """Train the networks of a step, unless they are stored; return the row of the step.

        `before` names the step that the networks continue from; None starts new ones.
        """
        rows = self.folder.record["steps"]
        if name in rows:
            return {**rows[name], "blocks": blocks}
        start = time.perf_counter()
        fitted, scores = self._train_parts(name, before, blocks, self.splits)
        seconds = time.perf_counter() - start
        rows[name] = {
            "blocks": blocks,
            "score": float(np.mean(scores)),
            "score_std": float(np.std(scores)) if len(scores) > 1 else math.nan,
            **self._costs(blocks),
            "seconds": seconds,
            "epochs": len(fitted[0].history_),
            "kept": False,
            "control": name.startswith("control"),
        }
        self.folder.write_record()
        return dict(rows[name])

    def _train_parts(self, name, before, blocks, splits):
        """Train one network for each split, a pair of indices to train and to score on.

        Store the networks, and return them with their scores.
        """
        jobs = self._list_jobs(name, before, blocks, splits)
        if is_journaled():  # the journal of the fit around does not reach other processes
            results = [_train_and_score(*job) for job in jobs]
        else:
            results = Parallel(self.settings.n_jobs)(
                delayed(_train_and_score)(*job) for job in jobs
            )
        fitted, scores = zip(*results, strict=True)
        self.folder.save(name, [_pack(network) for network in fitted])
        return fitted, scores

    def _list_jobs(self, name, before, blocks, splits):
        """Yield the arguments of :func:`_train_and_score` for each fold, when they are needed."""
        networks = self._load(before) if before else [self.estimator] * len(splits)
        for fold, (network, split) in enumerate(zip(networks, splits, strict=True)):
            key = [self.seed, *f"{name}, fold {fold}".encode()]
            seed = int(np.random.SeedSequence(key).generate_state(1)[0] // 2)
            yield network, blocks, *map(self.images.subset, split), seed, self.scorer

    def _load(self, name):
        return [_unpack(packed, self.estimator) for packed in self.folder.load(name)]

    # ------------------------------------------------------------------------- budgets

    def _costs(self, blocks):
        """Return parameters, multiply-adds and latency of one image; measure them once."""
        costs = self.folder.record["costs"]
        if str(blocks) not in costs:
            network = self._build(blocks)
            size = self.images.image_size
            copy = make_inference_copy(network, self.device)
            latency = measure_latency(copy, image_size=size)
            costs[str(blocks)] = {
                "parameters": count_parameters(network),
                "macs": count_macs(network, size),
                "latency_ms": latency.median,
            }
            self.folder.write_record()
        return costs[str(blocks)]

    def _build(self, blocks):
        """Return an untrained network with these blocks and the branch widths of the first one."""
        e, n_classes = self.estimator, len(self.images.classes)
        at = PHASES.index(e.split_at)
        form = {"n_branches": e.n_branches, "split_at": e.split_at}
        form["head_features"] = self.head_features
        sizes = e.n_branches, at, n_classes, self.head_features, e.width_offset
        form["width_offset"], _ = fit_widths(self.backbone, START, *sizes)
        with drawing(0):
            return RRRNet(self.backbone, n_classes, blocks=blocks, **form)

    def _is_affordable(self, blocks):
        most = self.settings.max_blocks
        return (most is None or sum(blocks) <= most) and not self._broken_budgets(blocks)

    def _broken_budgets(self, blocks):
        """Return the budgets that a network exceeds: {parameter: limit}."""
        limits = {
            f"max_{name}": (cost, getattr(self.settings, f"max_{name}"))
            for name, cost in self._costs(blocks).items()
        }
        return {k: most for k, (cost, most) in limits.items() if most is not None and cost > most}

    # ------------------------------------------------------------------------ choosing

    def _choose(self):
        """Return the index of the chosen step, among the steps so far."""
        scores = [step["score"] for step in self.steps]
        if self.settings.select_by == "pareto":
            return find_knee([step["parameters"] for step in self.steps], scores)
        if self.settings.tolerance is None:
            return int(np.argmax(scores))  # the first of equal scores has the fewest blocks
        return max(i for i, step in enumerate(self.steps) if step["kept"])

    def _front(self):
        costs, scores = zip(*((s["parameters"], s["score"]) for s in self.steps), strict=True)
        return pareto_front(costs, scores)

    def _tidy(self):
        """Delete the networks that can neither be chosen nor continued."""
        wanted = {0, len(self.steps) - 1}
        if self.settings.cv is None:
            wanted.add(self._choose())
            if self.settings.select_by == "pareto":
                wanted.update(np.flatnonzero(self._front()).tolist())
        self.folder.drop(f"step_{i}" for i in range(len(self.steps)) if i not in wanted)

    def finish(self):
        """Return the chosen network; after a cross-validation, train it on all images first."""
        chosen = self._choose()
        if self.settings.cv is None:
            return self._load(f"step_{chosen}")[0]
        done = self.folder.record.setdefault("final", [])
        for i in range(len(done), chosen + 1):
            before = f"final_{i - 1}" if i else None
            everything = [(np.arange(len(self.images)), np.arange(0))]
            self._train_parts(f"final_{i}", before, self.steps[i]["blocks"], everything)
            done.append(i)
            self.folder.write_record()
            self.folder.drop([f"final_{i - 1}"])
        return self._load(f"final_{chosen}")[0]

    def results(self):
        """Return a table with a row per network tried."""
        table = pd.DataFrame(self.steps + self.controls)
        table["pareto"] = [*self._front(), *[False] * len(self.controls)]
        table["epochs"] = table.groupby("control").epochs.cumsum()
        table.loc[table.control, "epochs"] += table.epochs.iloc[0]
        return table


def _train_and_score(network, blocks, part, valid, seed, scorer):
    """Fit an unfitted network, or a larger one that continues from a fitted one, and score it.

    Returns
    -------
    network : RRRNetClassifier
    score : float
        NaN if `valid` is empty.
    """
    if hasattr(network, "module_"):
        network = network._grow(blocks, part, random_state=seed)
    else:
        network = clone(network).set_params(random_state=seed)._fit_set(part)
    if not len(valid):
        return network, math.nan
    where = f"for blocks={network.blocks_}"
    return network, finite_score(scorer, network, valid, valid.y, where)


# Parameters that differ between the networks of a search.
_OWN = ("blocks", "width_offset", "random_state")


def _pack(network):
    """Return the fitted state of a network without its parameters, which may not pickle."""
    own = {name: getattr(network, name) for name in _OWN}
    parameters = network.get_params(deep=False)
    state = network._state_without_code()
    return own, {k: v for k, v in state.items() if k not in parameters}


def _unpack(packed, template):
    """Rebuild a fitted network; its other parameters come from `template`."""
    own, state = packed
    network = clone(template).set_params(**own)
    network.__setstate__(dict(state))
    network.fine_tuning_ = network.fine_tuning_.fill(network._given_tuning())  # its augmentation
    return network
