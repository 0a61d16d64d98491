"""NetTailorClassifier: NetTailor (Morgado and Vasconcelos, CVPR 2019) behind scikit-learn's API.

A fine-tuned teacher; a student of the pre-trained blocks with lean proxies beside them, pulled to
the teacher's activations and to a small expected complexity; pruning, retraining, and a sweep over
the number of removed blocks. The network: :mod:`~sklearn_rrr.nettailor.tailored_net`.
"""

import warnings
from dataclasses import KW_ONLY, dataclass, fields, replace
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real, resolve_device
from sklearn_rrr.backbones.fine_tuning import DEFAULTS, FineTuning
from sklearn_rrr.classifiers.base import BaseImageClassifier
from sklearn_rrr.classifiers.baselines import FineTuningClassifier
from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier
from sklearn_rrr.nettailor.fine_tuning import TAILORING, TailoringFineTuning
from sklearn_rrr.nettailor.paths import BLOCK, prune, source
from sklearn_rrr.nettailor.penalty import COSTS, TailoringPenalty, path_costs
from sklearn_rrr.nettailor.tailored_net import TailoredNet
from sklearn_rrr.networks.costs import count_macs, count_parameters
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.training.loop import train

# Section 4.1 and the authors' settings, whatever the backbone. The teacher is fine-tuned by SGD
# at 0.01 there; here by AdamW, unless one is given.
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
ATTENTION = "*.logits"  # the names of its parameters


@dataclass(eq=False, repr=False)
class NetTailorClassifier(BaseImageClassifier):
    """Tailor a pre-trained network to a task: drop the blocks that lean proxies can replace.

    The blocks that stay keep the weights of the backbone, so that many tasks share them; only
    proxies, norm statistics and the head belong to the task (`task_delta_`).

    Parameters
    ----------
    backbone, weights : optional
        The pre-trained network; types and defaults of this and what is not explained here as in
        :class:`RRRNetClassifier`.
    teacher : estimator or None, default=None
        What the student learns to imitate: an :class:`RRRNetClassifier` or one of its kin, of the
        same backbone with all its blocks, unsplit. It is cloned and fitted to the training images
        of the student, with their weights. A fitted one in a
        :class:`sklearn.frozen.FrozenEstimator` is used as it is; if it was trained on images given
        here, its hold-out score is optimistic, so few students come within `tolerance`.
        None is a :class:`FineTuningClassifier` with
        the parameters given here, but its own learning rate and schedule.
    n_skips : int, default=3
        Proxies into each node, from as many nearest earlier nodes.
    cost : {"macs", "parameters"}, default="parameters"
        What a path costs: its multiply-adds, as published, or its parameters.
    complexity_weight : float, default=4.0
        γ1, the weight of the expected complexity in the loss.
    teacher_weight : float, default=10.0
        γ2, the weight of the distance from the teacher's activations.
    attention_threshold : float, default=0.05
        Proxies of a smaller attention go, in [0, 1].
    n_removed : int, list of int or None, default=None
        Blocks to remove, those of the smallest attention; what nobody uses then goes, too. A list
        is swept in increasing order. None: about every sixteenth part of the blocks more up to
        a quarter of them, then every eighth.
    tolerance : float, default=0.005
        The leanest student whose accuracy on the images held out is at most this much below the
        teacher's is taken. If none is, the best is taken, with a warning. A single `n_removed`
        leaves no choice.
    progressive : bool, default=True
        Whether each student of the sweep goes on from the one before it, which had more blocks.
        Else each starts from the student before pruning, and the sweep ends at the second in a
        row that is not within `tolerance`.
    epochs_per_step : int or None, default=None
        Epochs of each pruned student; None takes as many as before.
    fine_tuning : TailoringFineTuning, FineTuning, "published" or None, default=None
        How the student learns, see :class:`TailoringFineTuning`; "published" is the paper's way.
        A teacher that is trained here shares what is set, but not the rate, its schedule and the
        optimiser.
    max_epochs : int or None, default=None
        Epochs of the teacher and of the student, each; None spends the steps that suit the
        backbone.
    batch_size, class_weight : optional
        Training.
    validation_fraction : float or None, default=0.2
        Fraction of the images that neither students nor a teacher fitted here learn from; they
        are for the choice. None only with a single number as `n_removed`, which leaves nothing to
        choose.
    image_shape, image_size, on_bad_file, max_image_pixels : optional
        Images.
    device, precision, random_state, verbose : optional
        How it runs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : TailoredNet
        The network: static, without what was removed.
    teacher_ : estimator
        The fitted teacher.
    teacher_score_ : float
        Its accuracy on the images held out; NaN without.
    results_ : pandas.DataFrame
        A row for each student of the sweep: ``asked``, how many blocks were to be removed, and
        ``removed``, how many are gone; ``proxies`` that stay; ``parameters``, ``macs`` and
        ``score``; ``within`` the tolerance; ``kept``, which one was taken.
    alphas_ : pandas.DataFrame
        A row for each path of the student before pruning: ``node`` it leads into, ``source`` it
        reads, ``kind`` (block or proxy), ``cost`` over that of the whole network, ``alpha``, and
        whether it was ``kept``.
    task_delta_ : dict of str to torch.Tensor
        What is not shared with the backbone, by the names of the network's state dict.
    n_parameters_ : int
        Parameters of the network.
    history_ : pandas.DataFrame
        The epochs of the last retraining of the network, as of :class:`RRRNetClassifier`.
    fine_tuning_ : TailoringFineTuning
        The settings of the training, with nothing left to the backbone.
    image_size_ : int
        Height and width that images are resized to.
    n_features_in_, feature_names_in_, image_shape_in_, skipped_, net_ : optional
        As of :class:`RRRNetClassifier`.

    See Also
    --------
    sklearn_rrr.MultiTaskStore : Many tasks that share one backbone.

    Notes
    -----
    The published settings are ``PUBLISHED`` of this module. The defaults are for a few hundred
    images and "synth50", tried on scikit-learn's digits and on images held out in the training
    halves of a few real sets: AdamW for SGD, and an attention that takes larger steps, as a few
    hundred of them would hardly move it; parameters for multiply-adds at a larger weight, as most
    parameters are in the last blocks, which the published cost spares (at a smaller weight the
    blocks of the least attention are the cheap first ones); and a sweep that goes on from student
    to student.

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
        if self.validation_fraction is None and not isinstance(self.n_removed, Integral):
            raise ValueError(
                "`validation_fraction`=None leaves no images to choose a student by; use for "
                "example 0.2, or one number as `n_removed`."
            )
        super()._check_parameters()

    def _forget(self):
        super()._forget()
        for name in ("teacher_", "teacher_score_", "results_", "alphas_"):
            self.__dict__.pop(name, None)

    @property
    def partial_fit(self):
        raise AttributeError(
            "NetTailorClassifier has no partial_fit: what is removed is chosen over all images."
        )

    @property
    def task_delta_(self):
        """What is not shared with the backbone: {name: tensor}, copies on the CPU."""
        check_is_fitted(self)
        state = self.module_.state_dict()
        return {key: state[key].cpu().clone() for key in self.module_.task_keys()}

    # ------------------------------------------------------------------------- fitting

    def _load_backbone(self):
        self.trainable_ = "proxies"
        backbone, _ = self._load_pretrained()
        self._resolve_sweep(sum(backbone.depths))  # an error before the images are read
        return backbone

    def _resolve_sweep(self, n_blocks):
        """Return the numbers of blocks to remove, in increasing order."""
        asked = self.n_removed
        if asked is None:
            # The first to go hold most of the parameters.
            fine, coarse = max(1, n_blocks // 16), max(1, n_blocks // 8)
            first = range(fine, n_blocks // 4 + 1, fine)
            return sorted({*first, *range(coarse, n_blocks, coarse)})
        many = isinstance(asked, (list, tuple, np.ndarray))
        if many and not len(asked):
            raise ValueError("`n_removed` must hold a number or more; got none.")
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
        """Return the settings of the pruned students, whose weights start as they are."""
        epochs = settings.max_epochs if self.epochs_per_step is None else self.epochs_per_step
        return replace(
            settings,
            max_epochs=epochs,
            ema_epochs=self._average_over(epochs),
            learning_rate=self.fine_tuning_.retrain_lr_factor * settings.learning_rate,
            head_init="random",
        )

    def _learn(self, backbone, images, seed, earlier=None):
        images, validation = self._hold_out(images, self._split_seed)
        teacher = self._find_teacher(backbone, images, seed)
        score = self._score(teacher.module_, validation)
        settings = self._settings(len(images), seed)
        soft = TailoredNet(backbone, len(self.classes_), n_skips=self.n_skips).freeze()
        costs = path_costs(soft, self.image_size_, self.cost)

        def tailor(student, settings, complexity_weight):
            weights, device = (complexity_weight, self.teacher_weight), settings.device
            with TailoringPenalty(student, teacher.module_, costs, *weights, device) as penalty:
                return train(student, images, None, settings, penalty=penalty)

        tailor(soft, settings, self.complexity_weight)
        settings = self._retrain_settings(settings)
        self.teacher_, self.teacher_score_ = teacher, score
        static = self._sweep(soft, validation, lambda student: tailor(student, settings, 0.0))
        self._describe_paths(soft, costs, static)
        self._finish(static, settings)
        del self._net  # of a soft student; `net_` makes another

    def _find_teacher(self, backbone, images, seed):
        """Return the fitted teacher, trained on these images unless it is frozen."""
        teacher = self.teacher
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
            self._check_teacher(teacher, teacher.module_, backbone)
            return teacher
        teacher = clone(teacher)
        self._check_unfitted(teacher)
        if self.teacher is not None and teacher.random_state is not None:
            seed = teacher._draw_seed()
        teacher._check_parameters()
        loaded = teacher._load_backbone()
        # Random weights are drawn once.
        source = backbone if self.teacher is None else loaded
        teacher._adopt(images, self.image_size_, self._split_seed)
        self._check_teacher(teacher, teacher._make_module(source), backbone)
        teacher._learn(source, images, seed)
        return teacher

    def _teacher_tuning(self):
        """Return how a teacher of our own learns: its rate, schedule and optimiser are its own."""
        own = {"trainable", "learning_rate", "lr_schedule", "optimizer"}
        given = self._given_tuning()
        names = {field.name for field in fields(FineTuning)} - own
        return FineTuning(**{name: getattr(given, name) for name in names})

    def _check_unfitted(self, teacher):
        """Check that a teacher can learn from the images as they are read and weighed here."""
        for name, here in (("image_size", self.image_size_), ("class_weight", self.class_weight)):
            own = getattr(teacher, name)
            if own is not None and own != here:
                raise ValueError(
                    f"`teacher` learns from the images of the student, with `{name}`={here!r}; got "
                    f"a teacher with {own!r}. Set it on the NetTailorClassifier, or pass a fitted "
                    "teacher in a FrozenEstimator."
                )

    def _check_teacher(self, teacher, module, backbone):
        """Check that the nodes of a teacher, of its network, are those of the student."""
        whole = (backbone.name, backbone.depths, 1, backbone.planes[-len(module.branch_planes) :])
        given = (module.backbone_name, module.blocks, module.n_branches, module.branch_planes)
        if given != whole or module.is_reduced:
            raise ValueError(
                f"`teacher` must have the backbone {backbone.name!r} with all its blocks "
                f"{backbone.depths}, unsplit and not pruned; got {given[0]!r} with the "
                f"blocks {given[1]} and {given[2]} branch(es) of {given[3]} planes. "
                "Use blocks=None, n_branches=1."
            )
        if not np.array_equal(teacher.classes_, self.classes_):
            raise ValueError(
                f"`teacher` must know the classes of y, {self.classes_.tolist()}; got one of "
                f"{teacher.classes_.tolist()}. Fit it on the same labels."
            )
        if teacher.image_size_ != self.image_size_:
            raise ValueError(
                f"`teacher` must be fitted on images of the same size; got {teacher.image_size_}, "
                f"not {self.image_size_}. Use image_size={teacher.image_size_}."
            )

    def _sweep(self, soft, validation, retrain):
        """Prune, retrain and score students; return the one taken, static."""
        alphas = {path: alpha.item() for path, alpha in soft.alphas().items()}
        rows, best, last, tried, failures = [], None, None, set(), 0
        for asked in self._resolve_sweep(soft.n_nodes):
            paths = prune(alphas, soft.n_nodes, asked, self.attention_threshold)
            if paths in tried or (failures == 2 and not self.progressive):
                continue
            tried.add(paths)
            student = soft.restrict(paths)
            if self.progressive and last is not None:
                student.adopt(last)
            net, last = retrain(student), student
            student = student.make_static()
            row = self._assess(student, asked, validation)
            rows.append(row)
            failures = 0 if row["within"] else failures + 1
            lean = -row["parameters"]
            rank = (1, lean) if row["within"] else (0, row["score"], lean)
            if best is None or rank > best[0]:
                best = rank, student, net, len(rows) - 1
        (within, *_), student, self._net, index = best
        self.results_ = pd.DataFrame(rows)
        self.results_["kept"] = self.results_.index == index
        if not within and not isinstance(self.n_removed, Integral):
            warnings.warn(
                f"No student is within `tolerance`={self.tolerance:g} of the teacher's "
                f"{self.teacher_score_:.4g} on the images held out; the best, at "
                f"{rows[index]['score']:.4g}, is taken. Remove fewer blocks (`n_removed`), or "
                "train for longer; if a frozen `teacher` has learned from those images, pass it "
                "without FrozenEstimator.",
                stacklevel=5,
            )
        return student

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
            # Without images held out there is nothing to compare.
            "within": not score < self.teacher_score_ - self.tolerance - 1e-9,
        }

    def _score(self, network, images):
        """Return the accuracy of a network, not weighted; NaN without images."""
        if images is None:
            return float("nan")
        device = resolve_device(self.device)
        logits = torch.cat([*self._run(images.source, fold_norms(network).to(device), device)])
        votes = average_probabilities(logits.double()).argmax(1)
        return (votes == images.labels).double().mean().item()

    def _describe_paths(self, soft, costs, static):
        rows = [
            {
                "node": path[0],
                "source": source(path),
                "kind": "block" if path[1] == BLOCK else "proxy",
                "cost": costs[path],
                "alpha": alpha.item(),
                "kept": path in static.paths,
            }
            for path, alpha in soft.alphas().items()
        ]
        self.alphas_ = pd.DataFrame(rows)
