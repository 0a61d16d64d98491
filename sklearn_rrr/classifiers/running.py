"""Forward passes over all images of X, batch by batch, for predictions and features."""

from contextlib import nullcontext

import torch

from sklearn_rrr._validation import resolve_device
from sklearn_rrr._warnings import warn
from sklearn_rrr.images.readers import read_batches
from sklearn_rrr.networks.inference_copy import make_inference_copy
from sklearn_rrr.networks.onednn_convolutions import uses_onednn
from sklearn_rrr.training.devices import explained_memory, prediction_batch
from sklearn_rrr.training.memory import keeping_memory


class RunningMixin:
    """Run ``module_`` on images that ``_read`` reads, as in fit.

    ``_folded`` caches the network with folded norms as {(device, precision): network}.
    """

    def _run_on(self, X, compute):
        """Yield the outputs of `compute` for the images in X, batch by batch.

        `compute` is a function of the network and a batch of images.
        """
        device = self._prediction_device()
        yield from self._run(self._read(X, reset=False), self._fold(device), device, compute)

    def _run(self, source, network, device, compute):
        """Yield the outputs of ``compute(network, batch)`` on the CPU, batch by batch.

        `network` is an inference copy. One error names all images that cannot be read.
        """
        is_batch_invariant = uses_onednn(network)
        form = network.first_output_bytes(self.image_size_), is_batch_invariant
        size = prediction_batch(device, *form)
        with keeping_memory() if len(source) > size else nullcontext():
            for images in read_batches(source, self.image_size_, size):
                with explained_memory(size):
                    outputs = self._forward(network, images, device, compute, is_batch_invariant)
                if not torch.isfinite(outputs).all():
                    raise ValueError(
                        "The network's outputs are NaN or infinite for some images: its weights "
                        "are damaged, or its precision is too low. Fit it again, or use "
                        "precision='fp32'."
                    )
                yield outputs

    def _make_inference_copy(self, network, device):
        """Return a copy of a network that predicts as :meth:`predict_proba` does."""
        return make_inference_copy(network, device, onednn=self.precision != "bf16")

    def _fold(self, device):
        """Return the inference copy of the network on a device; the last one is cached."""
        key = device, self.precision
        network = self._folded.get(key)
        if network is None:
            network = self._make_inference_copy(self.module_, device)
            # Small products are rounded by the place of an image in its batch: to 16 digits, here.
            if device.type != "mps":  # which has no double precision
                network.head.double()
            self._folded.clear()  # in place: predict must not change the estimator's attributes
            self._folded[key] = network
        return network

    def _forward(self, network, images, device, compute, is_batch_invariant):
        """Return the outputs for one batch, on the CPU; see :func:`prediction_batch`."""
        n_images = len(images)
        if n_images % 2 and not is_batch_invariant:
            images = torch.cat([images, images[-1:]])
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return compute(network, images)[:n_images].cpu()

    def _prediction_device(self):
        try:
            return resolve_device(self.device)
        except ValueError as error:  # fitted on a machine with this device
            warn(f"{error} The CPU is used instead.")
            return torch.device("cpu")


def compute_logits(network, images):
    """Return the branches' logits: (B, 3, S, S) -> (B, M, K)."""
    return network(images).double()


def compute_features(network, images):
    """Return the features that the heads read, branch by branch: (B, 3, S, S) -> (B, M·F)."""
    return network.pool_branches(*network.forward_stump(images)).float().flatten(1)
