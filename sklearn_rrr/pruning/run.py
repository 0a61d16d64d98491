"""State of one pruning: the classifier, its images, its scores and the rows of ``results_``."""

import math
import time
from dataclasses import replace

from sklearn.metrics import check_scoring

from sklearn_rrr.classifiers.meta import finite_score
from sklearn_rrr.networks.costs import count_macs, count_parameters
from sklearn_rrr.pruning.loss_batches import LossBatches
from sklearn_rrr.training.devices import use_bf16

COSTS = {
    "parameters": lambda network, image_size: count_parameters(network),
    "macs": count_macs,
    "nonzero": lambda network, image_size: count_nonzero(network.parameters()),
}


def count_nonzero(tensors):
    """Count the elements of tensors that are not zero."""
    return sum(int(tensor.count_nonzero()) for tensor in tensors)


class PruningRun:
    """A fitted classifier whose network is replaced, trained and scored step by step.

    Parameters
    ----------
    classifier : BranchClassifier
        Fitted classifier; its network is replaced.
    images : LabelledSet
        All images, labels and weights.
    training, validation : ndarray of int
        Indices of the training images, and of the hold-out images, which may be none.
    seed : int
        Seed of the trainings.
    scoring : str, callable or None, default=None
        Scorer of the hold-out set; None uses the classifier's accuracy.
    before : PruningRun or None, default=None
        Run of the preceding pruner, whose epochs and seconds are counted on.

    Attributes
    ----------
    images : LabelledSet
        Training images.
    scored_images : LabelledSet
        Hold-out images; the training images if there are none.
    held_out : LabelledSet or None
        Hold-out images; None if there are none.
    batches : LossBatches
        Training images for criteria.
    importance : object or None
        Statistics that a pruner collects while training, for its next ranking.
    rows : list of dict
        Rows of ``results_``.
    """

    def __init__(
        self, classifier, images, training, validation, *, seed, scoring=None, before=None
    ):
        self.classifier, self.seed = classifier, seed
        self.held_out = images.subset(validation) if len(validation) else None
        self.images, self.scored_images = (
            images.subset(part).weigh_classes(classifier.class_weight)
            for part in (training, validation if len(validation) else training)
        )
        self.scorer = check_scoring(classifier, scoring)
        self.importance = None
        self.rows, self._epochs, self._start = [], 0, time.perf_counter()
        if before is not None:
            self._epochs, self._start = before._epochs, before._start

    @property
    def network(self):
        """The current network of the classifier."""
        return self.classifier.module_

    @property
    def image_size(self):
        """Height and width of the images in pixels."""
        return self.classifier.image_size_

    @property
    def device(self):
        """The device that the classifier predicts on."""
        return self.classifier._prediction_device()

    @property
    def prediction(self):
        """Device and precision that the classifier predicts with, as keyword arguments."""
        return {"device": self.device, "bf16": self.classifier.precision == "bf16"}

    @property
    def batches(self):
        """The training images as LossBatches."""
        return self._batch(self.images)

    def _batch(self, images):
        device = self.device
        return LossBatches(images, device, use_bf16(self.classifier.precision, device))

    def put(self, network):
        """Replace the network of the classifier."""
        self.classifier._replace_network(network)

    def _settings(self, epochs, changes):
        self._epochs += epochs
        clf = self.classifier
        return replace(
            clf._settings(len(self.images), self.seed + self._epochs),
            max_epochs=epochs,
            ema_epochs=clf._average_over(epochs),
            head_init="kept",
            norm_warmup_epochs=0,
            patience=None,
            **changes,
        )

    def train(self, epochs, after_step=None, others=(), **changes):
        """Train the current network further.

        Parameters
        ----------
        epochs : int
            Number of passes over the training images; 0 does nothing.
        after_step : callable or None, default=None
            Called with the number of steps so far, after each step.
        others : sequence, default=()
            What else learns, see ``training.train``.
        **changes : dict
            Fields of ``Settings`` that differ from the classifier's.
        """
        if epochs:
            settings = self._settings(epochs, changes)
            hooks = {"after_step": after_step, "others": others}
            self.classifier._train_on(self.images, settings, **hooks)

    def loss(self, network=None):
        """Return the mean loss of a network, by default the current one, on `scored_images`."""
        return self._batch(self.scored_images).mean_loss(
            self.network if network is None else network
        )

    def score(self):
        """Return the score of the classifier on the hold-out set; NaN if there is none."""
        if self.held_out is None:
            return math.nan
        where = f"on the {len(self.held_out)} images held out"
        return finite_score(self.scorer, self.classifier, self.held_out, self.held_out.y, where)

    def record(self, pruner, network, **columns):
        """Score the classifier, add a row to `rows` and return it.

        Parameters
        ----------
        pruner : str
            Name of the pruner's class.
        network : RRRNet
            Network as it would be exported now; its costs are counted.
        **columns : dict
            Further columns of the row.
        """
        costs = {name: count(network, self.image_size) for name, count in COSTS.items()}
        self.rows.append(
            {
                "pruner": pruner,
                **costs,
                "score": self.score(),
                "epochs": self._epochs,
                "seconds": time.perf_counter() - self._start,
                "kept": True,
                **columns,
            }
        )
        return self.rows[-1]
