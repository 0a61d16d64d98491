"""Prediction, batch by batch, shared by all image classifiers."""

import warnings

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklearn_rrr._surroundings import shielded
from sklearn_rrr._validation import resolve_device
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.images.decoding import BadImages
from sklearn_rrr.networks.fused_activations import fuse_activations
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms
from sklearn_rrr.training.devices import explained_memory, prediction_batch


class PredictingMixin(UncertaintyMixin):
    """Predict with ``module_`` on images that ``_read`` reads, as in fit.

    ``_folded`` caches the network with folded norms as {device: network}.
    """

    @shielded()
    def predict_proba(self, X):
        """Predict the probability of each class: the mean of the branches' softmax.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; images of any size are resized in the same way.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Columns are in the order of `classes_`; rows sum to 1; of type float64.
        """
        check_is_fitted(self)
        chunks = [average_probabilities(logits) for logits in self._logits(X)]
        return torch.cat(chunks).numpy()

    @shielded()
    def predict_branches(self, X):
        """Predict the probabilities of each branch.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; images of any size are resized in the same way.

        Returns
        -------
        probabilities : ndarray of shape (n, n_branches, n_classes)
            Their mean over branches is :meth:`predict_proba`; of type float64.
        """
        check_is_fitted(self)
        return torch.cat([logits.softmax(2) for logits in self._logits(X)]).numpy()

    def predict(self, X):
        """Predict the label of each image.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n,)
            Labels of the most probable classes, of the same type as those given to `fit`.
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def _logits(self, X):
        """Yield the branches' logits (B, M, K) of the images in X."""
        device = self._prediction_device()
        yield from self._run(self._read(X, reset=False), self._fold(device), device)

    def _run(self, source, network, device):
        """Yield the logits (B, M, K) of a folded network, on the CPU, batch by batch.

        One error names all images that cannot be read.
        """
        bad, size = [], prediction_batch(device, network.first_output_bytes(self.image_size_))
        for start in range(0, len(source), size):
            index = np.arange(start, min(start + size, len(source)))
            try:
                images = source.load(index, self.image_size_)
            except BadImages as error:  # continue, to collect all of them
                bad += error.bad
                continue
            if not bad:
                with explained_memory(size):
                    logits = self._forward(network, images, device)
                if not torch.isfinite(logits).all():
                    raise ValueError(
                        "The network's outputs are NaN or infinite for some images: its weights "
                        "are damaged, or its precision is too low. Fit it again, or use "
                        "precision='fp32'."
                    )
                yield logits
        if bad:
            raise BadImages(bad, len(source))

    def _fold(self, device):
        """Return the network with folded norms on a device; the last one is cached."""
        network = self._folded.get(device)
        if network is None:
            network = fold_norms(self.module_).to(device, memory_format=torch.channels_last)
            if self.precision != "bf16":
                fuse_activations(network)
            # Small products are rounded by the place of an image in its batch: to 16 digits, here.
            if device.type != "mps":  # which has no double precision
                network.head.double()
            self._folded.clear()  # in place: predict must not change the estimator's attributes
            self._folded[device] = network
        return network

    def _forward(self, network, images, device):
        """Return the logits (B, M, K) of one batch, on the CPU."""
        n_images = len(images)
        if n_images % 2:  # see prediction_batch
            images = torch.cat([images, images[-1:]])
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return network(images)[:n_images].cpu().double()

    def _prediction_device(self):
        try:
            return resolve_device(self.device)
        except ValueError as error:  # fitted on a machine with this device
            warnings.warn(f"{error} The CPU is used instead.", stacklevel=4)
            return torch.device("cpu")
