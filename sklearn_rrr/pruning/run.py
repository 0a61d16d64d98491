"""State of one pruning: network, images, costs and scores."""

import math
import time
from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import check_scoring

from sklearn_rrr.classifiers.meta import (
    finite_score,
)
from sklearn_rrr.networks.costs import count_macs, count_parameters
from sklearn_rrr.training.loss import BranchLoss

SLOPE_BATCH = 8
COSTS = {
    "parameters": lambda network, image_size: count_parameters(network),
    "macs": count_macs,
    "nonzero": lambda network, image_size: count_nonzero(network.parameters()),
}


def count_nonzero(tensors):
    """Count the numbers in tensors that are not zero."""
    return sum(int(tensor.count_nonzero()) for tensor in tensors)


class PruningRun:
    """A fitted classifier that is made smaller, its images, and a row for each step.

    Parameters
    ----------
    pruner : BasePruner
        Whose parameters it follows.
    classifier : BranchClassifier
        Fitted, and changed.
    data : ImageData
    training, validation : ndarray of int
        Indices of the images to learn from and to score on, perhaps none.
    seed : int
    before : PruningRun or None, default=None
        That of the pruner before this one.

    Attributes
    ----------
    images, watched : LabelledImages
        Those to learn from, and those held out; where there are none, the same.
    rows : list of dict
        Of ``results_``.
    """

    def __init__(self, pruner, classifier, data, training, validation, seed, before=None):
        self.pruner, self.classifier, self.seed = pruner, classifier, seed
        self.held_out = data.part(validation)[:2] if len(validation) else None
        self.images, self.watched = (
            classifier._read_training_data(*data.part(part), classifier.classes_)
            for part in (training, validation if len(validation) else training)
        )
        self.scorer = check_scoring(classifier, pruner.scoring)
        self.rows, self._epochs, self._start = [], 0, time.perf_counter()
        if before is not None:
            self._epochs, self._start = before._epochs, before._start

    @property
    def network(self):
        """The network as it is now."""
        return self.classifier.module_

    def put(self, network):
        """Let the classifier predict with another network."""
        self.classifier.module_ = network.eval()
        self.classifier.n_parameters_ = count_parameters(network)
        self.classifier._folded = {}
        self.classifier.__dict__.pop("_net", None)  # which is of the network before

    def _settings(self, epochs, changes):
        self._epochs += epochs
        clf = self.classifier
        return replace(
            clf._settings(len(self.images), self.seed + self._epochs),
            max_epochs=epochs,
            ema_epochs=clf._average_over(epochs),
            head_init="random",  # as it is
            norm_warmup_epochs=0,
            patience=None,
            **changes,
        )

    def train(self, epochs, after_step=None, **changes):
        """Train on; `after_step` as in ``training.train``, and changes of its Settings."""
        if epochs:
            settings = self._settings(epochs, changes)
            self.classifier._train_on(self.images, settings, after_step=after_step)

    def losses(self, images=None):
        """Yield the loss of each batch, with its slopes, without changing norms or images.

        Batches are of SLOPE_BATCH images, in order, whatever the machine: squares of slopes, the
        importance of many a criterion, depend on their number.

        Parameters
        ----------
        images : LabelledImages or None, default=None
            None takes those to learn from.

        Yields
        ------
        loss, batch : Tensor, tuple
            The batch is of images, labels and weights, on the network's device.
        """
        net, loss_of = self.classifier.net_, BranchLoss()
        images = self.images if images is None else images
        batches = np.split(np.arange(len(images)), range(SLOPE_BATCH, len(images), SLOPE_BATCH))
        for batch, targets in net.load(images, batches):
            labels, weights = (t.to(net.device) for t in targets)
            batch = net.prepare(batch, training=False)
            with net.autocast():
                logits = net.module_(batch).float()
            yield loss_of(logits, labels, weights), (batch, labels, weights)

    def loss(self):
        """Return the mean loss on the images held out, or on those to learn from."""
        with torch.no_grad():
            parts = [(loss.item(), len(batch[0])) for loss, batch in self.losses(self.watched)]
        values, sizes = zip(*parts, strict=True)
        return float(np.average(values, weights=sizes))

    def cost(self):
        """Return what the pruner counts of the network as it is."""
        return self.pruner._cost(self.network, self.classifier.image_size_)

    def score(self):
        """Return the score on the images held out; NaN where there are none."""
        if self.held_out is None:
            return math.nan
        where = f"on the {len(self.held_out[1])} images held out"
        return finite_score(self.scorer, self.classifier, *self.held_out, where)

    def record(self, **more):
        """Add a row on the network as it is, and return it."""
        network = self.pruner._export(self.network)
        self.rows.append(
            {
                "pruner": type(self.pruner).__name__,
                "parameters": count_parameters(network),
                "macs": count_macs(network, self.classifier.image_size_),
                "nonzero": count_nonzero(network.parameters()),
                "score": self.score(),
                "epochs": self._epochs,
                "seconds": time.perf_counter() - self._start,
                "kept": True,
                **more,
            }
        )
        return self.rows[-1]
