"""Losses of a network on labelled images, as criteria of importance need them."""

import numpy as np
import torch

from sklearn_rrr.training.batches import load_batches
from sklearn_rrr.training.devices import training_layout
from sklearn_rrr.training.loss import BranchLoss

# Criteria that average squared gradients depend on the size of the batches, so that it must not
# depend on the machine.
BATCH_SIZE = 8


class LossBatches:
    """Labelled images in small batches, and the losses of a network on them.

    The batches have 8 images each, the last one perhaps fewer, and always come in the same order,
    without augmentation.

    Parameters
    ----------
    images : LabelledSet
        Images, labels and weights.
    device : torch.device
        Where the network runs.
    bf16 : bool, default=False
        Whether the network runs in bfloat16 instead of float32.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import ChannelPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> def score_gradients(network, groups, batches):
    ...     weights = [network.get_submodule(group.norms[0]).weight for group in groups]
    ...     scores = [torch.zeros(group.size) for group in groups]
    ...     for loss, labels, sample_weights in batches.losses(network):
    ...         for score, slope in zip(scores, torch.autograd.grad(loss, weights)):
    ...             score += slope.abs().cpu()
    ...     return scores
    >>> form = {"blocks": (1, 1, 1, 1), "n_branches": 2, "image_size": 32}
    >>> clf = RRRNetClassifier(**form, max_epochs=2, random_state=0)
    >>> pruner = ChannelPruner(clf, criterion=score_gradients, target=0.3, n_steps=1)
    >>> before, after = pruner.fit(X[:64] / 16, y[:64]).results_.parameters
    >>> bool(after <= 0.7 * before)
    True
    """

    def __init__(self, images, device, bf16=False):
        self.images, self.device, self.bf16 = images, torch.device(device), bf16

    def losses(self, network):
        """Yield the loss of a network on each batch, ready for ``torch.autograd.grad``.

        Statistics of norms do not change. The network is moved to the device, in the memory
        format of training.

        Parameters
        ----------
        network : RRRNet
            Network in eval mode.

        Yields
        ------
        loss : Tensor of shape ()
            Cross-entropy, summed over the branches and averaged over the batch with weights.
        labels : Tensor of int of shape (B,)
            Positions of the labels in ``classes_``, on the device.
        weights : Tensor of shape (B,) or (B, M)
            Weights of the images, or of the images in each of M branches, on the device.
        """
        layout, loss_of = training_layout(network, self.device), BranchLoss()
        network.to(self.device).to(memory_format=layout)
        n_images = len(self.images)
        indices = np.split(np.arange(n_images), range(BATCH_SIZE, n_images, BATCH_SIZE))
        ahead = self.device.type != "cpu" and not self.images.reads_dataset
        for images, targets in load_batches(self.images, indices, ahead):
            labels, weights = (t.to(self.device) for t in targets)
            images = images.to(self.device, non_blocking=True).contiguous(memory_format=layout)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = network(images).float()
            yield loss_of(logits, labels, weights), labels, weights

    def mean_loss(self, network):
        """Return the mean loss of a network over all images, a float; no gradients are kept."""
        with torch.no_grad():
            parts = [(loss.item(), len(labels)) for loss, labels, _ in self.losses(network)]
        values, sizes = zip(*parts, strict=True)
        return float(np.average(values, weights=sizes))
