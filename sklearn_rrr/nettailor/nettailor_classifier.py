"""NetTailorClassifier: NetTailor (Morgado and Vasconcelos, CVPR 2019) behind scikit-learn's API.

A teacher is fine-tuned. A student, the pre-trained blocks with lean proxies beside them, is trained
to match the teacher's activations at a small expected complexity. It is then pruned and retrained
for several numbers of removed blocks. :mod:`~sklearn_rrr.nettailor.tailored_net` has the network.
"""

from dataclasses import KW_ONLY, dataclass, fields, replace
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._surroundings import drawing
from sklearn_rrr._validation import (
    check_bool,
    check_choice,
    check_int,
    check_jobs,
    check_real,
    resolve_device,
)
from sklearn_rrr._warnings import warn
from sklearn_rrr.backbones.fine_tuning import DEFAULTS, FineTuning
from sklearn_rrr.classifiers.base import BaseImageClassifier
from sklearn_rrr.classifiers.baselines import FineTuningClassifier
from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier
from sklearn_rrr.classifiers.running import compute_logits
from sklearn_rrr.nettailor.fine_tuning import TAILORING, TailoringFineTuning
from sklearn_rrr.nettailor.paths import BLOCK
from sklearn_rrr.nettailor.penalty import COSTS, path_costs
from sklearn_rrr.nettailor.sweep import (
    Tailoring,
    describe_paths,
    plan_students,
    rank,
    retrain_students,
)
from sklearn_rrr.nettailor.tailored_net import TailoredNet
from sklearn_rrr.nettailor.teacher import check_teacher, check_unfitted
from sklearn_rrr.networks.costs import count_macs, count_parameters
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.training.loop import make_net

# Section 4.1 and the authors' settings, for any backbone. The authors fine-tune the teacher by SGD
# at a learning rate of 0.01; here, the default teacher is fine-tuned by AdamW.
PUBLISHED = {
    "n_skips": 3,
    "cost": "macs",
    "complexity_weight": 0.3,
    "teacher_weight": 10.0,
    "attention_threshold": 0.05,
    "tolerance": 0.005,
    "progressive": False,
    "fine_tuning": "published",
    "max_epochs": 50,
    "epochs_per_step": 60,
}
ATTENTION = "*.logits"  # pattern of the names of attention parameters


@dataclass(eq=False, repr=False)
class NetTailorClassifier(BaseImageClassifier):
    """Tailor a pre-trained network to a task by replacing blocks with lean proxies.

    The remaining blocks keep the weights of the backbone, so that many tasks can share them. Only
    the proxies, the norm statistics and the head are specific to the task (`task_delta_`).

    Parameters
    ----------
    backbone, weights : optional
        Pre-trained network. :class:`RRRNetClassifier` documents this and all other parameters
        that are not explained here.
    teacher : estimator or None, default=None
        Classifier whose activations the student learns to match: an :class:`RRRNetClassifier` or
        :class:`FineTuningClassifier` with the same backbone, all its blocks and no split. It is
        cloned and fitted to the training images of the student, with their weights. A fitted
        teacher in a :class:`sklearn.frozen.FrozenEstimator` is used as it is, and sets the default
        of `image_size`; if it was trained on hold-out images, its hold-out score is optimistic,
        so few students come within `tolerance`. None uses a :class:`FineTuningClassifier` with the
        parameters given here.
    n_skips : int, default=3
        Number of proxies into each node, one from each of the nearest earlier nodes.
    cost : {"macs", "parameters"}, default="parameters"
        Cost of a path: its multiply-adds, as published, or its parameters.
    complexity_weight : float, default=4.0
        γ1, the weight of the expected complexity in the loss, at least 0.
    teacher_weight : float, default=10.0
        γ2, the weight of the distance from the teacher's activations in the loss, at least 0.
    attention_threshold : float, default=0.05
        Proxies with a smaller attention are removed, in [0, 1].
    n_removed : int, list of int or None, default=None
        Number of blocks to remove, those with the smallest attention first. Paths that become
        unused are removed, too. A list is swept in increasing order. None sweeps in steps of about
        1/16 of the blocks up to a quarter of them, then of 1/8.
    tolerance : float, default=0.005
        Largest accepted drop of accuracy on the hold-out set, relative to the teacher. The
        leanest student within it is selected; if there is none, the best student is selected,
        with a warning. It has no effect if `n_removed` is an int.
    progressive : bool, default=True
        Whether each student of the sweep starts from the weights of the previous one, which has
        more blocks. If False, each starts from the student before pruning, and the sweep ends
        after two successive students that exceed `tolerance`.
    epochs_per_step : int or None, default=None
        Number of epochs to retrain each pruned student; None uses as many as before pruning.
    fine_tuning : TailoringFineTuning, FineTuning, "published" or None, default=None
        Training settings of the student, see :class:`TailoringFineTuning`; "published" uses those
        of the paper. The default teacher shares them, except `trainable`, `learning_rate`,
        `lr_schedule` and `optimizer`.
    max_epochs : int or None, default=None
        Number of epochs of the default teacher, and of the student. None uses as many as the
        steps that suit the backbone require.
    batch_size, class_weight : optional
        Training.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out to select a student, in [0.001, 0.999]. Neither students
        nor an unfitted teacher are trained on them. None is possible only if `n_removed` is an
        int, so that there is only one student.
    n_jobs : int or None, default=None
        Number of processes that retrain the students of the sweep if `progressive` is False; -1
        uses all processors. None means 1, or what ``joblib.parallel_config`` says, such as a
        cluster. A process has fewer threads than one alone, which rounds sums differently.
        Training amplifies this, so the students may differ. With a `checkpoint_dir` it is 1.
    image_shape, image_size, on_bad_file, max_image_pixels : optional
        Images.
    device, precision, checkpoint_dir, random_state, verbose : optional
        Hardware, seed and output.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : TailoredNet
        Tailored network, without the removed paths.
    teacher_ : estimator
        Fitted teacher.
    teacher_score_ : float
        Accuracy of the teacher on the hold-out set; NaN without a hold-out set.
    results_ : pandas.DataFrame
        One row for each student of the sweep: ``asked``, the number of blocks to remove;
        ``removed``, the number of removed blocks; ``proxies``, the number of remaining proxies;
        ``parameters``, ``macs`` and ``score``; ``within``, whether the score is within
        `tolerance`; ``kept``, whether the student was selected.
    alphas_ : pandas.DataFrame
        One row for each path of the student before pruning: ``source``, the node it reads;
        ``node``, the node it leads into; ``kind``, "block" or "proxy"; ``cost``, relative to that
        of the backbone; ``alpha``, its attention; ``kept``, whether it remains.
    task_delta_ : dict of str to torch.Tensor
        Parameters and statistics that are specific to the task, by their names in the state dict.
    n_parameters_ : int
        Number of parameters of the network.
    history_ : pandas.DataFrame
        Epochs of the last training of the network; see :class:`RRRNetClassifier`.
    fine_tuning_ : TailoringFineTuning
        Resolved training settings: no field is None.
    image_size_ : int
        Height and width, in pixels, to which images are resized.
    n_features_in_, feature_names_in_, image_shape_in_, skipped_, net_ : optional
        As in :class:`RRRNetClassifier`.

    See Also
    --------
    sklearn_rrr.MultiTaskStore : Store many tasks that share one backbone.

    Notes
    -----
    ``PUBLISHED`` of this module has the published settings. The defaults suit "synth50" and a few
    hundred images; they were chosen on scikit-learn's digits and on images held out from the
    training halves of a few real data sets. They differ from the published settings in three ways.
    The optimiser is AdamW instead of SGD, with a larger learning rate for the attention, which a
    few hundred steps would otherwise hardly change. The cost counts parameters instead of
    multiply-adds, at a larger weight: most parameters are in the last blocks, which the published
    cost spares, and at a smaller weight the cheap first blocks have the least attention. The sweep
    is progressive.

    References
    ----------
    Morgado and Vasconcelos (2019), NetTailor: Tuning the architecture, not just the weights,
    CVPR.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import NetTailorClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = NetTailorClassifier(n_removed=8, max_epochs=1, image_size=32, random_state=0)
    >>> clf.fit(X[:64] / 16, y[:64]).predict(X[64:66] / 16).shape
    (2,)
    >>> len(clf.module_.paths) < len(clf.alphas_)
    True
    """

    _tuning_type = TailoringFineTuning
    _tuning_names = ("published",)

    _: KW_ONLY
    teacher: BaseEstimator | None = None
    n_skips: int = 3
    cost: str = "parameters"
    complexity_weight: float = 4.0
    teacher_weight: float = 10.0
    attention_threshold: float = 0.05
    n_removed: int | list | None = None
    tolerance: float = 0.005
    progressive: bool = True
    epochs_per_step: int | None = None
    validation_fraction: float | None = 0.2
    n_jobs: int | None = None

    def _check_parameters(self):
        check_int("n_skips", self.n_skips, 1)
        check_choice("cost", self.cost, COSTS)
        check_real("complexity_weight", self.complexity_weight, 0)
        check_real("teacher_weight", self.teacher_weight, 0)
        check_real("attention_threshold", self.attention_threshold, 0, 1)
        check_real("tolerance", self.tolerance, 0, 1)
        check_bool("progressive", self.progressive)
        if self.epochs_per_step is not None:
            check_int("epochs_per_step", self.epochs_per_step, 1)
        check_jobs("n_jobs", self.n_jobs)
        if self.validation_fraction is None and not isinstance(self.n_removed, Integral):
            raise ValueError(
                "`validation_fraction`=None leaves no images to choose a student with; use, for "
                "example, 0.2, or set `n_removed` to an int."
            )
        super()._check_parameters()

    def _forget(self):
        super()._forget()
        for name in ("teacher_", "teacher_score_", "results_", "alphas_"):
            self.__dict__.pop(name, None)

    @property
    def partial_fit(self):
        raise AttributeError(
            "NetTailorClassifier has no partial_fit: it needs all images to choose blocks. Use fit."
        )

    @property
    def task_delta_(self):
        """Task-specific entries of the state dict, {name: tensor}: copies on the CPU."""
        check_is_fitted(self)
        state = self.module_.state_dict()
        return {key: state[key].cpu().clone() for key in self.module_.task_keys()}

    # ------------------------------------------------------------------------- fitting

    def _load_backbone(self, is_inside=False):
        self.trainable_ = "proxies"
        backbone, _ = self._load_pretrained(is_inside)
        # Reports errors before images are read.
        self._resolve_sweep(sum(len(phase) for phase in backbone.phases))
        return backbone

    def _default_size(self, backbone, is_inside=False):
        fitted = self.teacher.estimator if isinstance(self.teacher, FrozenEstimator) else None
        size = super()._default_size(backbone, is_inside)
        return getattr(fitted, "image_size_", size)

    def _resolve_sweep(self, n_blocks):
        """Return the numbers of blocks to remove, in increasing order."""
        asked = self.n_removed
        if asked is None:
            # Fine steps first: the first removed blocks have most of the parameters.
            fine, coarse = max(1, n_blocks // 16), max(1, n_blocks // 8)
            first = range(fine, n_blocks // 4 + 1, fine)
            return sorted({*first, *range(coarse, n_blocks, coarse)})
        many = isinstance(asked, (list, tuple, np.ndarray))
        if many and not len(asked):
            raise ValueError(f"`n_removed` must be an int or a non-empty list; got {asked!r}.")
        hint = f"The backbone {self.backbone!r} has {n_blocks} blocks."
        numbers = asked if many else [asked]
        return sorted({check_int("n_removed", n, 0, n_blocks, hint) for n in numbers})

    def _settle_tuning(self):
        own = self._tuning_type()
        return own.fill(self._given_tuning(), TAILORING, self._recommended, DEFAULTS)

    def _settings(self, n_images, seed):
        settings = super()._settings(n_images, seed)
        factors = ((ATTENTION, self.fine_tuning_.attention_lr_factor),)
        return replace(settings, undecayed=(ATTENTION,), lr_factors=factors)

    def _retrain_settings(self, settings):
        """Return the settings to retrain pruned students, which keep their heads."""
        epochs = settings.max_epochs if self.epochs_per_step is None else self.epochs_per_step
        return replace(
            settings,
            max_epochs=epochs,
            ema_epochs=self._average_over(epochs),
            learning_rate=self.fine_tuning_.retrain_lr_factor * settings.learning_rate,
            head_init="kept",
        )

    def _learn(self, backbone, images, seed, earlier=None, enlarge=None):
        images, validation = self._hold_out(images, self._split_seed)
        teacher = self._find_teacher(backbone, images, seed)
        score = self._score(teacher.module_, validation)
        settings = self._settings(len(images), seed)
        with drawing(seed + 1):
            soft = TailoredNet(backbone, len(self.classes_), n_skips=self.n_skips).freeze()
        costs = path_costs(soft, self.image_size_, self.cost)
        tailoring = Tailoring(teacher.module_, images, costs, self.teacher_weight)
        tailoring.train(soft, settings, self.complexity_weight)
        settings = self._retrain_settings(settings)
        self.teacher_, self.teacher_score_ = teacher, score
        static, history = self._sweep(soft, tailoring, settings, validation)
        self.alphas_ = describe_paths(soft, costs, static)
        self._net = make_net(static, settings, history=history)
        self._finish(static, settings)

    def _find_teacher(self, backbone, images, seed):
        """Return the fitted teacher, after training it on these images unless it is frozen."""
        teacher, student = self.teacher, (backbone, self.classes_, self.image_size_)
        frozen = isinstance(teacher, FrozenEstimator)
        if frozen:
            check_is_fitted(teacher)
            teacher = teacher.estimator
        if teacher is None:
            own = {"fine_tuning", "validation_fraction", "early_stopping"}
            names = FineTuningClassifier().get_params(deep=False).keys() - own
            shared = {name: getattr(self, name) for name in names}
            teacher = FineTuningClassifier(fine_tuning=self._teacher_tuning(), **shared)
        elif not isinstance(teacher, BranchClassifier):
            raise TypeError(
                "`teacher` must be an RRRNetClassifier, a FineTuningClassifier or None; got "
                f"{teacher!r}."
            )
        if frozen:
            check_teacher(teacher, teacher.module_, *student)
            return teacher
        teacher = clone(teacher)
        check_unfitted(teacher, self.image_size_, self.class_weight)
        if self.teacher is not None and teacher.random_state is not None:
            seed = teacher._draw_seed()
        teacher._check_parameters()
        with drawing(seed):
            loaded = teacher._load_backbone(is_inside=True)
        # The default teacher shares the backbone, so that random weights are drawn only once.
        source = backbone if self.teacher is None else loaded
        teacher._adopt(images, self.image_size_, self._split_seed)
        with drawing(0):  # for its shapes
            check_teacher(teacher, teacher._make_module(source), *student)
        teacher._learn(source, images, seed)
        return teacher

    def _teacher_tuning(self):
        """Return the training settings of the default teacher."""
        own = {"trainable", "learning_rate", "lr_schedule", "optimizer"}
        given = self._given_tuning()
        names = {field.name for field in fields(FineTuning)} - own
        # The head of the student reads the last block, and should match that of the teacher.
        last = {"head_features": "last"}
        return FineTuning(**{name: getattr(given, name) for name in names} | last)

    def _sweep(self, soft, tailoring, settings, validation):
        """Prune, retrain and score students; return the selected one and its epochs."""
        numbers = self._resolve_sweep(soft.n_nodes)
        plans = plan_students(soft, numbers, self.attention_threshold)
        rows, best, failures = [], None, 0
        form = tailoring, settings, self.progressive, self.n_jobs
        for asked, found in zip(plans.values(), retrain_students(soft, plans, *form), strict=True):
            row = self._assess(found[0], asked, validation)
            if best is None or rank(row) > rank(rows[best]):
                best, selected = len(rows), found
            rows.append(row)
            failures = 0 if row["within"] else failures + 1
            if failures == 2 and not self.progressive:
                break
        self.results_ = pd.DataFrame(rows)
        self.results_["kept"] = self.results_.index == best
        if not rows[best]["within"] and not isinstance(self.n_removed, Integral):
            warn(
                f"No student is within `tolerance`={self.tolerance:g} of the teacher's hold-out "
                f"accuracy, {self.teacher_score_:.4g}; the best, with {rows[best]['score']:.4g}, "
                "is selected. Remove fewer blocks (`n_removed`) or train longer. If a frozen "
                "`teacher` was trained on the hold-out images, pass it without FrozenEstimator."
            )
        return selected

    def _assess(self, student, asked, validation):
        n_blocks = sum(origin == BLOCK for _, origin in student.paths)
        score = self._score(student, validation)
        return {
            "asked": asked,
            "removed": student.n_nodes - n_blocks,
            "proxies": len(student.paths) - n_blocks,
            "parameters": count_parameters(student),
            "macs": count_macs(student, self.image_size_),
            "score": score,
            # True without a hold-out set: comparisons with NaN are False.
            "within": not score < self.teacher_score_ - self.tolerance - 1e-9,
        }

    def _score(self, network, images):
        """Return the unweighted accuracy of a network; NaN if `images` is None."""
        if images is None:
            return float("nan")
        device = resolve_device(self.device)
        copy = self._make_inference_copy(network, device)
        logits = torch.cat([*self._run(images.source, copy, device, compute_logits)])
        votes = average_probabilities(logits).argmax(1)
        return (votes == images.labels).double().mean().item()
